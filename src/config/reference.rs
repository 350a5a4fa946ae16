//! Credentials that a file names instead of holding: `env:NAME` and `file:PATH`.

use std::borrow::Cow;

use super::{Env, problem::Problem, read::read_text, tree::Place};

/// The text that `text` stands for: what a variable or a file holds, trimmed, else `text` itself.
///
/// The problem never quotes the text: what follows the colon may be a key, put there by mistake.
pub(super) fn resolve<'t>(text: &'t str, place: &Place, env: &'t Env) -> Result<Cow<'t, str>, Problem> {
    if let Some(name) = text.strip_prefix("env:") {
        return env.get(name.trim()).map(Cow::Borrowed).ok_or_else(|| {
            place.problem("the variable that `env:` names is not set, or empty").hint("env:NAME, without a $")
        });
    }
    if let Some(path) = text.strip_prefix("file:") {
        let folder = &place.source.folder;
        let text = read_text(&folder.join(path.trim())).map_err(|reason| {
            let hint = format!("a relative path starts at {}", folder.display());
            place.problem(format!("the file that `file:` names: {reason}")).hint(hint)
        })?;
        return Ok(Cow::Owned(text.trim_start_matches('\u{feff}').trim().to_owned()));
    }
    Ok(Cow::Borrowed(text))
}

/// Whether `text` stands for something else.
pub(super) fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}
