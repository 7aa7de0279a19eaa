//! What the machine gives this process: cores and processor time.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// More workers than this are not an option of the server.
const MAX_CORES: usize = 1_024;
/// Where groups of processes have their limits.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The cores there are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cores {
    /// Cores that this process can use: what affinity and quota leave of them.
    pub usable: usize,
    /// Cores of the machine, if they are known.
    pub machine: Option<usize>,
    /// Processor seconds a second that its control group allows, if it limits them.
    pub quota: Option<f64>,
}

impl Cores {
    /// As they are now.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        Self {
            // The standard library looks at affinity and at the quotas of both kinds of control groups.
            usable: std::thread::available_parallelism().map_or(1, usize::from).min(MAX_CORES),
            machine: read(Path::new("/sys/devices/system/cpu/online")).and_then(|list| count_cpu_list(&list)),
            quota: read(Path::new("/proc/self/cgroup")).and_then(|groups| cgroup_cpu_quota(&groups, read)),
        }
    }
}

/// How many numbers a list such as `0-3,8` has.
fn count_cpu_list(numbers: &str) -> Option<usize> {
    let length = |range: &str| -> Option<usize> {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let from: usize = from.parse().ok()?;
        let to: usize = to.parse().ok()?;
        Some(to.checked_sub(from)? + 1)
    };
    numbers.trim().split(',').map(length).sum()
}

/// The least quota of a process's control group and those around it, as `/proc/self/cgroup` names them.
fn cgroup_cpu_quota(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
    let mut quotas = Vec::new();
    for line in groups.lines() {
        let parts: Vec<&str> = line.splitn(3, ':').collect();
        let [_, controllers, path] = *parts else { continue };
        // The second kind of groups names no controllers.
        let files: &[&str] = match controllers {
            "" => &["cpu.max"],
            _ if controllers.split(',').any(|name| name == "cpu") => &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
            _ => continue,
        };
        let root = Path::new(CGROUP_ROOT).join(controllers);
        for group in root.join(path.trim_start_matches('/')).ancestors().take_while(|group| group.starts_with(&root)) {
            let texts: Vec<String> = files.iter().filter_map(|file| read(&group.join(file))).collect();
            // The first kind says -1 for no limit, the second says max, which is no number.
            let fields = texts.iter().flat_map(|text| text.split_whitespace());
            let limit: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
            if let [quota, period] = *limit
                && quota > 0.0
                && period > 0.0
            {
                quotas.push(quota / period);
            }
        }
    }
    quotas.into_iter().reduce(f64::min)
}

/// Processor time of everything on the machine so far, if it is known: time that a hypervisor took away counts as used.
#[must_use]
pub fn machine_cpu_time() -> Option<Duration> {
    parse_busy_time(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The sum of a machine's times but for those of rest.
fn parse_busy_time(stat: &str) -> Option<Duration> {
    // The kernel shows these in hundredths of a second, whatever its own clock is.
    const TICK: Duration = Duration::from_millis(10);
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u32> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    let [user, nice, system, _, _, irq, softirq, steal, ..] = fields.as_slice() else { return None };
    Some([user, nice, system, irq, softirq, steal].into_iter().map(|&ticks| ticks * TICK).sum())
}

/// Processor time of this process so far, of all its threads.
#[must_use]
pub fn process_cpu_time() -> Duration {
    clock_time(ClockId::ProcessCPUTime)
}

/// Processor time of this thread so far.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    clock_time(ClockId::ThreadCPUTime)
}

fn clock_time(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_list_of_ranges_is_counted() {
        assert_eq!(["0", "0-3", "0-1,4,6-7\n"].map(count_cpu_list), [1, 4, 5].map(Some));
        assert_eq!(["", "x", "3-1"].map(count_cpu_list), [None; 3]);
        assert!(Cores::detect().usable >= 1);
    }

    fn file_reader(files: &'static [(&str, &str)]) -> impl Fn(&Path) -> Option<String> {
        move |path: &Path| {
            let path = path.to_str()?.strip_prefix(CGROUP_ROOT)?;
            files.iter().find(|(name, _)| *name == path).map(|(_, content)| (*content).to_owned())
        }
    }

    #[test]
    fn cgroup_quota_nested_groups_least_wins() {
        let second =
            [("/a/b/cpu.max", "400000 100000\n"), ("/a/cpu.max", "150000 100000\n"), ("/cpu.max", "max 100000")];
        let second: &'static [_] = Box::leak(Box::new(second));
        assert_eq!(cgroup_cpu_quota("0::/a/b\n", file_reader(second)), Some(1.5));
        assert_eq!(cgroup_cpu_quota("0::/\n", file_reader(second)), None);
        assert_eq!(cgroup_cpu_quota("0::/elsewhere\n", file_reader(second)), None);
        let first: &'static [_] = &[
            ("/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n"),
            ("/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(cgroup_cpu_quota("7:memory:/x\n4:cpu,cpuacct:/x\n", file_reader(first)), Some(0.5));
        assert_eq!(cgroup_cpu_quota("nonsense\n\n1:2", file_reader(first)), None);
    }

    #[test]
    fn busy_time_from_stat_leaves_out_idle() {
        let stat = "cpu  100 20 30 999 888 1 2 3 50 0\ncpu0 1 2 3 4\n";
        assert_eq!(parse_busy_time(stat), Some(Duration::from_millis(1_560)));
        assert_eq!(["", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8"].map(parse_busy_time), [None; 3]);
    }

    #[test]
    fn cpu_time_after_work_has_grown() {
        let process = process_cpu_time();
        let thread = thread_cpu_time();
        let mut sum = 0_u64;
        while thread_cpu_time() == thread {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu_time() > process);
    }
}
