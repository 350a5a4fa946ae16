//! `[[pools]]`: named pools, each with a dialect, a base URL and keys of its own.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use hyper_util::client::proxy::matcher::Matcher;

use super::{
    Env,
    keys::{self, Defaults, Entry},
    problem::Problem,
    providers,
    proxies::is_proxy,
    reference,
    section::{Ledger, Section, nearest},
    tree::Place,
    upstream::base_url,
};
use crate::{
    forward::{Api, Credential, Parameter},
    provider::{Known, NAMES},
    types::{BaseUrl, Dialect, ModelSet, PoolName, Secret},
};

/// A pool as one source has it, its keys not yet united with those of others.
pub(super) struct Draft {
    pub(super) name: PoolName,
    pub(super) api: Api,
    pub(super) base: BaseUrl,
    pub(super) proxies: Option<Arc<Matcher>>,
    /// What stands before its keys in their header.
    pub(super) prefix: Box<str>,
    /// What its keys serve that say nothing themselves.
    pub(super) models: ModelSet,
    pub(super) entries: Vec<Entry>,
}

/// Reads `[[pools]]`.
pub(super) fn pools(root: &mut Section<'_, '_>, defaults: &Defaults<'_>, env: &Env) -> Vec<Draft> {
    let mut drafts: Vec<(Draft, Place)> = Vec::new();
    root.each("pools", "pools", false, |place, section| {
        let Some(draft) = pool(place, section, defaults, env, &drafts) else { return };
        drafts.push((draft, place.clone()));
    });
    for (draft, place) in &drafts {
        if draft.entries.is_empty() && Known::find(draft.name.as_str()).is_none() {
            root.ledger().problems.push(place.problem("this pool has no key").hint("add [[pools.keys]]"));
        }
    }
    drafts.into_iter().map(|(draft, _)| draft).collect()
}

fn pool(
    place: &Place,
    mut section: Section<'_, '_>,
    defaults: &Defaults<'_>,
    env: &Env,
    before: &[(Draft, Place)],
) -> Option<Draft> {
    let name = section.parsed("name", slug);
    if name.is_none() && section.place("name").is_none() {
        section.ledger().problems.push(place.problem("this pool has no `name`"));
    }
    if let Some((_, other)) = before.iter().find(|(draft, _)| Some(&draft.name) == name.as_ref()) {
        let reason = format!("a pool of this name is at {}", other.describe());
        section.refuse("name", reason);
    }
    let provider = section.parsed("provider", |text| {
        Known::find(text).ok_or_else(|| {
            let near = nearest(text, NAMES.iter().copied());
            let hint = near.map(|near| format!("did you mean {near:?}?"));
            (format!("{text:?} is no provider that is known"), hint)
        })
    });
    let known = provider.or_else(|| Known::find(name.as_ref()?.as_str()));
    let dialect = section.parsed("dialect", |text| {
        let names = Dialect::NAMES.map(|(name, _)| name).join(", ");
        text.parse().map_err(|_| (format!("{text:?} is no dialect"), Some(format!("one of {names}"))))
    });
    let dialect = dialect.or(known.map(|known| known.dialect)).unwrap_or_default();
    let known = known.filter(|known| known.dialect == dialect);
    let written = section
        .parsed("base_url", |text| base_url(text, dialect).map(|base| as_known(text, known).unwrap_or(base)));
    let failed = written.is_none() && section.place("base_url").is_some();
    // The environment comes first.
    let variable =
        name.as_ref().and_then(|name| providers::base_url(name.as_str(), dialect, env, section.ledger()));
    let base = variable.or(written).or_else(|| known.and_then(base_of));
    if base.is_none() && !failed {
        let hint = "base_url = \"https://…\"; providers that are known by name have one";
        section.ledger().problems.push(place.problem("this pool has no `base_url`").hint(hint));
    }
    let api = api(&mut section, dialect, known, base.as_ref(), env);
    let proxies = section.parsed("proxy_url", |text| {
        let advice = "such as http://proxy.example:3128 or socks5://127.0.0.1:1080";
        if is_proxy(text) {
            Ok(text)
        } else {
            Err(("not the URL of a proxy".to_owned(), Some(advice.to_owned())))
        }
    });
    let proxies = proxies.map(|text| Arc::new(Matcher::builder().all(text.to_owned()).build()));
    let models = keys::models(&mut section).unwrap_or_else(ModelSet::others);
    let prefix = prefix(&api, &section);
    let mut entries = Vec::new();
    let fallback = defaults.base;
    let of_pool = Defaults {
        base: base.as_ref().unwrap_or(fallback),
        dialect,
        models: models.clone(),
        prefix: prefix.clone(),
        ..*defaults
    };
    section.each("keys", "pools.keys", false, |place, section| {
        entries.extend(keys::entry(place, section, &of_pool, env));
    });
    Some(Draft { name: name?, api, base: base?, proxies, prefix, models, entries })
}

/// The base of a provider that is known, if that is what `text` says without its version.
fn as_known(text: &str, known: Option<&Known>) -> Option<BaseUrl> {
    let verbatim = BaseUrl::parse_of(text, Dialect::Generic).ok()?;
    known.and_then(base_of).filter(|base| *base == verbatim)
}

/// The base URL of a provider that is known, which is written out there.
pub(super) fn base_of(known: &Known) -> Option<BaseUrl> {
    known.base.map(|base| BaseUrl::parse_of(base, Dialect::Generic).expect("a known base is a URL"))
}

/// The usual way to speak to a provider that is known, if its base is the usual one.
pub(super) fn api_of(dialect: Dialect, known: Option<&Known>, base: Option<&BaseUrl>) -> Api {
    let usual = known.and_then(base_of);
    let at_home = usual.as_ref().zip(base).is_some_and(|(usual, base)| usual.origin() == base.origin());
    let also = known.filter(|_| at_home).map_or(&[][..], |known| known.also);
    let also = also.iter().map(|(dialect, path)| (*dialect, Box::from(*path))).collect();
    Api { also, ..Api::of(dialect) }
}

fn api(
    section: &mut Section<'_, '_>,
    dialect: Dialect,
    known: Option<&Known>,
    base: Option<&BaseUrl>,
    env: &Env,
) -> Api {
    let mut api = api_of(dialect, known, base);
    if let Some(credential) = credential(section) {
        if dialect == Dialect::Gemini && matches!(credential, Credential::Query(_)) {
            section.refuse("credential", "Gemini's credential goes in a header: URLs are logged");
        }
        api.credential = credential;
    }
    api.headers = headers(section, env, &mut api.secrets);
    api.query = parameters(section, env, &mut api.secrets);
    if let Credential::Query(name) = &api.credential
        && api.query.iter().any(|parameter| parameter.name() == &**name)
    {
        section.refuse("query", "has the parameter in which the credential goes");
    }
    for (text, place) in section.texts("methods").unwrap_or_default() {
        // `GET` and not `get`: methods are case-sensitive (RFC 9110 §9.1), and nobody means the other.
        match Method::from_bytes(text.trim().to_ascii_uppercase().as_bytes()) {
            Ok(method) => api.methods.push(method),
            Err(_) => section.ledger().problems.push(place.problem("not a method")),
        }
    }
    let version = section.parsed("api_version", |text| {
        let text = text.trim();
        let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        good.then(|| Box::from(text))
            .ok_or_else(|| ("not a version".to_owned(), Some("such as 2024-10-21".to_owned())))
    });
    let deployments = section.map("deployments");
    if dialect != Dialect::Azure {
        for name in ["api_version", "deployments"] {
            section.refuse(name, "is Azure's alone: dialect = \"azure\"");
        }
    }
    api.api_version = version;
    let pairs = deployments.into_iter().map(|(model, name, _)| (Box::from(model), Box::from(name.trim())));
    api.deployments = pairs.collect::<HashMap<_, _>>();
    api
}

/// `credential = { header = "X-Token", prefix = "Token " }` or `{ query = "appid" }`.
fn credential(section: &mut Section<'_, '_>) -> Option<Credential> {
    let mut section = section.section("credential", "pools.credential");
    let header = section.parsed("header", header_name);
    let query = section.parsed("query", |text| {
        let text = text.trim();
        if text.is_empty() { Err(("a parameter has a name".to_owned(), None)) } else { Ok(Box::from(text)) }
    });
    // Its keys take it up.
    section.parsed("prefix", |text| {
        if fits_header(text) {
            Ok(())
        } else {
            Err(("visible ASCII and spaces: it is sent in a header".to_owned(), None))
        }
    });
    match (header, query) {
        (Some(_), Some(_)) => {
            section.refuse("query", "the credential goes in a header or in the query, not in both");
            None
        }
        (Some(header), None) => Some(Credential::Header(header)),
        (None, Some(query)) => {
            section.refuse("prefix", "belongs to a header");
            Some(Credential::Query(query))
        }
        (None, None) => {
            section.refuse("prefix", "belongs to a header, which is not named");
            None
        }
    }
}

/// What stands before the credential in the header.
fn prefix(api: &Api, section: &Section<'_, '_>) -> Box<str> {
    let prefix =
        section.peek("credential", "prefix").filter(|_| matches!(api.credential, Credential::Header(_)));
    prefix.filter(|prefix| fits_header(prefix)).map(Box::from).unwrap_or_default()
}

fn fits_header(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn header_name(text: &str) -> Result<HeaderName, (String, Option<String>)> {
    let name = HeaderName::from_bytes(text.trim().as_bytes());
    let name = name.map_err(|_| ("not the name of a header".to_owned(), None))?;
    if is_ours(&name) {
        return Err(("this header is set by the proxy itself".to_owned(), None));
    }
    Ok(name)
}

/// Headers that say how a message is framed or where it goes.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "upgrade"
            | "te"
            | "trailer"
            | "expect"
    )
}

fn headers(section: &mut Section<'_, '_>, env: &Env, secrets: &mut Vec<Secret>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, text, place) in section.map("headers") {
        let mut read = || {
            let name = header_name(name).map_err(|(reason, _)| place.problem(reason))?;
            let is_secret = reference::is_reference(text);
            let text = reference::resolve(text, place, env)?;
            secrets.extend(Secret::new(&text).ok().filter(|_| is_secret));
            let mut value =
                HeaderValue::from_str(text.trim()).map_err(|_| place.problem("not the value of a header"))?;
            // It may be one more credential.
            value.set_sensitive(true);
            Ok::<_, Problem>((name, value))
        };
        match read() {
            Ok((name, value)) => drop(headers.insert(name, value)),
            Err(problem) => section.ledger().problems.push(problem),
        }
    }
    headers
}

fn parameters(section: &mut Section<'_, '_>, env: &Env, secrets: &mut Vec<Secret>) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for (name, text, place) in section.map("query") {
        match reference::resolve(text, place, env) {
            Ok(value) => {
                secrets.extend(Secret::new(&value).ok().filter(|_| reference::is_reference(text)));
                parameters.push(Parameter::new(name, &value));
            }
            Err(problem) => section.ledger().problems.push(problem),
        }
    }
    parameters
}

/// A pool's name: it stands in paths, before models, and in metrics.
fn slug(text: &str) -> Result<PoolName, (String, Option<String>)> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let fits = (1..=64).contains(&text.len()) && text.chars().all(good) && !text.starts_with('.');
    if text == PoolName::DEFAULT {
        let advice = "the keys of [[keys.pool]] are the pool `default`: give this one another name";
        return Err(("this name is taken".to_owned(), Some(advice.to_owned())));
    }
    if fits {
        return Ok(PoolName::new(text));
    }
    let advice = "up to 64 of a-z, 0-9, -, _ and . : it stands in paths, as in /llm/groq/…";
    Err(("not a name for a pool".to_owned(), Some(advice.to_owned())))
}

/// Adds the pools that `more` has to `drafts`; keys of one name go together.
pub(super) fn join(drafts: &mut Vec<Draft>, more: Vec<Draft>) {
    for draft in more {
        match drafts.iter_mut().find(|known| known.name == draft.name) {
            Some(known) => {
                known.entries.extend(draft.entries);
                known.api.api_version = draft.api.api_version.or(known.api.api_version.take());
            }
            None => drafts.push(draft),
        }
    }
}

/// Says which pools have no key after all.
pub(super) fn drop_empty(drafts: &mut Vec<Draft>, ledger: &mut Ledger) {
    drafts.retain(|draft| {
        let empty = draft.entries.is_empty();
        if empty {
            ledger.warnings.push(format!("the pool `{}` has no key and is left out", draft.name));
        }
        !empty
    });
}
