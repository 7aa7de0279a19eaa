use super::*;
use crate::rollout::{Guardrails, RolloutStrategy, StrategyStep};

pub(crate) fn sample_design() -> ExperimentDesign {
    let arm = |name: &str, version: &str, weight, shadow| ExperimentArm {
        name: name.to_owned(),
        model: "m".to_owned(),
        version: Some(version.to_owned()),
        weight,
        shadow,
    };
    ExperimentDesign {
        model: "m".to_owned(),
        arms: vec![arm("old", "1", 0.5, false), arm("new", "2", 0.5, false), arm("shade", "3", 0.1, true)],
        control: "old".to_owned(),
        salt: "colours".to_owned(),
        anonymous: AnonymousAssignment::Random,
        aim: PowerTarget { expected_accuracy: 0.9, min_effect: 0.03, alpha: 0.05, power: 0.9 },
        rollout: None,
    }
}

fn design_with_weights(old: f64, new: f64) -> ExperimentDesign {
    let mut design = sample_design();
    (design.arms[0].weight, design.arms[1].weight) = (old, new);
    design
}

fn rollout_design() -> ExperimentDesign {
    let step = |share| StrategyStep { share, seconds: 1, requests: 1 };
    let guards = Guardrails { errors: Some(0.01), p99: None, accuracy: None };
    ExperimentDesign {
        rollout: Some(RolloutStrategy { steps: [0.01, 0.25, 1.0].map(step).to_vec(), guards }),
        ..design_with_weights(1.0, 0.0)
    }
}

#[test]
fn design_invalid_refused_with_json_pointer() {
    let place = |change: &dyn Fn(&mut ExperimentDesign)| {
        let mut changed = sample_design();
        change(&mut changed);
        match changed.validate() {
            Ok(()) => String::new(),
            Err(ExperimentError::Invalid(place, _)) => place,
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(place(&|_| {}), "");
    assert_eq!(place(&|design| design.arms.clear()), "/arms");
    assert_eq!(place(&|design| design.arms.truncate(1)), "/arms");
    assert_eq!(place(&|design| design.arms[0].weight = 0.4), "/arms");
    assert_eq!(place(&|design| design.arms[0].weight = f64::NAN), "/arms/0/weight");
    assert_eq!(place(&|design| design.arms[1].weight = -0.5), "/arms/1/weight");
    assert_eq!(place(&|design| design.arms[1].name = "old".to_owned()), "/arms/1/name");
    assert_eq!(place(&|design| design.control = "shade".to_owned()), "/control");
    assert_eq!(place(&|design| design.control = "nobody".to_owned()), "/control");
    assert_eq!(place(&|design| design.aim.min_effect = 0.0), "/aim");
    assert_eq!(place(&|design| design.arms = vec![design.arms[0].clone(); 17]), "/arms");
    // A weight of nothing is one; a shadow's share does not count.
    assert_eq!(design_with_weights(0.0, 1.0).validate(), Ok(()));
    let mut shadowed = design_with_weights(1.0, 0.0);
    shadowed.arms.remove(1);
    assert_eq!(shadowed.validate(), Ok(()));
    assert_eq!(rollout_design().validate(), Ok(()));
    let mut rolled = rollout_design();
    rolled.arms[1].version = None;
    assert_eq!(rolled.validate().map_err(|error| error.to_string().len() > 10), Err(true));
}

#[test]
fn lifecycle_from_draft_to_end_succeeds() {
    let mut experiment = Experiment::new(sample_design(), 1);
    assert_eq!((experiment.phase_number(), experiment.is_open(), experiment.is_in_progress()), (0, true, false));
    assert!(experiment.pause().is_err());
    assert_eq!(experiment.update_design(design_with_weights(0.9, 0.1), 2), Ok(true));
    assert_eq!(experiment.start(3, |_| None), Ok(true));
    assert_eq!(experiment.start(4, |_| None), Ok(false));
    assert_eq!(experiment.phases, [ExperimentPhase { began: 3, weights: vec![0.9, 0.1, 0.1] }]);
    // A pause does not begin anew; other weights do.
    assert_eq!((experiment.pause(), experiment.pause()), (Ok(true), Ok(false)));
    assert_eq!((experiment.start(5, |_| None), experiment.phase_number()), (Ok(true), 1));
    assert_eq!((experiment.update_design(design_with_weights(0.5, 0.5), 6), experiment.phase_number()), (Ok(true), 2));
    assert_eq!((experiment.update_design(design_with_weights(0.5, 0.5), 7), experiment.phase_number()), (Ok(false), 2));
    let mut other = sample_design();
    other.arms[1].version = Some("9".to_owned());
    assert!(experiment.update_design(other, 8).is_err(), "it would compare something else");
    assert_eq!(experiment.end(9, Some("new is better".to_owned())), Ok(true));
    assert_eq!((experiment.end(10, None), experiment.ended), (Ok(false), Some(9)));
    assert!(
        experiment.start(11, |_| None).is_err()
            && experiment.update_design(sample_design(), 12).is_ok_and(|changed| !changed)
    );
    assert!(experiment.update_design(design_with_weights(0.1, 0.9), 12).is_err());
    assert!(!experiment.is_open());
}

#[test]
fn rollout_step_sets_weights() {
    let mut experiment = Experiment::new(rollout_design(), 1);
    assert!(experiment.advance_to_step(1, 1).is_err());
    experiment.start(2, |_| None).unwrap();
    let weights = |experiment: &Experiment| [0, 1].map(|arm| experiment.design.arms[arm].weight);
    assert_eq!((weights(&experiment), experiment.current_step()), ([0.99, 0.01], Some((0, 2))));
    assert_eq!(experiment.update_design(rollout_design(), 3), Ok(false), "its weights are its own");
    experiment.advance_to_step(2, 4).unwrap();
    assert_eq!((weights(&experiment), experiment.current_step()), ([0.0, 1.0], Some((2, 4))));
    assert!(experiment.advance_to_step(3, 5).is_err());
    experiment.pause().unwrap();
    experiment.start(9, |_| None).unwrap();
    assert_eq!(experiment.current_step(), Some((2, 9)), "the time of a pause does not count");
}

#[test]
fn start_unnamed_version_pins_active_version() {
    let mut unnamed = sample_design();
    unnamed.arms[0].version = None;
    let mut experiment = Experiment::new(unnamed.clone(), 1);
    assert!(experiment.clone().start(2, |_| None).is_err());
    experiment.start(2, |model| Some(format!("{model}-7"))).unwrap();
    assert_eq!(experiment.design.arms[0].version.as_deref(), Some("m-7"));
    assert!(experiment.uses_version("m", "m-7"));
    assert_eq!(experiment.update_design(unnamed, 3), Ok(false), "who repeats the design changes nothing");
}

#[test]
fn second_running_experiment_on_model_refused() {
    let mut running = Experiment::new(sample_design(), 1);
    running.start(1, |_| None).unwrap();
    let all = ExperimentMap::from([("a".to_owned(), running.clone())]);
    assert_eq!(check_conflicts("a", &running, &all), Ok(()));
    assert!(check_conflicts("b", &running, &all).is_err());
    assert_eq!(check_conflicts("b", &Experiment::new(sample_design(), 1), &all), Ok(()));
    let mut elsewhere = running.clone();
    elsewhere.design.model = "other".to_owned();
    assert_eq!(check_conflicts("b", &elsewhere, &all), Ok(()));
    let many: ExperimentMap =
        (0..MAX_EXPERIMENTS).map(|i| (i.to_string(), Experiment::new(sample_design(), 1))).collect();
    assert!(check_conflicts("b", &elsewhere, &many).is_err() && check_conflicts("0", &elsewhere, &many).is_ok());
}
