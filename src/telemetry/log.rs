//! Where log lines go.

use std::io;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::{
    LogFormat, Settings,
    line::Plain,
    sink::{Flush, Sink},
};
use crate::clock::Clock;

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be read.
    #[error("the log filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else has set one up.
    #[error("logging is set up already")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
    /// There is no thread for it.
    #[error("there can be no thread for the log: {0}")]
    Thread(#[from] io::Error),
}

/// Sends the log of this process to standard error, as long as what is returned is kept.
///
/// Lines go through a thread of their own, many to a write: whoever reads them slowly slows no request down, and when
/// 16 MiB are behind, the next are dropped.
///
/// # Errors
/// [`LogError`] if the filter is not valid, logging is set up already, or there can be no thread.
pub fn init(settings: &Settings) -> Result<Flush, LogError> {
    let filter = EnvFilter::builder().parse(&settings.log_filter)?;
    let (sink, flush) = Sink::new(io::stderr())?;
    let lines = fmt::layer().with_writer(sink).with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
    let lines = match settings.log_format {
        LogFormat::Text => lines.event_format(Plain(Clock::system())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(flush)
}
