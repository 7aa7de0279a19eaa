//! What the engine needs from an inference runtime. The crate `onnx` implements it for ONNX Runtime.
//!
//! # How to write a backend
//!
//! Implement three traits. None of them speaks of ONNX, threads or queues, so that a library in this process, a process of
//! its own or another engine can be behind them.
//!
//! 1. [`Backend::open`] reads the graph of a model directory from the manifest and says by a [`Graph`] what it takes and
//!    gives (its [`Signature`]) and where it runs ([`Placement`]).
//! 2. [`Graph::create_session`] makes a [`Session`], as many as the engine runs at a time: one for each core, or one for
//!    each GPU in turn. To replace a session, the engine makes another and drops the old one: a session has no reset.
//! 3. [`Session::run`] runs one [`Batch`], and gives one row of scores for each row. It returns at the deadline, or soon
//!    after. Sessions of one graph run at the same time, each on one thread.
//!
//! There is no check of health: each run says how it went. The engine tries a failed batch item by item, gives an item
//! whose run fails an error, and reports a GPU as lost once a sample batch fails again and again. A session that lost what
//! it talks to may try to get it back within the deadline of a run. What was interrupted says [`BackendError::Interrupted`]:
//! it counts as no failure. An output depends on its batch alone, and not on runs before it.
//!
//! At the end, [`Backend::shut_down`] ends what is under way.

use std::fmt;
use std::time::Instant;

use ndarray::Array2;
use predictd_text::manifest::{Manifest, ManifestError};
use predictd_text::pipeline::Batch;
use predictd_text::signature::Signature;
use serde::{Deserialize, Serialize};

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

    /// True if a model that fails on its GPU must not be loaded on the CPU.
    fn requires_gpu(&self) -> bool {
        false
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

    /// Details of the graph, for checks and reports.
    fn info(&self) -> GraphInfo {
        GraphInfo::default()
    }

    /// A new session. Sessions of one graph share its weights.
    ///
    /// # Errors
    /// [`ManifestError`] if the runtime cannot make one.
    fn create_session(&mut self) -> Result<Box<dyn Session>, ManifestError>;
}

/// Details of a graph, for checks and reports. A backend may leave out what it does not know.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a run gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Shape `[batch.rows(), width]`.
    pub values: Array2<f32>,
    /// The label that the graph itself chose for each row, as a place in `0..width`; none where it chooses none.
    pub chosen_labels: Vec<Option<usize>>,
}

impl Scores {
    /// The scores of each row.
    pub fn rows(&self) -> impl Iterator<Item = Vec<f32>> {
        self.values.outer_iter().map(|row| row.to_vec())
    }
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
