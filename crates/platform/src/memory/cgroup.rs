//! The memory that the system allows this process: the least limit of its control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The limit in bytes, if there is one.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    memory_limit_in(Path::new(CGROUP_ROOT), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The same for what `/proc/self/cgroup` says and groups mounted at `root`: versions 1 and 2 of control groups.
fn memory_limit_in(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        // hierarchy:controllers:path, where version 2 names no controllers.
        let (_, group) = line.split_once(':').unwrap_or_default();
        let (controllers, path) = group.split_once(':').unwrap_or_default();
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        group_limits(&folder, path, file)
    });
    limits.min()
}

/// The limits of a group and of all groups around it: each of them holds.
fn group_limits(folder: &Path, path: &str, file: &str) -> Vec<u64> {
    let own: PathBuf = folder.join(path.trim_start_matches('/'));
    let groups = own.ancestors().take_while(|group| group.starts_with(folder));
    groups.filter_map(|group| fs::read_to_string(group.join(file)).ok()).filter_map(|text| parse_limit(&text)).collect()
}

/// "max", and a number that no machine has, mean that there is no limit.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, content: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn memory_limit_nested_groups_least_wins() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "pods/memory.max", "2000000\n");
        write(root, "pods/one/memory.max", "max\n");
        write(root, "pods/one/web/memory.max", "3000000\n");
        assert_eq!(memory_limit_in(root, "0::/pods/one/web\n"), Some(2_000_000));
        assert_eq!(memory_limit_in(root, "0::/pods/one\n"), Some(2_000_000));
        assert_eq!(memory_limit_in(root, "0::/elsewhere\n"), None);
        // In a container the own group is the root.
        write(root, "memory.max", "1000000");
        assert_eq!(memory_limit_in(root, "0::/\n"), Some(1_000_000));
    }

    #[test]
    fn memory_limit_cgroup_v1_reads_memory_folder() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "memory/memory.limit_in_bytes", "9223372036854771712\n");
        let groups = "9:name=systemd:/\n4:cpu,memory:/a/b\n3:cpuset:/a\n0::/\n";
        assert_eq!(memory_limit_in(root, groups), None);
        write(root, "memory/a/memory.limit_in_bytes", "4096000\n");
        assert_eq!(memory_limit_in(root, groups), Some(4_096_000));
        assert_eq!(memory_limit_in(root, "nonsense\n::\n"), None);
    }
}
