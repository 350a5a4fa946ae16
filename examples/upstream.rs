//! The simulated upstream by hand: `cargo run --example upstream -- --listen 127.0.0.1:9900`.

use std::net::SocketAddr;

use clap::Parser;
use upstream::Upstream;

#[path = "../tests/support/upstream/mod.rs"]
mod upstream;

#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9900")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let upstream = Upstream::start_on(Arguments::parse().listen).await;
    upstream.count_only();
    println!("an OpenAI-compatible API for any key on {}/v1", upstream.url());
    println!("Anthropic's, Gemini's, Azure's and two plain services at their own paths");
    tokio::signal::ctrl_c().await
}
