//! Rotation to look at, without a single real key and without a network: `cargo run --example demo`.
//!
//! A simulated upstream knows six keys, each with a character of its own. The daemon in front of it is the real one,
//! configured by a file as yours would be. With `--once` the demo sends twenty requests itself, tells what became of
//! them, and ends.

use std::{collections::BTreeMap, error::Error, net::SocketAddr, process::ExitCode, time::Duration};

use clap::Parser;
use key_cycle_proxy::{
    config::{Config, Env, Flags},
    daemon::Daemon,
    lifecycle::Lifecycle,
    telemetry,
};
use serde_json::json;
use upstream::{Character, Upstream};

#[path = "../tests/support/upstream/mod.rs"]
mod upstream;

/// How many requests `--once` sends.
const REQUESTS: usize = 20;

/// Six keys of different character behind the proxy; no real key, no network.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Where the proxy listens [default: 127.0.0.1:8080; with --once a free port].
    #[arg(long, value_name = "ADDR")]
    bind: Option<SocketAddr>,
    /// Where metrics are [default: 127.0.0.1:9090; with --once or --bind a free port].
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Send twenty requests, say what became of them, and end.
    #[arg(long)]
    once: bool,
}

/// One key and how it behaves.
struct Part {
    label: &'static str,
    character: Character,
    story: &'static str,
}

impl Part {
    /// Made up, and known to the simulated upstream alone.
    fn secret(&self) -> String {
        format!("sk-demo-{}", self.label)
    }
}

const CAST: [Part; 6] = [
    Part { label: "good", character: Character::Good, story: "answers at once" },
    Part {
        label: "slow",
        character: Character::Slow(Duration::from_millis(250)),
        story: "answers after 250 ms",
    },
    Part {
        label: "limited",
        character: Character::RateLimited { rps: 0.5, burst: 2 },
        story: "one request in 2 s after a burst of two, else 429",
    },
    Part { label: "revoked", character: Character::Revoked, story: "401 invalid_api_key" },
    Part {
        label: "flaky",
        character: Character::Flaky { probability: 0.5, seed: 7 },
        story: "every other time a 500 or a reset connection",
    },
    Part { label: "broke", character: Character::OutOfQuota, story: "429 insufficient_quota" },
];

#[tokio::main]
async fn main() -> ExitCode {
    match demo(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let upstream = Upstream::start().await;
    upstream.unknown_keys_are_rejected();
    upstream.count_only();
    for part in &CAST {
        upstream.key(&part.secret()).is(part.character);
    }
    let config = configure(arguments, &upstream.url())?;
    // Key ids are what logs, metrics and headers show.
    let labels: BTreeMap<String, String> = config
        .keys
        .iter()
        .map(|key| (key.id().to_string(), key.settings().label.clone().unwrap_or_default()))
        .collect();
    telemetry::init(&config.telemetry)?;
    let daemon = Daemon::bind(config)?;
    let address = daemon.address()?;
    let lifecycle = Lifecycle::default();
    let signals = lifecycle.follow_signals()?;
    introduce(&labels);
    if arguments.once {
        let requests = async {
            let served = send(address, &labels).await;
            lifecycle.stop.cancel();
            served
        };
        let (_, served) = tokio::join!(daemon.run(lifecycle.clone()), requests);
        return summarize(&upstream, &served?);
    }
    if let Some(metrics) = daemon.metrics_address()? {
        explain(address, metrics);
    }
    let run = daemon.run(lifecycle);
    tokio::pin!(run);
    tokio::select! {
        _ = &mut run => {}
        // The second Ctrl-C cuts what is still under way.
        () = signals => drop(run.await),
    }
    Ok(())
}

/// What `config.toml` says, and what the command line of the demo adds.
fn configure(arguments: &Arguments, upstream: &str) -> Result<Config, Box<dyn Error>> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let bind = arguments.bind.unwrap_or_else(|| local(if arguments.once { 0 } else { 8080 }));
    let usual = !arguments.once && arguments.bind.is_none();
    let metrics = arguments.metrics.unwrap_or_else(|| local(if usual { 9090 } else { 0 }));
    // One line for each failed attempt too, unless there is a table instead.
    let log = if arguments.once { "error" } else { "info,key_cycle_proxy::proxy=debug" };
    let mut toml = format!(
        "[upstream]\nbase_url = \"{upstream}\"\n\
         [observability]\nmetrics_bind = \"{metrics}\"\ndebug_headers = true\ntracing_level = \"{log}\"\n"
    );
    for part in &CAST {
        toml += &format!("[[keys.pool]]\nkey = \"{}\"\nlabel = \"{}\"\n", part.secret(), part.label);
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config.toml");
    std::fs::write(&file, toml)?;
    // Your own environment stays out of it: there may be real keys in it.
    Ok(Config::load(&Flags { config: Some(file), bind: Some(bind.into()) }, &Env::default(), folder.path())?)
}

fn introduce(labels: &BTreeMap<String, String>) {
    println!("six keys:");
    for part in &CAST {
        let id = labels.iter().find(|(_, label)| *label == part.label).map_or("", |(id, _)| id);
        println!("  {id}  {:<8} {}", part.label, part.story);
    }
}

/// What to type.
fn explain(address: SocketAddr, metrics: SocketAddr) {
    print!(
        r#"
the proxy listens on http://{address}; any API key will do. Try, as often as you like:

  curl -i http://{address}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "gpt-4o", "messages": [{{"role": "user", "content": "hello there"}}]}}'

  x-key-cycle-key names the key that served, x-key-cycle-attempts how many were asked. A stream:

  curl -N http://{address}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "gpt-4o", "stream": true, "messages": [{{"role": "user", "content": "hello there"}}]}}'

Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="http://{address}/v1", api_key="anything")
  message = {{"role": "user", "content": "hello there"}}
  print(client.chat.completions.create(model="gpt-4o", messages=[message]).choices[0].message.content)

Node (npm install openai):

  import OpenAI from "openai";
  const client = new OpenAI({{ baseURL: "http://{address}/v1", apiKey: "anything" }});
  const messages = [{{ role: "user", content: "hello there" }}];
  const answer = await client.chat.completions.create({{ model: "gpt-4o", messages }});
  console.log(answer.choices[0].message.content);

Metrics: curl http://{metrics}/metrics
Ctrl-C ends the demo. Below: each request, and each attempt that failed.

"#
    );
}

/// Sends the requests and prints what became of each. Returns how many answers each label gave.
async fn send(
    address: SocketAddr,
    labels: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, usize>, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let body =
        json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello there"}]}).to_string();
    let mut served = BTreeMap::new();
    println!("\nrequest  status  key       attempts");
    for number in 1..=REQUESTS {
        let request = client.post(format!("http://{address}/v1/chat/completions")).body(body.clone());
        let answer = request.header("content-type", "application/json").send().await?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        let label = labels.get(header("x-key-cycle-key")).map_or("-", String::as_str).to_owned();
        let status = answer.status().as_u16();
        println!("{number:>7}  {status:>6}  {label:<8}  {:>8}", header("x-key-cycle-attempts"));
        answer.bytes().await?;
        if status == 200 {
            *served.entry(label).or_default() += 1;
        }
    }
    Ok(served)
}

fn summarize(upstream: &Upstream, served: &BTreeMap<String, usize>) -> Result<(), Box<dyn Error>> {
    println!("\nkey       asked  answered");
    for part in &CAST {
        let (asked, answered) =
            (upstream.calls(&part.secret()), served.get(part.label).copied().unwrap_or(0));
        println!("{:<8}  {asked:>5}  {answered:>8}", part.label);
    }
    let answered: usize = served.values().sum();
    println!("\n{answered} of {REQUESTS} requests were answered");
    if answered == REQUESTS { Ok(()) } else { Err("requests were refused".into()) }
}
