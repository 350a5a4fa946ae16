//! One request, from in to out.

mod policy;
pub mod transport;

pub use policy::{Backoff, InvalidBackoff, Policy};
