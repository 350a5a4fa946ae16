//! One connection of the simulated upstream.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Shared, count, lock};
use crate::{
    keys::{Break, Fault},
    support::now,
    wish::{Answer, HEADER, Wish},
};

/// One connection in so many is closed while it is idle.
const IDLE_DROPS: u32 = 40;
/// Within this time after an answer.
const IDLE_DROP_MS: u64 = 20;
/// Written at once at most, so that a slow reader slows us down.
const PIECE: usize = 64 << 10;

pub(super) struct Connection {
    socket: TcpStream,
    buffer: BytesMut,
    shared: Arc<Shared>,
    rng: fastrand::Rng,
}

/// What a request says as far as we care.
struct Request {
    authorization: Vec<u8>,
    wish: Option<Wish>,
    length: usize,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, shared: Arc<Shared>, rng: fastrand::Rng) -> Self {
        Self { socket, buffer: BytesMut::new(), shared, rng }
    }

    pub(super) async fn serve(mut self) -> io::Result<()> {
        self.socket.set_nodelay(true)?;
        while self.has_more().await? {
            let request = self.head().await?;
            while self.buffer.len() < request.length {
                self.fill().await?;
            }
            let body = self.buffer.split_to(request.length);
            let Some(wish) = request.wish.filter(|wish| wish.is_of(&body)) else {
                count(&self.shared.counts.garbled);
                return self.refuse(422, None).await;
            };
            if self.shared.is_noting.load(Ordering::Relaxed) {
                lock(&self.shared.noted).insert(wish.id);
            }
            match self.fault(&request.authorization) {
                None => self.answer(&wish).await?,
                Some(Fault::Refusal(status)) => self.refuse(status, None).await?,
                Some(Fault::NotNow(wait)) => self.refuse(429, Some(wait)).await?,
                Some(Fault::Break(how)) => return self.break_before(how).await,
            }
        }
        Ok(())
    }

    /// Waits for a request, unless the connection is one of those that are dropped before.
    async fn has_more(&mut self) -> io::Result<bool> {
        let close = lock(&self.shared.close_idle).clone();
        let drops = self.rng.u32(0..IDLE_DROPS) == 0;
        let pause = Duration::from_millis(self.rng.u64(0..IDLE_DROP_MS));
        tokio::select! {
            read = self.socket.read_buf(&mut self.buffer) => Ok(read? > 0),
            () = close.cancelled() => Ok(false),
            () = tokio::time::sleep(pause), if drops => {
                count(&self.shared.counts.dropped_idle);
                Ok(false)
            }
        }
    }

    async fn head(&mut self) -> io::Result<Request> {
        loop {
            let mut slots = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Request::new(&mut slots);
            if let httparse::Status::Complete(length) = head.parse(&self.buffer).map_err(io::Error::other)? {
                let value = |name: &str| {
                    let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
                    header.map_or(&[][..], |header| header.value)
                };
                let text = |name| std::str::from_utf8(value(name)).unwrap_or_default();
                let request = Request {
                    authorization: value("authorization").to_vec(),
                    wish: text(HEADER).parse().ok(),
                    length: text("content-length").parse().unwrap_or_default(),
                };
                self.buffer.advance(length);
                return Ok(request);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn fault(&mut self, authorization: &[u8]) -> Option<Fault> {
        let mut keys = lock(&self.shared.keys);
        match keys.iter_mut().find(|key| key.is(authorization)) {
            Some(key) => key.fault(now(), &mut self.rng),
            // A client's own key, say.
            None => {
                count(&self.shared.counts.garbled);
                Some(Fault::Refusal(403))
            }
        }
    }

    async fn refuse(&mut self, status: u16, wait: Option<Duration>) -> io::Result<()> {
        let counts = &self.shared.counts;
        let (counter, code) = match status {
            429 => (&counts.limited, "rate_limit_exceeded"),
            401 => (&counts.rejected, "invalid_api_key"),
            _ => (&counts.failed, "server_error"),
        };
        count(counter);
        let body = format!("{{\"error\":{{\"message\":\"no\",\"type\":\"{code}\",\"code\":\"{code}\"}}}}");
        let length = body.len();
        let wait = wait.map_or_else(String::new, |wait| {
            // Whole seconds, as most upstreams have it, and the truth beside them.
            let seconds = wait.as_millis().div_ceil(1000);
            format!("retry-after: {seconds}\r\nretry-after-ms: {}\r\n", wait.as_millis())
        });
        let head =
            format!("HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
        self.socket.write_all(format!("{head}{wait}\r\n{body}").as_bytes()).await
    }

    async fn break_before(&mut self, how: Break) -> io::Result<()> {
        count(&self.shared.counts.broken_before);
        match how {
            Break::Reset => self.socket.set_zero_linger(),
            Break::HalfAHead => self.socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-ty").await,
            Break::Close => Ok(()),
        }
    }

    async fn answer(&mut self, wish: &Wish) -> io::Result<()> {
        if !wish.delay.is_zero() {
            tokio::time::sleep(wish.delay).await;
        }
        match wish.answer {
            Answer::Document { .. } => {
                let text = wish.text();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    text.len()
                );
                self.socket.write_all(&[head.as_bytes(), &text[..text.len().min(PIECE)]].concat()).await?;
                for piece in text.chunks(PIECE).skip(1) {
                    self.socket.write_all(piece).await?;
                }
            }
            Answer::Stream { events, pause } => {
                self.begin_stream().await?;
                self.events(wish, events, pause).await?;
                self.socket.write_all(b"0\r\n\r\n").await?;
            }
            Answer::Broken { events } => {
                self.begin_stream().await?;
                let sent = self.rng.usize(0..events);
                self.events(wish, sent, Duration::ZERO).await?;
                count(&self.shared.counts.broken_within);
                if self.rng.bool() {
                    self.socket.set_zero_linger()?;
                }
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        count(&self.shared.counts.answered);
        Ok(())
    }

    async fn begin_stream(&mut self) -> io::Result<()> {
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        self.socket.write_all(head).await
    }

    async fn events(&mut self, wish: &Wish, count: usize, pause: Duration) -> io::Result<()> {
        for number in 0..count {
            if !pause.is_zero() && number > 0 {
                tokio::time::sleep(pause).await;
            }
            let event = wish.event(number);
            let size = format!("{:x}\r\n", event.len());
            self.socket.write_all(&[size.as_bytes(), &event, b"\r\n"].concat()).await?;
        }
        Ok(())
    }
}
