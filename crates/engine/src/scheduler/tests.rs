//! The order of items, the batches they form, and that none is lost.

use predictd_text::tensors::Shape;
use proptest::prelude::*;

use super::batch_search::BatchLimits;
use super::*;
use crate::cost_model::CostModel;

const COST: CostModel = CostModel { overhead: 1e-3, per_token: 1e-4, per_token_squared: 0.0 };
const CAPS: BatchLimits =
    BatchLimits { max_rows: 16, max_tokens: 256, max_time: 100_000, search_radius: CPU_SEARCH_RADIUS };

fn scheduling_context(now: Micros) -> SchedulingContext<'static> {
    SchedulingContext {
        batch_context: BatchContext { now, cost_model: &COST, slowdown: 1.0, limits: CAPS },
        idle_workers: 0,
        is_overloaded: false,
    }
}

fn pending_item(length: usize, arrived: Micros, time: Micros) -> PendingItem {
    let alone = COST.predict_micros(Shape { rows: 1, length }, 1.0);
    let deadline = arrived + time;
    let joins = true;
    let candidate = Candidate { length, unbatched_time: alone, deadline };
    PendingItem {
        candidate,
        arrived_at: arrived,
        soft_deadline: soft_deadline(arrived, deadline, alone, alone),
        is_bulk: false,
        is_batchable: joins,
    }
}

fn index_of(id: ItemId) -> usize {
    usize::try_from(id).unwrap()
}

fn pending_set(texts: &[PendingItem]) -> PendingSet {
    let mut line = PendingSet::default();
    (0..).zip(texts).for_each(|(id, text)| line.push(id, *text));
    line
}

fn dispatch_order(
    line: &mut PendingSet,
    policy: BatchingStrategy,
    situation: &SchedulingContext<'_>,
) -> Vec<Vec<ItemId>> {
    std::iter::from_fn(|| Some(line.schedule(policy, situation)).filter(|ids| !ids.is_empty())).collect()
}

#[test]
fn equal_items_dispatched_in_arrival_order() {
    let mut line = pending_set(&[pending_item(16, 0, 10_000_000); 5]);
    assert_eq!(dispatch_order(&mut line, BatchingStrategy::Single, &scheduling_context(0)), [[0], [1], [2], [3], [4]]);
}

#[test]
fn short_item_dispatched_before_recent_long_items() {
    let long = pending_item(500, 0, 10_000_000);
    let mut line =
        pending_set(&[long, long, pending_item(5, 100_000, 10_000_000), pending_item(5, 600_000, 10_000_000)]);
    // The long ones are due after 510 ms, and then nothing that comes passes them.
    assert_eq!(dispatch_order(&mut line, BatchingStrategy::Single, &scheduling_context(600_000)), [[2], [0], [1], [3]]);
}

#[test]
fn batch_of_equal_items_limited_by_search_radius() {
    for (reach, taken) in [(CPU_SEARCH_RADIUS, CPU_SEARCH_RADIUS + 1), (512, 300)] {
        let mut line = pending_set(&[pending_item(8, 0, 10_000_000); 300]);
        let caps = BatchLimits { max_rows: 512, max_tokens: 16_384, max_time: 1_000_000, search_radius: reach };
        let situation = SchedulingContext {
            batch_context: BatchContext { limits: caps, ..scheduling_context(0).batch_context },
            ..scheduling_context(0)
        };
        assert_eq!(line.schedule(BatchingStrategy::Window, &situation).len(), taken, "reach {reach}");
    }
}

#[test]
fn item_with_near_deadline_dispatched_first() {
    let mut line = pending_set(&[pending_item(16, 0, 10_000_000), pending_item(16, 0, 20_000)]);
    assert_eq!(dispatch_order(&mut line, BatchingStrategy::Single, &scheduling_context(0)), [[1], [0]]);
}

#[test]
fn bulk_request_does_not_starve_single_items() {
    let deadline = 10_000_000;
    let one = pending_item(16, 0, 10_000_000);
    let bulk = |number: u64| {
        let alone = one.candidate.unbatched_time;
        PendingItem { soft_deadline: soft_deadline(0, deadline, number * alone, 1_000 * alone), is_bulk: true, ..one }
    };
    let mut texts: Vec<PendingItem> = (1..=1_000).map(bulk).collect();
    texts.push(pending_item(16, 100_000, deadline));
    let mut line = pending_set(&texts);
    let turns = dispatch_order(&mut line, BatchingStrategy::Single, &scheduling_context(100_000));
    let position = turns.iter().position(|ids| ids == &[1_000]).unwrap();
    // The work of 1,000 texts is 2.6 s, spread over 5 s: by 126 ms the turns of 25 of them have come.
    assert!((20..30).contains(&position), "{position}");
    assert_eq!(texts[999].soft_deadline, 5_000_000);
}

#[test]
fn batch_shared_with_idle_workers() {
    let shared = SchedulingContext { idle_workers: 1, ..scheduling_context(0) };
    let mut line = pending_set(&[pending_item(16, 0, 10_000_000); 4]);
    assert_eq!(dispatch_order(&mut line, BatchingStrategy::Window, &shared), [vec![0, 1], vec![2], vec![3]]);
}

#[test]
fn overload_newest_single_first_oldest_every_fourth() {
    let mut line = pending_set(&[pending_item(16, 0, 10_000_000); 6]);
    let crowded = SchedulingContext { is_overloaded: true, ..scheduling_context(0) };
    assert_eq!(dispatch_order(&mut line, BatchingStrategy::Single, &crowded), [[5], [4], [3], [0], [2], [1]]);
}

fn overloaded_context(now: Micros) -> SchedulingContext<'static> {
    SchedulingContext { is_overloaded: true, ..scheduling_context(now) }
}

#[test]
fn overload_item_past_half_time_goes_first() {
    let texts = [pending_item(16, 0, 100_000), pending_item(16, 0, 10_000_000), pending_item(16, 49_000, 100_000)];
    assert_eq!(
        dispatch_order(&mut pending_set(&texts), BatchingStrategy::Single, &overloaded_context(49_999)),
        [[2], [1], [0]]
    );
    assert_eq!(
        dispatch_order(&mut pending_set(&texts), BatchingStrategy::Single, &overloaded_context(50_000)),
        [[0], [2], [1]]
    );
}

#[test]
fn expired_item_is_popped_not_dispatched() {
    let mut line = pending_set(&[pending_item(16, 0, 10_000)]);
    assert_eq!(line.pop_expired(7_400), None);
    assert_eq!(line.pop_expired(7_401), Some(0));
    assert!(line.is_empty() && line.total_work == 0);
}

/// Arrivals in order of time: length, gap to the one before, time, bulk, joins.
fn arrival_strategy() -> impl Strategy<Value = Vec<PendingItem>> {
    let one = (1_usize..300, 0_u64..5_000, 5_000_u64..400_000, any::<bool>(), prop::bool::weighted(0.9));
    prop::collection::vec(one, 0..120).prop_map(|all| {
        let mut now = 0;
        let next = |(length, gap, time, bulk, joins)| {
            now += gap;
            PendingItem { is_bulk: bulk, is_batchable: joins, ..pending_item(length, now, time) }
        };
        all.into_iter().map(next).collect()
    })
}

fn batching_strategy() -> impl Strategy<Value = BatchingStrategy> {
    prop_oneof![
        4 => Just(BatchingStrategy::Window),
        1 => Just(BatchingStrategy::Single),
    ]
}

proptest! {
    /// A worker that runs what it is given, with texts coming meanwhile: every text comes out once, run or
    /// hopeless; the anchor is never passed over; caps and deadlines hold; nothing waits beside an idle worker.
    #[test]
    fn schedule_every_item_leaves_once(texts in arrival_strategy(), policy in batching_strategy(), removed in 0_u64..40, crowded in any::<bool>()) {
        let mut line = PendingSet::default();
        let mut seen = Vec::new();
        let mut now = 0;
        let mut next = 0;
        loop {
            while let Some(text) = texts.get(next).filter(|text| text.arrived_at <= now) {
                line.push(ItemId::try_from(next).unwrap(), *text);
                next += 1;
            }
            if line.remove(removed).is_some() {
                seen.push(removed);
            }
            while let Some(id) = line.pop_expired(now) {
                let text = texts[index_of(id)].candidate;
                prop_assert!(now + text.unbatched_time > text.deadline);
                seen.push(id);
            }
            let nearest = line.by_soft_deadline.first().copied();
            let situation = SchedulingContext { is_overloaded: crowded, ..scheduling_context(now) };
            let ids = line.schedule(policy, &situation);
            if ids.is_empty() {
                prop_assert!(line.is_empty() && line.total_work == 0);
                match texts.get(next) {
                    Some(text) => now = text.arrived_at,
                    None => break,
                }
                continue;
            }
            let run: Vec<PendingItem> = ids.iter().map(|&id| texts[index_of(id)]).collect();
            let length = run.iter().map(|text| text.candidate.length).max().unwrap();
            let shape = Shape { rows: run.len(), length };
            let time = COST.predict_micros(shape, 1.0);
            prop_assert!(run.len() == 1 || run.iter().all(|text| text.is_batchable));
            if run.len() > 1 {
                prop_assert_eq!(policy, BatchingStrategy::Window);
                prop_assert!(shape.rows <= CAPS.max_rows && shape.token_count() <= CAPS.max_tokens && time <= CAPS.max_time);
                prop_assert!(run.iter().all(|text| now + time <= text.candidate.deadline));
            }
            if !crowded {
                prop_assert_eq!(nearest.map(|(_, id)| id), Some(ids[0]));
            }
            seen.extend(ids);
            now += time;
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..ItemId::try_from(texts.len()).unwrap()).collect::<Vec<_>>());
    }

    /// What runs beside longer runs is short, and nothing else leaves the line.
    #[test]
    fn express_batch_stays_within_max_time(texts in arrival_strategy(), most in 0_u64..40_000, policy in batching_strategy()) {
        let mut line = pending_set(&texts);
        let shortest = texts.iter().filter(|text| text.is_batchable).map(|text| text.candidate.unbatched_time).min();
        let ids = line.take_express_batch(most, policy, &scheduling_context(0));
        prop_assert!(!ids.is_empty() || shortest.is_none_or(|alone| alone > most));
        if let Some(first) = ids.first() {
            prop_assert!(texts[index_of(*first)].candidate.unbatched_time <= most);
            let length = ids.iter().map(|&id| texts[index_of(id)].candidate.length).max().unwrap();
            let shape = Shape { rows: ids.len(), length };
            prop_assert!(COST.predict_micros(shape, 1.0) <= most);
        }
        prop_assert!(line.len() + ids.len() == texts.len() && ids.iter().all(|&id| line.remove(id).is_none()));
    }

    /// A due time is never past half of the request's time, and texts of a request keep their order.
    #[test]
    fn soft_deadline_at_most_half_time_and_ordered(arrived in 0_u64..1_000_000, time in 0_u64..100_000_000, work in prop::collection::vec(1_u64..1_000_000, 1..50)) {
        let all: Micros = work.iter().sum();
        let mut so_far = 0;
        let mut last = arrived;
        for text in work {
            so_far += text;
            let due = soft_deadline(arrived, arrived + time, so_far, all);
            prop_assert!(due >= last && due <= arrived + time / 2);
            last = due;
        }
    }
}
