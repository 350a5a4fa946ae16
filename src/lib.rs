//! key-cycle-proxy: a reverse proxy that sends every LLM request through the best of your API keys.
//!
//! The house has floors; a file uses lower floors only.
//!
//! ```text
//! 6 main → cli (→ descriptors: what the system lets us have)
//! 5 daemon (wires everything) → lifecycle (signals, drain)
//! 4 config (files, environment, older formats → the settings of each part)
//! 3 server (listener, client auth, errors, probes)
//! 2 forward (attempt loop, plan, bodies, transport)
//! 1 pool · provider (judge, limits) · client        pure, sync
//! 0 types · clock · rate · redact                   telemetry: handles usable from floor 1 up
//! ```

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
mod descriptors;
pub mod forward;
pub mod lifecycle;
pub mod pool;
pub mod provider;
pub mod rate;
pub mod redact;
pub mod server;
pub mod telemetry;
pub mod types;
