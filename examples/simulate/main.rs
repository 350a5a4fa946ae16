//! Hours of traffic through the pool itself, in seconds: `cargo run --release --example simulate`.
//!
//! Accounts with limits, bursts, outages and bad keys are simulated on a virtual clock, and the pool is driven as the
//! forwarder drives it. Beside it the same requests go through plain round robin, and through one who sees everything.

mod agenda;
mod floors;
mod ours;
mod report;
mod robin;
mod scenario;
mod seer;
mod svg;
mod tally;
mod traffic;
mod upstream;
mod world;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use key_cycle_proxy::{clock::Clock, forward::Policy, pool::Settings};
use ours::Ours;
use report::Outcome;
use robin::Robin;
use scenario::Scenario;
use seer::Seer;
use world::World;

/// Simulates traffic through the pool, prints a table, and says what is worse than it was.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// A tenth of the traffic where it is most.
    #[arg(long)]
    quick: bool,
    /// Only the scenarios whose names begin with this.
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Write a plot there.
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// What chance begins with.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = Scenario::all().into_iter().filter(|scenario| scenario.name.starts_with(&arguments.only));
    let reduced = |scenario: Scenario| if arguments.quick { scenario.reduced() } else { scenario };
    let mut outcomes: Vec<Outcome> =
        chosen.map(reduced).map(|scenario| simulate(scenario, arguments.seed)).collect();
    println!("{}", report::table(&mut outcomes));
    if let Some(path) = &arguments.svg
        && let Err(error) = std::fs::write(path, svg::plot(&outcomes))
    {
        eprintln!("simulate: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    let complaints: Vec<String> = outcomes.iter_mut().flat_map(Outcome::complaints).collect();
    if complaints.is_empty() {
        println!("all well");
        return ExitCode::SUCCESS;
    }
    println!("NOT WELL\n\n{}", complaints.join("\n"));
    ExitCode::FAILURE
}

/// The same requests, three times.
fn simulate(scenario: Scenario, seed: u64) -> Outcome {
    let start = Clock::system().mono();
    let (policy, settings) = (Policy::default(), Settings::default());
    let most = settings.max_waiting.get();
    let ours = World::run(&scenario, start, seed, &mut Ours::new(&scenario, &policy, settings, seed));
    let robin = World::run(&scenario, start, seed, &mut Robin::new(&scenario));
    let optimum = World::run(&scenario, start, seed, &mut Seer::new(&scenario, policy.max_wait, most));
    let took = Clock::system().mono().saturating_duration_since(start);
    eprintln!("{}: {} requests in {:.1} s", scenario.name, 3 * ours.offered, took.as_secs_f64());
    Outcome { scenario, ours, robin, optimum }
}
