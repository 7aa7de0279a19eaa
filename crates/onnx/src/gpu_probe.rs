//! Whether a graph runs on a GPU: seen, not assumed.
//!
//! The library places each node where it likes and says nothing. So the graph is run there once with a record of what
//! ran where, and its time and scores are compared with those of a core.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use predictd_engine::backend::Scores;
use predictd_engine::placement_result::GpuMeasurement;
use predictd_platform::memory;
use predictd_text::pipeline::Batch;
use predictd_text::signature::GraphInput;

use super::cuda::{CUDA_PROVIDER, GpuTarget};
use super::device_choice::explain_error;
use super::profile_dir::ProfileDir;
use super::profile_trace::ProviderCoverage;
use super::session::{ExecutionSite, OnnxSession, dummy_tokens};
use super::session_factory::SessionFactory;

/// Rows and tokens of the run that is compared, and of the smallest there is, for graphs that take no more.
const PROBE_SHAPES: [(usize, usize); 2] = [(16, 32), (1, 1)];
/// Each is timed this often: the best counts.
const TIMING_REPEATS: usize = 3;
/// Time of one such run.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// Measures a graph on a GPU. `cores` is a session of it on the cores.
///
/// # Errors
/// One sentence: why the graph cannot be said to run there.
pub(super) fn probe_gpu(
    source: &SessionFactory,
    on: GpuTarget<'_>,
    cores: &mut OnnxSession,
    places: &[PathBuf],
) -> Result<GpuMeasurement, String> {
    if matches!(cores.io_spec.input, GraphInput::Texts { .. }) {
        return Err("the graph takes text, and no GPU reads text".to_owned());
    }
    let fixed = cores.io_spec.fixed_axes;
    let (batch, (expected, cpu_run_time)) = PROBE_SHAPES
        .iter()
        .find_map(|&(rows, length)| {
            let rows = if fixed.single_row { 1 } else { rows };
            let batch = Batch::Tokens(dummy_tokens(rows, fixed.length.unwrap_or(length)));
            time_runs(cores, &batch).ok().map(|run| (batch, run))
        })
        .ok_or("the graph fails on any run")?;
    let before = memory::gpu::used_bytes(on.device_id);
    let folder = ProfileDir::new(places)?;
    let session =
        source.gpu_session(on, Some(&folder.file_prefix())).map_err(|error| explain_error(error.message()))?;
    let mut session = OnnxSession {
        session,
        io_spec: cores.io_spec.clone(),
        execution_site: ExecutionSite::Gpu,
        watchdog: source.watchdog.clone(),
    };
    let ran = run_profiled(&mut session, &batch)?;
    drop(folder);
    let after = memory::gpu::used_bytes(on.device_id);
    let memory_bytes = after.zip(before).map(|(after, before)| after.saturating_sub(before));
    if let Some(refusal) = ran.coverage_error(CUDA_PROVIDER) {
        return Err(refusal);
    }
    let (found, gpu_run_time) = time_runs(&mut session, &batch)?;
    Ok(GpuMeasurement {
        nodes_by_provider: ran.nodes,
        memory_bytes,
        gpu_run_time,
        cpu_run_time,
        max_score_difference: max_difference(&expected, &found),
        max_abs_cpu_score: expected.values.iter().fold(0.0, |most: f32, score| most.max(score.abs())),
    })
}

/// What ran where in one run of a session that writes a record.
fn run_profiled(session: &mut OnnxSession, batch: &Batch) -> Result<ProviderCoverage, String> {
    let ran =
        session.run_unchecked(batch, Instant::now() + RUN_TIMEOUT).map_err(|error| explain_error(&error.to_string()));
    // In any case: only then is the file complete.
    let file = session.session.end_profiling().map_err(|error| explain_error(error.message()))?;
    ran?;
    let record = std::fs::read(file).map_err(|error| format!("the record of a run is not there: {error}"))?;
    ProviderCoverage::parse(&record)
}

/// The scores of a run, and its best time.
fn time_runs(session: &mut OnnxSession, batch: &Batch) -> Result<(Scores, Duration), String> {
    let runs = (0..TIMING_REPEATS).map(|_| {
        let start = Instant::now();
        let scores = session.run_unchecked(batch, start + RUN_TIMEOUT);
        scores.map(|scores| (scores, start.elapsed())).map_err(|error| explain_error(&error.to_string()))
    });
    let runs: Vec<_> = runs.collect::<Result<_, _>>()?;
    runs.into_iter().min_by_key(|&(_, took)| took).ok_or_else(|| "nothing was run".to_owned())
}

/// The largest difference between scores of the same place. What is no number differs from everything.
fn max_difference(expected: &Scores, found: &Scores) -> f32 {
    if expected.values.dim() != found.values.dim() {
        return f32::INFINITY;
    }
    let differences = expected.values.iter().zip(&found.values).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, own| if own.is_nan() { f32::INFINITY } else { most.max(own) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::session::IoSpec;
    use super::*;
    use crate::OnnxRuntime;
    use crate::input_schema::InputSchema;
    use crate::output_schema::{OutputConstraints, find_score_output};

    /// The library's record of a run on the cores has the form that is read, and is judged as it must be.
    #[test]
    fn profile_of_real_run_is_parsed_and_removed() {
        let runtime = OnnxRuntime::load(Some(std::path::Path::new("../../target/onnxruntime"))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), directory.path().to_owned()];
        let source = SessionFactory {
            environment: runtime.environment.clone(),
            watchdog: runtime.watchdog.clone(),
            graph_bytes: std::fs::read("../../models/banking77-minilm/1/model.onnx").unwrap().into(),
            initializers: Vec::new(),
            external_files: BTreeMap::new(),
            prepacked: None,
            threads: 1,
        };
        let folder = ProfileDir::new(&places).unwrap();
        let session = source.profiled_cpu_session(&folder.file_prefix()).unwrap();
        let InputSchema { input, fixed_axes: fixed } = InputSchema::new(session.inputs(), &BTreeMap::new()).unwrap();
        let scores = find_score_output(session.outputs(), &input, OutputConstraints::default()).unwrap();
        let output = scores.layout;
        let width = scores.width.unwrap();
        let reading =
            IoSpec { input, fixed_axes: fixed, score_layout: output, label_decoder: None, width, per_token: false };
        let mut session = OnnxSession {
            session,
            io_spec: reading,
            execution_site: ExecutionSite::CallerThread,
            watchdog: source.watchdog.clone(),
        };
        let batch = Batch::Tokens(dummy_tokens(2, 8));
        let ran = run_profiled(&mut session, &batch).unwrap();
        drop(folder);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let providers: Vec<&String> = ran.nodes.keys().collect();
        assert_eq!(providers, ["CPUExecutionProvider"]);
        assert!(ran.nodes.values().sum::<usize>() > 50, "{ran:?}");
        // Six layers with at least four matrix products each.
        let products = ran.matrix_products.values().sum::<usize>();
        assert!(products >= 24, "{ran:?}");
        assert_eq!(ran.coverage_error("CPUExecutionProvider"), None);
        let error = ran.coverage_error(CUDA_PROVIDER).unwrap();
        assert_eq!(error, format!("{products} of its {products} matrix products ran on the cores"));
        // It still runs once the record is closed: that is what is timed.
        assert_eq!(time_runs(&mut session, &batch).unwrap().0.values.dim(), (2, width));
    }

    fn score_row(values: &[f32]) -> Scores {
        Scores::from(ndarray::Array2::from_shape_vec((1, values.len()), values.to_vec()).unwrap())
    }

    #[test]
    fn max_difference_of_nan_is_infinite() {
        assert!((max_difference(&score_row(&[1.0, 2.0]), &score_row(&[1.5, 2.1])) - 0.5).abs() < 1e-6);
        assert!(max_difference(&score_row(&[1.0]), &score_row(&[f32::NAN])).is_infinite());
        assert!(max_difference(&score_row(&[1.0]), &score_row(&[1.0, 2.0])).is_infinite());
    }
}
