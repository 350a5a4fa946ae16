//! A daemon and the upstream behind it, and what must hold whatever was sent to them.

use super::{
    panics::NoPanics,
    proxy::{Proxy, toml},
    raw::{Heard, Raw},
    upstream::{Recorded, Upstream},
};

/// A request that is served.
pub const GOOD: &str = "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";

/// Both, with one key; no task of theirs may panic.
pub struct Pair {
    pub upstream: Upstream,
    pub proxy: Proxy,
    _calm: NoPanics,
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed, and nothing more comes over it.
    Closed,
    /// The next request on it is served.
    GoesOn,
}

impl Pair {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With further sections in the file.
    pub async fn with(sections: &str) -> Self {
        let upstream = Upstream::start().await;
        let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", sections)).await;
        Self { upstream, proxy, _calm: NoPanics::watch() }
    }

    /// Sends `bytes`, which are refused so: nothing of them goes up, and other requests are served.
    pub async fn refuses(&self, bytes: impl AsRef<[u8]>, status: u16, code: &str, then: Then) -> Heard {
        let what = shown(bytes.as_ref());
        // Shown if this fails.
        println!("{what}");
        let mut raw = Raw::connect(self.proxy.address()).await;
        // Who is refused may be cut off while it writes.
        raw.try_send(bytes).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {answer:?}");
        let asked = self.goes_on(raw, then).await;
        assert_eq!(self.upstream.total_calls(), asked, "{what} went up");
        self.upstream.reset_records();
        answer
    }

    /// Sends `bytes`, of which the first request is relayed, and answered so. Nothing else goes up.
    pub async fn relays(&self, bytes: impl AsRef<[u8]>, status: u16, then: Then) -> (Heard, Recorded) {
        let what = shown(bytes.as_ref());
        println!("{what}");
        let mut raw = Raw::connect(self.proxy.address()).await;
        raw.try_send(bytes).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        let asked = self.goes_on(raw, then).await;
        let sent = self.upstream.requests();
        assert_eq!(sent.len(), 1 + asked, "{what}: {sent:?}");
        self.upstream.reset_records();
        self.assert_ours(&sent[0]);
        (answer, sent[0].clone())
    }

    /// After an answer on `raw` nothing more comes over it, and what should be served is. Returns how many requests
    /// that were.
    async fn goes_on(&self, mut raw: Raw, then: Then) -> usize {
        match then {
            Then::Closed => {
                let (more, _) = raw.rest().await;
                assert!(more.is_empty(), "a second answer: {}", shown(&more));
            }
            Then::GoesOn => {
                raw.send(GOOD).await;
                assert_eq!(raw.answer().await.status, 200, "on the same connection");
            }
        }
        assert_eq!(Raw::ask(self.proxy.address(), GOOD).await.status, 200, "on a new connection");
        assert_eq!((self.upstream.malformed(), self.upstream.incomplete()), (0, 0));
        1 + usize::from(then == Then::GoesOn)
    }

    /// What went up is one request of ours, framed once, and meant for our upstream.
    pub fn assert_ours(&self, sent: &Recorded) {
        let all = |name: &str| -> Vec<_> {
            sent.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
        };
        assert_eq!(all("host"), [self.upstream.address().to_string()], "{sent:?}");
        assert_eq!(all("authorization"), ["Bearer sk-one"], "{sent:?}");
        assert!(sent.target.starts_with("/v1"), "{sent:?}");
        match all("content-length").as_slice() {
            [] => assert_eq!(sent.body_len, 0, "{sent:?}"),
            [length] => assert_eq!(*length, sent.body_len.to_string(), "{sent:?}"),
            _ => panic!("framed twice: {sent:?}"),
        }
        // Another protocol than HTTP may be asked for, by us.
        let upgrade = all("upgrade");
        assert!(upgrade.iter().all(|token| !token.to_ascii_lowercase().starts_with("h2")), "{sent:?}");
        let connection: &[&str] = if upgrade.is_empty() { &[] } else { &["upgrade"] };
        assert_eq!(all("connection"), connection, "{sent:?}");
        for name in ["transfer-encoding", "te", "trailer", "expect", "http2-settings"] {
            assert_eq!(sent.headers.get(name), None, "{sent:?}");
        }
    }
}

/// The beginning of what was sent, to be read.
pub fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(200)].escape_ascii().to_string()
}
