//! The order of the measurements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictd_engine::loaded_version::LoadedVersion;
use predictd_text::pipeline::EncodedInput;
use tokio_util::sync::CancellationToken;

use super::bench_server::{ServerSlot, Workload};
use super::engine_limit::{BatchPlan, EngineBaseline, PlanLimits, Throughput};
use super::error::interrupted_error;
use super::machine::{machine_cpu_time, process_cpu_time};
use super::measurement::{MeasurementCounts, min_median_max, ratio};
use super::report::{BenchResults, EngineLimit, ReducedLoad};
use super::setup_selection::{Setup, Trial, best_trial, token_cap_setups};
use crate::ServerError;

/// Measurements of the server, each between two of the limit.
const COMPARISON_ROUNDS: usize = 3;

/// What all measurements have in common.
pub struct Benchmark {
    /// The server that is measured.
    pub server_slot: ServerSlot,
    /// As the first server loaded it: what its runs cost, and its way from text to tokens.
    pub model: Arc<LoadedVersion>,
    /// What the clients ask.
    pub workload: Workload,
    /// Most texts of a run.
    pub max_rows: usize,
    /// The model runs on GPUs.
    pub uses_gpus: bool,
    /// Time of one measurement.
    pub measurement_time: Duration,
    /// Time within which 99 of 100 answers shall come.
    pub latency_target: Duration,
    /// Ends all of it.
    pub stop: CancellationToken,
    /// When it began, and the processor time of the machine and of this process by then.
    pub started: (Instant, Option<Duration>, Duration),
}

impl Benchmark {
    /// Tries sessions and threads, then caps with the best of them. `say` is called with each trial.
    ///
    /// # Errors
    /// [`ServerError`] if a server cannot be measured, answers nothing, or `say` fails.
    pub fn search(
        &mut self,
        usual: &[Setup],
        say: impl Fn(&Trial) -> Result<(), ServerError>,
    ) -> Result<(Vec<Trial>, Setup), ServerError> {
        let mut tried = self.measure_setups(usual)?;
        tried.iter().try_for_each(&say)?;
        let mut chosen = self.best_setup(&tried)?;
        // A cap matters where texts that are waiting can share a run, and have lengths.
        let model = &self.model;
        if model.is_batchable() && !model.can_run_inline() && model.pipeline().tokenizer().is_some() {
            let with_caps = self.measure_setups(&token_cap_setups(chosen, self.uses_gpus))?;
            with_caps.iter().try_for_each(&say)?;
            chosen = self.best_setup(&with_caps)?;
            tried.extend(with_caps);
        }
        Ok((tried, chosen))
    }

    fn best_setup(&self, tried: &[Trial]) -> Result<Setup, ServerError> {
        let nothing = "no text was answered in the time of a measurement: allow more of it with --seconds";
        let best = best_trial(tried, self.latency_target);
        best.map(|trial| trial.setup).ok_or_else(|| ServerError::Runtime(nothing.to_owned()))
    }

    /// Measures each of them twice, in this order and in the opposite one.
    fn measure_setups(&mut self, setups: &[Setup]) -> Result<Vec<Trial>, ServerError> {
        let mut counted: Vec<(Setup, MeasurementCounts)> =
            setups.iter().map(|&setup| (setup, MeasurementCounts::default())).collect();
        for _ in 0..2 {
            for (setup, counted) in &mut counted {
                counted.merge(self.server_slot.server(*setup)?.measure(&self.workload, self.measurement_time / 2)?);
            }
            counted.reverse();
        }
        Ok(counted.into_iter().map(|(setup, counted)| Trial { setup, measurement: counted.measurement() }).collect())
    }

    /// Measures the chosen set-up in turns with the limit: what the machine does beside it falls on both.
    ///
    /// # Errors
    /// [`ServerError`] if the server or the engine cannot be measured.
    pub fn measure_against_limit(
        &mut self,
        tried: Vec<Trial>,
        chosen: Setup,
        mut bare: EngineBaseline,
        texts: &[EncodedInput],
    ) -> Result<BenchResults, ServerError> {
        let (max_batch_tokens, plan) = self.fastest_plan(&mut bare, texts, chosen)?;
        let half_time = self.measurement_time / 2;
        // Loaded by now, so that nothing but the measurements lies between them.
        self.server_slot.server(chosen)?;
        let mut paces = vec![self.measure_engine(&mut bare, &plan, half_time)?];
        let mut served = MeasurementCounts::default();
        let mut shares = Vec::new();
        let mut cpu_shares = Vec::new();
        for _ in 0..COMPARISON_ROUNDS {
            let counted = self.server_slot.server(chosen)?.measure(&self.workload, half_time)?;
            let before = paces.last().copied().unwrap_or_default();
            let figures = counted.measurement();
            let after = self.measure_engine(&mut bare, &plan, half_time)?;
            let bare_pace = f64::midpoint(before.texts_per_second, after.texts_per_second);
            let bare_cpu = f64::midpoint(before.cpu_seconds_per_1000, after.cpu_seconds_per_1000);
            shares.push(ratio(figures.texts_per_second, bare_pace));
            cpu_shares.push(ratio(bare_cpu, figures.cpu_seconds_per_1000));
            served.merge(counted);
            paces.push(after);
        }
        let best = Trial { setup: chosen, measurement: served.measurement() };
        let others_cores = self.other_process_cores();
        let within_target = best.measurement.is_within_target(self.latency_target);
        let fewer_clients = if within_target { None } else { self.find_client_count(chosen)? };
        let [lowest, texts_per_second, highest] = min_median_max(paces.iter().map(|pace| pace.texts_per_second));
        let [_, cpu_seconds_per_1000, _] = min_median_max(paces.iter().map(|pace| pace.cpu_seconds_per_1000));
        Ok(BenchResults {
            tried,
            limit: EngineLimit {
                sessions: bare.sessions.len(),
                max_batch_tokens,
                texts_per_second,
                lowest,
                highest,
                cpu_seconds_per_1000,
                padding: plan.padding,
            },
            share: min_median_max(shares)[1],
            cpu_share: min_median_max(cpu_shares)[1],
            others_cores,
            within_target,
            fewer_clients,
            options: chosen.options(),
            best,
        })
    }

    /// What other processes took since the beginning, in cores.
    fn other_process_cores(&self) -> Option<f64> {
        let (start, machine, own) = self.started;
        let machine = machine_cpu_time()?.saturating_sub(machine?);
        let others = machine.saturating_sub(process_cpu_time().saturating_sub(own));
        Some(ratio(others.as_secs_f64(), start.elapsed().as_secs_f64()))
    }

    /// The cap with which the engine alone is fastest, if one matters, and its runs.
    fn fastest_plan(
        &self,
        bare: &mut EngineBaseline,
        texts: &[EncodedInput],
        chosen: Setup,
    ) -> Result<(Option<usize>, BatchPlan), ServerError> {
        let model = &self.model;
        let rows = if model.is_batchable() { self.max_rows } else { 1 };
        let capped = rows > 1 && model.pipeline().tokenizer().is_some();
        let mut fastest: Option<(Throughput, usize, BatchPlan)> = None;
        for Setup { max_batch_tokens, .. } in
            token_cap_setups(chosen, self.uses_gpus).into_iter().take(if capped { usize::MAX } else { 1 })
        {
            let most = PlanLimits { rows, tokens: max_batch_tokens };
            let plan = BatchPlan::new(model.pipeline(), texts, &model.runner.model_load.cost_model(), most);
            // Once without looking: buffers grow to the sizes of this plan.
            self.measure_engine(bare, &plan, self.measurement_time / 12)?;
            let pace = self.measure_engine(bare, &plan, self.measurement_time / 4)?;
            if fastest.as_ref().is_none_or(|(best, ..)| pace.texts_per_second > best.texts_per_second) {
                fastest = Some((pace, max_batch_tokens, plan));
            }
        }
        fastest.map(|(_, tokens, plan)| (capped.then_some(tokens), plan)).ok_or_else(interrupted_error)
    }

    fn measure_engine(
        &self,
        bare: &mut EngineBaseline,
        plan: &BatchPlan,
        time: Duration,
    ) -> Result<Throughput, ServerError> {
        if self.stop.is_cancelled() {
            return Err(interrupted_error());
        }
        bare.run_plan(plan, time, &self.stop).map_err(|error| ServerError::Runtime(format!("a run failed: {error}")))
    }

    /// Half as many clients, and half of those, until the target is met.
    fn find_client_count(&mut self, chosen: Setup) -> Result<Option<ReducedLoad>, ServerError> {
        let mut workload = self.workload.clone();
        while workload.clients > 1 {
            workload.clients /= 2;
            let figures = self.server_slot.server(chosen)?.measure(&workload, self.measurement_time / 2)?.measurement();
            if figures.is_within_target(self.latency_target) {
                return Ok(Some(ReducedLoad { clients: workload.clients, measurement: figures }));
            }
        }
        Ok(None)
    }
}
