//! Which key, and is it well? Pure and sync: no I/O, no task; the time and the random source are arguments.

mod settings;

pub use settings::{Settings, Strategy, UnknownStrategy};
