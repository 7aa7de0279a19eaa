//! What the machine gives this process: cores and processor time.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// More workers than this are not an option of the server.
const MOST_CORES: usize = 1_024;
/// Where groups of processes have their limits.
const GROUPS: &str = "/sys/fs/cgroup";

/// The cores there are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cores {
    /// Cores that this process can use: what affinity and quota leave of them.
    pub usable: usize,
    /// Cores of the machine, if it tells.
    pub machine: Option<usize>,
    /// Processor seconds a second that its control group allows, if it limits them.
    pub quota: Option<f64>,
}

impl Cores {
    /// As they are now.
    #[must_use]
    pub fn find() -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        Self {
            // The standard library looks at affinity and at the quotas of both kinds of control groups.
            usable: std::thread::available_parallelism().map_or(1, usize::from).min(MOST_CORES),
            machine: read(Path::new("/sys/devices/system/cpu/online")).and_then(|list| listed(&list)),
            quota: read(Path::new("/proc/self/cgroup")).and_then(|groups| quota(&groups, read)),
        }
    }
}

/// How many numbers a list such as `0-3,8` has.
fn listed(numbers: &str) -> Option<usize> {
    let length = |range: &str| -> Option<usize> {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        Some(to.checked_sub(from)? + 1)
    };
    numbers.trim().split(',').map(length).sum()
}

/// The least quota of a process's control group and those around it, as `/proc/self/cgroup` names them.
fn quota(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
    let named = |line: &str| -> Option<(String, String)> {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.trim_start_matches('/').to_owned()))
    };
    let mut least: Option<f64> = None;
    for (controllers, path) in groups.lines().filter_map(named) {
        let of_cpu = controllers.split(',').any(|name| name == "cpu");
        if !(controllers.is_empty() || of_cpu) {
            continue;
        }
        let root = if of_cpu { Path::new(GROUPS).join(&controllers) } else { GROUPS.into() };
        for group in root.join(path).ancestors().take_while(|group| group.starts_with(&root)) {
            let found = if of_cpu {
                let number = |file| read(&group.join(file))?.trim().parse::<f64>().ok();
                number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"))
            } else {
                read(&group.join("cpu.max")).and_then(|limit| {
                    let (quota, period) = limit.trim().split_once(' ')?;
                    Some((quota.parse().ok()?, period.parse().ok()?))
                })
            };
            // The first kind says -1 for no limit, the second says max, which is no number.
            if let Some((quota, period)) = found.filter(|&(quota, period)| quota > 0.0 && period > 0.0) {
                least = Some(least.map_or(quota / period, |least| least.min(quota / period)));
            }
        }
    }
    least
}

/// Processor time of everything on the machine so far, if it tells: time that a hypervisor took away counts as used.
#[must_use]
pub fn machine_time() -> Option<Duration> {
    spent(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The sum of a machine's times but for those of rest.
fn spent(stat: &str) -> Option<Duration> {
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
pub fn process_time() -> Duration {
    time(ClockId::ProcessCPUTime)
}

/// Processor time of this thread so far.
#[must_use]
pub fn thread_time() -> Duration {
    time(ClockId::ThreadCPUTime)
}

fn time(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted() {
        assert_eq!(["0", "0-3", "0-1,4,6-7\n"].map(listed), [1, 4, 5].map(Some));
        assert_eq!(["", "x", "3-1"].map(listed), [None; 3]);
        assert!(Cores::find().usable >= 1);
    }

    #[test]
    fn the_least_quota_around_counts() {
        let files = |known: &'static [(&str, &str)]| {
            move |path: &Path| {
                let path = path.to_str()?.strip_prefix(GROUPS)?;
                known.iter().find(|(name, _)| *name == path).map(|(_, content)| (*content).to_owned())
            }
        };
        let second =
            [("/a/b/cpu.max", "400000 100000\n"), ("/a/cpu.max", "150000 100000\n"), ("/cpu.max", "max 100000")];
        let second: &'static [_] = Box::leak(Box::new(second));
        assert_eq!(quota("0::/a/b\n", files(second)), Some(1.5));
        assert_eq!(quota("0::/\n", files(second)), None);
        assert_eq!(quota("0::/elsewhere\n", files(second)), None);
        let first: &'static [_] = &[
            ("/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n"),
            ("/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota("7:memory:/x\n4:cpu,cpuacct:/x\n", files(first)), Some(0.5));
        assert_eq!(quota("nonsense\n\n1:2", files(first)), None);
    }

    #[test]
    fn rest_is_not_spent() {
        let stat = "cpu  100 20 30 999 888 1 2 3 50 0\ncpu0 1 2 3 4\n";
        assert_eq!(spent(stat), Some(Duration::from_millis(1_560)));
        assert_eq!(["", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8"].map(spent), [None; 3]);
    }

    #[test]
    fn work_takes_processor_time() {
        let (process, thread) = (process_time(), thread_time());
        let mut sum = 0_u64;
        while thread_time() == thread {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_time() > process);
    }
}
