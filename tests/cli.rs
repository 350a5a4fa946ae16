//! The program itself: its arguments, files, environment, exit codes and log. Signals have a file of their own.

use std::time::Duration;

use support::{
    binary::{Folder, Running},
    proxy::{chat, client},
    upstream::{Answer, Upstream},
};
use tokio::net::{TcpListener, TcpSocket};

mod support;

/// A key that must never be seen in any output.
const CANARY: &str = "sk-canary-0123456789";
/// A client key likewise.
const CLIENT_CANARY: &str = "ck-canary-0123456789";

/// A `config.toml` for keys at `upstream` with metrics out of the way, and `more` at its end.
fn settings(upstream: &Upstream, more: &str) -> String {
    format!(
        "[upstream]\nbase_url = \"{}\"\n[observability]\nmetrics_bind = \"127.0.0.1:0\"\n{more}",
        upstream.url()
    )
}

async fn ask(proxy: &Running) -> reqwest::Response {
    let request = client().post(proxy.url("/v1/chat/completions")).header("content-type", "application/json");
    request.body(chat("gpt-4o")).send().await.expect("the proxy answers")
}

// Where settings come from.

#[tokio::test]
async fn keys_from_the_environment_are_enough_to_serve() {
    let upstream = Upstream::start().await;
    let folder = Folder::with("config.toml", &settings(&upstream, ""));
    let proxy = folder.command(&[]).env("OPENAI_KEYS", "sk-one,sk-two").env("PORT", "0").serve().await;
    for _ in 0..4 {
        assert_eq!(ask(&proxy).await.status(), 200);
    }
    assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (2, 2));
    assert!(proxy.address().ip().is_loopback(), "without client keys only this machine is served");
    assert!(proxy.log().contains("environment OPENAI_KEYS: 2 keys"), "{}", proxy.log());
}

/// A table that grows under load holds up requests for some ten milliseconds, each time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn there_is_room_for_descriptors_from_the_start() {
    for (max_connections, room) in [(600, 1200), (1_000_000, 10_000)] {
        let toml = format!(
            "[server]\nmax_connections = {max_connections}\n[observability]\nmetrics_bind = \"off\"\n"
        );
        let folder = Folder::with("config.toml", &toml);
        let start = folder.command(&["--bind", "127.0.0.1:0"]).descriptors(100);
        let proxy = start.env("OPENAI_KEYS", "sk-a").serve().await;
        let limits = proxy.told_by_linux("limits");
        let limits: Vec<_> = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("a limit")
            .split_whitespace()
            .skip(3)
            .take(2)
            .map(str::to_owned)
            .collect();
        assert_eq!(limits[0], limits[1], "the limit is as high as it may be");
        let most = limits[1].parse().unwrap_or(u64::MAX);
        let status = proxy.told_by_linux("status");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("a size");
        let size: u64 = size.trim().parse().expect("a number");
        assert!(size >= room.min(most), "room for {size}");
    }
}

#[tokio::test]
async fn keys_of_both_files_and_of_the_environment_are_united() {
    let upstream = Upstream::start().await;
    let toml = settings(&upstream, "[[keys.pool]]\nkey = \"sk-toml\"\n");
    let json = format!(r#"{{"apiKeys": [{{"key": "sk-json", "url": "{}"}}]}}"#, upstream.url());
    let folder = Folder::with("config.toml", &toml).and("config.json", &json);
    let proxy = folder.command(&["serve"]).env("OPENAI_KEYS", "sk-env").env("PORT", "0").serve().await;
    for _ in 0..3 {
        assert_eq!(ask(&proxy).await.status(), 200);
    }
    for key in ["sk-toml", "sk-json", "sk-env"] {
        assert_eq!(upstream.calls(key), 1, "{key}");
    }
}

#[tokio::test]
async fn the_older_json_alone_is_enough() {
    let upstream = Upstream::start().await;
    let json = format!(
        r#"{{"apiKeys": [{{"key": "sk-a", "url": "{}", "models": ["gpt-4o", "others"]}}],
            "observability": {{"metrics_bind": "off"}}}}"#,
        upstream.url()
    );
    let proxy = Folder::with("config.json", &json).command(&["--bind", "127.0.0.1:0"]).serve().await;
    assert_eq!(ask(&proxy).await.status(), 200);
    assert!(!proxy.log().contains("metrics at"), "{}", proxy.log());
}

#[tokio::test]
async fn a_dotenv_file_stands_in_for_the_environment_and_yields_to_it() {
    let upstream = Upstream::start().await;
    let dotenv = "OPENAI_KEYS='sk-dotenv'\nPORT=1 # below the environment's\n";
    let folder = Folder::with("config.toml", &settings(&upstream, "")).and(".env", dotenv);
    let proxy = folder.command(&[]).env("PORT", "0").serve().await;
    assert_eq!(ask(&proxy).await.status(), 200);
    assert_eq!(upstream.calls("sk-dotenv"), 1);
}

#[tokio::test]
async fn a_named_file_is_the_only_one_in_either_format() {
    let upstream = Upstream::start().await;
    let toml = settings(&upstream, "[[keys.pool]]\nkey = \"sk-named\"\n");
    let json = format!(
        r#"{{"apiKeys": [{{"key": "sk-named", "url": "{}"}}], "observability": {{"metrics_bind": "off"}}}}"#,
        upstream.url()
    );
    let folder = Folder::with("config.toml", "nonsense").and("other.toml", &toml).and("other.json", &json);
    for name in ["other.toml", "other.json"] {
        let proxy = folder.command(&["--config", name, "--bind", "127.0.0.1:0"]).serve().await;
        assert_eq!(ask(&proxy).await.status(), 200, "{name}");
        let path = folder.path(name);
        let proxy =
            folder.command(&["serve", "--bind", "127.0.0.1:0"]).env("CONFIG_PATH", &path).serve().await;
        assert_eq!(ask(&proxy).await.status(), 200, "CONFIG_PATH={path}");
    }
    assert_eq!(upstream.calls("sk-named"), 4);
}

#[tokio::test]
async fn the_flag_wins_over_the_variable_and_the_variable_over_the_file() {
    let upstream = Upstream::start().await;
    let toml = settings(&upstream, "[[keys.pool]]\nkey = \"sk-a\"\n[server]\nbind_addr = \"127.0.0.1:1\"\n");
    let folder = Folder::with("config.toml", &toml);
    let bind = |said: &str| format!("bind_addr = \"{said}\"");
    let says = async |variables: &[(&str, &str)], arguments: &[&str], expected: String| {
        let mut command = folder.command(arguments);
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let told = command.run().await;
        assert!(told.stdout.contains(&expected), "{expected} not in {}", told.stdout);
    };
    says(&[], &["check"], bind("127.0.0.1:1")).await;
    says(&[("PORT", "2")], &["check"], bind("127.0.0.1:2")).await;
    says(&[("PORT", "2")], &["check", "--bind", "127.0.0.1:3"], bind("127.0.0.1:3")).await;
    says(&[("PORT", "2")], &["--bind", "[::1]:3", "check"], bind("[::1]:3")).await;
}

// The other commands.

#[tokio::test]
async fn version_and_help_need_no_configuration() {
    let folder = Folder::new();
    let version = folder.command(&["--version"]).run().await;
    assert_eq!(
        (version.code, version.stdout.trim()),
        (0, concat!("key-cycle-proxy ", env!("CARGO_PKG_VERSION")))
    );
    let help = folder.command(&["--help"]).run().await;
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for word in ["serve", "check", "health", "--config", "--bind", "--version"] {
        assert!(help.stdout.contains(word), "{word} not in {}", help.stdout);
    }
}

#[tokio::test]
async fn a_command_line_that_is_not_understood_is_the_users_fault() {
    let folder = Folder::with("config.toml", "[[keys.pool]]\nkey = \"sk-a\"\n");
    for arguments in
        [&["--prot", "1"][..], &["sreve"], &["--bind", "8080"], &["--config"], &["check", "extra"]]
    {
        let told = folder.command(arguments).run().await;
        assert_eq!((told.code, told.stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(told.stderr.contains("error:"), "{arguments:?}: {}", told.stderr);
    }
}

#[tokio::test]
async fn check_shows_pools_with_their_keys_ids_and_no_credential() {
    let toml = format!(
        "[[pools]]\nname = \"claude\"\nprovider = \"anthropic\"\nheaders = {{ x-more = \"{CANARY}-h\" }}\n\
         query = {{ a = \"{CANARY}-q\" }}\nproxy_url = \"http://u:{CANARY}@h:1\"\n[[pools.keys]]\nkey = \"{CANARY}-1\"\n\
         [[models]]\nname = \"best\"\ntarget = \"claude/claude-opus-4-1\"\nfallbacks = [\"groq/*\"]\n"
    );
    let dotenv = format!("GROQ_API_KEY_1={CANARY}-2\nMISTRAL_API_KEY={CANARY}-3\n");
    let folder = Folder::with("config.toml", &toml).and(".env", &dotenv);
    let told = folder.command(&["check"]).run().await;
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    let ids: Vec<&str> = told.stdout.lines().filter_map(|line| line.strip_prefix("# key ")).collect();
    assert_eq!(ids.len(), 2, "a variable of other programs is none of ours: {}", told.stdout);
    assert!(ids[0].contains("config.toml:7 pools[0].keys[0]"), "{}", ids[0]);
    assert!(ids[1].contains("environment GROQ_API_KEY_1"), "{}", ids[1]);
    for part in [
        "[[pools]]\nname = \"claude\"\nbase_url = \"https://api.anthropic.com/v1\"\ndialect = \"anthropic\"\n",
        "# headers: x-more",
        "# query: a",
        "# proxy_url: one of its own",
        "[[pools]]\nname = \"groq\"\nbase_url = \"https://api.groq.com/openai/v1\"\n",
        "[[models]]\nname = \"best\"\ntarget = \"claude/claude-opus-4-1\"\nfallbacks = [\"groq/best\"]\n",
    ] {
        assert!(told.stdout.contains(part), "{part} not in {}", told.stdout);
    }
    assert!(!told.stdout.contains("canary"), "{}", told.stdout);
}

#[tokio::test]
async fn an_older_yaml_serves_and_says_what_it_does_not_do() {
    let upstream = Upstream::start().await;
    let yaml = format!(
        "server: {{admin_token: {CANARY}}}\ngroups:\n- name: Group A\n  target_url: {}\n  api_keys: [sk-a]\n\
         observability: {{metrics_bind: \"off\"}}\n",
        upstream.url()
    );
    let proxy = Folder::with("config.yaml", &yaml).command(&["--bind", "127.0.0.1:0"]).serve().await;
    assert_eq!(ask(&proxy).await.status(), 200);
    assert_eq!(upstream.calls("sk-a"), 1);
    for part in ["server.admin_token has no effect", "the pool is called `group-a`"] {
        assert!(proxy.log().contains(part), "{part} not in {}", proxy.log());
    }
    assert!(!proxy.log().contains("canary"), "{}", proxy.log());
}

#[tokio::test]
async fn check_shows_key_ids_and_where_keys_stand_and_no_secret() {
    let toml = format!(
        "[[keys.pool]]\nkey = \"{CANARY}-1\"\nlabel = \"team-a\"\n[clients]\nkeys = [\"{CLIENT_CANARY}\"]\n"
    );
    let folder = Folder::with("config.toml", &toml);
    let told = folder.command(&["check"]).env("OPENAI_KEYS", &format!("{CANARY}-2")).run().await;
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    let ids: Vec<&str> = told.stdout.lines().filter_map(|line| line.strip_prefix("# key ")).collect();
    assert_eq!(ids.len(), 2, "{}", told.stdout);
    for (id, place) in ids.iter().zip(["config.toml", "environment OPENAI_KEYS"]) {
        let hex = id.chars().take_while(char::is_ascii_hexdigit).count();
        assert!(hex >= 8 && id.contains(place), "{id}");
    }
    assert!(told.stdout.contains("label = \"team-a\""), "{}", told.stdout);
    assert!(!told.stdout.contains("canary"), "{}", told.stdout);
}

#[tokio::test]
async fn health_asks_the_daemon_that_the_same_settings_would_start() {
    let upstream = Upstream::start().await;
    let folder = Folder::with("config.toml", &settings(&upstream, "[[keys.pool]]\nkey = \"sk-a\"\n"));
    for bind in ["127.0.0.1:0", "0.0.0.0:0"] {
        let proxy = folder.command(&["--bind", bind]).serve().await;
        let told = folder.command(&["health", "--bind", &proxy.address().to_string()]).run().await;
        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{bind}");
    }
}

#[tokio::test]
async fn health_fails_where_nothing_answers() {
    let folder = Folder::with("config.toml", "[[keys.pool]]\nkey = \"sk-a\"\n");
    // Bound and not listening: nobody else can get the port, and nobody is there.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    let told = folder.command(&["health", "--bind", &address.to_string()]).run().await;
    assert_eq!(told.code, 1);
    assert!(told.stderr.contains(&format!("the daemon at {address} is not healthy")), "{}", told.stderr);
}

// What is refused.

#[tokio::test]
async fn a_configuration_that_is_wrong_is_refused_with_everything_that_is_wrong() {
    let cases: [(&str, &str, &[&str]); 8] = [
        ("no key at all", "", &["there is no key", "hint: ", "OPENAI_KEYS="]),
        (
            "an unknown name",
            "[server]\nbind_adr = \"x\"\n",
            &["config.toml:2:1: server.bind_adr", "hint: did you mean `bind_addr`?"],
        ),
        ("an unknown section", "[severs]\n", &["config.toml:1:2: severs", "unknown name"]),
        (
            "a wrong type",
            "[upstream]\nmax_retries = \"many\"\n",
            &["config.toml:2:15: upstream.max_retries", "expected a whole number, found a string"],
        ),
        (
            "a bad URL",
            "[upstream]\nbase_url = \"api.openai.com\"\n",
            &["config.toml:2:12: upstream.base_url", "hint: "],
        ),
        (
            "a bad strategy",
            "[keys]\nrotation_strategy = \"fastest\"\n",
            &[
                "config.toml:2:21: keys.rotation_strategy",
                "\"fastest\" is no rotation strategy",
                "round_robin",
            ],
        ),
        (
            "an empty key",
            "[[keys.pool]]\nkey = \"\"\n",
            &["config.toml:2:7: keys.pool[0].key", "the key is empty"],
        ),
        ("no TOML", "[server\n", &["config.toml:1:"]),
    ];
    for (name, toml, expected) in cases {
        let told = Folder::with("config.toml", toml).command(&[]).run().await;
        assert_eq!((told.code, told.stdout.as_str()), (64, ""), "{name}: {}", told.stderr);
        for part in expected {
            assert!(told.stderr.contains(part), "{name}: {part:?} not in\n{}", told.stderr);
        }
        assert!(!told.stderr.contains("listening"), "{name}: {}", told.stderr);
    }
}

#[tokio::test]
async fn all_faults_of_all_sources_are_told_at_once_by_every_command() {
    let toml = format!(
        "[server]\nbind_adr = \"x\"\n[upstream]\nmax_retries = \"many\"\n[[keys.pool]]\nkey = \"{CANARY} {CANARY}\"\n"
    );
    let folder = Folder::with("config.toml", &toml).and("config.json", r#"{"apiKeys": [{"key": "  "}]}"#);
    for command in ["serve", "check", "health"] {
        let told = folder.command(&[command]).env("PORT", "http").env("LOG_LEVEL", "loud").run().await;
        assert_eq!((told.code, told.stdout.as_str()), (64, ""), "{command}: {}", told.stderr);
        for part in [
            "the configuration has 6 problems",
            "config.toml:2:1: server.bind_adr",
            "config.toml:4:15: upstream.max_retries",
            "config.toml:6:7: keys.pool[0].key",
            "apiKeys[0].key",
            "environment: PORT",
            "environment: LOG_LEVEL",
        ] {
            assert!(told.stderr.contains(part), "{command}: {part:?} not in\n{}", told.stderr);
        }
        assert!(!told.stderr.contains("canary"), "{command}: {}", told.stderr);
    }
}

#[tokio::test]
async fn two_files_that_disagree_are_refused_with_both_places() {
    let toml = "[server]\nbind_addr = \"127.0.0.1:0\"\n[[keys.pool]]\nkey = \"sk-a\"\n";
    let json = r#"{"server": {"bind_addr": "127.0.0.1:1"}}"#;
    let told = Folder::with("config.toml", toml).and("config.json", json).command(&[]).run().await;
    assert_eq!(told.code, 64, "{}", told.stderr);
    assert!(told.stderr.contains("config.json: server.bind_addr"), "{}", told.stderr);
    assert!(told.stderr.contains("config.toml:2"), "{}", told.stderr);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused() {
    let folder = Folder::with("notes.txt", "");
    std::fs::create_dir(folder.path("folder.toml")).unwrap();
    std::fs::write(folder.path("binary.json"), b"{\"\xff\": 1}").unwrap();
    for (name, reason) in [
        ("absent.toml", "there is no such file"),
        ("folder.toml", "this is a directory"),
        ("binary.json", "not UTF-8"),
        ("notes.txt", "the name must end in .toml, .json, .yaml or .yml"),
    ] {
        let told = folder.command(&["--config", name]).env("OPENAI_KEYS", "sk-a").run().await;
        assert_eq!((told.code, told.stdout.as_str()), (64, ""), "{name}");
        assert!(told.stderr.contains(name) && told.stderr.contains(reason), "{name}: {}", told.stderr);
    }
}

#[tokio::test]
async fn a_port_in_use_is_told_with_the_setting_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let toml = |server: &str, metrics: &str| {
        format!(
            "[server]\nbind_addr = \"{server}\"\n[observability]\nmetrics_bind = \"{metrics}\"\n\
             [[keys.pool]]\nkey = \"sk-a\"\n"
        )
    };
    for (toml, setting) in [
        (toml(&address.to_string(), "off"), "server.bind_addr"),
        (toml("127.0.0.1:0", &address.to_string()), "observability.metrics_bind"),
    ] {
        let told = Folder::with("config.toml", &toml).command(&[]).run().await;
        assert_eq!(told.code, 1, "{}", told.stderr);
        let line = format!("key-cycle-proxy: cannot listen on {address} ({setting}): Address already in use");
        assert!(told.stderr.contains(&line), "{}", told.stderr);
        assert!(!told.stderr.contains("listening"), "nothing was started: {}", told.stderr);
    }
}

// The log.

#[tokio::test]
async fn the_log_says_as_much_as_the_environment_asks_for() {
    let upstream = Upstream::start().await;
    let toml = settings(
        &upstream,
        "tracing_level = \"error\"\n[[keys.pool]]\nkey = \"sk-a\"\n[[keys.pool]]\nkey = \"sk-b\"\n",
    );
    let folder = Folder::with("config.toml", &toml);
    let log = async |variables: &[(&str, &str)]| {
        let limited = Answer::rate_limited(Duration::from_millis(1));
        upstream.key("sk-a").answers([limited, Answer::api()]);
        let mut command = folder.command(&["--bind", "127.0.0.1:0"]);
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let proxy = command.serve().await;
        for _ in 0..4 {
            assert_eq!(ask(&proxy).await.status(), 200);
        }
        proxy.signal("-TERM");
        proxy.ended().await.stderr
    };
    let info = log(&[("LOG_LEVEL", "INFO")]).await;
    assert_eq!(info.matches("key_cycle_proxy::proxy: request").count(), 4, "{info}");
    assert!(!info.contains("attempt failed"), "{info}");
    let debug = log(&[("RUST_LOG", "info,key_cycle_proxy=debug"), ("LOG_LEVEL", "error")]).await;
    assert!(debug.contains("attempt failed"), "{debug}");
    let quiet = log(&[("RUST_LOG", "info,key_cycle_proxy::proxy=off")]).await;
    assert!(quiet.contains("listening") && !quiet.contains("key_cycle_proxy::proxy"), "{quiet}");
}

#[tokio::test]
async fn a_json_log_has_one_object_a_line() {
    let upstream = Upstream::start().await;
    let toml = settings(&upstream, "log_format = \"json\"\n[[keys.pool]]\nkey = \"sk-a\"\n");
    let proxy = Folder::with("config.toml", &toml).command(&["--bind", "127.0.0.1:0"]).serve().await;
    assert_eq!(ask(&proxy).await.status(), 200);
    proxy.signal("-TERM");
    let log = proxy.ended().await.stderr;
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let request = lines.iter().find(|line| line["message"] == "request").expect("a line for the request");
    assert_eq!((&request["status"], &request["attempts"]), (&200.into(), &1.into()), "{request}");
    assert_eq!(request["key.id"].as_str().map(str::len), Some(8), "{request}");
}

#[tokio::test]
async fn no_output_has_a_secret_at_any_level() {
    let upstream = Upstream::start().await;
    let echo = format!("Incorrect API key provided: {CANARY}-2.");
    upstream.key(&format!("{CANARY}-2")).always(Answer::status(401).error(
        "invalid_request_error",
        "invalid_api_key",
        &echo,
    ));
    upstream.key(&format!("{CANARY}-3")).always(Answer::ok().reset_before_head());
    let more = format!("[[keys.pool]]\nkey = \"{CANARY}-1\"\n[clients]\nkeys = [\"{CLIENT_CANARY}\"]\n");
    let folder = Folder::with("config.toml", &settings(&upstream, &more)).and(
        "config.json",
        &format!(r#"{{"apiKeys": [{{"key": "{CANARY}-2", "url": "{}"}}]}}"#, upstream.url()),
    );
    let command = folder.command(&["--bind", "127.0.0.1:0"]);
    let command = command.env("OPENAI_KEYS", &format!("{CANARY}-3")).env("RUST_LOG", "trace");
    let proxy = command.serve().await;
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [client(), http2] {
        for key in [CLIENT_CANARY, "ck-canary-wrong", CLIENT_CANARY, CLIENT_CANARY] {
            let url = format!("{}?key={CLIENT_CANARY}", proxy.url("/v1/chat/completions"));
            let request = client.post(url).bearer_auth(key).header("x-api-key", key);
            let body = chat("gpt-4o");
            let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
            assert_eq!(answer.status(), if key == CLIENT_CANARY { 200 } else { 401 });
            let (headers, text) = (format!("{:?}", answer.headers()), answer.text().await.unwrap());
            assert!(!headers.contains("canary") && !text.contains("canary"), "{headers} {text}");
        }
    }
    assert!(upstream.calls(&format!("{CANARY}-2")) > 0 && upstream.calls(&format!("{CANARY}-3")) > 0);
    proxy.signal("-TERM");
    let ended = proxy.ended().await;
    assert!(ended.stderr.contains("TRACE"), "it was asked to tell everything");
    let told = ended.stderr.lines().chain(ended.stdout.lines()).find(|line| line.contains("canary"));
    assert_eq!(told, None);
}
