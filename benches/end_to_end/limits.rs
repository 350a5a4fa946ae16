//! How many descriptors this process may have: a thousand open streams take two thousand here, and as many in a proxy.

use std::process::Command;

use crate::support::Result;

/// What is open beside the streams.
const OTHERS: usize = 200;

/// How many streams can be open at once, of those that are `wanted`.
///
/// Where the limit can be raised, this process starts anew with a higher one, and so do its children.
pub(crate) fn room_for(wanted: usize) -> Result<usize> {
    let needed = 2 * wanted + OTHERS;
    let Ok(told) = Command::new("sh").args(["-c", "ulimit -Sn; ulimit -Hn"]).output() else {
        return Ok(wanted);
    };
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let mut limits = told.lines().map(|limit| limit.parse().unwrap_or(usize::MAX));
    let (soft, hard) = (limits.next().unwrap_or(usize::MAX), limits.next().unwrap_or(usize::MAX));
    if soft >= needed {
        return Ok(wanted);
    }
    #[cfg(unix)]
    if hard >= needed {
        use std::os::unix::process::CommandExt as _;
        let program = std::env::current_exe()?;
        let raise = ["-c", "ulimit -Sn \"$0\" && exec \"$@\"", &needed.to_string()];
        let failed = Command::new("sh").args(raise).arg(program).args(std::env::args_os().skip(1)).exec();
        return Err(format!("cannot start anew with {needed} descriptors: {failed}").into());
    }
    Ok(soft.min(hard).saturating_sub(OTHERS) / 2)
}
