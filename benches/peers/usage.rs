//! What the processes of a subject have used, from `/proc`.

use std::{fs, time::Duration};

/// A process and those that it started.
#[derive(Debug)]
pub(crate) struct Tree(Vec<u32>);

impl Tree {
    /// The process and its descendants, as they are now.
    pub(crate) fn of(root: u32) -> Self {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
            .collect();
        let mut tree = vec![root];
        let mut at = 0;
        while let Some(&parent) = tree.get(at) {
            tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        Self(tree)
    }

    /// Whether every one has ended.
    pub(crate) fn is_gone(&self) -> bool {
        // A zombie has ended; who started it has only not looked.
        self.0.iter().all(|pid| stat(*pid).is_none_or(|fields| fields[0] == "Z"))
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.0.iter().filter_map(|pid| scheduled(*pid).or_else(|| ticked(*pid))).sum()
    }

    /// Resident memory now, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.sum("VmRSS:")
    }

    /// The most resident memory that each had, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.sum("VmHWM:")
    }

    fn sum(&self, key: &str) -> u64 {
        let of = |pid: &u32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse().ok()
        };
        self.0.iter().filter_map(of).sum()
    }
}

/// What the scheduler gave the threads of a process, to the nanosecond: where calls come at a rate,
/// the ticks of `stat` are a tenth of all there is to count. Threads that ended are not in it; no
/// subject ends one while it serves.
fn scheduled(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let time = |thread: fs::DirEntry| -> Option<Duration> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
    };
    let times: Vec<_> = threads.filter_map(|thread| time(thread.ok()?)).collect();
    // A kernel that keeps no such count has no such file, or none but zeros in it.
    Some(times.into_iter().sum()).filter(|sum| *sum > Duration::ZERO)
}

/// The same in ticks of 10 ms, which every kernel has.
fn ticked(pid: u32) -> Option<Duration> {
    /// Linux tells programs of ticks of 10 ms, whatever its own are.
    const TICK: Duration = Duration::from_millis(10);
    let fields = stat(pid)?;
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(TICK * (number(11)? + number(12)?))
}

/// The fields of `/proc/PID/stat` after the name, which may have spaces: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
