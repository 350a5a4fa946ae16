//! Which lines are logged.

use tracing_subscriber::EnvFilter;

use super::{Env, problem::Problem, section::Section};

/// The variable that every program with this kind of filter reads.
pub(super) const RUST_LOG: &str = "RUST_LOG";

/// The variable of the older systems.
pub(super) const LOG_LEVEL: &str = "LOG_LEVEL";

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// The filter in effect, if any is set: `RUST_LOG`, else `LOG_LEVEL`, else `tracing_level`.
pub(super) fn filter(observability: &mut Section<'_, '_>, env: &Env) -> Option<String> {
    let level_of_file = observability.parsed("tracing_level", level);
    let (name, result) = match (env.get(RUST_LOG), env.get(LOG_LEVEL)) {
        (Some(text), _) => (RUST_LOG, directives(text)),
        (None, Some(text)) => (LOG_LEVEL, level(text)),
        (None, None) => return level_of_file,
    };
    match result {
        Ok(filter) => Some(filter),
        Err((reason, hint)) => {
            let problem = Problem::new(Env::SOURCE, name, reason);
            observability.ledger().problems.push(Problem { hint, ..problem });
            None
        }
    }
}

/// A level in any case, or directives.
fn level(text: &str) -> Result<String, (String, Option<String>)> {
    let word = text.trim().to_ascii_lowercase();
    if word.contains(['=', ',', '[']) {
        return directives(text);
    }
    // The filter would take any other word for the name of a module, and log nothing.
    match word.as_str() {
        "warning" => Ok("warn".to_owned()),
        level if LEVELS.contains(&level) => Ok(word),
        _ => Err((format!("{text:?} is no log level"), Some(format!("one of {}", LEVELS.join(", "))))),
    }
}

fn directives(text: &str) -> Result<String, (String, Option<String>)> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err((
            format!("{text:?} is no log filter: {error}"),
            Some("such as info, or info,key_cycle_proxy=debug".to_owned()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_in_any_case_or_directives() {
        for (text, filter) in
            [("INFO", "info"), ("Warning", "warn"), (" off ", "off"), ("info,a=debug", "info,a=debug")]
        {
            assert_eq!(level(text).as_deref(), Ok(filter), "{text}");
        }
        for text in ["", "verbose", "info,a=loud", "a=b=c"] {
            assert!(level(text).is_err(), "{text}");
        }
    }
}
