//! Marked secrets go through everything that can happen, and every byte that comes out is searched for them.
//!
//! The secrets are the pool's keys, a client's keys, and the password of a forward proxy; what comes out is what clients
//! receive, byte for byte, the log at its most talkative, metrics, probes, and what `check` prints. They are searched for
//! in parts of twelve characters, plain, in base64, percent-encoded, in hex and as lists of numbers.
//!
//! The body of a success goes through untouched: an upstream that writes our key into one tells it. So does the rest of a
//! refusal after its first 64 KiB, or after two seconds.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use serde_json::Value;
use support::{
    binary::Folder,
    canary::{Secrets, assert_secrets_are_found, percent, secret, secret_in_base64},
    forward_proxy::ForwardProxy,
    proxy::{chat, streamed_chat},
    raw::Raw,
    upstream::{Answer, Recorded, Upstream},
};

mod support;

/// How an upstream repeats the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Plain,
    Gzip,
    Chunks,
    Head,
    Tail,
    Percent,
    Escaped,
}

const ECHOES: [Echo; 7] =
    [Echo::Plain, Echo::Gzip, Echo::Chunks, Echo::Head, Echo::Tail, Echo::Percent, Echo::Escaped];

impl Echo {
    fn of(self, key: &str) -> String {
        match self {
            Self::Plain | Self::Gzip | Self::Chunks => key.to_owned(),
            Self::Head => format!("{}…", &key[..key.len() - 6]),
            Self::Tail => format!("…{}", &key[16..]),
            Self::Percent => percent(key, false),
            Self::Escaped => key.replace('/', "\\/"),
        }
    }

    /// `answer` with a key in its headers, and in its body if that may be looked into.
    fn answer(self, status: u16, body: &Value, key: &str) -> Answer {
        let (echo, mut answer) = (self.of(key), Answer::status(status));
        if echo.is_ascii() {
            answer = answer
                .header("x-echo", format!("Bearer {echo}"))
                .header("location", format!("https://elsewhere.example/{echo}?a={echo}&key={echo}"))
                .header("www-authenticate", format!("Bearer error=\"{echo}\""));
        }
        let body = match body {
            Value::String(text) => format!("{text} {echo}"),
            json => {
                // Marked, so that the text of JSON is left as it is.
                let (mut json, places) = (json.clone(), ["/error/message", "/0/error/message", "/message"]);
                let place = places.into_iter().find(|place| json.pointer(place).is_some());
                let message = place.and_then(|place| json.pointer_mut(place));
                match message {
                    Some(message) => {
                        *message = format!("{} MARK", message.as_str().unwrap_or_default()).into()
                    }
                    None => json = format!("{json} MARK").into(),
                }
                json.to_string().replacen("MARK", &echo, 1)
            }
        };
        match self {
            _ if status < 400 => answer,
            Self::Gzip => answer.body(body).gzip(),
            Self::Chunks => answer.body(body).chunked().dribble(7),
            _ => answer.body(body),
        }
    }
}

/// A key, the model that it alone serves, and what it gets.
struct Row {
    key: String,
    url: Option<String>,
    answer: Answer,
    stream: bool,
}

/// Every recorded answer with the key in it, the first of each class also in other writings, and everything else that
/// can become of a request.
fn rows(dead: &str, tls: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |url: Option<&str>, stream: bool, answer: &dyn Fn(&str) -> Answer| {
        let seed = rows.len() as u64 + 100;
        let key = match rows.len() % 3 {
            0 => secret("sk-canary-", seed),
            1 => secret("canary-", seed),
            _ => secret_in_base64("canary-", seed),
        };
        rows.push(Row { answer: answer(&key), url: url.map(str::to_owned), key, stream });
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openai");
    let mut classes = std::collections::HashSet::new();
    for file in std::fs::read_dir(folder).expect("the fixtures are there") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let fixture: Value = serde_json::from_str(&text).expect("JSON");
        let status =
            fixture["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status");
        let is_first = classes.insert(fixture["expect"]["class"].as_str().map(str::to_owned));
        for echo in ECHOES.into_iter().take(if is_first { ECHOES.len() } else { 1 }) {
            // Each writing of each kind of key.
            for _ in 0..if is_first { 3 } else { 1 } {
                add(None, false, &|key| echo.answer(status, &fixture["body"], key));
            }
        }
    }
    assert!(classes.len() >= 11, "saw only {classes:?}");
    for status in [200, 302, 307] {
        for echo in [Echo::Plain, Echo::Percent] {
            for _ in 0..3 {
                add(None, false, &|key| echo.answer(status, &Value::Null, key));
            }
        }
    }
    let raw = |text: &str| {
        let text = text.to_owned();
        move |key: &str| Answer::raw(text.replace("KEY", key))
    };
    add(None, true, &|_| Answer::sse(["one", "two"]).cut_after(1));
    add(None, true, &|_| Answer::sse(["one", "two"]).stall_after(1));
    add(None, true, &|_| Answer::sse(["one", "two"]).bad_chunk_after(1));
    add(None, false, &|_| Answer::ok().half_body());
    add(None, true, &|_| Answer::ok().hang());
    add(None, false, &|_| Answer::ok().reset_before_head());
    add(None, false, &|key| Answer::status(400).body(format!("{key} and so on")).half_body());
    add(None, false, &raw("KEY is not HTTP\r\n\r\n"));
    add(None, false, &raw("HTTP/1.1 200 OK\r\nKEY without a colon\r\n\r\n"));
    add(None, false, &raw("HTTP/1.1 200 OK\r\ncontent-length: KEY\r\n\r\n"));
    add(None, false, &raw("HTTP/1.1 400 The key is KEY\r\ncontent-length: 2\r\n\r\n{}"));
    add(
        None,
        false,
        &raw("HTTP/1.1 103 Early Hints\r\nlink: KEY\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    );
    add(
        None,
        false,
        &raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n0\r\nx-a: KEY\r\n\r\n"),
    );
    add(None, false, &raw("HTTP/1.1 101 Switching\r\nupgrade: KEY\r\nconnection: upgrade\r\n\r\n"));
    add(None, false, &raw("HTTP/1.1 204 No Content\r\n\r\nKEY comes after the end"));
    add(Some(dead), false, &|_| Answer::ok());
    add(Some(tls), false, &|_| Answer::ok());
    rows
}

/// Everything that has come out, and from where.
struct Told(Vec<(String, Vec<u8>)>);

impl Told {
    /// Sends `request`, which must end its connection, and keeps every byte that comes back.
    async fn ask(&mut self, address: SocketAddr, request: impl AsRef<[u8]>) -> usize {
        let mut raw = Raw::connect(address).await;
        raw.try_send(&request).await;
        let (answer, _) = raw.rest().await;
        let what = String::from_utf8_lossy(&request.as_ref()[..request.as_ref().len().min(60)]).into_owned();
        self.0.push((format!("the answer to {what:?}"), answer.to_vec()));
        answer.len()
    }
}

/// A chat with the key of `model`.
fn post(model: &str, client: &str, stream: bool) -> String {
    let body = if stream { streamed_chat(model) } else { chat(model) };
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\nauthorization: Bearer {client}\r\nte: trailers\r\n\
         connection: close, te\r\ncookie: a={client}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What clients do wrong, with a key in it.
fn wrong(client: &str, stranger: &str, pool: &str) -> Vec<String> {
    let lines = format!("host: p\r\nauthorization: Bearer {client}\r\nconnection: close\r\n\r\n");
    let mut requests = vec![
        post("row-0", stranger, false),
        format!(
            "POST /v1/files HTTP/1.1\r\ncontent-length: 20000\r\n{lines}{}",
            client.repeat(20_000 / client.len() + 1)
        ),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 60\r\n{lines}{{\"{client}{client}"
        ),
        format!("GET /v1/models HTTP/1.1\r\nx-bad {client}\r\n{lines}"),
        format!("GET /v1/models HTTP/1.1\r\n{client}\r\n{lines}"),
        format!("GET /v1/models {client}\r\n{lines}"),
        format!("GET /v1/models HTTP/1.1\r\ntransfer-encoding: {client}\r\n{lines}"),
        format!("GET /v1/models HTTP/1.1\r\nhost: {client}\r\n{lines}"),
        "GET /v1/models HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n".to_owned(),
    ];
    for header in
        ["x-api-key", "x-goog-api-key", "api-key", "x-proxy-key", "proxy-authorization", "authorization"]
    {
        for key in [client, stranger, pool] {
            requests.push(format!(
                "GET /v1/models HTTP/1.1\r\nhost: p\r\nconnection: close\r\n{header}: {key}\r\n\r\n"
            ));
        }
    }
    for key in [client, stranger, pool].map(|key| percent(key, false)) {
        for target in [
            format!("/v1/models?key={key}"),
            format!("/v1/models?%6Bey={key}&a=b"),
            format!("/v1/models?a={key}&b=\"{key}\""),
            format!("/{key}/v1/models"),
            format!("/{key}"),
            format!("/v1/{key}"),
            format!("/v1/models/{key}"),
            format!("/v1/models/a:{key}@b"),
            format!("/v1/../{key}"),
            format!("/v1//{key}"),
            format!("/v1/\\{key}"),
            format!("/v1/{{{key}}}"),
            format!("/health/{key}"),
            format!("http://{key}@p/v1/models"),
            key,
        ] {
            requests.push(format!("GET {target} HTTP/1.1\r\n{lines}"));
        }
    }
    requests
}

/// Everything once, against the real binary; `env` is added to its environment.
async fn pass(format: &str, proxied: bool) {
    assert_secrets_are_found();
    let (upstream, tls, dead) =
        (Upstream::start().await, Upstream::start_tls().await, Upstream::start().await);
    dead.stop().await;
    let rows = rows(&dead.url().replace("127.0.0.1", "localhost"), &tls.url());
    let (client, stranger) = (secret("ck-canary-", 1), secret("sk-canary-", 2));
    let (user, password) = (secret("canary-", 3), secret("canary-", 4));
    let (good, other) = (secret("sk-canary-", 5), secret("canary-", 6));
    let mut file = format!(
        "[upstream]\nbase_url = \"{}\"\nfirst_byte_timeout_ms = 300\nidle_timeout_ms = 300\nmax_retries = 1\n\
         retry_initial_backoff_ms = 1\nretry_max_backoff_ms = 2\nmax_wait_ms = 0\n\
         [server]\nrequest_body_limit_bytes = 10000\n[clients]\nkeys = [\"{client}\"]\n\
         [observability]\nmetrics_bind = \"127.0.0.1:0\"\nlog_format = \"{format}\"\ndebug_headers = true\n\
         [[keys.pool]]\nkey = \"{good}\"\nlabel = \"good\"\n[[keys.pool]]\nkey = \"{other}\"\n",
        upstream.url()
    );
    for (n, row) in rows.iter().enumerate() {
        let url = row.url.as_ref().map_or_else(String::new, |url| format!("url = \"{url}\"\n"));
        let _ = write!(file, "[[keys.pool]]\nkey = \"{}\"\nmodels = [\"row-{n}\"]\n{url}", row.key);
        upstream.key(&row.key).always(row.answer.clone());
    }
    // It would repeat what a client asks for, also a key in it.
    let answer = |request: &Recorded| if request.method == "POST" { Answer::api() } else { Answer::ok() };
    upstream.otherwise(Answer::with(answer));
    let folder = Folder::with("config.toml", &file);
    let way = ForwardProxy::guarded(upstream.address(), &user, &password).await;
    let environment = [
        ("HTTP_PROXY", way.url("http", &format!("{user}:{password}"))),
        // A wrong one, for what has TLS.
        ("HTTPS_PROXY", way.url("socks5h", &format!("{password}:{user}"))),
        ("NO_PROXY", "localhost".to_owned()),
    ];
    let command = |arguments: &[&str]| {
        let command = folder.command(arguments).env("RUST_LOG", "trace");
        let environment = environment.iter().filter(|_| proxied);
        environment.fold(command, |command, (name, value)| command.env(name, value))
    };
    let mut told = Told(Vec::new());
    let check = command(&["check"]).run().await;
    assert_eq!(check.code, 0, "{}", check.stderr);
    told.0.push(("check".to_owned(), [check.stdout, check.stderr].concat().into_bytes()));
    let mut daemon = command(&["--bind", "127.0.0.1:0"]).serve().await;
    let (address, metrics) = (daemon.address(), daemon.metrics_address().await);
    for (n, row) in rows.iter().enumerate() {
        told.ask(address, post(&format!("row-{n}"), &client, row.stream)).await;
        // What works keeps the breaker shut.
        for stream in [false, true] {
            let length = told.ask(address, post("any", &client, stream)).await;
            assert!(length > 200, "the answer to row {n} is followed by a good one");
        }
        let reached = upstream.calls(&row.key) > 0;
        assert_eq!(reached, row.url.is_none(), "row {n} meets what it should");
    }
    for request in wrong(&client, &stranger, &good) {
        told.ask(address, request).await;
    }
    let lines = "host: localhost\r\nconnection: close\r\n\r\n";
    for (address, path) in [
        (metrics, "/metrics"),
        (metrics, "/health/detailed"),
        (address, "/health/detailed"),
        (address, "/readyz"),
    ] {
        assert!(told.ask(address, format!("GET {path} HTTP/1.1\r\n{lines}")).await > 60, "{path}");
    }
    daemon.signal("-TERM");
    let ended = daemon.ended().await;
    assert!(ended.stderr.contains("TRACE") && ended.stderr.contains("quarantined"), "it tells everything");
    assert!(!ended.stderr.contains("lines were dropped"));
    told.0.push(("the log".to_owned(), ended.stderr.into_bytes()));
    told.0.push(("standard output".to_owned(), ended.stdout.into_bytes()));
    let named = [&client, &stranger, &user, &password, &good, &other];
    let secrets = Secrets::new(rows.iter().map(|row| &row.key).chain(named).map(String::as_str));
    for (place, text) in told.0 {
        secrets.assert_none(&place, text);
    }
}

#[tokio::test]
async fn no_secret_leaves_over_http2_on_either_side() {
    let upstream = Upstream::start_tls().await;
    let (client, stranger, key) =
        (secret("ck-canary-", 1), secret("sk-canary-", 2), secret_in_base64("canary-", 3));
    let file = format!(
        "[upstream]\nbase_url = \"{}\"\nhttp2 = true\nca_file = \"ca.pem\"\nmax_wait_ms = 0\n[clients]\n\
         keys = [\"{client}\"]\n[observability]\nmetrics_bind = \"off\"\n[[keys.pool]]\nkey = \"{key}\"\n",
        upstream.url()
    );
    let folder = Folder::with("config.toml", &file).and("ca.pem", &upstream.ca_pem());
    let daemon = folder.command(&["--bind", "127.0.0.1:0"]).env("RUST_LOG", "trace").serve().await;
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    let mut told = Vec::new();
    let error = serde_json::json!({"error": {"message": "No.", "code": "bad_value"}});
    for (answer, credential) in [
        (Answer::api(), &client),
        (Answer::sse(["one", "two"]), &client),
        (Answer::sse(["one", "two"]).cut_after(1), &client),
        (Echo::Plain.answer(400, &error, &key), &client),
        (Echo::Gzip.answer(500, &error, &key), &client),
        (Echo::Percent.answer(302, &error, &key), &client),
        (Answer::ok(), &stranger),
        (Answer::revoked(), &client),
    ] {
        upstream.otherwise(answer);
        let url = daemon.url(&format!("/v1/chat/completions?key={credential}"));
        let request = http2.post(url).bearer_auth(credential).header("x-api-key", credential);
        let answer = request.body(chat("m")).send().await.expect("an answer");
        told.push(format!("{:?}", answer.headers()));
        // One of them breaks off.
        told.extend(answer.text().await);
    }
    assert_eq!(upstream.last_request().version, http::Version::HTTP_2);
    daemon.signal("-TERM");
    told.push(daemon.ended().await.stderr);
    let secrets = Secrets::new([&client, &stranger, &key].map(String::as_str));
    for text in told {
        secrets.assert_none("HTTP/2", text);
    }
}

#[tokio::test]
async fn no_secret_leaves_in_an_answer_the_text_log_or_a_page() {
    pass("text", false).await;
}

#[tokio::test]
async fn no_secret_leaves_in_the_json_log_or_behind_a_forward_proxy() {
    pass("json", true).await;
}
