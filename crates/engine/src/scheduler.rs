//! Which waiting texts run next, and together. Pure: time is a number that the caller gives.
//!
//! Every text has a due time. The one whose due time is nearest, the anchor, always runs; texts of similar length join
//! it where that saves work ([`batch_search`]). Nothing is waited for: if a text waits, there is something to run. A text is
//! due after a multiple of the work that its request has asked for up to it, so that
//!
//! - a short text does not wait for many long ones that came just before it,
//! - a request of a thousand texts takes its share and no more, and ends within its time,
//! - equal texts are served in the order they came, and every text's turn comes: a due time never moves.
//!
//! Under an overload that lasts, most turns go to the newest single text: its caller still waits. But an item that was admitted
//! was promised an answer: a text that has waited for half of its time is passed no more.

pub mod batch_search;
mod micros;

use std::collections::{BTreeMap, BTreeSet};

use batch_search::{BatchContext, CPU_SEARCH_RADIUS, Candidate, find_best_batch};
pub use micros::{Micros, to_micros};

/// Names a waiting text; later texts have higher names.
pub type ItemId = u64;

/// A text is due after this many times the work that its request has asked for up to it.
pub const SOFT_DEADLINE_FACTOR: u64 = 10;
/// Under overload every so manieth turn goes to the text whose due time is nearest.
const EARLIEST_DEADLINE_INTERVAL: u32 = 4;

/// How texts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchingStrategy {
    /// The anchor and the best window of similar lengths around it.
    Window,
    /// The anchor alone.
    Single,
}

/// A text that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingItem {
    /// Its tokens, the predicted time of a run of its own, and when its caller stops waiting.
    pub candidate: Candidate,
    /// When it came.
    pub arrived_at: Micros,
    /// When its turn has come.
    pub soft_deadline: Micros,
    /// True for a text of a request of several.
    pub is_bulk: bool,
    /// True if it can run beside others.
    pub is_batchable: bool,
}

impl PendingItem {
    /// Until when a run of its own can end in time. Time is what runs took at best: nothing is given up that could
    /// still be answered.
    fn latest_start(&self) -> Micros {
        self.candidate.deadline.saturating_sub(self.candidate.unbatched_time)
    }

    /// True if it has waited for half of its time.
    fn is_past_half_time(&self, now: Micros) -> bool {
        now >= self.arrived_at + self.candidate.deadline.saturating_sub(self.arrived_at) / 2
    }
}

/// When the turn of a text has come whose request has asked for `work` up to it and for `all` altogether.
///
/// The stretch is less for a request that would not end in half of its time otherwise.
#[must_use]
pub fn soft_deadline(arrived: Micros, deadline: Micros, work: Micros, all: Micros) -> Micros {
    let time = deadline.saturating_sub(arrived);
    let stretched = SOFT_DEADLINE_FACTOR.saturating_mul(work);
    let shared = u128::from(time / 2) * u128::from(work) / u128::from(all.max(1));
    arrived.saturating_add(stretched.min(u64::try_from(shared).unwrap_or(u64::MAX)))
}

/// What is known when texts are chosen.
#[derive(Clone, Copy)]
pub struct SchedulingContext<'a> {
    /// What a run must fit.
    pub batch_context: BatchContext<'a>,
    /// Other workers with nothing to do: they get their share of what waits.
    pub idle_workers: usize,
    /// There is more work than can be done, and has been for some time.
    pub is_overloaded: bool,
}

/// The waiting texts of one model, as far as choosing among them needs.
#[derive(Default)]
pub struct PendingSet {
    items: BTreeMap<ItemId, PendingItem>,
    by_soft_deadline: BTreeSet<(Micros, ItemId)>,
    by_latest_start: BTreeSet<(Micros, ItemId)>,
    /// Those that can run beside others.
    by_length: BTreeMap<usize, BTreeSet<ItemId>>,
    single_item_ids: BTreeSet<ItemId>,
    /// Predicted time of a run of its own for every text that waits, added up.
    pub(super) total_work: Micros,
    overload_dispatches: u32,
}

impl PendingSet {
    /// Adds a text. Ids must rise, so that equal texts keep their order.
    pub fn push(&mut self, id: ItemId, text: PendingItem) {
        self.by_soft_deadline.insert((text.soft_deadline, id));
        self.by_latest_start.insert((text.latest_start(), id));
        if text.is_batchable {
            self.by_length.entry(text.candidate.length).or_default().insert(id);
        }
        if !text.is_bulk {
            self.single_item_ids.insert(id);
        }
        self.total_work += text.candidate.unbatched_time;
        self.items.insert(id, text);
    }

    /// Takes a text out, if it still waits.
    pub fn remove(&mut self, id: ItemId) -> Option<PendingItem> {
        let text = self.items.remove(&id)?;
        self.by_soft_deadline.remove(&(text.soft_deadline, id));
        self.by_latest_start.remove(&(text.latest_start(), id));
        if let Some(same) = self.by_length.get_mut(&text.candidate.length) {
            same.remove(&id);
            if same.is_empty() {
                self.by_length.remove(&text.candidate.length);
            }
        }
        self.single_item_ids.remove(&id);
        self.total_work -= text.candidate.unbatched_time;
        Some(text)
    }

    /// Takes out one text that cannot be answered in time any more.
    pub fn pop_expired(&mut self, now: Micros) -> Option<ItemId> {
        let &(last_start, id) = self.by_latest_start.first()?;
        (last_start < now || self.items.get(&id)?.candidate.deadline <= now).then(|| self.remove(id))??;
        Some(id)
    }

    /// Takes out the texts to run together now; none if no text waits.
    pub fn schedule(&mut self, strategy: BatchingStrategy, context: &SchedulingContext<'_>) -> Vec<ItemId> {
        let Some(anchor) = self.select_anchor(context) else { return Vec::new() };
        self.take_batch(anchor, strategy, context)
    }

    /// The text to run first of those that take no longer than `most`.
    ///
    /// Looked for among the texts whose turn comes next, and the shortest of all.
    #[must_use]
    pub fn find_express_item(&self, most: Micros) -> Option<ItemId> {
        let next = self.by_soft_deadline.iter().take(CPU_SEARCH_RADIUS).map(|&(_, id)| id);
        let shortest = self.by_length.values().next().and_then(|ids| ids.first()).copied();
        let fits = |id: &ItemId| self.items.get(id).is_some_and(|text| text.candidate.unbatched_time <= most);
        next.chain(shortest).find(fits)
    }

    /// Takes out such a text and those that run best beside it, if there is one.
    pub fn take_express_batch(
        &mut self,
        most: Micros,
        strategy: BatchingStrategy,
        context: &SchedulingContext<'_>,
    ) -> Vec<ItemId> {
        let Some(id) = self.find_express_item(most) else { return Vec::new() };
        let mut context = *context;
        context.batch_context.limits.max_time = context.batch_context.limits.max_time.min(most);
        self.take_batch(id, strategy, &context)
    }

    /// Takes out a text and those that run beside it.
    fn take_batch(&mut self, id: ItemId, strategy: BatchingStrategy, context: &SchedulingContext<'_>) -> Vec<ItemId> {
        let ids = match strategy {
            BatchingStrategy::Window => self.batch_around(id, context),
            BatchingStrategy::Single => vec![id],
        };
        for &id in &ids {
            self.remove(id);
        }
        ids
    }

    /// The text that must run.
    fn select_anchor(&mut self, context: &SchedulingContext<'_>) -> Option<ItemId> {
        let &(_, nearest) = self.by_soft_deadline.first()?;
        if !context.is_overloaded {
            return Some(nearest);
        }
        let &(_, hurried) = self.by_latest_start.first()?;
        if self.items.get(&hurried)?.is_past_half_time(context.batch_context.now) {
            return Some(hurried);
        }
        self.overload_dispatches = self.overload_dispatches.wrapping_add(1);
        let is_turn_of_nearest = self.overload_dispatches.is_multiple_of(EARLIEST_DEADLINE_INTERVAL);
        let newest = self.single_item_ids.last().filter(|_| !is_turn_of_nearest);
        Some(newest.copied().unwrap_or(nearest))
    }

    /// A text and its best neighbours in a batch.
    fn batch_around(&self, id: ItemId, context: &SchedulingContext<'_>) -> Vec<ItemId> {
        let Some(anchor) = self.items.get(&id) else { return Vec::new() };
        if !anchor.is_batchable {
            return vec![id];
        }
        let length = anchor.candidate.length;
        // Equal texts stand with the longer ones; the oldest of each length comes first.
        let longer = self.by_length.range(length..).flat_map(|(_, ids)| ids).filter(|&&other| other != id);
        let shorter = self.by_length.range(..length).rev().flat_map(|(_, ids)| ids);
        let reach = context.batch_context.limits.search_radius;
        let (longer_ids, longer) = self.candidates(longer, reach);
        let (shorter_ids, shorter) = self.candidates(shorter, reach);
        let mut fit = context.batch_context;
        fit.limits.max_rows = fit.limits.max_rows.min(self.len().div_ceil(context.idle_workers + 1));
        let (down, up) = find_best_batch(anchor.candidate, &shorter, &longer, &fit);
        let neighbours = shorter_ids.into_iter().take(down).chain(longer_ids.into_iter().take(up));
        std::iter::once(id).chain(neighbours).collect()
    }

    fn candidates<'a>(&self, ids: impl Iterator<Item = &'a ItemId>, reach: usize) -> (Vec<ItemId>, Vec<Candidate>) {
        ids.take(reach).filter_map(|id| Some((*id, self.items.get(id)?.candidate))).unzip()
    }

    /// Texts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests;
