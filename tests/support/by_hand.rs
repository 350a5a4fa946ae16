//! An upstream whose every byte the test writes itself, when it wants to.

use std::net::Ipv4Addr;

use futures_util::FutureExt as _;
use tokio::net::TcpListener;

use super::raw::{Raw, patiently};

/// A port that listens. Nothing is answered but what the test answers.
pub struct ByHand(TcpListener);

impl ByHand {
    pub async fn start() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("bound"))
    }

    /// The next connection.
    pub async fn connection(&self) -> Raw {
        let (socket, _) = patiently(self.0.accept()).await.expect("it listens");
        Raw::over(socket)
    }

    /// The next connection, and the head of the first request on it.
    pub async fn request(&self) -> (Raw, String) {
        let mut raw = self.connection().await;
        let head = raw.request().await;
        (raw, head)
    }

    /// Whether nobody has connected beside those that were accepted.
    pub fn is_quiet(&self) -> bool {
        self.0.accept().now_or_never().is_none()
    }
}
