//! The binary: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    key_cycle_proxy::cli::run()
}
