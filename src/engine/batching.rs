//! Which waiting texts run next, and together. Pure: time is a number that the caller gives.
//!
//! Every text has a due time. The one whose due time is nearest, the anchor, always runs; texts of similar length join
//! it where that saves work ([`window`]). Nothing is waited for: if a text waits, there is something to run. A text is
//! due after a multiple of the work that its request has asked for up to it, so that
//!
//! - a short text does not wait for many long ones that came just before it,
//! - a request of a thousand texts takes its share and no more, and ends within its time,
//! - equal texts are served in the order they came, and every text's turn comes: a due time never moves.
//!
//! Under an overload that lasts, most turns go to the newest single text: its caller still waits. But whoever was let in
//! was promised an answer: a text that has waited for half of its time is passed no more.

pub mod window;

use std::collections::{BTreeMap, BTreeSet};

use window::{Candidate, Fit, REACH, best};

/// Names a waiting text; later texts have higher names.
pub type Id = u64;
/// Microseconds since the queue was made, or a number of them.
pub type Micros = u64;

/// A text is due after this many times the work that its request has asked for up to it.
pub const STRETCH: u64 = 10;
/// Under overload every so manieth turn goes to the text whose due time is nearest.
const TURN_OF_THE_OLD: u32 = 4;

/// How texts are chosen. All but `Window` are there to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The anchor and the best window of similar lengths around it.
    Window,
    /// The anchor alone.
    Single,
    /// So many texts in the order they came.
    Fifo(usize),
    /// As many texts as fit, in the order they came, once the oldest has waited so long.
    Delay(Micros),
}

impl Policy {
    /// Texts that share a run where many wait, if any do and at most so many can.
    #[must_use]
    pub fn together(self, most: usize) -> Option<usize> {
        match self {
            Self::Window | Self::Delay(_) => Some(most),
            Self::Single => None,
            Self::Fifo(texts) => Some(texts.min(most)),
        }
    }
}

/// A text that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its tokens, the predicted time of a run of its own, and when its caller stops waiting.
    pub candidate: Candidate,
    /// When it came.
    pub arrived: Micros,
    /// When its turn has come.
    pub due: Micros,
    /// True for a text of a request of several.
    pub bulk: bool,
    /// True if it can run beside others.
    pub joins: bool,
}

impl Waiting {
    /// Until when a run of its own can end in time. Time is what runs took at best: nothing is given up that could
    /// still be answered.
    fn last_start(&self) -> Micros {
        self.candidate.deadline.saturating_sub(self.candidate.alone)
    }

    /// True if it has waited for half of its time.
    fn half_over(&self, now: Micros) -> bool {
        now >= self.arrived + self.candidate.deadline.saturating_sub(self.arrived) / 2
    }
}

/// When the turn of a text has come whose request has asked for `work` up to it and for `all` altogether.
///
/// The stretch is less for a request that would not end in half of its time otherwise.
#[must_use]
pub fn due(arrived: Micros, deadline: Micros, work: Micros, all: Micros) -> Micros {
    let time = deadline.saturating_sub(arrived);
    let stretched = STRETCH.saturating_mul(work);
    let shared = u128::from(time / 2) * u128::from(work) / u128::from(all.max(1));
    arrived.saturating_add(stretched.min(u64::try_from(shared).unwrap_or(u64::MAX)))
}

/// What is known when texts are chosen.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What a run must fit.
    pub fit: Fit<'a>,
    /// Other workers with nothing to do: they get their share of what waits.
    pub idle: usize,
    /// There is more work than can be done, and has been for some time.
    pub crowded: bool,
}

/// What a worker does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Run these together.
    Run(Vec<Id>),
    /// Nothing before then. Only [`Policy::Delay`] says so.
    Wait(Micros),
    /// No text waits.
    Rest,
}

/// The waiting texts of one model, as far as choosing among them needs.
#[derive(Debug, Default)]
pub struct Line {
    texts: BTreeMap<Id, Waiting>,
    by_due: BTreeSet<(Micros, Id)>,
    by_last_start: BTreeSet<(Micros, Id)>,
    /// Those that can run beside others.
    by_length: BTreeMap<usize, BTreeSet<Id>>,
    singles: BTreeSet<Id>,
    work: Micros,
    crowded_turns: u32,
}

impl Line {
    /// Adds a text. Ids must rise, so that equal texts keep their order.
    pub fn push(&mut self, id: Id, text: Waiting) {
        self.by_due.insert((text.due, id));
        self.by_last_start.insert((text.last_start(), id));
        if text.joins {
            self.by_length.entry(text.candidate.length).or_default().insert(id);
        }
        if !text.bulk {
            self.singles.insert(id);
        }
        self.work += text.candidate.alone;
        self.texts.insert(id, text);
    }

    /// Takes a text out, if it still waits.
    pub fn remove(&mut self, id: Id) -> Option<Waiting> {
        let text = self.texts.remove(&id)?;
        self.by_due.remove(&(text.due, id));
        self.by_last_start.remove(&(text.last_start(), id));
        if let Some(same) = self.by_length.get_mut(&text.candidate.length) {
            same.remove(&id);
            if same.is_empty() {
                self.by_length.remove(&text.candidate.length);
            }
        }
        self.singles.remove(&id);
        self.work -= text.candidate.alone;
        Some(text)
    }

    /// Takes out one text that cannot be answered in time any more.
    pub fn pop_hopeless(&mut self, now: Micros) -> Option<Id> {
        let &(last_start, id) = self.by_last_start.first()?;
        (last_start < now || self.texts.get(&id)?.candidate.deadline <= now).then(|| self.remove(id))??;
        Some(id)
    }

    /// Takes out the texts to run now.
    pub fn take(&mut self, policy: Policy, situation: &Situation<'_>) -> Turn {
        let ids = match policy {
            Policy::Window => self.anchor(situation).map_or_else(Vec::new, |id| self.beside(id, situation)),
            Policy::Single => self.anchor(situation).into_iter().collect(),
            Policy::Fifo(rows) => self.oldest(rows),
            Policy::Delay(delay) => {
                let rows = situation.fit.caps.rows;
                match self.texts.first_key_value() {
                    Some((_, oldest)) if self.len() < rows && situation.fit.now < oldest.arrived + delay => {
                        return Turn::Wait(oldest.arrived + delay);
                    }
                    _ => self.oldest(rows),
                }
            }
        };
        for &id in &ids {
            self.remove(id);
        }
        if ids.is_empty() { Turn::Rest } else { Turn::Run(ids) }
    }

    /// The text to run first of those that take no longer than `most`.
    ///
    /// Looked for among the texts whose turn comes next, and the shortest of all.
    #[must_use]
    pub fn short(&self, most: Micros) -> Option<Id> {
        let next = self.by_due.iter().take(REACH).map(|&(_, id)| id);
        let shortest = self.by_length.values().next().and_then(|ids| ids.first()).copied();
        let fits = |id: &Id| self.texts.get(id).is_some_and(|text| text.candidate.alone <= most);
        next.chain(shortest).find(fits)
    }

    /// Takes out such a text and those that run best beside it, if there is one.
    pub fn take_short(&mut self, most: Micros, policy: Policy, situation: &Situation<'_>) -> Vec<Id> {
        let Some(id) = self.short(most) else { return Vec::new() };
        let mut situation = *situation;
        situation.fit.caps.time = situation.fit.caps.time.min(most);
        let ids = if policy == Policy::Window { self.beside(id, &situation) } else { vec![id] };
        for &id in &ids {
            self.remove(id);
        }
        ids
    }

    /// The text that must run.
    fn anchor(&mut self, situation: &Situation<'_>) -> Option<Id> {
        let &(_, nearest) = self.by_due.first()?;
        if !situation.crowded {
            return Some(nearest);
        }
        let hurried = self.by_last_start.first().map(|&(_, id)| id);
        let hurried = hurried.filter(|id| self.texts.get(id).is_some_and(|text| text.half_over(situation.fit.now)));
        if hurried.is_some() {
            return hurried;
        }
        self.crowded_turns = self.crowded_turns.wrapping_add(1);
        let newest = self.singles.last().filter(|_| !self.crowded_turns.is_multiple_of(TURN_OF_THE_OLD));
        Some(newest.copied().unwrap_or(nearest))
    }

    /// A text and those that run best beside it.
    fn beside(&self, id: Id, situation: &Situation<'_>) -> Vec<Id> {
        let Some(anchor) = self.texts.get(&id) else { return Vec::new() };
        if !anchor.joins {
            return vec![id];
        }
        let length = anchor.candidate.length;
        // Equal texts stand with the longer ones; the oldest of each length comes first.
        let longer = self.by_length.range(length..).flat_map(|(_, ids)| ids).filter(|&&other| other != id);
        let shorter = self.by_length.range(..length).rev().flat_map(|(_, ids)| ids);
        let reach = situation.fit.caps.reach;
        let (longer_ids, longer) = self.candidates(longer, reach);
        let (shorter_ids, shorter) = self.candidates(shorter, reach);
        let mut fit = situation.fit;
        fit.caps.rows = fit.caps.rows.min(self.len().div_ceil(situation.idle + 1));
        let (down, up) = best(anchor.candidate, &shorter, &longer, &fit);
        let beside = shorter_ids.into_iter().take(down).chain(longer_ids.into_iter().take(up));
        std::iter::once(id).chain(beside).collect()
    }

    fn candidates<'a>(&self, ids: impl Iterator<Item = &'a Id>, reach: usize) -> (Vec<Id>, Vec<Candidate>) {
        ids.take(reach).filter_map(|id| Some((*id, self.texts.get(id)?.candidate))).unzip()
    }

    fn oldest(&self, rows: usize) -> Vec<Id> {
        let Some((&first, text)) = self.texts.first_key_value() else { return Vec::new() };
        if !text.joins {
            return vec![first];
        }
        self.texts.iter().filter(|(_, text)| text.joins).take(rows.max(1)).map(|(&id, _)| id).collect()
    }

    /// Predicted time of a run of its own for every text that waits, added up.
    #[must_use]
    pub fn work(&self) -> Micros {
        self.work
    }

    /// Texts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

#[cfg(test)]
mod tests;
