//! Where the time of a text went, and how long work took.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Where the time of a text went, from its admission to its answer. The parts follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// When it was admitted; none for an answer that was there already.
    pub arrived_at: Option<Instant>,
    /// Until its tokens were in the queue: the text policy, the tokenizer, and the wait for a thread that does it.
    pub tokenize_time: Duration,
    /// Until its run began, or until the same text of another request was answered. None for a text that ran where it was
    /// received.
    pub queue_time: Duration,
    /// Until it was decided; longer than a run for a text that needs several.
    pub run_time: Duration,
    /// Texts in the run; 0 for an answer from the cache, or of another request's run.
    pub batch_size: usize,
}

impl Timings {
    /// That of the text that took longest, of several that were answered side by side.
    #[must_use]
    pub fn slowest(texts: impl IntoIterator<Item = Self>) -> Self {
        texts.into_iter().max_by_key(Self::total).unwrap_or_default()
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.tokenize_time + self.queue_time + self.run_time
    }
}

/// How long something took.
#[derive(Clone, Copy)]
pub struct WallAndCpuTime {
    /// By the clock on the wall.
    pub wall: Duration,
    /// Without the time in which the thread had no processor, where the system measures it.
    pub cpu: Duration,
}

/// Does something that is this thread's own work, if `here`, and measures it.
pub fn measure_time<T>(here: bool, work: impl FnOnce() -> T) -> (T, WallAndCpuTime) {
    let start = Instant::now();
    let cpu_start = thread_cpu_time();
    let result = work();
    let wall = start.elapsed();
    let cpu = if here { thread_cpu_time().saturating_sub(cpu_start) } else { wall };
    (result, WallAndCpuTime { wall, cpu })
}

/// Processor time of this thread so far.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
