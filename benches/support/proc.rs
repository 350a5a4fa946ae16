//! What the system says of a process: on Linux; elsewhere nothing.

use std::{fs, time::Duration};

/// What the kernel counts processor time in, for programs: 1/100 s on every architecture that Rust's standard library
/// knows Linux on.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process has used, in user mode and in the kernel.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}

/// The memory of a process that is in RAM.
pub fn rss_kib(pid: u32) -> Option<u64> {
    status(pid, "VmRSS:")
}

/// How many threads a process has.
pub fn threads(pid: u32) -> Option<u64> {
    status(pid, "Threads:")
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

fn status(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}
