//! The program itself between a simulated upstream and a load, beside nginx: `cargo bench --bench end_to_end`.
//!
//! Everything runs on this machine's loopback. The upstream and the load are in this process, on a thread each; the
//! proxies are children with one worker thread each. `--quick` measures next to nothing and is for seeing that every
//! request succeeds.

mod contenders;
mod events;
mod limits;
mod load;
mod measure;
mod nginx;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod upstream;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use contenders::Field;
use measure::{Figures, Memory, Size};
use nginx::Nginx;
use report::Column;
use support::Result;

/// Measures the release binary between a simulated upstream and a load, beside nginx where it is installed.
#[derive(Parser)]
#[command(name = "end_to_end")]
struct Arguments {
    /// One short round: about ten seconds, enough to see that every request succeeds.
    #[arg(long)]
    quick: bool,
    /// Measure this binary [default: the one that was built with this bench].
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_key-cycle-proxy"), hide_default_value = true)]
    binary: PathBuf,
    /// Worker threads of key-cycle-proxy; nginx has one.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    workers: usize,
    /// What `cargo bench` says. Without it, as under `cargo test`, the run is quick.
    #[arg(long, hide = true)]
    bench: bool,
}

const FULL: Size =
    Size { rounds: 5, during: Duration::from_millis(1200), streams: 100, events: 50, silent_streams: 1000 };
const QUICK: Size = Size { rounds: 1, during: Duration::from_millis(500), silent_streams: 200, ..FULL };
/// Between two events of a stream.
const EVENT_EVERY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let size = if arguments.quick || !arguments.bench { QUICK } else { FULL };
    let run = || {
        let silent_streams = limits::room_for(size.silent_streams)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                all_well = run(&arguments, Size { silent_streams, ..size }) => all_well,
                interruption = support::interruption() => Err(interruption),
            }
        })
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("end_to_end: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False: something failed.
async fn run(arguments: &Arguments, size: Size) -> Result<bool> {
    let upstream = upstream::start(upstream::Pace { events: size.events, every: EVENT_EVERY })?;
    let field = Field {
        upstream,
        nginx: Nginx::find().await,
        binary: arguments.binary.clone(),
        workers: arguments.workers,
    };
    let memories = memories(&field, size).await?;
    let contenders = field.line_up().await?;
    let mut rounds: Vec<Vec<Figures>> = Vec::new();
    for contender in &contenders {
        let failed = measure::warm_up(contender.target(), size).await;
        // Figures of nothing but failures.
        rounds.push(Vec::from_iter((failed > 0).then(|| Figures { failed, ..Figures::default() })));
    }
    for number in 1..=size.rounds {
        eprintln!("round {number} of {}", size.rounds);
        // One after the other in each round, so that what the machine does beside us meets all of them.
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push(measure::round(contender.target(), size).await);
        }
    }
    let mut columns = Vec::new();
    for ((contender, rounds), memory) in contenders.into_iter().zip(&rounds).zip(memories) {
        columns.push(Column { name: contender.name(), figures: measure::summary(rounds), memory });
        contender.stop().await?;
    }
    println!("\n{}\n{}", report::table(&columns, size), notes(&field, size));
    let mut all_well = true;
    for Column { name, figures, .. } in &columns {
        let failed = figures.failed + figures.lost + figures.repeated;
        if failed > 0 {
            println!("\n{name}: {failed} requests or events FAILED: not a measurement.");
            all_well = false;
        }
    }
    Ok(all_well)
}

/// Of processes that have done nothing else before.
async fn memories(field: &Field, size: Size) -> Result<Vec<Memory>> {
    let mut memories = Vec::new();
    for contender in field.line_up().await? {
        memories.push(measure::memory(contender.target(), size).await?);
        contender.stop().await?;
    }
    Ok(memories)
}

fn notes(field: &Field, size: Size) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rounds =
        if size.rounds == 1 { "One round".to_owned() } else { format!("Medians of {} rounds", size.rounds) };
    let nginx = match &field.nginx {
        Some(nginx) => format!("nginx {}: one worker, no access log, nothing buffered.", nginx.version),
        None => "nginx is not installed, so there is no column for it.".to_owned(),
    };
    let (workers, s) = (field.workers, if field.workers == 1 { "" } else { "s" });
    format!(
        "{rounds} on {cores} cores, which upstream, load and proxy share: figures to compare within \
         a run, not absolutes. Latencies of the proxies are what they add to direct. key-cycle-proxy {}: defaults \
         (one line of log per request), ten keys, {workers} worker{s}. {nginx}",
        env!("CARGO_PKG_VERSION")
    )
}
