//! Where log lines go.

use std::io;

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::{LogFormat, Settings};

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be read.
    #[error("the log filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else has set one up.
    #[error("logging is set up already")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes what is left of the log when dropped.
#[derive(Debug)]
pub struct Flush(#[expect(dead_code, reason = "it works by being dropped")] WorkerGuard);

/// Sends the log of this process to standard error, as long as what is returned is kept.
///
/// Lines go through a thread of their own, several to a write: whoever reads them slowly slows no request down, and
/// when a hundred thousand are behind, the next are dropped.
///
/// # Errors
/// [`LogError`] if the filter is not valid or logging is set up already.
pub fn init(settings: &Settings) -> Result<Flush, LogError> {
    let filter = EnvFilter::builder().parse(&settings.log_filter)?;
    let (writer, guard) = NonBlocking::new(io::BufWriter::new(io::stderr()));
    let lines = fmt::layer().with_writer(writer);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    Ok(Flush(guard))
}
