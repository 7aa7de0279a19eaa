//! Samples the process, the system and its GPUs for a scrape.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use parking_lot::{Condvar, Mutex};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Error, Gauge, GaugeVec, Histogram, Registry, Result, histogram_opts};
use rustix::fs::statvfs;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use predictd_stats::to_f64;

use super::metric_factory::MetricFactory;

/// A shorter time says nothing about how busy the cores are.
const CPU_INTERVAL: Duration = sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;
/// Seconds that the event loop was late.
const LAG_BUCKETS: [f64; 8] = [0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0];

/// How long a scrape waits for a sample. A network disk or a driver may hang: then the last sample is shown.
const SAMPLE_TIMEOUT: Duration = Duration::from_millis(100);

/// The process, the system, the GPUs.
#[derive(Debug)]
pub struct SystemMetrics {
    cpu: Gauge,
    memory: GaugeVec,
    event_loop_lag: Histogram,
    /// Wakes the sampling thread. The thread ends when this is dropped.
    sample_requests: SyncSender<()>,
    shared: Arc<SharedState>,
}

/// What the sampling thread and those that want a sample share.
#[derive(Debug, Default)]
struct SharedState {
    data_directory: OnceLock<PathBuf>,
    /// How busy each GPU was in the last sample. Its lock also goes with `sample_done`: `refresh` holds it from its
    /// request until it waits.
    gpu_utilisations: Mutex<Vec<f64>>,
    sample_done: Condvar,
}

/// Takes samples, on a thread that a disk or driver may hold up.
struct SystemSampler {
    /// None on a system that `sysinfo` does not support.
    system: Option<System>,
    cpu_sampled_at: Instant,
    cpu: Gauge,
    memory: GaugeVec,
    load: Gauge,
    directory_bytes: GaugeVec,
    /// Set by the first sample: a driver that hangs does not hold up a start.
    gpus: OnceCell<Option<GpuGauges>>,
    registry: Registry,
    shared: Arc<SharedState>,
}

impl SystemMetrics {
    pub(super) fn new(metrics: MetricFactory<'_>) -> Result<Self> {
        // CPU seconds, memory, open files and threads under the names that all clients of Prometheus use.
        metrics.0.register(Box::new(ProcessCollector::for_self()))?;
        let cpu = metrics.gauge(
            "predictd_system_cpu_ratio",
            "Share of all cores of the system that was busy, since it was asked for last.",
        )?;
        let memory =
            metrics.gauge_vec("predictd_system_memory_bytes", "Memory of the system, by state.", &["state"])?;
        let shared = Arc::<SharedState>::default();
        let measured = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut sampler = SystemSampler {
            system: System::new_with_specifics(measured).ok(),
            cpu_sampled_at: Instant::now(),
            cpu: cpu.clone(),
            memory: memory.clone(),
            load: metrics
                .gauge("predictd_system_load1", "Processes that ran or waited for a core, over the last minute.")?,
            directory_bytes: metrics.gauge_vec(
                "predictd_data_directory_bytes",
                "Room on the file system of --data-dir, by state.",
                &["state"],
            )?,
            gpus: OnceCell::new(),
            registry: metrics.0.clone(),
            shared: Arc::clone(&shared),
        };
        let (sample_requests, requests) = sync_channel(1);
        std::thread::Builder::new()
            .name("predictd-sampler".to_owned())
            .spawn(move || requests.iter().for_each(|()| sampler.sample()))
            .map_err(|error| Error::Msg(format!("no thread for metrics: {error}")))?;
        // The first sample takes long: take it before the first scrape.
        sample_requests.try_send(()).ok();
        let event_loop_lag = metrics.register(Histogram::with_opts(histogram_opts!(
            "predictd_event_loop_lag_seconds",
            "How late the threads that serve connections were for something that was due.",
            LAG_BUCKETS.to_vec()
        ))?)?;
        Ok(Self { cpu, memory, event_loop_lag, sample_requests, shared })
    }

    /// The directory whose file system is looked at; the first that is named.
    pub fn set_data_directory(&self, directory: &Path) {
        self.shared.data_directory.get_or_init(|| directory.to_owned());
    }

    /// The event loop was so late.
    pub fn record_event_loop_lag(&self, late: Duration) {
        self.event_loop_lag.observe(late.as_secs_f64());
    }

    /// Samples the system and its GPUs. Waits for [`SAMPLE_TIMEOUT`] at most.
    pub(super) fn refresh(&self) {
        let mut sample_lock = self.shared.gpu_utilisations.lock();
        // A full channel already holds a request.
        self.sample_requests.try_send(()).ok();
        self.shared.sample_done.wait_for(&mut sample_lock, SAMPLE_TIMEOUT);
    }

    /// The shares, from 0 to 1, of the cores and of the memory that are used, and of the time in which each GPU is busy.
    #[must_use]
    pub fn utilisation(&self) -> (f64, f64, Vec<f64>) {
        self.refresh();
        let [used, total] = ["used", "total"].map(|state| self.memory.with_label_values(&[state]).get());
        (self.cpu.get(), used / total.max(1.0), self.shared.gpu_utilisations.lock().clone())
    }
}

impl SystemSampler {
    fn sample(&mut self) {
        if let Some(system) = &mut self.system {
            if self.cpu_sampled_at.elapsed() >= CPU_INTERVAL {
                system.refresh_cpu_usage();
                self.cpu_sampled_at = Instant::now();
                self.cpu.set(f64::from(system.global_cpu_usage()) / 100.0);
            }
            system.refresh_memory();
            for (state, bytes) in [
                ("total", system.total_memory()),
                ("available", system.available_memory()),
                ("used", system.used_memory()),
            ] {
                self.memory.with_label_values(&[state]).set(to_f64(bytes));
            }
        }
        if let Some(room) = self.shared.data_directory.get().and_then(|directory| statvfs(directory).ok()) {
            for (state, blocks) in [("free", room.f_bavail), ("total", room.f_blocks)] {
                self.directory_bytes.with_label_values(&[state]).set(to_f64(blocks.saturating_mul(room.f_frsize)));
            }
        }
        if let Ok(load) = System::load_average() {
            self.load.set(load.one);
        }
        let gpus = self.gpus.get_or_init(|| {
            GpuGauges::new(MetricFactory(&self.registry)).unwrap_or_else(|error| {
                tracing::error!(%error, "GPU metrics unavailable");
                None
            })
        });
        let gpu_utilisations = gpus.as_ref().map(GpuGauges::refresh).unwrap_or_default();
        // A caller of `refresh` holds the lock until it waits, so it does not miss this.
        *self.shared.gpu_utilisations.lock() = gpu_utilisations;
        self.shared.sample_done.notify_all();
    }
}

/// NVIDIA's GPUs, where there is a driver.
#[derive(Debug)]
struct GpuGauges {
    nvml: Nvml,
    utilisation: GaugeVec,
    memory: GaugeVec,
    temperature: GaugeVec,
    power: GaugeVec,
    processes: GaugeVec,
}

impl GpuGauges {
    /// Nothing without a driver, or where it knows no GPU: then there are no such metrics either.
    fn new(metrics: MetricFactory<'_>) -> Result<Option<Self>> {
        let Some(nvml) = Nvml::init().ok().filter(|nvml| nvml.device_count().is_ok_and(|count| count > 0)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            nvml,
            utilisation: metrics.gauge_vec(
                "predictd_gpu_utilization_ratio",
                "Share of the last moments in which the GPU was busy.",
                &["gpu", "name"],
            )?,
            memory: metrics.gauge_vec(
                "predictd_gpu_memory_bytes",
                "Memory of the GPU, by state.",
                &["gpu", "state"],
            )?,
            temperature: metrics.gauge_vec("predictd_gpu_temperature_celsius", "Temperature of the GPU.", &["gpu"])?,
            power: metrics.gauge_vec("predictd_gpu_power_watts", "Power that the GPU draws.", &["gpu"])?,
            processes: metrics.gauge_vec("predictd_gpu_processes", "Processes that compute on the GPU.", &["gpu"])?,
        }))
    }

    /// Removes what a GPU does not report any more. Until the driver answers, the last values are shown. Returns how busy
    /// each GPU was.
    fn refresh(&self) -> Vec<f64> {
        let mut utilisations = Vec::new();
        let mut values: Vec<(&GaugeVec, Vec<String>, f64)> = Vec::new();
        for index in 0..self.nvml.device_count().unwrap_or(0) {
            let Ok(device) = self.nvml.device_by_index(index) else { continue };
            let gpu = index.to_string();
            if let Ok(rates) = device.utilization_rates() {
                let share = f64::from(rates.gpu) / 100.0;
                utilisations.push(share);
                values.push((&self.utilisation, vec![gpu.clone(), device.name().unwrap_or_default()], share));
            }
            if let Ok(memory) = device.memory_info() {
                for (state, bytes) in [("used", memory.used), ("free", memory.free), ("total", memory.total)] {
                    values.push((&self.memory, vec![gpu.clone(), state.to_owned()], to_f64(bytes)));
                }
            }
            for (gauge, value) in [
                (&self.temperature, device.temperature(TemperatureSensor::Gpu).map(f64::from)),
                (&self.power, device.power_usage().map(|milliwatts| f64::from(milliwatts) / 1e3)),
                (&self.processes, device.running_compute_processes().map(|running| to_f64(running.len() as u64))),
            ] {
                values.extend(value.map(|value| (gauge, vec![gpu.clone()], value)));
            }
        }
        for gauge in [&self.utilisation, &self.memory, &self.temperature, &self.power, &self.processes] {
            gauge.reset();
        }
        for (gauge, labels, value) in values {
            gauge.with_label_values(&labels).set(value);
        }
        utilisations
    }
}
