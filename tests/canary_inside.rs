//! Marked secrets inside the process: what a panic says, and what the library's own types show of themselves.

use std::{
    backtrace::Backtrace,
    collections::BTreeMap,
    net::SocketAddr,
    panic,
    sync::{Arc, Mutex, PoisonError},
};

use key_cycle_proxy::{
    client::Clients,
    clock::Clock,
    config::{Config, Env, Flags},
    daemon::Daemon,
    forward::{SharedPool, transport::Transport},
    pool::Pool,
    redact::Traces,
    types::{Key, KeySettings, PoolName},
};
use support::{
    canary::{Secrets, secret, secret_in_base64},
    proxy::{Proxy, chat, keys_toml},
    raw::Raw,
    upstream::{Answer, Upstream},
};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

mod support;

/// What panics have said, with all there is to say.
static SAID: Mutex<String> = Mutex::new(String::new());

/// Panics over the line about a failed attempt, where a key is on loan (see `isolation.rs`).
struct Panics;

impl<S: Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        if meta.target() == "key_cycle_proxy::proxy" && *meta.level() == Level::DEBUG {
            panic!("as the test wants it");
        }
    }
}

#[tokio::test]
async fn no_secret_leaves_in_a_panic_or_in_what_follows_it() {
    panic::set_hook(Box::new(|info| {
        let text = format!("{info}\n{info:?}\n{}\n", Backtrace::force_capture());
        SAID.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
    }));
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(Panics));
    let (one, two, client) =
        (secret("sk-canary-", 1), secret_in_base64("canary-", 2), secret("ck-canary-", 3));
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::with(|request| {
        let key = request.key.clone().unwrap_or_default();
        Answer::status(500).error("server_error", "", &key).header("x-echo", key)
    }));
    let file = keys_toml(&upstream.url(), &[&one, &two]) + &format!("[clients]\nkeys = [\"{client}\"]\n");
    let proxy = Proxy::start(&file).await;
    let body = chat("m");
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\nauthorization: Bearer {client}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let secrets = Secrets::new([&one, &two, &client].map(String::as_str));
    for _ in 0..3 {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.send(&request).await;
        let answer = raw.rest().await.0;
        assert!(answer.starts_with(b"HTTP/1.1 500 ") && !answer.is_empty());
        secrets.assert_none("the answer", answer);
    }
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(said.contains("as the test wants it") && said.contains("canary_inside"), "{said}");
    secrets.assert_none("a panic", said);
    secrets.assert_none("metrics", proxy.metrics().await);
}

#[tokio::test]
async fn no_type_that_holds_a_secret_shows_it() {
    let (one, two, client) =
        (secret("sk-canary-", 1), secret_in_base64("canary-", 2), secret("ck-canary-", 3));
    let (user, password) = (secret("canary-", 4), secret("canary-", 5));
    let secrets = Secrets::new([&one, &two, &client, &user, &password].map(String::as_str));
    let text =
        keys_toml("https://upstream.example", &[&one]) + &format!("[clients]\nkeys = [\"{client}\"]\n");
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text).expect("the test's own file");
    let flags = Flags { config: Some(file), bind: Some(SocketAddr::from(([127, 0, 0, 1], 0)).into()) };
    let proxy = format!("http://{user}:{password}@proxy.example:3128");
    let variables = [
        ("OPENAI_KEYS", &two),
        ("PROXY_API_KEY", &client),
        ("HTTP_PROXY", &proxy),
        ("HTTPS_PROXY", &proxy.replace("http", "socks5")),
    ];
    let variables: BTreeMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    let env = Env::from_map(variables);
    let mut shown = vec![format!("{env:?} {flags:?}")];
    let load = || {
        let mut config =
            Config::load(&flags, &env, folder.path()).unwrap_or_else(|problems| panic!("{problems}"));
        config.telemetry.metrics_bind = None;
        config
    };
    let config = load();
    assert_eq!((config.keys.len(), config.clients.keys.len()), (2, 1));
    assert!(config.transport.proxies.is_some());
    shown.push(format!("{config:?}\n{config:#?}\n{}", config.render()));
    shown.push(format!("{:?}", Clients::new(&config.clients)));
    shown.push(format!("{:?}", Transport::new(&config.transport, Clock::system())));
    let settings = KeySettings::at(config.base_url.clone());
    let secret = config.keys[0].secret().clone();
    shown.push(format!("{secret:?} {:?}", Traces::of(config.keys[1].secret())));
    let keys = Key::pool(&PoolName::default(), vec![(secret, settings)]);
    shown.push(format!("{keys:#?} {:?}", (keys[0].bearer(), keys[0].plain())));
    let keys = config.keys.into_iter().map(Arc::new).collect();
    let pool = Pool::new(config.pool, keys, config.base_url.origin(), fastrand::Rng::with_seed(1));
    shown.push(format!("{pool:?}"));
    let pool = SharedPool::new(PoolName::default(), pool, Clock::system());
    shown.push(format!("{pool:#?}\n{:#?}", pool.snapshot()));
    let daemon = Daemon::bind(load()).expect("loopback has free ports");
    shown.push(format!("{daemon:?}\n{daemon:#?}"));
    for text in shown {
        assert!(!text.is_empty());
        secrets.assert_none("Debug", text);
    }
}
