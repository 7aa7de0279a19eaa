//! The order of the measurements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::figures::{Counted, ratio, spread};
use super::interrupted;
use super::limit::{Bare, Most, Pace, Plan};
use super::machine::{machine_time, process_time};
use super::report::{Fewer, Found, Limit};
use super::running::{Asked, Stage};
use super::setup::{Setup, Tried, best, caps};
use crate::RunError;
use crate::engine::model::Model;
use crate::text::pipeline::Encoded;

/// Measurements of the server, each between two of the limit.
const ROUNDS: usize = 3;

/// What all measurements have in common.
pub(super) struct Bench {
    pub(super) stage: Stage,
    /// As the first server loaded it: what its runs cost, and its way from text to tokens.
    pub(super) model: Arc<Model>,
    pub(super) asked: Asked,
    pub(super) most_rows: usize,
    pub(super) on_gpus: bool,
    pub(super) seconds: Duration,
    pub(super) target: Duration,
    pub(super) stop: CancellationToken,
    /// When it began, and the processor time of the machine and of this process by then.
    pub(super) since: (Instant, Option<Duration>, Duration),
}

impl Bench {
    /// Tries sessions and threads, then caps with the best of them.
    pub(super) fn search(
        &mut self,
        usual: &[Setup],
        say: impl Fn(&Tried) -> Result<(), RunError>,
    ) -> Result<(Vec<Tried>, Setup), RunError> {
        let target = self.target;
        let choose = |tried: &[Tried]| {
            let nothing = "no text was answered in the time of a measurement: allow more of it with --seconds";
            let best = best(tried, target).ok_or_else(|| RunError::Failed(nothing.to_owned()))?;
            Ok::<_, RunError>(best.setup)
        };
        let mut tried = self.compare(usual)?;
        tried.iter().try_for_each(&say)?;
        let mut chosen = choose(&tried)?;
        // A cap matters where texts that are waiting can share a run, and have lengths.
        let model = &self.model;
        if model.shares_runs() && !model.skips_queue() && model.pipeline().tokenizer().is_some() {
            let with_caps = self.compare(&caps(chosen, self.on_gpus))?;
            with_caps.iter().try_for_each(&say)?;
            chosen = choose(&with_caps)?;
            tried.extend(with_caps);
        }
        Ok((tried, chosen))
    }

    /// Measures each of them twice, in this order and in the opposite one.
    fn compare(&mut self, setups: &[Setup]) -> Result<Vec<Tried>, RunError> {
        let mut counted: Vec<(Setup, Counted)> = setups.iter().map(|&setup| (setup, Counted::default())).collect();
        for back in [false, true] {
            let mut order: Vec<&mut (Setup, Counted)> = counted.iter_mut().collect();
            if back {
                order.reverse();
            }
            for (setup, counted) in order {
                counted.add(self.stage.server(*setup)?.measure(&self.asked, self.seconds / 2)?);
            }
        }
        Ok(counted.into_iter().map(|(setup, counted)| Tried { setup, figures: counted.figures() }).collect())
    }

    /// Measures the chosen set-up in turns with the limit: what the machine does beside it falls on both.
    pub(super) fn found(
        &mut self,
        tried: Vec<Tried>,
        chosen: Setup,
        mut bare: Bare,
        texts: &[Encoded],
    ) -> Result<Found, RunError> {
        let (max_run_tokens, plan) = self.limit(&mut bare, texts, chosen)?;
        let turn = self.seconds / 2;
        // Loaded by now, so that nothing but the measurements lies between them.
        self.stage.server(chosen)?;
        let mut paces = vec![self.pace(&mut bare, &plan, turn)?];
        let (mut served, mut shares, mut cpu_shares) = (Counted::default(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let counted = self.stage.server(chosen)?.measure(&self.asked, turn)?;
            let (before, figures) = (paces.last().copied().unwrap_or_default(), counted.figures());
            let after = self.pace(&mut bare, &plan, turn)?;
            let bare_pace = f64::midpoint(before.texts_per_second, after.texts_per_second);
            let bare_cpu = f64::midpoint(before.cpu_seconds_per_1000, after.cpu_seconds_per_1000);
            shares.push(ratio(figures.texts_per_second, bare_pace));
            cpu_shares.push(ratio(bare_cpu, figures.cpu_seconds_per_1000));
            served.add(counted);
            paces.push(after);
        }
        let best = Tried { setup: chosen, figures: served.figures() };
        let others_cores = self.others();
        let within_target = best.figures.is_within(self.target);
        let fewer_clients = if within_target { None } else { self.fewer(chosen)? };
        let [lowest, texts_per_second, highest] = spread(paces.iter().map(|pace| pace.texts_per_second));
        let [_, cpu_seconds_per_1000, _] = spread(paces.iter().map(|pace| pace.cpu_seconds_per_1000));
        let (sessions, padding) = (bare.sessions(), plan.padding);
        Ok(Found {
            tried,
            limit: Limit { sessions, max_run_tokens, texts_per_second, lowest, highest, cpu_seconds_per_1000, padding },
            share: spread(shares)[1],
            cpu_share: spread(cpu_shares)[1],
            others_cores,
            within_target,
            fewer_clients,
            options: chosen.options(),
            best,
        })
    }

    /// What other processes took since the beginning, in cores.
    fn others(&self) -> Option<f64> {
        let (start, machine, own) = self.since;
        let machine = machine_time()?.saturating_sub(machine?);
        let others = machine.saturating_sub(process_time().saturating_sub(own));
        Some(ratio(others.as_secs_f64(), start.elapsed().as_secs_f64()))
    }

    /// The cap with which the engine alone is fastest, if one matters, and its runs.
    fn limit(&self, bare: &mut Bare, texts: &[Encoded], chosen: Setup) -> Result<(Option<usize>, Plan), RunError> {
        let model = &self.model;
        let rows = if model.shares_runs() { self.most_rows } else { 1 };
        let capped = rows > 1 && model.pipeline().tokenizer().is_some();
        let mut fastest: Option<(Pace, usize, Plan)> = None;
        for Setup { max_run_tokens, .. } in
            caps(chosen, self.on_gpus).into_iter().take(if capped { usize::MAX } else { 1 })
        {
            let most = Most { rows, tokens: max_run_tokens };
            let plan = Plan::of(model.pipeline(), texts, &model.work().cost(), most);
            // Once without looking: buffers grow to the sizes of this plan.
            self.pace(bare, &plan, self.seconds / 12)?;
            let pace = self.pace(bare, &plan, self.seconds / 4)?;
            if fastest.as_ref().is_none_or(|(best, ..)| pace.texts_per_second > best.texts_per_second) {
                fastest = Some((pace, max_run_tokens, plan));
            }
        }
        fastest.map(|(_, tokens, plan)| (capped.then_some(tokens), plan)).ok_or_else(interrupted)
    }

    fn pace(&self, bare: &mut Bare, plan: &Plan, time: Duration) -> Result<Pace, RunError> {
        if self.stop.is_cancelled() {
            return Err(interrupted());
        }
        bare.run(plan, time, &self.stop).map_err(|error| RunError::Failed(format!("a run failed: {error}")))
    }

    /// Half as many clients, and half of those, until the target is met.
    fn fewer(&mut self, chosen: Setup) -> Result<Option<Fewer>, RunError> {
        let mut asked = self.asked.clone();
        while asked.clients > 1 {
            asked.clients /= 2;
            let figures = self.stage.server(chosen)?.measure(&asked, self.seconds / 2)?.figures();
            if figures.is_within(self.target) {
                return Ok(Some(Fewer { clients: asked.clients, figures }));
            }
        }
        Ok(None)
    }
}
