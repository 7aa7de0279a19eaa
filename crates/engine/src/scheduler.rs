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
pub use micros::Micros;

/// Names a waiting text; later texts have higher names.
pub type ItemId = u64;

/// A text is due after this many times the work that its request has asked for up to it.
pub const SOFT_DEADLINE_FACTOR: u64 = 10;
/// Under overload every so manieth turn goes to the text whose due time is nearest.
const EARLIEST_DEADLINE_INTERVAL: u32 = 4;

/// How texts are chosen. All but `Window` are there to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchingStrategy {
    /// The anchor and the best window of similar lengths around it.
    Window,
    /// The anchor alone.
    Single,
    /// So many texts in the order they came.
    Fifo(usize),
    /// As many texts as fit, in the order they came, once the oldest has waited so long.
    Delay(Micros),
}

impl BatchingStrategy {
    /// Texts that share a run where many wait, if any do and at most so many can.
    #[must_use]
    pub fn max_batch_items(self, most: usize) -> Option<usize> {
        match self {
            Self::Window | Self::Delay(_) => Some(most),
            Self::Single => None,
            Self::Fifo(texts) => Some(texts.min(most)),
        }
    }
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
#[derive(Debug, Clone, Copy)]
pub struct SchedulingContext<'a> {
    /// What a run must fit.
    pub batch_context: BatchContext<'a>,
    /// Other workers with nothing to do: they get their share of what waits.
    pub idle_workers: usize,
    /// There is more work than can be done, and has been for some time.
    pub is_overloaded: bool,
}

/// What a worker does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchedulerDecision {
    /// Run these together.
    Dispatch(Vec<ItemId>),
    /// Nothing before then. Only [`BatchingStrategy::Delay`] says so.
    WaitUntil(Micros),
    /// No text waits.
    Idle,
}

/// The waiting texts of one model, as far as choosing among them needs.
#[derive(Debug, Default)]
pub struct PendingSet {
    items: BTreeMap<ItemId, PendingItem>,
    by_soft_deadline: BTreeSet<(Micros, ItemId)>,
    by_latest_start: BTreeSet<(Micros, ItemId)>,
    /// Those that can run beside others.
    by_length: BTreeMap<usize, BTreeSet<ItemId>>,
    single_item_ids: BTreeSet<ItemId>,
    total_work: Micros,
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

    /// Takes out the texts to run now.
    pub fn schedule(&mut self, policy: BatchingStrategy, situation: &SchedulingContext<'_>) -> SchedulerDecision {
        let ids = match policy {
            BatchingStrategy::Window => {
                self.select_anchor(situation).map_or_else(Vec::new, |id| self.batch_around(id, situation))
            }
            BatchingStrategy::Single => self.select_anchor(situation).into_iter().collect(),
            BatchingStrategy::Fifo(rows) => self.oldest_items(rows),
            BatchingStrategy::Delay(delay) => {
                let rows = situation.batch_context.limits.max_rows;
                match self.items.first_key_value() {
                    Some((_, oldest))
                        if self.len() < rows && situation.batch_context.now < oldest.arrived_at + delay =>
                    {
                        return SchedulerDecision::WaitUntil(oldest.arrived_at + delay);
                    }
                    _ => self.oldest_items(rows),
                }
            }
        };
        for &id in &ids {
            self.remove(id);
        }
        if ids.is_empty() { SchedulerDecision::Idle } else { SchedulerDecision::Dispatch(ids) }
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
        policy: BatchingStrategy,
        situation: &SchedulingContext<'_>,
    ) -> Vec<ItemId> {
        let Some(id) = self.find_express_item(most) else { return Vec::new() };
        let mut situation = *situation;
        situation.batch_context.limits.max_time = situation.batch_context.limits.max_time.min(most);
        let ids = if policy == BatchingStrategy::Window { self.batch_around(id, &situation) } else { vec![id] };
        for &id in &ids {
            self.remove(id);
        }
        ids
    }

    /// The text that must run.
    fn select_anchor(&mut self, situation: &SchedulingContext<'_>) -> Option<ItemId> {
        let &(_, nearest) = self.by_soft_deadline.first()?;
        if !situation.is_overloaded {
            return Some(nearest);
        }
        let hurried = self.by_latest_start.first().map(|&(_, id)| id);
        let hurried = hurried
            .filter(|id| self.items.get(id).is_some_and(|text| text.is_past_half_time(situation.batch_context.now)));
        if hurried.is_some() {
            return hurried;
        }
        self.overload_dispatches = self.overload_dispatches.wrapping_add(1);
        let newest = self
            .single_item_ids
            .last()
            .filter(|_| !self.overload_dispatches.is_multiple_of(EARLIEST_DEADLINE_INTERVAL));
        Some(newest.copied().unwrap_or(nearest))
    }

    /// A text and those that run best beside it.
    fn batch_around(&self, id: ItemId, situation: &SchedulingContext<'_>) -> Vec<ItemId> {
        let Some(anchor) = self.items.get(&id) else { return Vec::new() };
        if !anchor.is_batchable {
            return vec![id];
        }
        let length = anchor.candidate.length;
        // Equal texts stand with the longer ones; the oldest of each length comes first.
        let longer = self.by_length.range(length..).flat_map(|(_, ids)| ids).filter(|&&other| other != id);
        let shorter = self.by_length.range(..length).rev().flat_map(|(_, ids)| ids);
        let reach = situation.batch_context.limits.search_radius;
        let (longer_ids, longer) = self.candidates(longer, reach);
        let (shorter_ids, shorter) = self.candidates(shorter, reach);
        let mut fit = situation.batch_context;
        fit.limits.max_rows = fit.limits.max_rows.min(self.len().div_ceil(situation.idle_workers + 1));
        let (down, up) = find_best_batch(anchor.candidate, &shorter, &longer, &fit);
        let beside = shorter_ids.into_iter().take(down).chain(longer_ids.into_iter().take(up));
        std::iter::once(id).chain(beside).collect()
    }

    fn candidates<'a>(&self, ids: impl Iterator<Item = &'a ItemId>, reach: usize) -> (Vec<ItemId>, Vec<Candidate>) {
        ids.take(reach).filter_map(|id| Some((*id, self.items.get(id)?.candidate))).unzip()
    }

    fn oldest_items(&self, rows: usize) -> Vec<ItemId> {
        let Some((&first, text)) = self.items.first_key_value() else { return Vec::new() };
        if !text.is_batchable {
            return vec![first];
        }
        self.items.iter().filter(|(_, text)| text.is_batchable).take(rows.max(1)).map(|(&id, _)| id).collect()
    }

    /// Predicted time of a run of its own for every text that waits, added up.
    #[must_use]
    pub fn total_work(&self) -> Micros {
        self.total_work
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
