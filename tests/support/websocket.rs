//! WebSockets by hand: frames over a connection, from either side, and an upstream that echoes them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::raw::{Raw, patiently};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;

/// The head of a handshake.
pub fn handshake(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: p\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// What answers it.
pub const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
     sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A frame as a client (masked) or a server sends it.
pub fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(bit | length as u8),
        length @ 126..65536 => {
            frame.push(bit | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(bit | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        let mask = fastrand::u32(..).to_ne_bytes();
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend_from_slice(payload);
    }
    frame
}

/// A connection on which frames go.
pub struct Socket {
    pub stream: TcpStream,
    buffer: BytesMut,
    masks: bool,
}

impl Socket {
    /// Of a client whose handshake was accepted, or (`masks` is false) of an upstream that accepted.
    pub fn over(raw: Raw, masks: bool) -> Self {
        let (stream, buffer) = raw.into_parts();
        Self { stream, buffer, masks }
    }

    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let frame = frame(opcode, payload, self.masks);
        patiently(self.stream.write_all(&frame)).await.expect("the other side reads");
    }

    /// The next frame: opcode, payload, and whether it was masked. `None`: the connection ended between two.
    pub async fn frame(&mut self) -> Option<(u8, Bytes, bool)> {
        loop {
            if let Some(frame) = self.parsed() {
                return Some(frame);
            }
            match patiently(self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => {
                    assert!(self.buffer.is_empty(), "ended inside a frame: {:?}", self.buffer);
                    return None;
                }
                Ok(_) => {}
            }
        }
    }

    fn parsed(&mut self) -> Option<(u8, Bytes, bool)> {
        let bytes = &self.buffer[..];
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (length, mut head) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            length => (u64::from(length), 2),
        };
        let masked = second & 0x80 != 0;
        let mask: [u8; 4] = if masked { bytes.get(head..head + 4)?.try_into().ok()? } else { [0; 4] };
        head += if masked { 4 } else { 0 };
        let length = usize::try_from(length).expect("it fits");
        if bytes.len() < head + length {
            return None;
        }
        self.buffer.advance(head);
        let payload = self.buffer.split_to(length);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Some((first & 0x0f, payload, masked))
    }

    /// The code of the goodbye that comes next.
    pub async fn goodbye(&mut self) -> u16 {
        let (opcode, payload, masked) = self.frame().await.expect("a goodbye");
        assert_eq!((opcode, masked), (CLOSE, !self.masks), "{payload:?}");
        u16::from_be_bytes(payload[..2].try_into().expect("a code"))
    }
}

/// An upstream that accepts every handshake and gives back what it gets.
pub struct Echo {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Echo {
    /// `lines` stand in the head of its answer.
    pub async fn start(lines: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        let accepting = async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let seen = Arc::clone(&seen);
                let echoing = async move {
                    let mut raw = Raw::over(stream);
                    let head = raw.request().await;
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                    raw.send(format!("{ACCEPTED}{lines}\r\n")).await;
                    let mut socket = Socket::over(raw, false);
                    while let Some((opcode, payload, masked)) = socket.frame().await {
                        assert!(masked, "a client's frames are");
                        if socket.stream.write_all(&frame(opcode, &payload, false)).await.is_err()
                            || opcode == CLOSE
                        {
                            return;
                        }
                    }
                };
                #[expect(clippy::disallowed_methods, reason = "it ends with its connection")]
                drop(tokio::spawn(echoing));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "it is aborted with this")]
        let task = tokio::spawn(accepting);
        Self { url, heads, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The heads of the handshakes so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}
