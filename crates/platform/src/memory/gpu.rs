//! Memory of GPUs, as NVIDIA's driver reports it.

use std::sync::mpsc;
use std::time::Duration;

use nvml_wrapper::Nvml;

/// Longest wait for the driver: one that hangs holds up no load.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes in use on a GPU, by all programs; nothing without a driver that reports them.
///
/// The driver counts all GPUs of the machine by their place on the bus, CUDA the fastest first and only those of
/// `CUDA_VISIBLE_DEVICES`: where that differs, this is another GPU.
#[must_use]
pub fn used_bytes(gpu: u32) -> Option<u64> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // The receiver is gone once the time is over.
    let ask = move || sender.send(query_used_bytes(gpu)).ok();
    std::thread::Builder::new().name("predictd-ask-gpu".to_owned()).spawn(ask).ok()?;
    receiver.recv_timeout(DRIVER_TIMEOUT).ok().flatten()
}

fn query_used_bytes(gpu: u32) -> Option<u64> {
    let nvml = Nvml::init().ok()?;
    Some(nvml.device_by_index(gpu).ok()?.memory_info().ok()?.used)
}
