//! Faults of the older systems, none of which may exist here: credentials and forwarding. That no credential is logged,
//! measured or answered is proven in `canary.rs`.

use http::Method;
use support::{
    ask::{Got, in_turn, in_turn_with},
    proxy::{Proxy, chat, client, streamed_chat},
    upstream::{Answer, Gate, Upstream},
};

mod support;

async fn one_key(answer: Answer) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    upstream.otherwise(answer);
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    (upstream, proxy)
}

#[tokio::test]
async fn a_clients_credentials_in_no_place_override_ours_or_go_upstream() {
    let (upstream, proxy) = one_key(Answer::echo()).await;
    let request = client()
        .post(proxy.url("/v1/chat/completions?key=client-1&a=b"))
        .bearer_auth("client-2")
        .header("x-api-key", "client-3")
        .header("api-key", "client-4")
        .header("x-goog-api-key", "client-5")
        .header("x-proxy-key", "client-6")
        .header("proxy-authorization", "Basic client-7")
        .header("cookie", "session=client-8")
        .header("openai-organization", "client-9")
        .body(chat("gpt-4o"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let sent = upstream.last_request();
    assert_eq!(sent.header("authorization"), Some("Bearer sk-a"));
    assert_eq!(sent.headers.get_all("authorization").iter().count(), 1);
    assert_eq!(sent.target, "/v1/chat/completions?a=b");
    assert!(!format!("{:?}", sent.headers).contains("client-"), "{:?}", sent.headers);
}

#[tokio::test]
async fn a_redirect_is_delivered_and_not_followed_with_the_key() {
    let elsewhere = Upstream::start().await;
    let (_upstream, proxy) = one_key(Answer::redirect(&format!("{}/v1/x", elsewhere.url()))).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 307);
    assert_eq!(elsewhere.total_calls(), 0);
}

#[tokio::test]
async fn v1_is_not_doubled_and_the_query_arrives() {
    let upstream = Upstream::start().await;
    let entry = [format!("key = \"sk-a\"\nurl = \"{}/v1\"", upstream.url())];
    let proxy = Proxy::start(&in_turn_with(&upstream, &entry, "")).await;
    for target in ["/v1/models?limit=2&after=a%20b&x[]=1&empty=", "/v1/files/file-1/content?a=1&a=2"] {
        proxy.request(Method::GET, target).await;
        assert_eq!(upstream.last_request().target, target);
    }
}

#[tokio::test]
async fn host_and_hop_by_hop_headers_stay_here() {
    let (upstream, proxy) = one_key(Answer::echo()).await;
    let request = client()
        .post(proxy.url("/v1/chat/completions"))
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("keep-alive", "timeout=5")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-end", "1")
        .body(chat("gpt-4o"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let sent = upstream.last_request();
    assert_eq!(sent.header("host"), Some(upstream.address().to_string().as_str()));
    for name in ["x-hop", "te", "keep-alive", "x-forwarded-for"] {
        assert_eq!(sent.header(name), None, "{name}");
    }
    assert_eq!(sent.header("x-end"), Some("1"));
}

#[tokio::test]
async fn repeated_headers_keep_every_value_in_both_directions() {
    let (upstream, proxy) = one_key(Answer::ok().header("x-many", "1").header("x-many", "2")).await;
    let request = client()
        .post(proxy.url("/v1/chat/completions"))
        .header("x-many", "a")
        .header("x-many", "b")
        .body(chat("gpt-4o"));
    let got = Got::read(request.send().await.unwrap()).await;
    let values = |headers: &http::HeaderMap| -> Vec<String> {
        headers.get_all("x-many").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&got.headers), ["1", "2"]);
    assert_eq!(values(&upstream.last_request().headers), ["a", "b"]);
}

#[tokio::test]
async fn a_coded_answer_keeps_its_coding_and_its_name() {
    let answer = Answer::status(200).body("coded").gzip();
    let (_upstream, proxy) = one_key(answer).await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.header("content-encoding"), &got.body[..2]), (Some("gzip"), &[0x1f, 0x8b][..]));
}

#[tokio::test]
async fn every_byte_arrives_as_it_was_however_the_pieces_fall() {
    let text = "Grüße 🦀 und ein Ende ohne Zeilenumbruch é";
    for bytes in [1, 2, 3, 7] {
        let (_upstream, proxy) = one_key(Answer::pieces([text]).dribble(bytes)).await;
        assert_eq!(proxy.chat("gpt-4o").await.text(), text, "{bytes} at a time");
        let (_upstream, proxy) = one_key(Answer::status(200).body(text).close_delimited()).await;
        assert_eq!(proxy.chat("gpt-4o").await.text(), text);
    }
}

#[tokio::test]
async fn an_answer_is_passed_on_as_it_comes_whether_or_not_a_stream_was_asked_for() {
    for body in [chat("gpt-4o"), streamed_chat("gpt-4o")] {
        let gate = Gate::new();
        let (_upstream, proxy) = one_key(Answer::pieces(["one", "two"]).gated(&gate)).await;
        let request = client().post(proxy.url("/v1/chat/completions")).body(body);
        let mut answer = request.send().await.unwrap();
        for piece in ["one", "two"] {
            gate.release(1);
            assert_eq!(answer.chunk().await.unwrap().unwrap(), piece);
        }
    }
}

#[tokio::test]
async fn images_fit_into_the_body_limit() {
    let (upstream, proxy) = one_key(Answer::ok()).await;
    let image = "A".repeat(8 << 20);
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"data:image/png;base64,{image}"}}]}}"#
    );
    let length = body.len() as u64;
    assert_eq!(proxy.post("/v1/chat/completions", body).await.status, 200);
    assert_eq!(upstream.last_request().body_len, length);
}

#[tokio::test]
async fn a_busy_port_is_told_and_not_replaced() {
    use key_cycle_proxy::{
        config::{Config, Env, Flags},
        daemon::Daemon,
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let env = Env::from_map([("OPENAI_KEYS".to_owned(), "sk-a".to_owned())].into_iter().collect());
    let folder = tempfile::tempdir().unwrap();
    let flags = Flags { config: None, bind: Some(address.into()) };
    let config = Config::load(&flags, &env, folder.path()).unwrap();
    let error = Daemon::bind(config).expect_err("the port is taken").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("server.bind_addr"), "{error}");
}
