//! Memory: what this process has, in [`cgroup`] what the system allows it, and in [`gpu`] what GPUs have.

pub mod cgroup;
pub mod gpu;

use std::fs;

/// Bytes of memory that this process has now; nothing where the system does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    read_status_bytes("VmRSS:")
}

/// Does something, and measures by how many bytes the process's memory grew at its peak; nothing where the system does
/// not tell.
pub fn measure_peak_growth<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    // Forgets the peak so far; see proc(5), "clear_refs".
    let forgotten = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = resident_bytes();
    let result = work();
    let peak = read_status_bytes("VmHWM:").filter(|_| forgotten);
    (result, peak.zip(before).map(|(peak, before)| peak.saturating_sub(before)))
}

/// A number of kibibytes from `/proc/self/status`, in bytes.
fn read_status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn peak_growth_counts_freed_memory() {
        const SIZE: usize = 64 << 20;
        let (sum, grown) =
            measure_peak_growth(|| vec![1_u8; SIZE].iter().map(|&byte| usize::from(byte)).sum::<usize>());
        assert_eq!(sum, SIZE);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(grown.is_some_and(|bytes| bytes >= SIZE as u64 / 2), "{grown:?}");
    }
}
