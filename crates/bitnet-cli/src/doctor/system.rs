//! What the operating system tells of the machine. What it does not tell is unknown, not zero.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// What is known of the machine beside its processor.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct System {
    /// CPUs that a cgroup gives the process, if it says.
    pub(super) cpu_quota: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) available_memory_bytes: Option<u64>,
    /// Processors that were busy in the last minute.
    pub(super) load_average: Option<f64>,
    /// When the system gives large pages: `always`, `madvise` or `never`.
    pub(super) huge_pages: Option<String>,
    /// How the clock of the processor is chosen.
    pub(super) governor: Option<String>,
    pub(super) caches: Vec<Cache>,
}

/// A cache that the first processor uses.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Cache {
    /// `L1 data`, `L2`, ...
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Logical processors that share it.
    pub(super) threads: usize,
}

impl System {
    pub(super) fn detect() -> System {
        let system = sysinfo::System::new().ok().map(|mut system| {
            system.refresh_memory();
            system
        });
        // A container may have less than the machine.
        let limits = system.as_ref().and_then(sysinfo::System::cgroup_limits);
        let least = |of: u64, limit: Option<u64>| limit.map_or(of, |limit| of.min(limit));
        let memory = system.as_ref().map(|s| {
            let limits = limits.as_ref();
            [
                least(s.total_memory(), limits.map(|l| l.total_memory)),
                least(s.available_memory(), limits.map(|l| l.free_memory)),
            ]
        });
        let read = |path: &str| fs::read_to_string(path).ok();
        System {
            cpu_quota: read("/proc/self/cgroup")
                .and_then(|groups| group_quota(Path::new("/sys/fs/cgroup"), &groups)),
            memory_bytes: memory.map(|[all, _]| all),
            available_memory_bytes: memory.map(|[_, free]| free),
            load_average: read("/proc/loadavg").and_then(|text| load(&text)),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| marked(&text)),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .map(|text| text.trim().to_owned()),
            caches: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
        }
    }
}

/// CPUs that the groups of a process may use: the least of all that they are in. `groups` is what
/// Linux says of them, a line of `ID:CONTROLLERS:PATH` each.
fn group_quota(root: &Path, groups: &str) -> Option<f64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        // The second version has one hierarchy and names no controllers.
        let base = if controllers.is_empty() { root.to_owned() } else { root.join(controllers) };
        let ours = controllers.is_empty() || controllers.split(',').any(|c| c == "cpu");
        // Within a container the path may be that outside, of which nothing is there.
        let path = Path::new(path.trim_start_matches('/'));
        let folders = path.ancestors().filter(|_| ours).map(|path| base.join(path));
        let limit = |folder: PathBuf| {
            let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
            let first = || Some(read("cpu.cfs_quota_us")? + " " + &read("cpu.cfs_period_us")?);
            quota(&read("cpu.max").or_else(first)?)
        };
        folders.filter_map(limit).collect::<Vec<_>>()
    });
    limits.min_by(f64::total_cmp)
}

/// CPUs of `max 100000` or `-1 100000`, which is no limit, or `250000 100000`, which are 2.5.
fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The first number of `0.52 0.58 0.59 1/71 1234`.
fn load(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The word in brackets of `always [madvise] never`.
fn marked(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The caches that Linux lists in a folder.
fn caches(folder: &Path) -> Vec<Cache> {
    let cache = |index: usize| {
        let folder = folder.join(format!("index{index}"));
        let read = |name: &str| Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
        let kind = match read("type")?.as_str() {
            "Data" => " data",
            "Instruction" => " instructions",
            _ => "",
        };
        Some(Cache {
            name: format!("L{}{kind}", read("level")?),
            bytes: size(&read("size")?)?,
            threads: processors(&read("shared_cpu_list")?)?,
        })
    };
    (0..8).map_while(cache).collect()
}

/// Bytes of `48K`.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        _ => return None,
    };
    Some(number.parse::<u64>().ok()? << shift)
}

/// Processors of `0-1,8`.
fn processors(list: &str) -> Option<usize> {
    let count = |range: &str| match range.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            Some(last.checked_sub(first)? + 1)
        }
        None => range.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_read() {
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("250000 100000\n"), Some(2.5));
        assert_eq!(quota("1 0"), None);
        assert_eq!(quota("-1 100000"), None);
        assert_eq!(load("0.52 0.58 0.59 1/71 1234\n"), Some(0.52));
        assert_eq!(load(""), None);
        assert_eq!(marked("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(marked("nothing"), None);
        assert_eq!(
            [size("48K"), size("4M"), size("7"), size("1G"), size("K")].map(|s| s),
            [Some(48 << 10), Some(4 << 20), Some(7), None, None]
        );
        assert_eq!(processors("0-1,8"), Some(3));
        assert_eq!(processors("3-1"), None);
        assert_eq!(processors("x"), None);
    }

    #[test]
    fn the_quota_is_the_least_of_all_groups() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = |groups: &str| group_quota(folder.path(), groups);
        assert_eq!(found("0::/\n"), None);
        write("a/b/cpu.max", "max 100000\n");
        assert_eq!(found("0::/a/b\n"), None);
        write("a/cpu.max", "150000 100000\n");
        assert_eq!(found("0::/a/b\n"), Some(1.5));
        assert_eq!(found("0::/elsewhere\n"), None);
        write("cpu.max", "50000 100000\n");
        assert_eq!(found("0::/elsewhere\n"), Some(0.5));

        write("cpu,cpuacct/c/cpu.cfs_quota_us", "25000\n");
        write("cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
        assert_eq!(found("4:cpu,cpuacct:/c\n2:memory:/c\n"), Some(0.25));
    }

    #[test]
    fn caches_are_those_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(caches(folder.path()), []);
        for (index, values) in
            [["Data", "1", "48K", "0"], ["Unified", "2", "2M", "0-1"]].iter().enumerate()
        {
            let cache = folder.path().join(format!("index{index}"));
            fs::create_dir(&cache).unwrap();
            for (name, value) in ["type", "level", "size", "shared_cpu_list"].iter().zip(values) {
                fs::write(cache.join(name), format!("{value}\n")).unwrap();
            }
        }
        let found = caches(folder.path());
        let cache = |name: &str, bytes, threads| Cache { name: name.to_owned(), bytes, threads };
        assert_eq!(found, [cache("L1 data", 48 << 10, 1), cache("L2", 2 << 20, 2)]);
    }

    #[test]
    fn this_machine_has_memory() {
        let found = System::detect();
        println!("{found:?}");
        assert!(found.memory_bytes.unwrap() > found.available_memory_bytes.unwrap());
        assert!(found.available_memory_bytes.unwrap() > 0);
    }
}
