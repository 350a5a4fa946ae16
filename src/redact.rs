//! Removing credentials from text that others wrote, on its way to a client, a log or a store.
//!
//! Providers quote the key they refuse, whole or in part; so whatever looks like one goes, ours or not.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::HeaderValue;
use regex::bytes::Regex;

use crate::types::Secret;

/// What stands where a credential stood.
const MARK: &[u8] = b"[redacted]";

/// A "credential" shorter than this is a placeholder (`-`, `x`, `no`), and replacing it would only spoil the text.
const SHORTEST: usize = 4;

/// What looks like a credential. Where a group is named `it`, only the group is.
const LOOKS: [&str; 6] = [
    // By the prefixes that providers give their keys, also with stars or dots in the middle.
    r"\b(?:sk[-_]|AIza|gsk_|xai-)(?:[A-Za-z0-9_.*-]|\xE2\x80\xA6){5,}[A-Za-z0-9_*-]",
    // By prefixes that other words begin with, too: `hf_transfer`.
    r"\b(?:AQ\.|hf_|r8_|fw_|rk-|pplx-|csk-|nvapi-|tgp_v1_|AKIA|ghp_|github_pat_)[A-Za-z0-9_-]{16,}",
    // Partly masked, without a prefix that we know: `****eek`, `na***ys`.
    r"[A-Za-z0-9_-]+\*{3,}[A-Za-z0-9_*-]*|\*{3,}[A-Za-z0-9_-]{2,}",
    // In a header. Words of a sentence ("bearer authentication") are shorter.
    r"(?i:\bbearer\s+)(?<it>[A-Za-z0-9._~+/*-]{16,}=*)",
    // In a URL.
    r#"[?&](?i:key|api[-_]?key|access_token|token)=(?<it>[^&\s"'<>#\\]+)"#,
    // A JSON web token.
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
];

static LOOKS_LIKE_A_CREDENTIAL: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let compiled = LOOKS.iter().map(|look| Regex::new(&format!("(?-u){look}")));
    compiled.collect::<Result<_, _>>().expect("the patterns are constants, and a test compiles them")
});

/// `text` without any of `secrets`, and without anything that looks like a credential.
#[must_use]
pub fn scrub<'a>(text: &'a [u8], secrets: &[&Secret]) -> Cow<'a, [u8]> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for secret in secrets.iter().map(|secret| secret.expose().as_bytes()) {
        if secret.len() >= SHORTEST {
            found.extend(memchr::memmem::find_iter(text, secret).map(|at| (at, at + secret.len())));
        }
    }
    for look in LOOKS_LIKE_A_CREDENTIAL.iter() {
        found.extend(look.captures_iter(text).filter_map(|captures| {
            let it = captures.name("it").or_else(|| captures.get(0))?;
            Some((it.start(), it.end()))
        }));
    }
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable();
    let mut clean = Vec::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in found {
        // What overlaps the one before belongs to it.
        if start >= done {
            clean.extend_from_slice(&text[done..start]);
            clean.extend_from_slice(MARK);
        }
        done = done.max(end);
    }
    clean.extend_from_slice(&text[done..]);
    Cow::Owned(clean)
}

/// `value` cleaned as [`scrub`] does; `None` if there is nothing to clean and it can stay as it is.
#[must_use]
pub fn scrub_header(value: &HeaderValue, secrets: &[&Secret]) -> Option<HeaderValue> {
    match scrub(value.as_bytes(), secrets) {
        Cow::Borrowed(_) => None,
        // What was cut out of a header value leaves one.
        Cow::Owned(clean) => {
            Some(HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static("[redacted]")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrubbed(text: &str, secrets: &[&str]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new(text).unwrap()).collect();
        let clean = scrub(text.as_bytes(), &secrets.iter().collect::<Vec<_>>()).into_owned();
        String::from_utf8(clean).unwrap()
    }

    #[test]
    fn text_without_credentials_is_borrowed_unchanged() {
        for text in [
            "",
            "Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000.",
            "task-force-nine ask-me-anything risk-assessment sk-learn hf_transfer",
            "Missing bearer authentication in header",
            "You must pass Bearer auth. key-value pairs, monkey=banana",
            "*** bold *** and ******",
            "https://api.example.com/v1/models?limit=20&keys=none",
        ] {
            assert!(matches!(scrub(text.as_bytes(), &[]), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn secrets_go_wherever_they_stand() {
        assert_eq!(scrubbed("a hunter22 b,hunter22!", &["hunter22"]), "a [redacted] b,[redacted]!");
        assert_eq!(scrubbed("abcdefgh", &["abcdef", "defgh"]), "[redacted]");
        assert_eq!(scrubbed("local server says no", &["no"]), "local server says no");
    }

    #[test]
    fn what_looks_like_a_credential_goes() {
        for (text, clean) in [
            (
                "Incorrect API key provided: sk-abcd***********wxyz. You can",
                "Incorrect API key provided: [redacted]. You can",
            ),
            ("sk-proj-A1b2_C3d4-E5f6", "[redacted]"),
            ("(sk-ant-api03-A1b2C3d4)", "([redacted])"),
            ("sk-or-v1-0123456789abcdef", "[redacted]"),
            ("consumer 'api_key:AIzaSyA1b2C3d4E5f6' has", "consumer 'api_key:[redacted]' has"),
            ("{\"k\":\"gsk_A1b2C3d4E5\"}", "{\"k\":\"[redacted]\"}"),
            ("xai-A1b2C3d4E5", "[redacted]"),
            ("nvapi-A1b2C3d4E5A1b2C3d4E5", "[redacted]"),
            ("Your api key: ****a15b is invalid", "Your api key: [redacted] is invalid"),
            ("provided: na***ys. You", "provided: [redacted]. You"),
            ("sk-ab…wxyz", "[redacted]"),
            ("Authorization: Bearer abcDEF0123456789._~+/==", "Authorization: Bearer [redacted]"),
            ("GET /v1/models?key=abc123&alt=sse", "GET /v1/models?key=[redacted]&alt=sse"),
            ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "[redacted]"),
        ] {
            assert_eq!(scrubbed(text, &[]), clean);
        }
    }

    #[test]
    fn headers_are_cleaned_only_when_they_must_be() {
        let secret = Secret::new("hunter22").unwrap();
        let dirty = HeaderValue::from_static("Bearer error=\"hunter22\"");
        assert_eq!(scrub_header(&dirty, &[&secret]).unwrap(), "Bearer error=\"[redacted]\"");
        assert_eq!(scrub_header(&HeaderValue::from_static("Bearer realm=\"x\""), &[&secret]), None);
    }

    proptest! {
        #[test]
        fn no_secret_survives(
            // Without brackets, so that no mark can complete it.
            secret in "[!-Z^-~]{4,40}",
            around in proptest::collection::vec(any::<u8>(), 0..40),
            at in 0..40_usize,
        ) {
            prop_assume!(!String::from_utf8_lossy(MARK).contains(&secret));
            let mut text = around;
            text.splice(at.min(text.len())..at.min(text.len()), secret.bytes());
            let secret = Secret::new(&secret).unwrap();
            let clean = scrub(&text, &[&secret]);
            prop_assert!(memchr::memmem::find(&clean, secret.expose().as_bytes()).is_none());
        }
    }
}
