//! File descriptors: each connection takes one.

#[cfg(unix)]
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    stdio::stdin,
};

/// A table for so many takes half a megabyte of the kernel's.
#[cfg(unix)]
const MOST_AT_ONCE: u64 = 65_536;

/// Lets this process have as many as it may, and the kernel make room for about as many as `connections` take, two
/// each. To be called before the first thread is started: later, Linux makes room with every doubling, and holds up
/// whoever opens a descriptor until all cores have gone through a quiet moment, for ten milliseconds and more.
#[cfg(unix)]
pub(crate) fn make_room(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // The limit that comes first is that low for programs that know descriptors below 1,024 only.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(2);
    let last = wanted.min(limit).min(MOST_AT_ONCE).saturating_sub(1);
    if let Ok(last) = i32::try_from(last) {
        // Opened and closed again: the table stays as large as that.
        let _ = fcntl_dupfd_cloexec(stdin(), last);
    }
}

/// Other systems know no such limit.
#[cfg(not(unix))]
pub(crate) fn make_room(_connections: usize) {}
