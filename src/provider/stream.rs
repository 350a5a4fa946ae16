//! Errors inside an answer that began well: status 200, `text/event-stream`, and then an event that says it went wrong.
//!
//! [`Opening`] looks at the beginning, while it is still held back: as long as nothing of the answer itself has come, a
//! failure there is like a refusal, and another key may be tried. [`Watch`] looks at the rest as it passes, and holds
//! nothing back. [`judge_event`] says what an error means, by the words of refusals.

mod event;
mod extra;
pub(super) mod lines;
mod opening;
mod watch;

use std::{sync::LazyLock, time::SystemTime};

use memchr::memmem::Finder;
use serde_json::{Value, json};

use super::complaint::{Complaint, unwrapped};
use super::{Endpoint, openai, scan};
use crate::types::Verdict;
pub use extra::Extra;
pub use opening::{Opened, Opening};
pub use watch::Watch;

/// So many objects that look like an error are looked at in what isn't whole.
const MOST: usize = 16;

/// The name of an error, as a key.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));

/// What an error inside an answer means: `event` is what [`Opening`] or [`Watch`] has found, the data of an event.
///
/// There is no status and no header, so that the words decide, as in a refusal, and a number in `code` counts as the
/// status. An error that nobody has named is the server's: it had accepted the request.
#[must_use]
pub fn judge_event(event: &[u8], endpoint: Endpoint, wall: SystemTime) -> Verdict {
    let says = match serde_json::from_slice(event) {
        Ok(root) => Complaint::of(complaint_in(root)),
        // An event that was too long to be kept whole.
        Err(_) => match scan::values(event, &ERROR).take(MOST).find_map(|at| scan::object(event, at)) {
            Some((error, _)) => Complaint::of(json!({ "error": error })),
            None => Complaint::read(event),
        },
    };
    openai::judge_complaint(says, endpoint, wall)
}

/// The object that holds the complaint: the event itself, the response that failed, or the choice that did.
fn complaint_in(root: Value) -> Value {
    let mut root = unwrapped(root);
    if event::is_told(&root["error"]) {
        return root;
    }
    if let Some(response) = root.get_mut("response").filter(|response| event::is_told(&response["error"])) {
        return response.take();
    }
    let choices = root.get_mut("choices").and_then(Value::as_array_mut);
    match choices.into_iter().flatten().find(|choice| event::is_told(&choice["error"])) {
        Some(choice) => choice.take(),
        None => root,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Class, Scope};

    fn judged(event: &str) -> Verdict {
        judge_event(event.as_bytes(), Endpoint::Inference, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn nothing_unnamed_retires_a_key_or_an_account() {
        let server_error = Verdict::new(Class::ServerError, Scope::Host);
        for event in [
            "",
            "No.",
            "null",
            "[]",
            "17",
            "{}",
            r#"{"error":"No."}"#,
            r#"{"error":{"message":"Your key is no good, your account neither.","code":"novel"}}"#,
            r#"{"error":{"message":"No.","code":401.5}}"#,
            r#"{"error":{"message":"No.","code":9999}}"#,
            r#"{"type":"error","error":{"type":"odd","message":"No."}}"#,
        ] {
            assert_eq!(judged(event), server_error, "{event}");
        }
        // A number counts as a status, and no status alone retires anything.
        for code in 400..600 {
            let verdict = judged(&format!(r#"{{"error":{{"message":"No.","code":{code}}}}}"#));
            assert_ne!(verdict.class, Class::KeyRejected, "{code}");
            assert!(code == 402 || verdict.class != Class::QuotaExhausted, "{code}");
            assert_ne!(verdict.class, Class::Success, "{code}");
        }
    }

    #[test]
    fn the_complaint_is_found_wherever_it_stands() {
        let limited = Verdict::new(Class::RateLimited, Scope::AccountModel);
        for event in [
            r#"{"error":{"message":"No.","code":"rate_limit_exceeded"}}"#,
            r#"[{"error":{"message":"No.","code":"rate_limit_exceeded"}}]"#,
            r#"{"type":"error","code":"rate_limit_exceeded","message":"No.","param":null}"#,
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"No."}}}"#,
            r#"{"choices":[{"delta":{}},{"error":{"message":"No.","code":"rate_limit_exceeded"}}]}"#,
            // Cut off.
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"No."},"instru"#,
        ] {
            assert_eq!(judged(event), limited, "{event}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(event in proptest::collection::vec(any::<u8>(), 0..64), text in r#"("error"|:\{|[{}\[\]":,a])*"#) {
            for event in [&event[..], text.as_bytes()] {
                let verdict = judge_event(event, Endpoint::Inference, SystemTime::UNIX_EPOCH);
                prop_assert_ne!(verdict.class, Class::Success);
            }
        }
    }
}
