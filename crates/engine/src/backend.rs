//! What the engine wants from an inference runtime.
//!
//! Traits, so that scheduling and faults can be tested without a model; `onnx` implements
//! them for ONNX Runtime.

use std::fmt;
use std::time::{Duration, Instant};

use ndarray::Array2;
use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::pipeline::Batch;
use predictd_text::signature::Signature;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::placement_result::Placement;

/// Opens graphs.
pub trait Backend: Send + Sync {
    /// Parses and checks the graph of a model directory.
    ///
    /// # Errors
    /// [`ManifestError`] naming the graph file, or a weight file beside it, and what is wrong with it.
    fn open(&self, manifest: &mut Manifest) -> Result<Box<dyn Graph>, ManifestError>;

    /// How many GPUs sessions run on.
    fn gpu_count(&self) -> usize {
        0
    }

    /// The option that names where every model must run, such as `--device cuda:0`; nothing where they may fall back.
    fn required_device_option(&self) -> Option<String> {
        None
    }

    /// Ends every run and load that is under way, lets none begin, and waits for that until `until`.
    fn shut_down(&self, until: Instant) {
        _ = until;
    }
}

/// A graph from which sessions are made. It is dropped once all of them are, unless sessions are to be replaced.
pub trait Graph: Send {
    /// What the graph takes and gives.
    fn signature(&self) -> &Signature;

    /// Where its sessions run.
    fn placement(&self) -> Placement {
        Placement::default()
    }

    /// What there is to say about the graph to whoever made it.
    fn info(&self) -> GraphInfo {
        GraphInfo::default()
    }

    /// A new session. Sessions of one graph share its weights.
    ///
    /// # Errors
    /// [`ManifestError`] if the runtime cannot make one.
    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError>;
}

/// What there is to say about a graph to whoever made it: nothing that serving needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphInfo {
    /// What it takes, in its own order.
    pub inputs: Vec<TensorInfo>,
    /// What it gives, in its own order.
    pub outputs: Vec<TensorInfo>,
    /// Those of its operators that scale by the whole batch.
    pub batch_dependent_operators: Vec<String>,
    /// Element types of its constants.
    pub constant_types: Vec<String>,
    /// Files beside it that hold its weights.
    pub external_files: Vec<String>,
}

/// An input or an output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// The graph's own name for it.
    pub name: String,
    /// Type of its elements, such as `float32`.
    pub element: String,
    /// Its sizes: a number, a name, or `?` where the graph gives neither.
    pub dims: Vec<String>,
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.name, self.element, self.dims.join(", "))
    }
}

/// One independent executor of a graph. It is owned by one thread at a time.
pub trait Session: Send {
    /// Runs the graph once; gives up at `deadline`, as far as the runtime can be interrupted.
    ///
    /// # Errors
    /// [`BackendError`] if the runtime fails, is interrupted, or gives something of another shape.
    fn run(&mut self, batch: &Batch, deadline: Instant) -> Result<Scores, BackendError>;

    /// True if a run is work of the calling thread alone: then the thread's processor time is what it costs.
    fn runs_on_caller_thread(&self) -> bool {
        false
    }
}

/// How long something took.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallAndCpuTime {
    /// By the clock on the wall.
    pub wall: Duration,
    /// Without the time in which the thread had no processor, where that can be told.
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

/// What a run gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Shape `[batch.rows(), width]`.
    pub values: Array2<f32>,
    /// The label that the graph itself chose for each row, as a place in `0..width`; none where it chooses none.
    pub chosen_labels: Vec<Option<usize>>,
}

impl From<Array2<f32>> for Scores {
    fn from(values: Array2<f32>) -> Self {
        Self { chosen_labels: vec![None; values.nrows()], values }
    }
}

/// Why a run gave no scores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The runtime's own words: for the log, never for a client.
    #[error("{0}")]
    Failed(String),
    /// An index lies outside of a table, as a token id that the graph has no embedding for; the runtime's own words.
    #[error("{0}")]
    OutOfBounds(String),
    /// The deadline passed during the run.
    #[error("the run was interrupted at its deadline")]
    Interrupted,
    /// The output is not one row of scores per row of input.
    #[error("the output has shape {found:?}, where {rows} rows of {width} scores are due")]
    OutputShape {
        /// Rows of the input.
        rows: usize,
        /// Scores due per row.
        width: usize,
        /// Shape of the output.
        found: Vec<i64>,
    },
}
