//! `[server]` and `[observability]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
};

use http::HeaderValue;
use ipnet::IpNet;
use url::Url;

use super::{Bind, Env, Flags, log, problem::Problem, section::Section, upstream::MANY};
use crate::{
    server::{CorsOrigins, Settings},
    telemetry::{self, LogFormat},
};

/// The variable that holds the port.
pub(super) const PORT: &str = "PORT";
/// The same as an older system calls it.
pub(super) const BACKEND_PORT: &str = "BACKEND_PORT";

/// The port unless something says otherwise.
const DEFAULT_PORT: u16 = 8080;

/// What is wrong with a text, and advice.
type Wrong = (String, Option<String>);

/// Reads `[server]`. `open`: no client key is asked for. `older_port`: an older file names a port alone.
pub(super) fn server(
    mut section: Section<'_, '_>,
    open: bool,
    older_port: Option<u16>,
    flags: &Flags,
    env: &Env,
) -> Settings {
    let ip = if open { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let mut bind = section.parsed("bind_addr", address).unwrap_or((ip, DEFAULT_PORT).into());
    if section.place("bind_addr").is_some() && older_port.is_some_and(|port| port != bind.port()) {
        section.refuse("bind_addr", "its port is another one than `port`");
    }
    if let Some(port) = port(&mut section, env).or(older_port) {
        bind.set_port(port);
    }
    let bind = match flags.bind {
        None => bind,
        Some(Bind::Socket(address)) => address,
        Some(Bind::Address(ip)) => (ip, bind.port()).into(),
    };
    let default = Settings::at(bind);
    let limit = section.whole("request_body_limit_bytes", 1..=u64::MAX);
    let body_limit = limit.unwrap_or(default.body_limit);
    Settings {
        body_limit,
        upload_limit: section.whole("max_upload_bytes", 1..=u64::MAX).unwrap_or(default.upload_limit),
        frame_limit: section.whole("max_frame_bytes", 125..=u64::MAX).unwrap_or(default.frame_limit),
        replay_memory: section
            .whole("replay_memory_bytes", 1..=u64::MAX)
            .unwrap_or(default.replay_memory)
            // One body must fit.
            .max(body_limit),
        max_connections: section
            .whole("max_connections", 1..=MANY)
            .and_then(NonZeroUsize::new)
            .unwrap_or(default.max_connections),
        trusted_proxies: list(&mut section, "trusted_proxies", network).unwrap_or_default(),
        cors: cors(&mut section).unwrap_or(if open { CorsOrigins::Loopback } else { CorsOrigins::Any }),
        shutdown_delay: section.seconds("shutdown_delay_seconds").unwrap_or(default.shutdown_delay),
        drain: section.seconds("graceful_shutdown_seconds").unwrap_or(default.drain),
        ..default
    }
}

/// Reads `[observability]`: logs and metrics, and whether answers name the key and the attempts.
pub(super) fn observability(
    mut section: Section<'_, '_>,
    env: &Env,
    bind: SocketAddr,
) -> (telemetry::Settings, bool) {
    let default = telemetry::Settings::default();
    let metrics_bind = section.parsed("metrics_bind", |text| match text.trim() {
        "off" => Ok(None),
        text => address(text).map(Some).map_err(|(reason, _)| (reason, Some(METRICS_HINT.to_owned()))),
    });
    let settings = telemetry::Settings {
        metrics_bind: metrics_bind.unwrap_or(default.metrics_bind),
        log_filter: log::filter(&mut section, env).unwrap_or(default.log_filter),
        log_format: section.parsed("log_format", log_format).unwrap_or(default.log_format),
    };
    if let Some(metrics) = settings.metrics_bind.filter(|metrics| collide(*metrics, bind)) {
        let reason = format!("metrics at {metrics} and the proxy at {bind} would need the same port");
        let problem = match section.place("metrics_bind") {
            Some(place) => place.problem(reason),
            None => Problem { file: None, ..Problem::new("", "observability.metrics_bind", reason) },
        };
        section.ledger().problems.push(problem.hint(METRICS_HINT));
    }
    (settings, section.flag("debug_headers").unwrap_or_default())
}

const METRICS_HINT: &str = "an address and a port, such as 127.0.0.1:9090, or \"off\"";

/// Whether two listeners can't both have their address.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && a.is_ipv4() == b.is_ipv4() && overlap
}

fn port(section: &mut Section<'_, '_>, env: &Env) -> Option<u16> {
    let (name, text) = [PORT, BACKEND_PORT].into_iter().find_map(|name| Some((name, env.get(name)?)))?;
    let port = text.parse().ok();
    if port.is_none() {
        let problem = Problem::new(Env::SOURCE, name, format!("{text:?} is no port"));
        section.ledger().problems.push(problem.hint("a number from 0 to 65535"));
    }
    port
}

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    let hint = || Some("an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned());
    text.trim().parse().map_err(|_| (format!("{text:?} is no address to listen at"), hint()))
}

fn network(text: &str) -> Result<IpNet, Wrong> {
    let text = text.trim();
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| {
        let hint = "such as 10.0.0.1 or 10.0.0.0/8";
        (format!("{text:?} is neither an IP address nor a network"), Some(hint.to_owned()))
    })
}

fn log_format(name: &str) -> Result<LogFormat, Wrong> {
    match name {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err((format!("{name:?} is no log format"), Some("text or json".to_owned()))),
    }
}

fn cors(section: &mut Section<'_, '_>) -> Option<CorsOrigins> {
    let origins = list(section, "cors_allowed_origins", |text| match text.trim() {
        "*" => Ok(None),
        text => origin(text).map(Some),
    })?;
    let listed: Option<Vec<HeaderValue>> = origins.into_iter().collect();
    Some(listed.map_or(CorsOrigins::Any, CorsOrigins::List))
}

/// An origin as a browser sends it (RFC 6454 §6.2).
fn origin(text: &str) -> Result<HeaderValue, Wrong> {
    let wrong = || {
        let hint = "a scheme, a host and perhaps a port, such as https://chat.example.com, or \"*\"";
        (format!("{text:?} is no origin"), Some(hint.to_owned()))
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong());
    }
    let serial = url.origin().ascii_serialization();
    // An origin of a scheme that is not the web's, such as a browser extension's, has no serial form but its text.
    let serial = if serial == "null" { text.trim_end_matches('/') } else { &serial };
    HeaderValue::from_str(serial).map_err(|_| wrong())
}

/// Reads a list, each item of which `parse` understands.
fn list<T>(
    section: &mut Section<'_, '_>,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<Vec<T>> {
    let texts = section.texts(name)?;
    let items = texts.into_iter().filter_map(|(text, place)| match parse(text) {
        Ok(item) => Some(item),
        Err((reason, hint)) => {
            section.ledger().problems.push(Problem { hint, ..place.problem(reason) });
            None
        }
    });
    Some(items.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, sent) in [
            ("https://Chat.Example.com:443/", "https://chat.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(origin(text).unwrap(), sent);
        }
        for text in ["", "chat.example.com", "https://a/b", "https://a?x", "https://u@a", "mailto:a@b"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(network("10.0.0.1").unwrap(), "10.0.0.1/32".parse().unwrap());
        assert_eq!(network("fd00::/8").unwrap(), "fd00::/8".parse().unwrap());
        assert!(network("10.0.0.0/33").is_err() && network("proxy.local").is_err());
    }

    #[test]
    fn listeners_collide_on_one_port() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("0.0.0.0:9090", "127.0.0.1:9090") && collide("[::]:1", "[::1]:1"));
        assert!(!collide("127.0.0.2:9090", "127.0.0.1:9090") && !collide("0.0.0.0:0", "0.0.0.0:0"));
        assert!(!collide("0.0.0.0:9090", "0.0.0.0:8080"));
    }
}
