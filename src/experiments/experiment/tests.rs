use super::*;
use crate::experiments::rollout::{Guards, Rollout, Step};

pub(crate) fn design() -> Design {
    let arm = |name: &str, version: &str, weight, shadow| Arm {
        name: name.to_owned(),
        model: "m".to_owned(),
        version: Some(version.to_owned()),
        weight,
        shadow,
    };
    Design {
        on: "m".to_owned(),
        arms: vec![arm("old", "1", 0.5, false), arm("new", "2", 0.5, false), arm("shade", "3", 0.1, true)],
        control: "old".to_owned(),
        salt: "colours".to_owned(),
        anonymous: Anonymous::Random,
        aim: Aim { accuracy: 0.9, least: 0.03, alpha: 0.05, power: 0.9 },
        rollout: None,
    }
}

fn weighted(old: f64, new: f64) -> Design {
    let mut design = design();
    (design.arms[0].weight, design.arms[1].weight) = (old, new);
    design
}

fn rolled_out() -> Design {
    let step = |share| Step { share, seconds: 1, requests: 1 };
    let guards = Guards { errors: Some(0.01), p99: None, accuracy: None };
    Design { rollout: Some(Rollout { steps: [0.01, 0.25, 1.0].map(step).to_vec(), guards }), ..weighted(1.0, 0.0) }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let place = |change: &dyn Fn(&mut Design)| {
        let mut changed = design();
        change(&mut changed);
        match changed.check() {
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
    assert_eq!(place(&|design| design.aim.least = 0.0), "/aim");
    assert_eq!(place(&|design| design.arms = vec![design.arms[0].clone(); 17]), "/arms");
    // A weight of nothing is one; a shadow's share does not count.
    assert_eq!(weighted(0.0, 1.0).check(), Ok(()));
    let mut shadowed = weighted(1.0, 0.0);
    shadowed.arms.remove(1);
    assert_eq!(shadowed.check(), Ok(()));
    assert_eq!(rolled_out().check(), Ok(()));
    let mut rolled = rolled_out();
    rolled.arms[1].version = None;
    assert_eq!(rolled.check().map_err(|error| error.to_string().len() > 10), Err(true));
}

#[test]
fn a_life_from_draft_to_end() {
    let mut experiment = Experiment::new(design(), 1);
    assert_eq!((experiment.phase(), experiment.is_open(), experiment.is_under_way()), (0, true, false));
    assert!(experiment.pause().is_err());
    assert_eq!(experiment.redesign(weighted(0.9, 0.1), 2), Ok(true));
    assert_eq!(experiment.start(3, |_| None), Ok(true));
    assert_eq!(experiment.start(4, |_| None), Ok(false));
    assert_eq!(experiment.phases, [Phase { began: 3, weights: vec![0.9, 0.1, 0.1] }]);
    // A pause does not begin anew; other weights do.
    assert_eq!((experiment.pause(), experiment.pause()), (Ok(true), Ok(false)));
    assert_eq!((experiment.start(5, |_| None), experiment.phase()), (Ok(true), 1));
    assert_eq!((experiment.redesign(weighted(0.5, 0.5), 6), experiment.phase()), (Ok(true), 2));
    assert_eq!((experiment.redesign(weighted(0.5, 0.5), 7), experiment.phase()), (Ok(false), 2));
    let mut other = design();
    other.arms[1].version = Some("9".to_owned());
    assert!(experiment.redesign(other, 8).is_err(), "it would compare something else");
    assert_eq!(experiment.end(9, Some("new is better".to_owned())), Ok(true));
    assert_eq!((experiment.end(10, None), experiment.ended), (Ok(false), Some(9)));
    assert!(experiment.start(11, |_| None).is_err() && experiment.redesign(design(), 12).is_ok_and(|changed| !changed));
    assert!(experiment.redesign(weighted(0.1, 0.9), 12).is_err());
    assert!(!experiment.is_open());
}

#[test]
fn a_rollout_sets_the_weights_itself() {
    let mut experiment = Experiment::new(rolled_out(), 1);
    assert!(experiment.step(1, 1).is_err());
    experiment.start(2, |_| None).unwrap();
    let weights = |experiment: &Experiment| [0, 1].map(|arm| experiment.design.arms[arm].weight);
    assert_eq!((weights(&experiment), experiment.step_now()), ([0.99, 0.01], Some((0, 2))));
    assert_eq!(experiment.redesign(rolled_out(), 3), Ok(false), "its weights are its own");
    experiment.step(2, 4).unwrap();
    assert_eq!((weights(&experiment), experiment.step_now()), ([0.0, 1.0], Some((2, 4))));
    assert!(experiment.step(3, 5).is_err());
    experiment.pause().unwrap();
    experiment.start(9, |_| None).unwrap();
    assert_eq!(experiment.step_now(), Some((2, 9)), "the time of a pause does not count");
}

#[test]
fn the_version_that_is_active_at_the_start_stays_in_it() {
    let mut unnamed = design();
    unnamed.arms[0].version = None;
    let mut experiment = Experiment::new(unnamed.clone(), 1);
    assert!(experiment.clone().start(2, |_| None).is_err());
    experiment.start(2, |model| Some(format!("{model}-7"))).unwrap();
    assert_eq!(experiment.design.arms[0].version.as_deref(), Some("m-7"));
    assert!(experiment.uses("m", "m-7"));
    assert_eq!(experiment.redesign(unnamed, 3), Ok(false), "who repeats the design changes nothing");
}

#[test]
fn one_runs_on_a_model_at_a_time() {
    let mut running = Experiment::new(design(), 1);
    running.start(1, |_| None).unwrap();
    let all = Experiments::from([("a".to_owned(), running.clone())]);
    assert_eq!(fits("a", &running, &all), Ok(()));
    assert!(fits("b", &running, &all).is_err());
    assert_eq!(fits("b", &Experiment::new(design(), 1), &all), Ok(()));
    let mut elsewhere = running.clone();
    elsewhere.design.on = "other".to_owned();
    assert_eq!(fits("b", &elsewhere, &all), Ok(()));
    let many: Experiments = (0..MAX_EXPERIMENTS).map(|i| (i.to_string(), Experiment::new(design(), 1))).collect();
    assert!(fits("b", &elsewhere, &many).is_err() && fits("0", &elsewhere, &many).is_ok());
}
