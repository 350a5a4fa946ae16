//! Every recorded stream in `fixtures/streams` is understood as its file expects, however it is cut into pieces: what
//! its beginning says, and what is noticed as it passes.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, SystemTime},
};

use http::Method;
use key_cycle_proxy::provider::{
    Endpoint, Media, classify,
    stream::{Opened, Opening, Watch, judge_event},
};
use serde::{Deserialize, Serialize};

/// 2025-12-31 12:00:00 UTC, four in the morning in California.
const WALL: Duration = Duration::from_secs(1_767_182_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    name: String,
    from: String,
    #[serde(rename = "row")]
    _row: String,
    endpoint: String,
    #[serde(default)]
    media: Option<String>,
    /// Whether lines end with CRLF.
    #[serde(default)]
    crlf: bool,
    /// Lines. The last has no end, unless it is empty.
    body: Vec<String>,
    expect: Expected,
}

#[derive(Deserialize, Serialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// What the beginning shows: `content` or `failed`.
    opened: String,
    /// What the error means, if there is one, at the beginning or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Meant>,
}

#[derive(Deserialize, Serialize, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
struct Meant {
    class: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_ms: Option<u64>,
}

impl Fixture {
    fn all() -> Vec<(String, Self)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/streams");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let fixture = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, fixture)
        };
        files.map(read).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let end = if self.crlf { "\r\n" } else { "\n" };
        let mut text = self.body.join(end);
        if self.body.last().is_some_and(String::is_empty) {
            text.push_str(end);
        }
        text.into_bytes()
    }

    fn endpoint(&self) -> Endpoint {
        let (method, path) = self.endpoint.split_once(' ').unwrap();
        classify(&method.parse::<Method>().unwrap(), path)
    }

    fn media(&self) -> Media {
        let text = self.media.as_deref().unwrap_or("text/event-stream");
        let headers = [(http::header::CONTENT_TYPE, text.parse().unwrap())].into_iter().collect();
        Media::of(&headers).unwrap()
    }

    /// What is made of it when so much has come, again and again.
    fn understood(&self, bytes: &[u8], ends: impl Iterator<Item = usize>) -> Expected {
        let (mut opening, mut watch) = (Opening::new(), Watch::new());
        let (mut opened, mut error, mut seen) = (Opened::NeedMore, None, 0);
        for end in ends {
            if opened == Opened::NeedMore {
                opened = opening.look(&bytes[..end]);
            }
            error = error.or_else(|| watch.push(&bytes[seen..end]));
            seen = end;
        }
        if opened == Opened::NeedMore {
            opened = opening.end(bytes);
        }
        let error = error.or_else(|| watch.end()).filter(|_| self.media() == Media::Events);
        let meant = |event: &[u8]| {
            let verdict = judge_event(event, self.endpoint(), SystemTime::UNIX_EPOCH + WALL);
            Meant {
                class: verdict.class.as_str().to_owned(),
                scope: verdict.scope.as_str().to_owned(),
                wait_ms: verdict.wait.map(|wait| wait.as_millis().try_into().unwrap()),
            }
        };
        let error = error.as_deref().map(meant);
        let (opened, error) = match opened {
            Opened::NeedMore => panic!("{}: it has ended", self.name),
            Opened::Content => ("content", error),
            Opened::Failed(event) => {
                let at_once = meant(&event);
                // Who delivers it all the same notices the same error in passing, where there are events.
                assert!(error.is_none_or(|later| later == at_once), "{}", self.name);
                ("failed", Some(at_once))
            }
        };
        Expected { opened: opened.to_owned(), error }
    }
}

#[test]
fn recorded_streams_are_understood_as_they_should_be() {
    let mut wrong = Vec::new();
    for (file, fixture) in Fixture::all() {
        let understood = fixture.understood(&fixture.bytes(), [fixture.bytes().len()].into_iter());
        if understood != fixture.expect {
            wrong.push(format!("{file}\t{}", serde_json::to_string(&understood).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "understood otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn it_makes_no_difference_where_pieces_end() {
    for (file, fixture) in Fixture::all() {
        let bytes = fixture.bytes();
        for size in [1, 2, 3, 7, 64, 1000] {
            let ends = (1..bytes.len()).step_by(size).chain([bytes.len()]);
            assert_eq!(fixture.understood(&bytes, ends), fixture.expect, "{file} in pieces of {size}");
        }
        for at in 0..bytes.len() {
            let ends = [at, bytes.len()].into_iter();
            assert_eq!(fixture.understood(&bytes, ends), fixture.expect, "{file} at {at}");
        }
    }
}

#[test]
fn every_provider_shows_every_way_to_fail() {
    let mut seen: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (_, fixture) in Fixture::all() {
        let expect = fixture.expect;
        seen.entry(fixture.from).or_default().insert(match (expect.opened.as_str(), &expect.error) {
            ("failed", _) => "at once",
            (_, Some(_)) => "later",
            (_, None) => "not",
        });
    }
    for provider in ["OpenAI", "Azure", "Anthropic", "Gemini", "OpenRouter", "Groq"] {
        assert_eq!(seen[provider], ["at once", "later", "not"].into(), "{provider}");
    }
}
