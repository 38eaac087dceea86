//! How much memory the process takes.

/// The most memory the process had at a time, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The memory the process has now, in bytes: at the end of a run that is the most it had, because
/// a run frees nothing before it ends.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peak() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn grows_with_what_is_touched() {
        let before = super::peak().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = super::peak().unwrap();
        assert!(after >= before + (48 << 20), "{before} before, {after} after");
        drop(block);
    }
}
