//! The command line.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use tracing::{info, warn};

use crate::{
    config::{Bind, Config, Env, Flags, Problems},
    daemon::{Daemon, StartError},
    descriptors,
    lifecycle::Lifecycle,
    telemetry,
};

/// The configuration or the command line is wrong (`EX_USAGE` of sysexits.h).
const YOURS: u8 = 64;
/// We failed, or the machine did.
const OURS: u8 = 1;
/// A daemon that does not answer a health check in this time is not healthy.
const HEALTH_PATIENCE: Duration = Duration::from_secs(3);

/// A reverse proxy that sends every LLM request through the best of your API keys.
#[derive(Debug, Parser)]
#[command(name = "key-cycle-proxy", version, about)]
struct Cli {
    /// Read this file (.toml, .json, .yaml or .yml) and no other.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here, whatever the files say: an address with a port, or without one.
    #[arg(long, global = true, value_name = "ADDR")]
    bind: Option<Bind>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Default, Subcommand)]
enum Command {
    /// Serve (the default).
    #[default]
    Serve,
    /// Validate the configuration and print what it comes to.
    Check,
    /// Ask the running daemon whether it serves: for container health checks.
    Health,
}

/// Why a command did not do what it says.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] Problems),
    #[error("key-cycle-proxy: {0}")]
    Start(#[from] StartError),
    #[error("key-cycle-proxy: cannot set up logging: {0}")]
    Log(#[from] telemetry::LogError),
    #[error("key-cycle-proxy: {0}")]
    System(#[from] io::Error),
    #[error("key-cycle-proxy: the daemon at {address} is not healthy: {reason}")]
    Unhealthy { address: SocketAddr, reason: String },
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => YOURS.into(),
            Self::Start(_) | Self::Log(_) | Self::System(_) | Self::Unhealthy { .. } => OURS.into(),
        }
    }
}

/// Runs the command that the arguments of this process name.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            let _ = told.print();
            return if told.use_stderr() { YOURS.into() } else { ExitCode::SUCCESS };
        }
    };
    match command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

fn command(cli: Cli) -> Result<(), Failure> {
    let folder = Path::new(".");
    let env = Env::from_process(folder);
    let flags = Flags { config: cli.config, bind: cli.bind };
    let config = Config::load(&flags, &env, folder)?;
    match cli.command.unwrap_or_default() {
        Command::Serve => serve(config),
        Command::Check => Ok(check(&config)?),
        Command::Health => health(config.server.bind),
    }
}

fn serve(config: Config) -> Result<(), Failure> {
    descriptors::make_room(config.server.max_connections.get());
    let _flush = telemetry::init(&config.telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        for source in &config.notes.sources {
            info!("{source}");
        }
        for warning in &config.notes.warnings {
            warn!("{warning}");
        }
        let keys = config.all_keys().count();
        let daemon = Daemon::bind(config)?;
        let lifecycle = Lifecycle::default();
        let signals = lifecycle.follow_signals()?;
        info!(address = %daemon.address()?, keys, "listening");
        if let Some(address) = daemon.metrics_address()? {
            info!(%address, "metrics at /metrics");
        }
        let run = daemon.run(lifecycle);
        tokio::pin!(run);
        tokio::select! {
            _ = &mut run => {}
            () = signals => {
                run.await;
            }
        }
        Ok(())
    })
}

fn check(config: &Config) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for source in &config.notes.sources {
        writeln!(out, "# {source}")?;
    }
    for warning in &config.notes.warnings {
        writeln!(out, "# warning: {warning}")?;
    }
    writeln!(out, "{}", config.render().trim_end())
}

fn health(bind: SocketAddr) -> Result<(), Failure> {
    let address = reachable(bind);
    let unhealthy = |reason: String| Failure::Unhealthy { address, reason };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(HEALTH_PATIENCE).build()?;
        Ok(client.get(format!("http://{address}/health")).send().await?.status())
    });
    match status {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err(unhealthy(format!("it answers {status}"))),
        Err(error) => Err(unhealthy(innermost(&error))),
    }
}

/// Where this machine reaches what is bound to all its addresses.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_daemon_on_all_addresses_is_asked_on_loopback() {
        let reach = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reach("[::]:80"), "[::1]:80");
        assert_eq!(reach("192.0.2.1:80"), "192.0.2.1:80");
    }
}
