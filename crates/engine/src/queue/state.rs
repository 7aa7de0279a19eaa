//! What a queue keeps behind its lock: the texts that wait, and the workers that wait for them.

use std::collections::HashMap;
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::MutexGuard;

use super::express_lane::{ParkedExpressWorker, max_express_work};
use super::item::QueuedItem;
use crate::group_permits::GroupPermits;
use crate::scheduler::{ItemId, Micros, PendingSet};

/// The waiting texts and workers of a queue.
#[derive(Default)]
pub(super) struct QueueState {
    pub(super) pending: PendingSet,
    pub(super) items: HashMap<ItemId, QueuedItem>,
    pub(super) next_id: ItemId,
    pub(super) closed: bool,
    /// Workers that wait for a text, and the numbers of their GPUs; the one that ran last is woken first, while
    /// what it ran with is still in its cache.
    pub(super) parked_workers: Vec<(Thread, usize)>,
    /// Workers that were woken and have not looked yet.
    pub(super) waking_workers: usize,
    /// The express worker, while it waits.
    pub(super) parked_express_worker: Option<ParkedExpressWorker>,
    /// When there was little work last.
    pub(super) last_below_threshold: Micros,
    /// There has been too much for some time.
    pub(super) is_overloaded: bool,
}

/// Parks a worker until there may be something to do. `gpu_index`: the number of its GPU.
pub(super) fn park_worker(state: &mut MutexGuard<'_, QueueState>, gpu_index: usize) {
    let current_thread = thread::current();
    state.parked_workers.push((current_thread.clone(), gpu_index));
    MutexGuard::unlocked(state, thread::park);
    // A thread may also wake by itself: then it is still in the list.
    match state.parked_workers.iter().position(|(parked, _)| parked.id() == current_thread.id()) {
        Some(index) => _ = state.parked_workers.remove(index),
        None => state.waking_workers -= 1,
    }
}

impl QueueState {
    /// Takes so many parked workers from the list, to be woken once the lock is free: first those that find a permit.
    /// Where none does, all: the first that gets a permit runs the texts.
    pub(super) fn take_workers_to_wake(&mut self, mut workers: usize, permits: &GroupPermits) -> Vec<Thread> {
        if permits.has_several_gpus() && (1..self.parked_workers.len()).contains(&workers) {
            self.parked_workers.sort_by_cached_key(|(_, gpu_index)| permits.is_available_on(*gpu_index));
            if !self.parked_workers.last().is_some_and(|(_, gpu_index)| permits.is_available_on(*gpu_index)) {
                workers = usize::MAX;
            }
        }
        let woken = self.parked_workers.split_off(self.parked_workers.len().saturating_sub(workers));
        self.waking_workers += woken.len();
        woken.into_iter().map(|(thread, _)| thread).collect()
    }

    /// Takes out what cannot be answered in time any more.
    pub(super) fn pop_expired(&mut self, now: Micros) -> Vec<QueuedItem> {
        let ids = std::iter::from_fn(|| self.pending.pop_expired(now));
        ids.filter_map(|id| self.items.remove(&id)).collect()
    }

    /// Takes out the items of texts that are no longer pending.
    pub(super) fn take_items(&mut self, ids: &[ItemId]) -> Vec<QueuedItem> {
        let items = ids.iter().filter_map(|id| self.items.remove(id));
        // A caller that left while its texts were being taken out needs no run either.
        items.filter(|item| !item.reply.sender.is_closed()).collect()
    }

    /// The express worker, if it is to look now.
    ///
    /// `busy_for`: for how long all permits are taken; nothing if one is free.
    pub(super) fn take_express_worker_to_wake(&mut self, busy_for: Option<Duration>) -> Option<Thread> {
        let is_polling = self.parked_express_worker.as_ref()?.is_polling;
        let is_due =
            busy_for.is_some() && (!is_polling || self.pending.find_express_item(max_express_work(busy_for)).is_some());
        is_due.then(|| self.parked_express_worker.take())?.map(|worker| worker.thread)
    }
}
