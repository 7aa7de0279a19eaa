//! Memory of GPUs, as NVIDIA's driver tells it.

use nvml_wrapper::Nvml;

/// Bytes in use on a GPU, by all programs; nothing without a driver.
///
/// The driver counts all GPUs of the machine: where `CUDA_VISIBLE_DEVICES` renumbers them, this is another one.
#[must_use]
pub fn used(gpu: u32) -> Option<u64> {
    let nvml = Nvml::init().ok()?;
    Some(nvml.device_by_index(gpu).ok()?.memory_info().ok()?.used)
}
