//! Upstreams of other dialects, directly and behind the daemon.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use tokio::process::Command;

use super::{
    API_KEY, ROUTED,
    runner::run_to_its_end,
    support::{
        proxy::Proxy,
        upstream::{Answer, Character, Upstream},
    },
};

/// How keys fail; the proxy has one of each in every pool, for the model of that name.
const FAULTS: [&str; 6] = ["limited", "failing", "overloaded", "breaking", "stalling", "late"];
const ACCOUNT: &str = "proj_sdk";

/// Two upstreams that behave alike, one of them behind the daemon as several pools, and what fails.
pub(crate) struct Pools {
    direct: Upstream,
    behind: Upstream,
    /// With keys `direct-…`.
    faults: Upstream,
    /// Each fault behind the proxy has a host of its own: what befalls a host is not the others'.
    hosts: BTreeMap<&'static str, Upstream>,
    /// None while the daemon has no routes for one of the pools.
    proxy: Option<Proxy>,
}

impl Pools {
    /// With these pools, named as their dialects are; `openai` is the default pool.
    pub(crate) async fn set(names: &[&str]) -> Self {
        let (direct, behind, faults) =
            (Upstream::start().await, Upstream::start().await, Upstream::start().await);
        let mut hosts = BTreeMap::new();
        for fault in FAULTS {
            play(&faults, &format!("direct-{fault}"), fault);
            hosts.insert(fault, Upstream::start().await);
        }
        for upstream in [&direct, &behind, &faults].into_iter().chain(hosts.values()) {
            upstream.unknown_keys_are_rejected();
        }
        direct.key(API_KEY).account(ACCOUNT);
        let mut toml = format!(
            "[upstream]\nbase_url = \"{}\"\nretry_initial_backoff_ms = 1\nretry_max_backoff_ms = 2\n\
             [clients]\nkeys = [\"{API_KEY}\"]\n",
            behind.url()
        );
        // The default pool comes first: below `[[pools]]` there is no way back.
        let (default, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| **name == "openai");
        for name in default {
            keys(&mut toml, "keys.pool", name, &behind, &hosts);
        }
        for name in others {
            writeln!(toml, "[[pools]]\nname = \"{name}\"\ndialect = \"{name}\"").expect("a String takes it");
            writeln!(toml, "base_url = \"{}\"", behind.url()).expect("a String takes it");
            if name == "azure" {
                toml += "api_version = \"2024-10-21\"\ndeployments = { \"gpt-4o\" = \"my-gpt4o\" }\n";
            }
            keys(&mut toml, "pools.keys", name, &behind, &hosts);
        }
        let routed = names.iter().all(|name| ROUTED.contains(name));
        let proxy = if routed { Some(Proxy::start(&toml).await) } else { None };
        Self { direct, behind, faults, hosts, proxy }
    }

    /// Runs an SDK's tests to their end.
    pub(crate) async fn run(&self, command: &mut Command) {
        command.env("DIRECT_URL", self.direct.url()).env("FAULTS_URL", self.faults.url());
        if let Some(proxy) = &self.proxy {
            command.env("PROXY_URL", proxy.url(""));
        }
        run_to_its_end(command).await;
        for upstream in [&self.direct, &self.faults, &self.behind].into_iter().chain(self.hosts.values()) {
            // A stream that was left is cancelled upstream.
            upstream.wait_for(|upstream| upstream.open_requests() == 0).await;
        }
        if self.proxy.is_none() {
            return;
        }
        assert!(self.behind.total_calls() > 0);
        for request in self.hosts.values().chain([&self.behind]).flat_map(Upstream::requests) {
            // No credential stands in a URL, and the client's stands nowhere.
            let query = request.query().unwrap_or_default();
            assert!(!query.split('&').any(|pair| pair.starts_with("key=")), "{}", request.target);
            assert!(!format!("{:?}", request.headers).contains(API_KEY), "{:?}", request.headers);
        }
    }
}

/// Two good keys and one for each fault.
fn keys(toml: &mut String, table: &str, pool: &str, behind: &Upstream, hosts: &BTreeMap<&str, Upstream>) {
    for number in ["one", "two"] {
        let key = format!("sk-{pool}-{number}");
        behind.key(&key).account(ACCOUNT);
        writeln!(toml, "[[{table}]]\nkey = \"{key}\"").expect("a String takes it");
    }
    for (fault, host) in hosts {
        let key = format!("sk-{pool}-{fault}");
        play(host, &key, fault);
        let url = host.url();
        writeln!(toml, "[[{table}]]\nkey = \"{key}\"\nurl = \"{url}\"\nmodels = [\"{fault}\"]")
            .expect("a String takes it");
    }
}

fn play(upstream: &Upstream, key: &str, fault: &str) {
    let script = upstream.key(key);
    match fault {
        "limited" => script.always(Answer::rate_limited(Duration::from_secs(120))),
        "failing" => script.is(Character::Failing),
        "overloaded" => script.is(Character::Overloaded),
        "breaking" => script.is(Character::Breaking),
        "stalling" => script.is(Character::Stalling),
        "late" => script.is(Character::OverloadedLater),
        _ => unreachable!("not in the list of faults"),
    };
}
