//! Removing credentials from text that others wrote, on its way to a client, a log or a store.
//!
//! Providers quote the key they refuse, whole or in part; so whatever looks like one goes, ours or not.

use std::{borrow::Cow, fmt, iter, sync::LazyLock};

use http::HeaderValue;
use memchr::memmem;
use regex::bytes::Regex;
use secrecy::zeroize::Zeroizing;

use crate::types::Secret;

/// What stands where a credential stood.
pub const MARK: &str = "[redacted]";

/// A "credential" shorter than this is a placeholder (`-`, `x`, `no`), and replacing it would only spoil the text.
const SHORTEST: usize = 4;

/// So much of a credential in a row is more than a provider shows who masks it.
const PART: usize = 12;
/// A row of that length has one of the blocks whole into which a credential is cut.
const BLOCK: usize = PART / 2;

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

/// What of a secret may be found in text.
pub struct Traces<'s> {
    secret: &'s Secret,
    /// As URLs and JSON may write it, where that is another way than its own.
    written: Vec<Zeroizing<String>>,
}

impl fmt::Debug for Traces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(self.secret).finish()
    }
}

impl<'s> Traces<'s> {
    /// Those of `secret`.
    #[must_use]
    pub fn of(secret: &'s Secret) -> Self {
        let text = secret.expose();
        let mut written = Vec::new();
        if !text.bytes().all(is_unreserved) {
            written.extend([
                in_url(text, |byte| format!("%{byte:02X}")),
                in_url(text, |byte| format!("%{byte:02x}")),
            ]);
        }
        if text.contains('/') {
            written.push(text.replace('/', "\\/").into());
        }
        Self { secret, written }
    }

    /// Whether `text` has the whole secret.
    #[must_use]
    pub fn is_told(&self, text: &[u8]) -> bool {
        self.whole().any(|secret| secret.len() <= text.len() && memmem::find(text, secret).is_some())
    }

    /// Whether `text` has it, or a long part of it.
    #[must_use]
    pub fn is_told_in_part(&self, text: &[u8]) -> bool {
        self.is_told(text) || self.parts(text).next().is_some()
    }

    fn whole(&self) -> impl Iterator<Item = &[u8]> {
        let all = iter::once(self.secret.expose()).chain(self.written.iter().map(|written| written.as_str()));
        all.map(str::as_bytes).filter(|secret| secret.len() >= SHORTEST)
    }

    /// Where `text` has a long part.
    fn parts(&self, text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        let same = |(a, b): &(&u8, &u8)| a == b;
        let secret = self.secret.expose().as_bytes();
        secret.chunks_exact(BLOCK).enumerate().flat_map(move |(n, block)| {
            memmem::find_iter(text, block).filter_map(move |at| {
                let (before, from) = secret.split_at(n * BLOCK);
                let before = text[..at].iter().rev().zip(before.iter().rev()).take_while(same).count();
                let after = text[at..].iter().zip(from).take_while(same).count();
                (before + after >= PART).then_some((at - before, at + after))
            })
        })
    }

    /// Where `text` has anything of it.
    fn find(&self, text: &[u8], found: &mut Vec<(usize, usize)>) {
        for secret in self.whole() {
            found.extend(memmem::find_iter(text, secret).map(|at| (at, at + secret.len())));
        }
        found.extend(self.parts(text));
    }
}

/// What a URL carries as it is (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn in_url(text: &str, code: impl Fn(u8) -> String) -> Zeroizing<String> {
    // As long as it can become, since a copy that is left behind is not wiped.
    let coded = Zeroizing::new(String::with_capacity(3 * text.len()));
    text.bytes().fold(coded, |mut coded, byte| {
        if is_unreserved(byte) {
            coded.push(char::from(byte));
        } else {
            coded.push_str(&code(byte));
        }
        coded
    })
}

/// `text` without any of `secrets` or of their parts, and without anything that looks like a credential.
#[must_use]
pub fn scrub<'a>(text: &'a [u8], secrets: &[&Secret]) -> Cow<'a, [u8]> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for secret in secrets {
        Traces::of(secret).find(text, &mut found);
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
            clean.extend_from_slice(MARK.as_bytes());
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
        Cow::Owned(clean) => Some(HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(MARK))),
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
    fn long_parts_and_other_writings_of_secrets_go_and_masked_ones_stay() {
        let secret = "hunter+0123/456789abcdef==";
        for told in [
            "hunter%2B0123%2F456789abcdef%3D%3D",
            "hunter%2b0123%2f456789abcdef%3d%3d",
            r"hunter+0123\/456789abcdef==",
            "hunter+0123/",
            "6789abcdef==",
            "3/456789abcde",
        ] {
            assert_eq!(scrubbed(&format!("a {told}… b"), &[secret]), "a [redacted]… b");
            assert!(Traces::of(&Secret::new(secret).unwrap()).is_told_in_part(told.as_bytes()), "{told}");
        }
        for shown in ["hunter+0123", "hunter…def==", "4567…cdef"] {
            assert_eq!(scrubbed(shown, &[secret]), shown);
        }
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
            prop_assume!(!MARK.contains(&secret));
            let mut text = around;
            text.splice(at.min(text.len())..at.min(text.len()), secret.bytes());
            let secret = Secret::new(&secret).unwrap();
            let clean = scrub(&text, &[&secret]);
            prop_assert!(memmem::find(&clean, secret.expose().as_bytes()).is_none());
        }
    }
}
