//! A client that writes and reads bytes, for what no library would send, accept or show.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// What no test should ever need.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection over which text goes as it is.
pub struct Raw {
    socket: TcpStream,
    buffer: BytesMut,
}

/// An answer.
#[derive(Debug)]
pub struct Heard {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub end: End,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As HTTP/1.1 marks the end of a body: by its length or the last chunk.
    Marked,
    /// The connection closed where no end was marked.
    Closed,
    /// The connection was reset, or what came is no HTTP.
    Broken,
}

impl Heard {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `code` of an error body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from(IpAddr::from([127, 0, 0, 1]), address).await
    }

    /// From one of this machine's loopback addresses.
    pub async fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(from, 0)).expect("a loopback address is ours");
        Self::over(patiently(socket.connect(address)).await.expect("it listens"))
    }

    /// Over a connection that somebody else has made.
    pub fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("a TCP socket");
        Self { socket, buffer: BytesMut::new() }
    }

    /// The connection itself, and what was read of it and not used.
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.socket, self.buffer)
    }

    /// Sends one request on a connection of its own.
    pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Heard {
        let mut raw = Self::connect(address).await;
        raw.send(request).await;
        raw.answer().await
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        patiently(self.socket.write_all(bytes.as_ref())).await.expect("the other side reads");
    }

    /// The same where the other side may have gone away; whether it has taken everything.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        patiently(self.socket.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Says that nothing more will come.
    pub async fn finish(&mut self) {
        // The other side may be gone already.
        let _ = self.socket.shutdown().await;
    }

    /// Whether the connection is open, with nothing to read.
    pub fn is_quiet(&mut self) -> bool {
        self.buffer.is_empty() && self.socket.read_buf(&mut self.buffer).now_or_never().is_none()
    }

    /// Reads until `text` has come; returns everything up to its end.
    pub async fn until(&mut self, text: &str) -> Bytes {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, text.as_bytes()) {
                return self.buffer.split_to(at + text.len()).freeze();
            }
            assert!(self.more().await, "ended before {text:?}; so far {:?}", self.buffer);
        }
    }

    /// The next answer, to its end.
    pub async fn answer(&mut self) -> Heard {
        self.answer_to(false).await
    }

    /// The same, unless the connection ends before its head.
    pub async fn answer_if_any(&mut self) -> Option<Heard> {
        while memchr::memmem::find(&self.buffer, b"\r\n\r\n").is_none() {
            if self.fill().await.is_some() {
                return None;
            }
        }
        Some(self.answer().await)
    }

    /// The next answer, to a HEAD request.
    pub async fn bodiless_answer(&mut self) -> Heard {
        self.answer_to(true).await
    }

    async fn answer_to(&mut self, bodiless: bool) -> Heard {
        let (status, headers) = loop {
            let (status, headers) = self.head().await;
            if status >= 200 {
                break (status, headers);
            }
        };
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (body, end) = if bodiless || matches!(status, 204 | 304) {
            (Bytes::new(), End::Marked)
        } else if text("transfer-encoding") == Some("chunked") {
            self.chunks().await
        } else if let Some(length) = text("content-length") {
            self.exactly(length.parse().expect("a length")).await
        } else {
            self.rest().await
        };
        Heard { status, headers, body, end }
    }

    /// The next head, that of an interim answer too.
    pub async fn head(&mut self) -> (u16, HeaderMap) {
        let text = self.until("\r\n\r\n").await;
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut slots);
        assert!(head.parse(&text).expect("a head").is_complete());
        let mut headers = HeaderMap::new();
        for header in head.headers.iter() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(header.value).expect("a value"));
        }
        (head.code.expect("parsed"), headers)
    }

    /// The next request's head, where this is an upstream. Its body, if it has one, is left to be read.
    pub async fn request(&mut self) -> String {
        String::from_utf8(self.until("\r\n\r\n").await.to_vec()).expect("a head is text")
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> (Bytes, End) {
        loop {
            match patiently(self.socket.read_buf(&mut self.buffer)).await {
                Ok(0) => return (self.buffer.split().freeze(), End::Closed),
                Ok(_) => {}
                Err(_) => return (self.buffer.split().freeze(), End::Broken),
            }
        }
    }

    /// So many bytes, or what there was before the end.
    pub async fn exactly(&mut self, length: usize) -> (Bytes, End) {
        while self.buffer.len() < length {
            if let Some(end) = self.fill().await {
                return (self.buffer.split().freeze(), end);
            }
        }
        (self.buffer.split_to(length).freeze(), End::Marked)
    }

    async fn chunks(&mut self) -> (Bytes, End) {
        let mut body = BytesMut::new();
        loop {
            let (line, size) = match httparse::parse_chunk_size(&self.buffer) {
                Ok(httparse::Status::Complete(found)) => found,
                Ok(httparse::Status::Partial) => match self.fill().await {
                    Some(end) => return (body.freeze(), end),
                    None => continue,
                },
                Err(_) => return (body.freeze(), End::Broken),
            };
            let size = usize::try_from(size).expect("it fits");
            while self.buffer.len() < line + size + 2 {
                if let Some(end) = self.fill().await {
                    return (body.freeze(), end);
                }
            }
            self.buffer.advance(line);
            body.extend_from_slice(&self.buffer.split_to(size));
            self.buffer.advance(2);
            if size == 0 {
                return (body.freeze(), End::Marked);
            }
        }
    }

    /// Reads more; how the connection ended if it has.
    async fn fill(&mut self) -> Option<End> {
        match patiently(self.socket.read_buf(&mut self.buffer)).await {
            Ok(0) => Some(End::Closed),
            Ok(_) => None,
            Err(_) => Some(End::Broken),
        }
    }

    async fn more(&mut self) -> bool {
        self.fill().await.is_none()
    }
}

/// Waits, but not for ever.
pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it never came")
}
