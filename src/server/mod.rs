//! The listener that clients talk to.

mod settings;

pub use settings::{CorsOrigins, Settings};
