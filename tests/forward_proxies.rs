//! Forward proxies on the way to upstreams, as the environment names them.

use std::{io::Write as _, time::Duration};

use futures_util::FutureExt as _;
use http::Method;
use support::{
    ask::Got,
    binary::Folder,
    by_hand::ByHand,
    forward_proxy::ForwardProxy,
    proxy::{Proxy, chat, client, streamed_chat, toml},
    raw::{Raw, patiently},
    still::StillClock,
    upstream::{Answer, Upstream},
};
use tempfile::NamedTempFile;
use tokio::net::TcpSocket;

mod support;

const PATH: &str = "/v1/chat/completions";
/// Of a proxy, as a URL and as it is.
const USERINFO: &str = "us%65r:canary-pw%3A%40";
const USER: (&str, &str) = ("user", "canary-pw:@");
/// The same as `Authorization` carries it.
const BASIC: &str = "Basic dXNlcjpjYW5hcnktcHc6QA==";

async fn start(upstream: &str, more: &str, env: &[(&str, &str)]) -> Proxy {
    Proxy::start_with(&toml(upstream, &["sk-one"], &format!("max_retries = 0\n{more}"), ""), env).await
}

/// An upstream with TLS, and the file with its authority.
async fn with_tls() -> (Upstream, NamedTempFile) {
    let upstream = Upstream::start_tls().await;
    let mut file = NamedTempFile::new().expect("a file for the test");
    file.write_all(upstream.ca_pem().as_bytes()).expect("the test's own file");
    (upstream, file)
}

fn trusting(file: &NamedTempFile) -> String {
    format!("ca_file = \"{}\"", file.path().display())
}

/// Everything that matters of a way works: a request with a body, a stream, and a refusal. Nothing of a proxy's
/// credentials goes up.
async fn assert_works(proxy: &Proxy, upstream: &Upstream) {
    upstream.reset_records();
    assert_eq!(patiently(proxy.post(PATH, chat("m"))).await.status, 200);
    upstream.otherwise(Answer::sse(["one", "two"]));
    let stream = patiently(proxy.post(PATH, streamed_chat("m"))).await;
    assert_eq!(stream.text(), "data: one\n\ndata: two\n\n");
    upstream.otherwise(Answer::status(404).error("invalid_request_error", "no_such_file", "No such file."));
    let refused = patiently(proxy.request(Method::GET, "/v1/files/a?b=c")).await;
    assert_eq!(refused.said(), (404, "no_such_file".to_owned()));
    upstream.otherwise(Answer::api());
    let sent = upstream.requests();
    assert_eq!((sent.len(), sent[2].target.as_str()), (3, "/v1/files/a?b=c"));
    for request in sent {
        assert_eq!(request.key.as_deref(), Some("sk-one"));
        assert_eq!(request.header("host"), upstream.url().split_once("://").map(|(_, host)| host));
        assert_eq!(request.header("proxy-authorization"), None);
        let all = format!("{:?} {}", request.headers, request.target);
        assert!(!all.contains("canary") && !all.contains(&BASIC[6..]), "{all}");
    }
}

#[tokio::test]
async fn an_http_proxy_is_told_the_whole_url_of_cleartext_requests() {
    let upstream = Upstream::start().await;
    let host = upstream.address().to_string();
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        for (userinfo, credential) in [("", None), (USERINFO, Some(BASIC))] {
            let way = match credential {
                None => ForwardProxy::start(upstream.address()).await,
                Some(_) => ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await,
            };
            let proxy = start(&upstream.url(), "", &[(variable, &way.url("http", userinfo))]).await;
            assert_works(&proxy, &upstream).await;
            let asked = way.asked();
            assert_eq!(asked.len(), 3, "{asked:?}");
            for asked in asked {
                assert_eq!((asked.how, &asked.target), ("absolute", &host));
                assert_eq!(asked.credential.as_deref(), credential);
                assert!(asked.head.contains(&format!("\r\nhost: {host}\r\n")), "{}", asked.head);
            }
        }
    }
}

#[tokio::test]
async fn an_http_proxy_opens_a_tunnel_to_upstreams_with_tls_and_sees_nothing_of_it() {
    let (upstream, file) = with_tls().await;
    let host = format!("localhost:{}", upstream.address().port());
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        for (userinfo, credential) in [("", None), (USERINFO, Some(BASIC))] {
            let way = match credential {
                None => ForwardProxy::start(upstream.address()).await,
                Some(_) => ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await,
            };
            let env = [(variable, way.url("http", userinfo))];
            let proxy = start(&upstream.url(), &trusting(&file), &[(env[0].0, &env[0].1)]).await;
            assert_works(&proxy, &upstream).await;
            let asked = way.last();
            assert_eq!(
                (way.asked().len(), asked.how, &asked.target),
                (1, "CONNECT", &host),
                "one tunnel is enough"
            );
            assert_eq!(asked.credential.as_deref(), credential);
            assert!(
                !asked.head.contains("sk-one") && !asked.head.contains("authorization: Bearer"),
                "{}",
                asked.head
            );
        }
    }
}

#[tokio::test]
async fn http2_goes_through_a_tunnel_too() {
    let (upstream, file) = with_tls().await;
    let way = ForwardProxy::start(upstream.address()).await;
    let settings = format!("http2 = true\n{}", trusting(&file));
    let proxy = start(&upstream.url(), &settings, &[("HTTPS_PROXY", &way.url("http", ""))]).await;
    assert_works(&proxy, &upstream).await;
    assert!(upstream.requests().iter().all(|request| request.version == http::Version::HTTP_2));
    assert!(way.asked().iter().all(|asked| asked.how == "CONNECT"));
}

#[tokio::test]
async fn a_socks_proxy_reaches_both_kinds_of_upstreams_by_name_or_by_address() {
    let cleartext = Upstream::start().await;
    let (tls, file) = with_tls().await;
    for upstream in [&cleartext, &tls] {
        let port = upstream.address().port();
        // By name, so that it shows who looks it up.
        let url = upstream.url().replace("127.0.0.1", "localhost");
        let (by_name, by_address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
        for (scheme, userinfo, target, credential) in [
            ("socks5", "", &by_address, None),
            ("socks5", USERINFO, &by_address, Some("user:canary-pw:@")),
            ("socks5h", "", &by_name, None),
            ("socks5h", USERINFO, &by_name, Some("user:canary-pw:@")),
            ("socks4", "", &by_address, None),
            ("socks4a", "", &by_name, None),
        ] {
            let way = match credential {
                None => ForwardProxy::start(upstream.address()).await,
                Some(_) => ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await,
            };
            let proxy = start(&url, &trusting(&file), &[("ALL_PROXY", &way.url(scheme, userinfo))]).await;
            assert_eq!(patiently(proxy.post(PATH, chat("m"))).await.status, 200, "{scheme} to {url}");
            let asked = way.last();
            // This machine may have more than one address by that name.
            let told = asked.target.replace("[::1]", "127.0.0.1");
            assert_eq!((asked.how, &told, asked.credential.as_deref()), (scheme, target, credential));
            let sent = upstream.last_request();
            assert_eq!((sent.key.as_deref(), sent.header("host")), (Some("sk-one"), Some(by_name.as_str())));
        }
    }
}

#[tokio::test]
async fn an_upstream_without_a_port_has_its_schemes_behind_every_proxy() {
    let upstream = Upstream::start().await;
    for (scheme, url, how, target) in [
        ("http", "http://upstream.invalid", "absolute", "upstream.invalid"),
        ("socks5h", "http://upstream.invalid", "socks5h", "upstream.invalid:80"),
        ("socks4a", "http://upstream.invalid", "socks4a", "upstream.invalid:80"),
        ("http", "https://upstream.invalid", "CONNECT", "upstream.invalid:443"),
        ("socks5h", "https://upstream.invalid", "socks5h", "upstream.invalid:443"),
        ("socks4a", "https://upstream.invalid", "socks4a", "upstream.invalid:443"),
    ] {
        let way = ForwardProxy::start(upstream.address()).await;
        let proxy = start(url, "", &[("ALL_PROXY", &way.url(scheme, ""))]).await;
        let got = patiently(proxy.post(PATH, chat("m"))).await;
        // Behind the others nobody speaks TLS.
        assert_eq!(got.status, if url.starts_with("https") { 502 } else { 200 }, "{scheme} to {url}");
        let asked = way.last();
        assert_eq!((asked.how, asked.target.as_str()), (how, target));
    }
}

#[tokio::test]
async fn each_kind_of_upstream_has_its_own_proxy_before_the_one_for_all() {
    let cleartext = Upstream::start().await;
    let (tls, file) = with_tls().await;
    let ways = [
        ForwardProxy::start(cleartext.address()).await,
        ForwardProxy::start(tls.address()).await,
        ForwardProxy::start(cleartext.address()).await,
    ];
    let urls = ways.each_ref().map(|way| way.url("http", ""));
    let env = [("HTTP_PROXY", &*urls[0]), ("https_proxy", &urls[1]), ("ALL_PROXY", &urls[2])];
    let second = format!("[[keys.pool]]\nkey = \"sk-two\"\nurl = \"{}\"\nmodels = [\"tls\"]\n", tls.url());
    let file = toml(&cleartext.url(), &["sk-one"], &trusting(&file), &second);
    let proxy = Proxy::start_with(&file, &env).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    assert_eq!(proxy.chat("tls").await.status, 200);
    assert_eq!(ways.map(|way| way.asked().len()), [1, 1, 0]);
}

#[tokio::test]
async fn no_proxy_means_directly_and_without_the_proxys_credential() {
    let upstream = Upstream::start().await;
    let port = upstream.address().port();
    let named = format!("http://localhost:{port}");
    let way = ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await;
    for (variable, value, url) in [
        ("NO_PROXY", "127.0.0.1", upstream.url()),
        ("no_proxy", "127.0.0.1", upstream.url()),
        ("NO_PROXY", "example.com, 127.0.0.0/8", upstream.url()),
        ("NO_PROXY", "*", upstream.url()),
        ("NO_PROXY", "localhost", named.clone()),
        ("no_proxy", ".localhost", named.clone()),
        ("NO_PROXY", "LocalHost", named.clone()),
    ] {
        let env = [("HTTP_PROXY", way.url("http", USERINFO)), (variable, value.to_owned())];
        let proxy = start(&url, "", &env.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
        assert_eq!(patiently(proxy.post(PATH, chat("m"))).await.status, 200, "{variable}={value}");
        let sent = upstream.last_request();
        assert_eq!(
            (sent.target.as_str(), sent.header("proxy-authorization")),
            (PATH, None),
            "{variable}={value}"
        );
        assert_eq!(way.asked(), [], "{variable}={value}");
    }
    for value in ["10.0.0.1", "128.0.0.0/8", "ocalhost", "localhost.example"] {
        let env = [("HTTP_PROXY", way.url("http", USERINFO)), ("NO_PROXY", value.to_owned())];
        let proxy = start(&named, "", &env.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
        let before = way.asked().len();
        assert_eq!(patiently(proxy.post(PATH, chat("m"))).await.status, 200, "{value}");
        assert_eq!(way.asked().len(), before + 1, "{value}");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_an_upstream_out_of_reach() {
    let upstream = Upstream::start().await;
    let tls = "https://localhost:1";
    let way = ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await;
    // Bound and not listening: nobody else can get the port, and nobody is there.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = taken.local_addr().unwrap();
    for (url, way) in [
        (tls, way.url("http", "")),
        (tls, way.url("http", "user:canary-wrong")),
        (tls, way.url("socks5", "")),
        (tls, way.url("socks5h", "user:canary-wrong")),
        (tls, way.url("socks4a", "")),
        (&upstream.url(), way.url("socks5", "user:canary-wrong")),
        (&upstream.url(), format!("http://user:canary-pw@{nobody}")),
        (&upstream.url(), format!("socks5://user:canary-pw@{nobody}")),
        (tls, format!("http://user:canary-pw@{nobody}")),
    ] {
        let proxy = start(url, "", &[("ALL_PROXY", &way)]).await;
        let got = patiently(proxy.post(PATH, chat("m"))).await;
        assert_eq!(got.said(), (502, "upstream_unreachable".to_owned()), "{way} to {url}");
        assert_eq!(proxy.judged("unreachable").await, 1, "{way} to {url}");
        let told = format!("{:?} {}", got.headers, got.text());
        assert!(!told.contains("canary") && !told.contains("127.0.0.1"), "{told}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_proxy_that_refuses_to_forward_is_not_taken_for_the_upstream() {
    let upstream = Upstream::start().await;
    let way = ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await;
    let proxy = start(&upstream.url(), "", &[("HTTP_PROXY", &way.url("http", ""))]).await;
    let got = patiently(proxy.post(PATH, chat("m"))).await;
    assert_eq!((got.status, got.header("proxy-authenticate")), (407, None));
    assert_eq!((proxy.judged("egress_refused").await, proxy.keys_in("ready").await), (1, 1));
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_proxy_that_hangs_is_waited_for_as_long_as_a_connect() {
    let clock = StillClock::stop();
    let silent = ByHand::start().await;
    let address = silent.url().replace("http://", "");
    for (url, way) in [
        ("https://localhost:1", format!("http://{address}")),
        ("https://localhost:1", format!("socks5://{address}")),
        ("http://127.0.0.1:1", format!("socks5h://user:canary-pw@{address}")),
        ("http://127.0.0.1:1", format!("socks4://{address}")),
    ] {
        let proxy = start(url, "connect_timeout_ms = 4000", &[("ALL_PROXY", &way)]).await;
        let mut asked = Box::pin(proxy.post(PATH, chat("m")));
        let mut connection = tokio::select! {
            got = &mut asked => panic!("{got:?}"),
            connection = silent.connection() => connection,
        };
        clock.pass(Duration::from_millis(3900)).await;
        for _ in 0..3 {
            // Somebody else is served meanwhile, so whatever was due has been done.
            let heard = Raw::ask(proxy.address(), "GET /livez HTTP/1.1\r\nhost: p\r\n\r\n").await;
            assert_eq!(heard.status, 200);
        }
        assert!(asked.as_mut().now_or_never().is_none(), "{way}");
        clock.pass(Duration::from_millis(100)).await;
        let got: Got = asked.await;
        assert_eq!(got.said(), (502, "upstream_unreachable".to_owned()), "{way}");
        connection.rest().await;
    }
}

#[tokio::test]
async fn a_dotenv_file_may_name_the_proxy() {
    let upstream = Upstream::start().await;
    let way = ForwardProxy::guarded(upstream.address(), USER.0, USER.1).await;
    let settings = format!(
        "[upstream]\nbase_url = \"{}\"\n[observability]\nmetrics_bind = \"off\"\n[[keys.pool]]\nkey = \"sk-one\"\n",
        upstream.url()
    );
    let dotenv = format!("http_proxy='{}'\n", way.url("http", USERINFO));
    let folder = Folder::with("config.toml", &settings).and(".env", &dotenv);
    let proxy = folder.command(&["--bind", "127.0.0.1:0"]).env("RUST_LOG", "debug").serve().await;
    let answer = client().post(proxy.url(PATH)).body(chat("m")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(way.last().credential.as_deref(), Some(BASIC));
    proxy.signal("-TERM");
    let told = proxy.ended().await;
    assert!(!told.stderr.contains("canary"), "{}", told.stderr);
}

#[tokio::test]
async fn what_is_no_proxy_is_refused_by_its_name_and_not_quoted() {
    let folder = Folder::with("config.toml", "[[keys.pool]]\nkey = \"sk-one\"\n");
    let variables = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let values =
        ["ftp://user:canary-pw@proxy.example", "http://user:canary pw@proxy.example", "http://", "/canary"];
    for (variable, value) in variables.into_iter().zip(values.into_iter().cycle()) {
        for command in ["serve", "check"] {
            let told = folder.command(&[command]).env(variable, value).run().await;
            assert_eq!((told.code, told.stdout.as_str()), (64, ""), "{variable}={value}");
            let place = format!("environment: {variable}\n  not the URL of a proxy");
            assert!(told.stderr.contains(&place), "{}", told.stderr);
            assert!(!told.stderr.contains("canary") && !told.stderr.contains("ftp"), "{}", told.stderr);
        }
    }
}
