//! Samples the process, the system and its GPUs for a scrape.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use parking_lot::{Condvar, Mutex};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, GaugeVec, Histogram, Registry, histogram_opts};
use rustix::fs::statvfs;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

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
    gauges: Arc<SystemGauges>,
    /// Wakes the sampling thread. The thread ends when this is dropped.
    sample_requests: SyncSender<()>,
    event_loop_lag: Histogram,
}

/// The last sample, taken by a thread that a disk or driver may hold up.
#[derive(Debug)]
struct SystemGauges {
    /// None on a system that `sysinfo` does not support.
    sampler: Option<Mutex<SystemSampler>>,
    cpu: Gauge,
    memory: GaugeVec,
    load: Gauge,
    data_directory: OnceLock<PathBuf>,
    directory_bytes: GaugeVec,
    /// Set by the first sample: a driver that hangs does not hold up a start.
    gpus: OnceLock<Option<GpuGauges>>,
    registry: Registry,
    sample_lock: Mutex<()>,
    sample_done: Condvar,
}

#[derive(Debug)]
struct SystemSampler {
    system: System,
    cpu_sampled_at: Instant,
}

impl SystemMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        // CPU seconds, memory, open files and threads under the names that all clients of Prometheus use.
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = MetricFactory(registry);
        let cpu = CpuRefreshKind::nothing().with_usage();
        let memory = MemoryRefreshKind::nothing().with_ram();
        let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(cpu).with_memory(memory)).ok();
        let lag = metrics.register(Histogram::with_opts(histogram_opts!(
            "predictd_event_loop_lag_seconds",
            "How late the threads that serve connections were for something that was due.",
            LAG_BUCKETS.to_vec()
        ))?)?;
        let gauges = Arc::new(SystemGauges {
            sampler: system.map(|system| Mutex::new(SystemSampler { system, cpu_sampled_at: Instant::now() })),
            cpu: metrics.gauge(
                "predictd_system_cpu_ratio",
                "Share of all cores of the system that was busy, since it was asked for last.",
            )?,
            memory: metrics.gauge_vec("predictd_system_memory_bytes", "Memory of the system, by state.", &["state"])?,
            load: metrics
                .gauge("predictd_system_load1", "Processes that ran or waited for a core, over the last minute.")?,
            data_directory: OnceLock::new(),
            directory_bytes: metrics.gauge_vec(
                "predictd_data_directory_bytes",
                "Room on the file system of --data-dir, by state.",
                &["state"],
            )?,
            gpus: OnceLock::new(),
            registry: registry.clone(),
            sample_lock: Mutex::default(),
            sample_done: Condvar::new(),
        });
        let (sample_requests, requests) = sync_channel(1);
        let sampled = Arc::clone(&gauges);
        std::thread::Builder::new()
            .name("predictd-machine".to_owned())
            .spawn(move || requests.iter().for_each(|()| sampled.sample()))
            .map_err(|error| prometheus::Error::Msg(format!("no thread for metrics: {error}")))?;
        // The first sample takes long: take it before the first scrape.
        sample_requests.try_send(()).ok();
        Ok(Self { gauges, sample_requests, event_loop_lag: lag })
    }

    /// The directory whose file system is looked at; the first that is named.
    pub fn set_data_directory(&self, directory: &Path) {
        self.gauges.data_directory.get_or_init(|| directory.to_owned());
    }

    /// The event loop was so late.
    pub fn record_event_loop_lag(&self, late: Duration) {
        self.event_loop_lag.observe(late.as_secs_f64());
    }

    /// Samples the system and its GPUs. Waits for [`SAMPLE_TIMEOUT`] at most.
    pub(super) fn refresh(&self) {
        let mut sample_lock = self.gauges.sample_lock.lock();
        // A full channel already holds a request.
        self.sample_requests.try_send(()).ok();
        self.gauges.sample_done.wait_for(&mut sample_lock, SAMPLE_TIMEOUT);
    }

    /// The shares, from 0 to 1, of the cores and of the memory that are used, and of the time in which each GPU is busy.
    #[must_use]
    pub fn utilisation(&self) -> (f64, f64, Vec<f64>) {
        self.refresh();
        let [used, total] = ["used", "total"].map(|state| self.gauges.memory.with_label_values(&[state]).get());
        (
            self.gauges.cpu.get(),
            used / total.max(1.0),
            self.gauges.gpus.get().and_then(Option::as_ref).map(GpuGauges::utilisations).unwrap_or_default(),
        )
    }
}

impl SystemGauges {
    fn sample(&self) {
        if let Some(sampler) = &self.sampler {
            let mut sampler = sampler.lock();
            if sampler.cpu_sampled_at.elapsed() >= CPU_INTERVAL {
                sampler.system.refresh_cpu_usage();
                sampler.cpu_sampled_at = Instant::now();
                self.cpu.set(f64::from(sampler.system.global_cpu_usage()) / 100.0);
            }
            sampler.system.refresh_memory();
            for (state, bytes) in [
                ("total", sampler.system.total_memory()),
                ("available", sampler.system.available_memory()),
                ("used", sampler.system.used_memory()),
            ] {
                self.memory.with_label_values(&[state]).set(to_f64(bytes));
            }
        }
        if let Some(room) = self.data_directory.get().and_then(|directory| statvfs(directory).ok()) {
            for (state, blocks) in [("free", room.f_bavail), ("total", room.f_blocks)] {
                self.directory_bytes.with_label_values(&[state]).set(to_f64(blocks.saturating_mul(room.f_frsize)));
            }
        }
        if let Ok(load) = System::load_average() {
            self.load.set(load.one);
        }
        let gpus = self.gpus.get_or_init(|| {
            GpuGauges::new(&self.registry).unwrap_or_else(|error| {
                tracing::error!(%error, "GPU metrics unavailable");
                None
            })
        });
        if let Some(gpus) = gpus {
            gpus.refresh();
        }
        // A caller of `refresh` holds the lock until it waits, so it does not miss this.
        let _sampling_lock = self.sample_lock.lock();
        self.sample_done.notify_all();
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
    last_utilisations: Mutex<Vec<f64>>,
}

impl GpuGauges {
    /// Nothing without a driver, or where it knows no GPU: then there are no such metrics either.
    fn new(registry: &Registry) -> Result<Option<Self>, prometheus::Error> {
        let Some(nvml) = Nvml::init().ok().filter(|nvml| nvml.device_count().is_ok_and(|count| count > 0)) else {
            return Ok(None);
        };
        let metrics = MetricFactory(registry);
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
            last_utilisations: Mutex::default(),
        }))
    }

    /// Removes what a GPU does not report any more. Until the driver answers, the last values are shown.
    fn refresh(&self) {
        let count = self.nvml.device_count().unwrap_or(0);
        let samples: Vec<GpuSample> = (0..count).filter_map(|number| GpuSample::read(&self.nvml, number)).collect();
        for gauge in [&self.utilisation, &self.memory, &self.temperature, &self.power, &self.processes] {
            gauge.reset();
        }
        for gpu in &samples {
            let number = gpu.index.as_str();
            if let Some((name, share)) = &gpu.utilisation {
                self.utilisation.with_label_values(&[number, name]).set(*share);
            }
            for (state, bytes) in gpu.memory.into_iter().flatten() {
                self.memory.with_label_values(&[number, state]).set(to_f64(bytes));
            }
            for (gauge, value) in
                [(&self.temperature, gpu.celsius), (&self.power, gpu.watts), (&self.processes, gpu.processes)]
            {
                if let Some(value) = value {
                    gauge.with_label_values(&[number]).set(value);
                }
            }
        }
        *self.last_utilisations.lock() =
            samples.into_iter().filter_map(|gpu| gpu.utilisation).map(|(_, share)| share).collect();
    }

    /// How busy each was in the last sample.
    fn utilisations(&self) -> Vec<f64> {
        self.last_utilisations.lock().clone()
    }
}

/// What the driver reports of a GPU.
struct GpuSample {
    index: String,
    /// Its name, and the share of the last moments in which it was busy.
    utilisation: Option<(String, f64)>,
    memory: Option<[(&'static str, u64); 3]>,
    celsius: Option<f64>,
    watts: Option<f64>,
    processes: Option<f64>,
}

impl GpuSample {
    fn read(nvml: &Nvml, number: u32) -> Option<Self> {
        let device = nvml.device_by_index(number).ok()?;
        let rates = device.utilization_rates().ok();
        let memory = device.memory_info().ok();
        Some(Self {
            index: number.to_string(),
            utilisation: rates.map(|rates| (device.name().unwrap_or_default(), f64::from(rates.gpu) / 100.0)),
            memory: memory.map(|memory| [("used", memory.used), ("free", memory.free), ("total", memory.total)]),
            celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            processes: device.running_compute_processes().ok().map(|processes| to_f64(processes.len() as u64)),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes, for a chart")]
fn to_f64(number: u64) -> f64 {
    number as f64
}
