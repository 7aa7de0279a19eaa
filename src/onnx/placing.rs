//! Whether a graph runs on a GPU: seen, not assumed.
//!
//! The library places each node where it likes and says nothing. So the graph is run there once with a record of what
//! ran where, and its time and scores are compared with those of a core.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cuda::PROVIDER;
use super::device::meaning;
use super::folder::Folder;
use super::profile::Ran;
use super::session::{OnnxSession, Runs, plain_tokens};
use super::source::{OnGpu, Source};
use crate::engine::placement;
use crate::engine::session::Scores;
use crate::memory;
use crate::text::pipeline::Batch;
use crate::text::signature::GraphInput;

/// Rows and tokens of the run that is compared, and of the smallest there is, for graphs that take no more.
const SHAPES: [(usize, usize); 2] = [(16, 32), (1, 1)];
/// Each is timed this often: the best counts.
const REPEATS: usize = 3;
/// Time of one such run.
const LONGEST_RUN: Duration = Duration::from_secs(30);

/// Measures a graph on a GPU. `cores` is a session of it on the cores.
///
/// # Errors
/// One sentence: why the graph cannot be said to run there.
pub(super) fn place(
    source: &Source,
    on: OnGpu<'_>,
    cores: &mut OnnxSession,
    places: &[PathBuf],
) -> Result<placement::OnGpu, String> {
    if matches!(cores.reading.input, GraphInput::Texts { .. }) {
        return Err("the graph takes text, and no GPU reads text".to_owned());
    }
    let fixed = cores.reading.fixed;
    let (batch, expected, run_on_core) = SHAPES
        .iter()
        .find_map(|&(rows, length)| {
            let (rows, length) = (if fixed.one_row { 1 } else { rows }, fixed.length.unwrap_or(length));
            let batch = Batch::Tokens(plain_tokens(rows, length));
            let (scores, took) = timed(cores, &batch).ok()?;
            Some((batch, scores, took))
        })
        .ok_or("the graph fails on any run")?;
    let before = memory::gpu::used(on.gpu);
    let folder = Folder::new(places)?;
    let session = source.session_on(on, Some(&folder.prefix())).map_err(|error| meaning(error.message()))?;
    let (under_way, reading) = (source.under_way.clone(), cores.reading.clone());
    let mut session = OnnxSession { session, reading, runs: Runs::OnGpu, under_way };
    let ran = recorded(&mut session, &batch)?;
    drop(folder);
    let memory = memory::gpu::used(on.gpu).zip(before).map(|(after, before)| after.saturating_sub(before));
    if let Some(refusal) = ran.refusal(PROVIDER) {
        return Err(refusal);
    }
    let (found, run) = timed(&mut session, &batch)?;
    let difference = difference(&expected, &found);
    let largest = expected.values.iter().fold(0.0, |most: f32, score| most.max(score.abs()));
    Ok(placement::OnGpu { nodes: ran.nodes, memory, run, run_on_core, difference, largest })
}

/// What ran where in one run of a session that writes a record.
pub(super) fn recorded(session: &mut OnnxSession, batch: &Batch) -> Result<Ran, String> {
    let ran = session.run_unchecked(batch, Instant::now() + LONGEST_RUN).map_err(|error| meaning(&error.to_string()));
    // In any case: only then is the file complete.
    let file = session.session.end_profiling().map_err(|error| meaning(error.message()))?;
    ran?;
    let record =
        std::fs::read(Path::new(&file)).map_err(|error| format!("the record of a run is not there: {error}"))?;
    Ran::read(&record)
}

/// The scores of a run, and its best time.
fn timed(session: &mut OnnxSession, batch: &Batch) -> Result<(Scores, Duration), String> {
    let mut best: Option<(Scores, Duration)> = None;
    for _ in 0..REPEATS {
        let start = Instant::now();
        let scores = session.run_unchecked(batch, start + LONGEST_RUN).map_err(|error| meaning(&error.to_string()))?;
        let took = start.elapsed();
        if best.as_ref().is_none_or(|(_, least)| took < *least) {
            best = Some((scores, took));
        }
    }
    best.ok_or_else(|| "nothing was run".to_owned())
}

/// The largest difference between scores of the same place. What is no number differs from everything.
fn difference(expected: &Scores, found: &Scores) -> f32 {
    if expected.values.dim() != found.values.dim() {
        return f32::INFINITY;
    }
    let differences = expected.values.iter().zip(&found.values).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, own| if own.is_nan() { f32::INFINITY } else { most.max(own) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::session::Reading;
    use super::*;
    use crate::onnx::OnnxRuntime;
    use crate::onnx::input_schema::InputSchema;
    use crate::onnx::output_schema::{Wanted, scores_output};

    /// The library's record of a run on the cores has the form that is read, and is judged as it must be.
    #[test]
    fn a_real_record_is_read_and_leaves_nothing_behind() {
        let runtime = OnnxRuntime::start(None).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), directory.path().to_owned()];
        let source = Source {
            environment: runtime.environment.clone(),
            under_way: runtime.under_way.clone(),
            bytes: std::fs::read("models/banking77-minilm/1/model.onnx").unwrap().into(),
            initializers: Vec::new(),
            external: BTreeMap::new(),
            prepacked: None,
            threads: 1,
            spin: false,
        };
        let folder = Folder::new(&places).unwrap();
        let session = source.recorded_session(&folder.prefix()).unwrap();
        let InputSchema { input, fixed } = InputSchema::new(session.inputs(), &BTreeMap::new()).unwrap();
        let scores = scores_output(session.outputs(), &input, Wanted::default()).unwrap();
        let (output, width) = (scores.output, scores.width.unwrap());
        let reading = Reading { input, fixed, output, choice: None, width, per_token: false };
        let mut session = OnnxSession { session, reading, runs: Runs::Here, under_way: source.under_way.clone() };
        let batch = Batch::Tokens(plain_tokens(2, 8));
        let ran = recorded(&mut session, &batch).unwrap();
        drop(folder);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let providers: Vec<&String> = ran.nodes.keys().collect();
        assert_eq!(providers, ["CPUExecutionProvider"]);
        assert!(ran.nodes.values().sum::<usize>() > 50, "{ran:?}");
        // Six layers with at least four matrix products each.
        let products = ran.products.values().sum::<usize>();
        assert!(products >= 24, "{ran:?}");
        assert_eq!(ran.refusal("CPUExecutionProvider"), None);
        let told = ran.refusal(PROVIDER).unwrap();
        assert_eq!(told, format!("{products} of its {products} matrix products ran on the cores"));
        // It still runs once the record is closed: that is what is timed.
        assert_eq!(timed(&mut session, &batch).unwrap().0.values.dim(), (2, width));
    }

    #[test]
    fn what_is_no_number_differs() {
        let scores =
            |values: &[f32]| Scores::from(ndarray::Array2::from_shape_vec((1, values.len()), values.to_vec()).unwrap());
        assert!((difference(&scores(&[1.0, 2.0]), &scores(&[1.5, 2.1])) - 0.5).abs() < 1e-6);
        assert!(difference(&scores(&[1.0]), &scores(&[f32::NAN])).is_infinite());
        assert!(difference(&scores(&[1.0]), &scores(&[1.0, 2.0])).is_infinite());
    }
}
