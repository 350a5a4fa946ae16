//! A million requests through the program itself, against an upstream that misbehaves and clients that leave:
//! `cargo build --release && cargo run --release --example soak`.
//!
//! Nothing may be left behind (memory, descriptors, requests counted as under way), and no request may fail that the
//! upstream would have served.

mod client;
mod drain;
mod keys;
#[path = "../../benches/support/mod.rs"]
mod support;
mod traffic;
mod upstream;
mod watch;
mod wish;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use clap::Parser;
use client::Client;
use drain::Stopped;
use support::{Result, daemon::Daemon, now};
use traffic::{Numbers, Tally};
use upstream::Upstream;
use watch::Sample;
use wish::{Answer, Wish};

/// How many times the load pauses and the daemon is looked at.
const PARTS: u64 = 10;
/// So much may the memory grow from 20 % of the requests (the middle one of 20, 30 and 40 %) to 100 % (of 80, 90 and
/// 100 %). One look alone would be off by some hundred KiB.
const GROWTH_KIB: u64 = 1024;
/// The same where chance has more of a say: in a short run, and where the allocator keeps what is freed.
const LOOSE_GROWTH_KIB: u64 = 4096;
const SHORT: u64 = 500_000;
/// How many failures of a kind are told in full.
const TOLD: usize = 10;
/// Tells glibc's allocator to give large blocks and free ends of its heap back to the system at once. By itself it keeps
/// an amount that depends on chance, more than what would have to be noticed.
const GIVE_BACK: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")];

/// Sends requests of every kind through the release binary, with faults on both sides, and looks at what is left
/// behind.
///
/// The binary is not built with the example: `cargo build --release` first.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How many.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000)]
    requests: u64,
    /// The binary [default: key-cycle-proxy in the folder above this program's].
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How many clients there are at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    clients: usize,
    /// What a key may serve at once; 0 is any number. Usually less in all than the clients ask for: requests wait.
    #[arg(long, value_name = "NUMBER", default_value_t = 6)]
    per_key: u32,
    /// Leave the allocator as users have it. What it keeps for later then counts as used: 2 MiB more or less.
    #[arg(long)]
    keep_freed: bool,
    /// What chance begins with.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                complaints = soak(&arguments) => complaints,
                interruption = support::interruption() => Err(interruption),
            }
        })
    };
    match run() {
        Ok(complaints) if complaints.is_empty() => {
            println!("\nall well");
            ExitCode::SUCCESS
        }
        Ok(complaints) => {
            println!("\nNOT WELL\n\n{}", complaints.join("\n"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is wrong.
async fn soak(arguments: &Arguments) -> Result<Vec<String>> {
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => beside_this_program()?,
    };
    let mut rng = fastrand::Rng::with_seed(arguments.seed);
    let upstream = Upstream::start(rng.u64(..))?;
    let variables = if arguments.keep_freed { &[][..] } else { &GIVE_BACK[..] };
    let daemon = Daemon::start(&binary, &configuration(&upstream, arguments.per_key), variables).await?;
    println!(
        "{} requests by {} clients through {}\n",
        arguments.requests,
        arguments.clients,
        binary.display()
    );
    let (numbers, mut tally, begun) = (Numbers::default(), Tally::default(), now());
    let mut samples = vec![before(&daemon, &upstream).await?];
    for part in 1..=PARTS {
        let end = arguments.requests * part / PARTS;
        tally.add(traffic::send(daemon.address, arguments.clients, &numbers, end, &mut rng).await);
        let at = format!("{} %", part * 100 / PARTS);
        samples.push(Sample::when(&daemon, &at, Sample::is_idle).await?);
        eprintln!("{at}, {} failed, {} s", tally.failed, now().saturating_duration_since(begun).as_secs());
    }
    upstream.close_idle();
    let before = samples[0].clone();
    let has_settled = |sample: &Sample| sample.is_idle() && !sample.holds_more_than(&before);
    samples.push(Sample::when(&daemon, "upstream closed", has_settled).await?);
    let stopped = drain::stop(daemon, &upstream, arguments.clients, &numbers, &mut rng).await?;
    println!("{}\n{}\n{}", watch::table(&samples), kinds(&tally), faults(&upstream));
    println!(
        "\nSIGTERM under load: {} after {:.1} s, {} requests answered before and after it, {} turned away unread",
        stopped.ending,
        stopped.took.as_secs_f64(),
        stopped.answered,
        stopped.turned_away
    );
    let is_loose = arguments.requests < SHORT || arguments.keep_freed;
    let growth = if is_loose { LOOSE_GROWTH_KIB } else { GROWTH_KIB };
    let mut complaints = complaints(&samples, growth, tally, stopped);
    let garbled = upstream.counts().garbled.load(Ordering::Relaxed);
    if garbled > 0 {
        complaints.push(format!("{garbled} requests reached the upstream changed, or with a strange key"));
    }
    Ok(complaints)
}

/// The daemon before the load, but for one request, with which it starts what it needs from then on.
async fn before(daemon: &Daemon, upstream: &Upstream) -> Result<Sample> {
    let fresh = Sample::take(daemon, "fresh").await?;
    let wish = Wish { id: 0, delay: Duration::ZERO, answer: Answer::Document { padding: 0 } };
    Client::new(daemon.address).on_its_own(&wish).await?;
    upstream.close_idle();
    let has_settled = |sample: &Sample| sample.is_idle() && sample.descriptors == fresh.descriptors;
    Sample::when(daemon, "before", has_settled).await
}

/// Cargo puts examples into a folder beside the binaries.
fn beside_this_program() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).unwrap_or(Path::new("."));
    let binary = folder.join(format!("key-cycle-proxy{}", std::env::consts::EXE_SUFFIX));
    if binary.is_file() {
        return Ok(binary);
    }
    Err(format!("{} is not there: `cargo build --release` first, or --binary PATH", binary.display()).into())
}

/// The defaults, but for where everything is and what a key may do at once.
fn configuration(upstream: &Upstream, per_key: u32) -> String {
    let mut text = format!(
        "[upstream]\nbase_url = \"http://{}/v1\"\n[observability]\nmetrics_bind = \"127.0.0.1:0\"\n",
        upstream.address
    );
    for (name, _) in keys::ALL {
        let key = keys::secret(name);
        text += &format!("[[keys.pool]]\nkey = \"{key}\"\nlabel = \"{name}\"\n");
        if per_key > 0 {
            text += &format!("max_in_flight = {per_key}\n");
        }
    }
    text
}

fn kinds(tally: &Tally) -> String {
    let mut text = "| requests that went as they should | |\n|---|--:|\n".to_owned();
    for (kind, count) in &tally.well {
        text += &format!("| {} | {count} |\n", kind.as_str());
    }
    text
}

fn faults(upstream: &Upstream) -> String {
    let counts = upstream.counts();
    let get = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    format!(
        "upstream: {} connections, {} answers, {} times 429, {} times 401, {} times 500, {} connections broken before \
         an answer, {} within one, {} dropped while idle",
        get(&counts.connections),
        get(&counts.answered),
        get(&counts.limited),
        get(&counts.rejected),
        get(&counts.failed),
        get(&counts.broken_before),
        get(&counts.broken_within),
        get(&counts.dropped_idle)
    )
}

fn complaints(samples: &[Sample], most_growth: u64, tally: Tally, stopped: Stopped) -> Vec<String> {
    let mut complaints = Vec::new();
    if tally.failed > 0 {
        complaints.push(format!("{} requests failed; the first of them:", tally.failed));
        complaints.extend(tally.told.into_iter().take(TOLD));
    }
    for sample in samples.iter().filter(|sample| !sample.is_idle()) {
        complaints.push(format!("{}: requests are counted as under way that are not", sample.at));
    }
    let [before, _, warm @ .., closed] = samples else { return complaints };
    if closed.holds_more_than(before) {
        complaints.push("more descriptors or tasks are left than there were before the load".to_owned());
    }
    let late = warm.last_chunk::<3>().map_or(0, middle);
    let growth = late.saturating_sub(warm.first_chunk::<3>().map_or(0, middle));
    if growth > most_growth {
        complaints.push(format!("the memory has grown by {growth} KiB"));
    }
    if stopped.panics > 0 {
        complaints.push(format!("{} panics in the log", stopped.panics));
    }
    if !stopped.failures.is_empty() {
        complaints.push(format!("{} failures around SIGTERM; the first of them:", stopped.failures.len()));
        complaints.extend(stopped.failures.into_iter().take(TOLD));
    }
    complaints
}

/// The middle of three amounts of memory.
fn middle(samples: &[Sample; 3]) -> u64 {
    let mut amounts = [0, 1, 2].map(|at| samples[at].rss_kib.unwrap_or_default());
    amounts.sort_unstable();
    amounts[1]
}
