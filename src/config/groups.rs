//! The `config.yaml` of an older proxy for Gemini, known by its `groups`: its names, turned into ours.
//!
//! What it says stays where it stands, so that problems found later name its own places. Our names may stand beside
//! its own.

use std::num::NonZeroU32;

use url::Url;

use super::{
    section::{Ledger, Section},
    tree::{Node, Place, Table, Value, merge},
};
use crate::{
    provider::{KNOWN, Known},
    types::PoolName,
};

/// What it says that is no setting of ours.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Older {
    /// The port to listen at, at whatever address.
    pub(super) port: Option<u16>,
    /// How many requests may come at once under the limit of all, and of no other.
    pub(super) global_burst: Option<NonZeroU32>,
}

/// Where its groups go that say nothing.
const GOOGLE: &str = "https://generativelanguage.googleapis.com";

/// The longest time that a setting may name, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// How many milliseconds and minutes there are.
const MILLIS: i128 = 1000;
const MINUTE: f64 = 60.0;

const GROUPS: &str = "groups";
const SERVER: &str = "server";
const RATE_LIMIT: &str = "rate_limit";
const CIRCUIT_BREAKER: &str = "circuit_breaker";

/// A value that is read for its type alone.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Whole,
    Number,
    Flag,
    Anything,
}

/// A name without a counterpart here, and what is so instead.
type Unused = (&'static str, Kind, &'static str);

const TOP_P: Unused = ("top_p", Kind::Number, "requests go on as they come; let clients send it");
const MAX_TOKENS: Unused = (
    "max_tokens_per_request",
    Kind::Whole,
    "tokens are not counted before a request is sent; the upstream refuses what is too long",
);
const MEMORY: &str = "each process keeps its state in memory";
const RESTS: &str = "how long a key rests, and whether it is dead, follows from what its answers say";

const OF_ROOT: [Unused; 8] = [
    ("redis_url", Kind::Text, MEMORY),
    ("redis_key_prefix", Kind::Text, MEMORY),
    ("max_failures_threshold", Kind::Whole, RESTS),
    ("temporary_block_minutes", Kind::Whole, RESTS),
    ("internal_retries", Kind::Whole, "the next try is another key's; see upstream.max_retries"),
    ("safety_multiplier", Kind::Number, "tokens are not counted before a request is sent"),
    TOP_P,
    MAX_TOKENS,
];
const OF_SERVER: [Unused; 6] = [
    (
        "admin_token",
        Kind::Text,
        "there are no admin routes; metrics and `key-cycle-proxy check` show the state",
    ),
    ("security", Kind::Anything, "it is about admin routes, which there are not"),
    ("test_mode", Kind::Flag, "`key-cycle-proxy check` tests a configuration"),
    ("tokenizer_type", Kind::Text, "tokens are not counted before a request is sent"),
    TOP_P,
    MAX_TOKENS,
];
const OF_BREAKER: [(&str, Kind); 4] = [
    ("failure_threshold", Kind::Whole),
    ("recovery_timeout_secs", Kind::Whole),
    ("success_threshold", Kind::Whole),
    ("half_open_max_calls", Kind::Whole),
];

/// Replaces its names in the outermost table of a file, if it is such a file.
pub(super) fn translate(table: &mut Table, older: &mut Older, ledger: &mut Ledger) {
    if table.get(GROUPS).is_none() {
        return;
    }
    let theirs = take(table);
    let mut root = Section::root(&theirs, ledger);
    let mut ours = Made::default();
    server(root.section(SERVER, SERVER), older, &mut ours);
    limit(root.section(RATE_LIMIT, RATE_LIMIT), older, &mut ours);
    unused(&mut root, &OF_ROOT);
    breaker(&mut root);
    let mut pools = Vec::new();
    root.each(GROUPS, GROUPS, false, |place, section| pools.extend(group(place, section)));
    if let Some(node) = theirs.get(GROUPS) {
        let place = Place { path: "pools".to_owned(), ..node.place.clone() };
        ours.0.0.push(("pools".to_owned(), place.clone(), Node { place, value: Value::List(pools) }));
    }
    drop(root);
    merge(table, ours.0, &mut ledger.problems);
}

/// Takes its names out of the outermost table.
fn take(table: &mut Table) -> Table {
    let mut theirs = Table::default();
    let of_root = OF_ROOT.map(|(name, ..)| name);
    for (name, place, node) in std::mem::take(&mut table.0) {
        let names: &[&str] = match name.as_str() {
            SERVER => &["port", "connect_timeout_secs", "request_timeout_secs"],
            RATE_LIMIT => &["requests_per_minute", "burst_size"],
            GROUPS | CIRCUIT_BREAKER => {
                theirs.0.push((name, place, node));
                continue;
            }
            name if of_root.contains(&name) => {
                theirs.0.push((name.to_owned(), place, node));
                continue;
            }
            _ => &[],
        };
        let Node { place: at, value: Value::Table(inner) } = node else {
            table.0.push((name, place, node));
            continue;
        };
        let is_theirs = |inner: &str| {
            names.contains(&inner) || name == SERVER && OF_SERVER.iter().any(|(name, ..)| *name == inner)
        };
        let (older, ours) = inner.0.into_iter().partition(|(inner, ..)| is_theirs(inner));
        let part = |entries| Node { place: at.clone(), value: Value::Table(Table(entries)) };
        if matches!(name.as_str(), SERVER | RATE_LIMIT) {
            theirs.0.push((name.clone(), place.clone(), part(older)));
        }
        table.0.push((name, place, part(ours)));
    }
    theirs
}

/// Settings under our names.
#[derive(Default)]
struct Made(Table);

impl Made {
    /// Sets `name` in `section` to what stands at `place`.
    fn set(&mut self, section: &str, name: &str, place: &Place, value: Value) {
        let node = Node { place: place.clone(), value };
        let entry = (name.to_owned(), place.clone(), node);
        match self.0.0.iter_mut().find(|(known, ..)| known == section) {
            Some((_, _, Node { value: Value::Table(table), .. })) => table.0.push(entry),
            _ => {
                let inner = Node { place: place.clone(), value: Value::Table(Table(vec![entry])) };
                self.0.0.push((section.to_owned(), place.clone(), inner));
            }
        }
    }
}

fn server(mut section: Section<'_, '_>, older: &mut Older, ours: &mut Made) {
    older.port = section.whole("port", 0..=u16::MAX.into()).or(older.port);
    for (theirs, name) in
        [("connect_timeout_secs", "connect_timeout_ms"), ("request_timeout_secs", "request_timeout_ms")]
    {
        let seconds: Option<u64> = section.whole(theirs, 1..=DAY);
        if let Some((seconds, place)) = seconds.zip(section.place(theirs)) {
            ours.set("upstream", name, place, Value::Integer(i128::from(seconds) * MILLIS));
        }
    }
    unused(&mut section, &OF_SERVER);
}

fn limit(mut section: Section<'_, '_>, older: &mut Older, ours: &mut Made) {
    let a_minute: Option<u32> = section.whole("requests_per_minute", 0..=60_000_000);
    let burst: Option<u32> = section.whole("burst_size", 0..=u32::MAX.into());
    older.global_burst = burst.and_then(NonZeroU32::new).or(older.global_burst);
    match (a_minute, section.place("requests_per_minute")) {
        (Some(a_minute), Some(place)) => {
            ours.set(RATE_LIMIT, "global_rps", place, Value::Float(f64::from(a_minute) / MINUTE));
        }
        (None, None) => {
            let why = "there is no requests_per_minute beside it";
            if let Some(place) = section.place("burst_size") {
                warn(section.ledger(), place, why);
            }
        }
        _ => {}
    }
}

fn breaker(root: &mut Section<'_, '_>) {
    let Some(Node { place, .. }) = root.raw(CIRCUIT_BREAKER) else { return };
    let mut section = root.section(CIRCUIT_BREAKER, CIRCUIT_BREAKER);
    for (name, kind) in OF_BREAKER {
        read(&mut section, name, kind);
    }
    let why =
        "there is a breaker for each host, which opens only when several keys fail there, and sets itself";
    warn(section.ledger(), place, why);
}

/// A group as a pool; `None` if it can't be one.
fn group(place: &Place, mut section: Section<'_, '_>) -> Option<Node> {
    unused(&mut section, &[TOP_P]);
    let name = section.text("name");
    let at = section.place("name");
    let url = section.text("target_url");
    let url_at = section.place("target_url").unwrap_or(place);
    let models = section.raw("model_aliases").cloned();
    let proxy = section.raw("proxy_url").cloned();
    let keys = section.texts("api_keys");
    let Some(at) = at else {
        section.ledger().problems.push(place.problem("this group has no `name`"));
        return None;
    };
    let name = name?;
    let slug = slug(name);
    if slug != name {
        let place = at.describe();
        section.ledger().warnings.push(format!(
            "{place}: the pool is called `{slug}`, for its name stands in paths, as in /llm/{slug}/…"
        ));
    }
    let is_empty = keys.as_ref().is_none_or(Vec::is_empty);
    // Of a provider that is known, they may stand in variables.
    if is_empty && Known::find(&slug).is_none() {
        let place = section.place("api_keys").unwrap_or(place);
        let problem = place.problem("this group has no key");
        section.ledger().problems.push(problem.hint("api_keys: [\"env:NAME\"]"));
        return None;
    }
    let text = |place: &Place, text: &str| Node { place: place.clone(), value: Value::Text(text.to_owned()) };
    let mut entries = vec![("name", text(at, &slug))];
    let url = url.unwrap_or(GOOGLE);
    let parsed = Url::parse(url.trim()).ok();
    match parsed.as_ref().and_then(known_at) {
        Some(known) => entries.push(("provider", text(url_at, known.name))),
        None => entries.push(("dialect", text(url_at, "openai"))),
    }
    // An origin alone: the table of providers knows the rest.
    let is_origin = parsed.is_some_and(|url| known_at(&url).is_some() && url.path() == "/");
    if !is_origin {
        entries.push(("base_url", text(url_at, url)));
    }
    if let Some(models) = models {
        entries.push(("models", models));
    }
    if let Some(proxy) = proxy {
        entries.push(("proxy_url", proxy));
    }
    let keys = keys.into_iter().flatten().map(|(key, place)| Node {
        place: place.clone(),
        value: Value::Table(Table(vec![("key".to_owned(), place.clone(), text(place, key))])),
    });
    entries.push(("keys", Node { place: place.clone(), value: Value::List(keys.collect()) }));
    let entries = entries.into_iter().map(|(name, node)| (name.to_owned(), node.place.clone(), node));
    Some(Node { place: place.clone(), value: Value::Table(Table(entries.collect())) })
}

/// The provider that lives at the origin of `url`.
fn known_at(url: &Url) -> Option<&'static Known> {
    KNOWN.iter().find(|known| {
        let base = known.base.and_then(|base| Url::parse(base).ok());
        base.is_some_and(|base| base.origin() == url.origin())
    })
}

/// No pool's name is longer.
const LONGEST_NAME: usize = 64;

/// A name for a pool that is as near as can be.
fn slug(name: &str) -> String {
    let fit = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.') { c } else { '-' }
    };
    let slug = name.trim().chars().map(fit).take(LONGEST_NAME).collect::<String>();
    match slug.trim_start_matches('.') {
        // That is the pool of the keys that stand in none.
        PoolName::DEFAULT => "default-group".to_owned(),
        slug => slug.to_owned(),
    }
}

/// Reads names without a counterpart for their types, and says of each that is set that it has none.
fn unused(section: &mut Section<'_, '_>, names: &[Unused]) {
    for (name, kind, why) in names {
        if let Some(place) = section.place(name) {
            read(section, name, *kind);
            warn(section.ledger(), place, why);
        } else {
            section.raw(name);
        }
    }
}

fn read(section: &mut Section<'_, '_>, name: &'static str, kind: Kind) {
    match kind {
        Kind::Text => drop(section.text(name)),
        Kind::Whole => drop(section.whole::<u64>(name, 0..=u64::MAX)),
        Kind::Number => drop(section.number(name, "a number", |_| true)),
        Kind::Flag => drop(section.flag(name)),
        Kind::Anything => drop(section.raw(name)),
    }
}

fn warn(ledger: &mut Ledger, place: &Place, why: &str) {
    ledger.warnings.push(format!("{} has no effect: {why}", place.describe()));
}
