//! The effective configuration, for people.

mod pools;

use std::{fmt::Write as _, time::Duration};

use super::{Config, NamedPool};
use crate::{rate::Rate, server::CorsOrigins, telemetry::LogFormat, types::Key};

/// Writes `config` like the TOML that would give it. Of credentials there are ids and numbers only.
pub(super) fn render(config: &Config) -> String {
    let mut text = Text(String::new());
    let Config {
        server,
        telemetry,
        clients,
        pool,
        keys,
        env_keys,
        base_url,
        pools,
        aliases,
        policy,
        transport,
        notes,
    } = config;

    text.section("[server]");
    text.string("bind_addr", server.bind);
    text.plain("request_body_limit_bytes", server.body_limit);
    text.plain("max_upload_bytes", server.upload_limit);
    text.plain("max_frame_bytes", server.frame_limit);
    text.plain("replay_memory_bytes", server.replay_memory);
    text.plain("graceful_shutdown_seconds", server.drain.as_secs());
    text.plain("shutdown_delay_seconds", server.shutdown_delay.as_secs());
    text.plain("max_connections", server.max_connections);
    text.list("trusted_proxies", server.trusted_proxies.iter().map(ToString::to_string));
    match &server.cors {
        CorsOrigins::Any => text.list("cors_allowed_origins", ["*".to_owned()]),
        CorsOrigins::Loopback => text.comment("cors_allowed_origins: loopback origins"),
        CorsOrigins::List(origins) => {
            let origins = origins.iter().map(|origin| origin.to_str().unwrap_or_default().to_owned());
            text.list("cors_allowed_origins", origins);
        }
    }

    text.section("[upstream]");
    text.string("base_url", base_url);
    if !transport.extra_roots.is_empty() {
        text.comment(&format!(
            "ca_file: {}",
            super::keys::plural(transport.extra_roots.len(), "certificate")
        ));
    }
    text.plain("http2", transport.http2);
    text.millis("connect_timeout_ms", transport.connect_timeout);
    text.millis("request_timeout_ms", policy.head_timeout);
    text.millis("first_byte_timeout_ms", policy.first_byte_timeout);
    text.millis("idle_timeout_ms", policy.idle_timeout);
    text.millis("total_timeout_ms", policy.total_timeout);
    text.plain("max_retries", policy.max_retries);
    text.millis("retry_initial_backoff_ms", policy.backoff.initial());
    text.millis("retry_max_backoff_ms", policy.backoff.max());
    text.millis("hedge_after_ms", policy.hedge_after.unwrap_or_default());
    text.plain("ask_for_usage", policy.ask_for_usage);
    text.millis("max_wait_ms", policy.max_wait);
    text.plain("max_waiting", pool.max_waiting);

    text.section("[keys]");
    text.string("rotation_strategy", pool.strategy.as_str());
    // With an exponent where it is large: a whole number of so many digits could not be read.
    text.plain("unhealthy_penalty", format_args!("{:?}", pool.unhealthy_penalty));
    text.plain("others_step_in", pool.others_step_in);
    text.plain("env_keys", env_keys);

    text.section("[clients]");
    match clients.keys.len() {
        0 => text.comment("keys: none; anyone who reaches us is served"),
        n => text.comment(&format!("keys: {n}")),
    }

    text.section("[rate_limit]");
    text.comment("per_key_rps: see each key");
    text.rate("global_rps", clients.global_rate);
    text.rate("per_client_rps", clients.per_client_rate);

    text.section("[observability]");
    match telemetry.metrics_bind {
        Some(bind) => text.string("metrics_bind", bind),
        None => text.string("metrics_bind", "off"),
    }
    text.string("tracing_level", &telemetry.log_filter);
    let format = match telemetry.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    text.string("log_format", format);
    text.plain("debug_headers", server.debug_headers);

    for (index, key) in keys.iter().enumerate() {
        text.section("[[keys.pool]]");
        text.key(key, notes.keys.get(index));
    }
    for NamedPool { name, api, base_url, keys, places, proxies } in pools {
        text.pool(name.as_str(), base_url, api, proxies.is_some(), keys, places);
    }
    aliases.iter().for_each(|alias| text.alias(alias));
    text.0
}

/// The text so far.
struct Text(String);

impl Text {
    fn section(&mut self, heading: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{heading}");
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.0, "# {text}");
    }

    fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} = {value}");
    }

    fn string(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = toml::Value::String(value.to_string());
        self.plain(name, value);
    }

    fn list(&mut self, name: &str, items: impl IntoIterator<Item = String>) {
        let items = items.into_iter().map(toml::Value::String).collect();
        self.plain(name, toml::Value::Array(items));
    }

    fn millis(&mut self, name: &str, time: Duration) {
        self.plain(name, time.as_millis());
    }

    fn rate(&mut self, name: &str, rate: Option<Rate>) {
        match rate {
            // The interval is kept in nanoseconds; the rate that was written had fewer digits than it has.
            Some(rate) => {
                let per_second = (1e6 / rate.interval().as_secs_f64()).round() / 1e6;
                let _ = writeln!(self.0, "{name} = {per_second} # burst {}", rate.burst());
            }
            None => self.plain(name, 0),
        }
    }

    fn key(&mut self, key: &Key, place: Option<&String>) {
        let settings = key.settings();
        self.comment(&format!("key {}, from {}", key.id(), place.map_or("nowhere", String::as_str)));
        if let Some(label) = &settings.label {
            self.string("label", label);
        }
        if let Some(account) = &settings.account {
            self.string("account", account);
        }
        self.string("url", &settings.base);
        self.list("models", settings.models.entries());
        for (name, value) in [("organization", &settings.organization), ("project", &settings.project)] {
            if let Some(value) = value {
                self.string(name, value.to_str().unwrap_or_default());
            }
        }
        self.plain("priority", settings.priority);
        self.plain("weight", settings.weight);
        self.rate("rps", settings.rate);
        if let Some(most) = settings.max_in_flight {
            self.plain("max_in_flight", most);
        }
    }
}
