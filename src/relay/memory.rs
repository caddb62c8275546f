//! How much memory this process may use.

use std::{fs, num::NonZero, sync::OnceLock, thread};

/// Bytes that may wait in one worker unless the configuration says so: an eighth of the memory,
/// shared by as many workers as there are cores, from 8 to 64 MiB.
pub(super) fn share() -> u64 {
    static SHARE: OnceLock<u64> = OnceLock::new();
    *SHARE.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        limit().map_or(MOST, |limit| limit / 8 / cores as u64).clamp(LEAST, MOST)
    })
}

/// The memory of the machine, or of the control group where that is less.
fn limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = CGROUPS.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.into_iter().chain(group).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Of version 2, and of version 1, as a container sees its own. Without a bound they say `max`, or
/// more than any machine has.
const CGROUPS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
const LEAST: u64 = 8 << 20;
const MOST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(total("MemTotal:       24576000 kB\nMemFree:  1 kB\n"), Some(24_576_000 << 10));
        assert_eq!(total("MemFree:  1 kB\n"), None);
        assert!((LEAST..=MOST).contains(&share()));
    }
}
