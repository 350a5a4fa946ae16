//! Secrets that can be recognised, in whole, in part, and in other writings.

use std::{collections::HashMap, fmt::Write as _};

/// So much of a secret in a row is too much.
const PART: usize = 12;

/// A secret: `prefix`, which gives nothing away, and some of the alphabet, shuffled.
pub fn secret(prefix: &str, seed: u64) -> String {
    let mut letters: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut letters);
    prefix.chars().chain(letters.into_iter().take(36)).collect()
}

/// The same with the other characters that base64 has.
pub fn secret_in_base64(prefix: &str, seed: u64) -> String {
    let mut text = secret(prefix, seed);
    text.insert(prefix.len() + 9, '/');
    text.insert(prefix.len() + 25, '+');
    text.push_str("==");
    text
}

/// What is looked for.
pub struct Secrets {
    /// By how they begin.
    parts: HashMap<[u8; PART], Vec<Vec<u8>>>,
    /// The first two bytes of them, so that most places need no closer look.
    begins: Vec<bool>,
}

impl Secrets {
    /// These, from what follows their `canary-` on.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let mut this = Self { parts: HashMap::new(), begins: vec![false; 1 << 16] };
        for secret in secrets {
            let (_, random) = secret.split_once("canary-").expect("it is marked");
            this.add(random);
            this.add(&percent(random, false));
            this.add(&random.replace('/', "\\/"));
            // Whatever stands before it moves the groups of three.
            for skip in 0..3 {
                let coded = base64(&random.as_bytes()[skip..]);
                this.add(&coded);
                this.add(&coded.replace('+', "-").replace('/', "_"));
            }
            for part in random.as_bytes().windows(PART) {
                let of_each = |byte: &dyn Fn(u8) -> String| part.iter().map(|b| byte(*b)).collect::<String>();
                this.insert(of_each(&|byte| format!("{byte:02x}")));
                this.insert(of_each(&|byte| format!("{byte:02X}")));
                this.insert(of_each(&|byte| format!("%{byte:02X}")));
                this.insert(of_each(&|byte| format!("%{byte:02x}")));
                this.insert(of_each(&|byte| format!("{byte}, ")));
            }
        }
        this
    }

    /// Every part of a text.
    fn add(&mut self, text: &str) {
        for part in text.as_bytes().windows(PART) {
            self.insert(part);
        }
    }

    fn insert(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        self.begins[usize::from(part[0]) << 8 | usize::from(part[1])] = true;
        let begin = *part.first_chunk().expect("no part is shorter");
        self.parts.entry(begin).or_default().push(part.to_vec());
    }

    /// Where the first of them stands in `text`.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        (0..text.len().saturating_sub(PART - 1)).find(|&at| {
            let rest = &text[at..];
            self.begins[usize::from(rest[0]) << 8 | usize::from(rest[1])]
                && rest
                    .first_chunk()
                    .and_then(|begin| self.parts.get(begin))
                    .is_some_and(|parts| parts.iter().any(|part| rest.starts_with(part)))
        })
    }

    /// Fails with what is around the first of them.
    pub fn assert_none(&self, place: &str, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        if let Some(at) = self.find(text) {
            let around = &text[at.saturating_sub(400)..text.len().min(at + 200)];
            panic!("{place} tells a secret, at {at}: …{}…", String::from_utf8_lossy(around));
        }
    }
}

/// `text` as a query carries it; `all`: also what needs no coding.
pub fn percent(text: &str, all: bool) -> String {
    text.bytes().fold(String::new(), |mut coded, byte| {
        if !all && (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
            coded.push(char::from(byte));
        } else {
            let _ = write!(coded, "%{byte:02X}");
        }
        coded
    })
}

/// Without the last group, unless it is whole: what follows changes it.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        text.extend([18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize])));
    }
    text
}

/// What is looked for is found, and nothing else.
pub fn assert_secrets_are_found() {
    let secret = secret_in_base64("sk-canary-", 1);
    let secrets = Secrets::new([secret.as_str()]);
    let random = &secret["sk-canary-".len()..];
    for told in [
        secret.clone(),
        random[7..7 + PART].to_owned(),
        percent(&secret, false),
        percent(&secret, true),
        secret.replace('/', "\\/"),
        base64(format!("user:{secret}...").as_bytes()),
        base64(format!("u:{secret}...").as_bytes()),
        base64(format!("us:{secret}...").as_bytes()),
        format!("{:?}", secret.as_bytes()),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ] {
        assert!(secrets.find(format!("before {told} after").as_bytes()).is_some(), "{told}");
    }
    assert_eq!(secrets.find(b"sk-canary- sk-canary-*** and nothing else"), None);
    assert_eq!(secrets.find(&random.as_bytes()[..PART - 1]), None);
}
