//! Child processes that end with us.

use std::{io, process::ExitStatus, time::Duration};

use tokio::process::{Child, Command};

/// How long a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child. Killed when dropped, however that comes about.
pub struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.kill_on_drop(true).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has ended already"))?;
        Ok(Self { child, pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end.
    pub async fn terminate(&self) -> io::Result<()> {
        // The shell's own, since not every system has it as a program.
        let asked =
            Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.pid.to_string()]).status().await?;
        if asked.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
    }

    /// Asks it to end, and ends it if it does not.
    pub async fn stop(&mut self) -> io::Result<()> {
        if self.terminate().await.is_ok() && tokio::time::timeout(PATIENCE, self.ended()).await.is_ok() {
            return Ok(());
        }
        self.child.kill().await
    }
}
