//! Who goes first, who goes together, and that nobody is forgotten.

use super::window::Caps;
use super::*;
use crate::engine::cost::Cost;
use crate::text::tensors::Shape;
use proptest::prelude::*;

const COST: Cost = Cost { run: 1e-3, token: 1e-4, square: 0.0 };
const CAPS: Caps = Caps { rows: 16, tokens: 256, time: 100_000, reach: REACH };

fn situation(now: Micros) -> Situation<'static> {
    Situation { fit: Fit { now, cost: &COST, slowdown: 1.0, caps: CAPS }, idle: 0, crowded: false }
}

fn text(length: usize, arrived: Micros, time: Micros) -> Waiting {
    let alone = COST.micros(Shape { rows: 1, length }, 1.0);
    let (deadline, joins) = (arrived + time, true);
    let candidate = Candidate { length, alone, deadline };
    Waiting { candidate, arrived, due: due(arrived, deadline, alone, alone), bulk: false, joins }
}

fn at(id: Id) -> usize {
    usize::try_from(id).unwrap()
}

fn line(texts: &[Waiting]) -> Line {
    let mut line = Line::default();
    (0..).zip(texts).for_each(|(id, text)| line.push(id, *text));
    line
}

fn order(line: &mut Line, policy: Policy, situation: &Situation<'_>) -> Vec<Vec<Id>> {
    std::iter::from_fn(|| match line.take(policy, situation) {
        Turn::Run(ids) => Some(ids),
        Turn::Wait(_) | Turn::Rest => None,
    })
    .collect()
}

#[test]
fn equal_texts_in_the_order_they_came() {
    let mut line = line(&[text(16, 0, 10_000_000); 5]);
    assert_eq!(order(&mut line, Policy::Single, &situation(0)), [[0], [1], [2], [3], [4]]);
}

#[test]
fn a_short_text_goes_before_long_ones_that_came_just_before_it() {
    let long = text(500, 0, 10_000_000);
    let mut line = line(&[long, long, text(5, 100_000, 10_000_000), text(5, 600_000, 10_000_000)]);
    // The long ones are due after 510 ms, and then nothing that comes passes them.
    assert_eq!(order(&mut line, Policy::Single, &situation(600_000)), [[2], [0], [1], [3]]);
}

#[test]
fn a_run_takes_as_many_equal_texts_as_lie_in_reach() {
    for (reach, taken) in [(REACH, REACH + 1), (512, 300)] {
        let mut line = line(&[text(8, 0, 10_000_000); 300]);
        let caps = Caps { rows: 512, tokens: 16_384, time: 1_000_000, reach };
        let situation = Situation { fit: Fit { caps, ..situation(0).fit }, ..situation(0) };
        let Turn::Run(ids) = line.take(Policy::Window, &situation) else { panic!("texts wait") };
        assert_eq!(ids.len(), taken, "reach {reach}");
    }
}

#[test]
fn hurried_texts_go_first() {
    let mut line = line(&[text(16, 0, 10_000_000), text(16, 0, 20_000)]);
    assert_eq!(order(&mut line, Policy::Single, &situation(0)), [[1], [0]]);
}

#[test]
fn many_texts_of_one_request_leave_turns_to_others() {
    let (deadline, one) = (10_000_000, text(16, 0, 10_000_000));
    let bulk = |number: u64| {
        let alone = one.candidate.alone;
        Waiting { due: due(0, deadline, number * alone, 1_000 * alone), bulk: true, ..one }
    };
    let mut texts: Vec<Waiting> = (1..=1_000).map(bulk).collect();
    texts.push(text(16, 100_000, deadline));
    let mut line = line(&texts);
    let turns = order(&mut line, Policy::Single, &situation(100_000));
    let place = turns.iter().position(|ids| ids == &[1_000]).unwrap();
    // The work of 1,000 texts is 2.6 s, spread over 5 s: by 126 ms the turns of 25 of them have come.
    assert!((20..30).contains(&place), "{place}");
    assert_eq!(texts[999].due, 5_000_000);
}

#[test]
fn idle_workers_get_their_share() {
    let shared = Situation { idle: 1, ..situation(0) };
    let mut line = line(&[text(16, 0, 10_000_000); 4]);
    assert_eq!(order(&mut line, Policy::Window, &shared), [vec![0, 1], vec![2], vec![3]]);
}

#[test]
fn under_overload_the_newest_single_text_goes_first_and_the_old_are_not_forgotten() {
    let mut line = line(&[text(16, 0, 10_000_000); 6]);
    let crowded = Situation { crowded: true, ..situation(0) };
    assert_eq!(order(&mut line, Policy::Single, &crowded), [[5], [4], [3], [0], [2], [1]]);
}

#[test]
fn under_overload_nobody_is_passed_whose_time_is_half_over() {
    let crowded = |now| Situation { crowded: true, ..situation(now) };
    let texts = [text(16, 0, 100_000), text(16, 0, 10_000_000), text(16, 49_000, 100_000)];
    assert_eq!(order(&mut line(&texts), Policy::Single, &crowded(49_999)), [[2], [1], [0]]);
    assert_eq!(order(&mut line(&texts), Policy::Single, &crowded(50_000)), [[0], [2], [1]]);
}

#[test]
fn the_other_policies() {
    let texts = [text(16, 0, 10_000_000), text(100, 0, 10_000_000), text(3, 1_000, 10_000_000)];
    let fifo = |rows| order(&mut line(&texts), Policy::Fifo(rows), &situation(0));
    assert_eq!(fifo(2), [vec![0, 1], vec![2]]);
    let mut line = line(&texts);
    assert_eq!(line.take(Policy::Delay(5_000), &situation(4_999)), Turn::Wait(5_000));
    assert_eq!(line.take(Policy::Delay(5_000), &situation(5_000)), Turn::Run(vec![0, 1, 2]));
    assert_eq!(line.take(Policy::Delay(5_000), &situation(5_000)), Turn::Rest);
}

#[test]
fn a_text_that_cannot_be_answered_in_time_is_not_run() {
    let mut line = line(&[text(16, 0, 10_000)]);
    assert_eq!(line.pop_hopeless(7_400), None);
    assert_eq!(line.pop_hopeless(7_401), Some(0));
    assert!(line.is_empty() && line.work() == 0);
}

/// Arrivals in order of time: length, gap to the one before, time, bulk, joins.
fn arrivals() -> impl Strategy<Value = Vec<Waiting>> {
    let one = (1_usize..300, 0_u64..5_000, 5_000_u64..400_000, any::<bool>(), prop::bool::weighted(0.9));
    prop::collection::vec(one, 0..120).prop_map(|all| {
        let mut now = 0;
        let next = |(length, gap, time, bulk, joins)| {
            now += gap;
            Waiting { bulk, joins, ..text(length, now, time) }
        };
        all.into_iter().map(next).collect()
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        4 => Just(Policy::Window),
        1 => Just(Policy::Single),
        1 => (1_usize..10).prop_map(Policy::Fifo),
        1 => (0_u64..20_000).prop_map(Policy::Delay),
    ]
}

proptest! {
    /// A worker that runs what it is given, with texts coming meanwhile: every text comes out once, run or
    /// hopeless; the anchor is never passed over; caps and deadlines hold; nothing waits beside an idle worker.
    #[test]
    fn serves_every_text_once(texts in arrivals(), policy in policy(), removed in 0_u64..40, crowded in any::<bool>()) {
        let mut line = Line::default();
        let (mut seen, mut now, mut next) = (Vec::new(), 0, 0);
        loop {
            while let Some(text) = texts.get(next).filter(|text| text.arrived <= now) {
                line.push(Id::try_from(next).unwrap(), *text);
                next += 1;
            }
            if line.remove(removed).is_some() {
                seen.push(removed);
            }
            while let Some(id) = line.pop_hopeless(now) {
                let text = texts[at(id)].candidate;
                prop_assert!(now + text.alone > text.deadline);
                seen.push(id);
            }
            let nearest = line.by_due.first().copied();
            let situation = Situation { crowded, ..situation(now) };
            match line.take(policy, &situation) {
                Turn::Run(ids) => {
                    let run: Vec<Waiting> = ids.iter().map(|&id| texts[at(id)]).collect();
                    let length = run.iter().map(|text| text.candidate.length).max().unwrap();
                    let shape = Shape { rows: run.len(), length };
                    let time = COST.micros(shape, 1.0);
                    prop_assert!(run.len() == 1 || run.iter().all(|text| text.joins));
                    if policy == Policy::Window && run.len() > 1 {
                        prop_assert!(shape.rows <= CAPS.rows && shape.tokens() <= CAPS.tokens && time <= CAPS.time);
                        prop_assert!(run.iter().all(|text| now + time <= text.candidate.deadline));
                    }
                    if !crowded && matches!(policy, Policy::Window | Policy::Single) {
                        prop_assert_eq!(nearest.map(|(_, id)| id), Some(ids[0]));
                    }
                    seen.extend(ids);
                    now += time;
                }
                Turn::Wait(until) => {
                    prop_assert!(until > now && matches!(policy, Policy::Delay(_)));
                    now = until;
                }
                Turn::Rest => {
                    prop_assert!(line.is_empty() && line.work() == 0);
                    match texts.get(next) {
                        Some(text) => now = text.arrived,
                        None => break,
                    }
                }
            }
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..Id::try_from(texts.len()).unwrap()).collect::<Vec<_>>());
    }

    /// What runs beside longer runs is short, and nothing else leaves the line.
    #[test]
    fn only_short_texts_pass(texts in arrivals(), most in 0_u64..40_000, policy in policy()) {
        let mut line = line(&texts);
        let shortest = texts.iter().filter(|text| text.joins).map(|text| text.candidate.alone).min();
        let ids = line.take_short(most, policy, &situation(0));
        prop_assert!(!ids.is_empty() || shortest.is_none_or(|alone| alone > most));
        if let Some(first) = ids.first() {
            prop_assert!(texts[at(*first)].candidate.alone <= most);
            let length = ids.iter().map(|&id| texts[at(id)].candidate.length).max().unwrap();
            let shape = Shape { rows: ids.len(), length };
            prop_assert!(COST.micros(shape, 1.0) <= most);
        }
        prop_assert!(line.len() + ids.len() == texts.len() && ids.iter().all(|&id| line.remove(id).is_none()));
    }

    /// A due time is never past half of the request's time, and texts of a request keep their order.
    #[test]
    fn due_in_time(arrived in 0_u64..1_000_000, time in 0_u64..100_000_000, work in prop::collection::vec(1_u64..1_000_000, 1..50)) {
        let all: Micros = work.iter().sum();
        let mut so_far = 0;
        let mut last = arrived;
        for text in work {
            so_far += text;
            let due = due(arrived, arrived + time, so_far, all);
            prop_assert!(due >= last && due <= arrived + time / 2);
            last = due;
        }
    }
}
