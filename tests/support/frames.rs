//! HTTP/2 frames by hand, for what no library would send.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes};

use super::raw::{End, Raw};

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Their flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The fields of a request that is served.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/v1/models"), (":authority", "p")];

/// A connection that speaks HTTP/2, whatever goes over it.
pub struct Frames {
    raw: Raw,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// An answer with this status.
    Answered(u16),
    /// The stream alone was ended, for this reason.
    Reset(u32),
    /// The connection ends, for this reason.
    GoneAway(u32),
    /// The connection ended without a word.
    Cut,
}

impl Frames {
    /// Connects, and says hello.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut raw = Raw::connect(address).await;
        raw.send(PREFACE).await;
        raw.send(frame(SETTINGS, 0, 0, b"")).await;
        Self { raw }
    }

    /// Sends frames, as far as the other side takes them.
    pub async fn send(&mut self, frames: impl AsRef<[u8]>) {
        self.raw.try_send(frames).await;
    }

    /// Reads until it is known what became of `stream`.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let Some((kind, flags, of, payload)) = self.next().await else { return Fate::Cut };
            match kind {
                HEADERS if of == stream => return Fate::Answered(status(&payload)),
                RST_STREAM if of == stream => return Fate::Reset((&payload[..]).get_u32()),
                GOAWAY => return Fate::GoneAway((&payload[4..]).get_u32()),
                SETTINGS if flags & ACK == 0 => self.send(frame(SETTINGS, ACK, 0, b"")).await,
                PING if flags & ACK == 0 => self.send(frame(PING, ACK, 0, &payload)).await,
                _ => {}
            }
        }
    }

    /// Reads until the connection ends.
    pub async fn end(mut self) {
        while self.next().await.is_some() {}
    }

    /// The next frame: type, flags, stream, payload.
    async fn next(&mut self) -> Option<(u8, u8, u32, Bytes)> {
        let (mut head, end) = self.raw.exactly(9).await;
        if end != End::Marked {
            return None;
        }
        let length = usize::try_from(head.get_uint(3)).expect("three bytes");
        let (kind, flags, stream) = (head.get_u8(), head.get_u8(), head.get_u32());
        let (payload, end) = self.raw.exactly(length).await;
        (end == End::Marked).then_some((kind, flags, stream, payload))
    }
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A whole request without a body.
pub fn request(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// A header block whose fields all stand for themselves (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(length: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).expect("below 127"));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("seven bits"));
}

/// The status that begins a header block: one byte for those of the static table (RFC 7541 §A), else spelt out, in
/// Huffman's code. The only such that is met here is 431.
fn status(block: &[u8]) -> u16 {
    const TABLE: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    if block.starts_with(b"\x48\x83\x69\x90\xff") {
        return 431;
    }
    let index = block.first().and_then(|first| first.checked_sub(0x88)).map(usize::from);
    let status = index.and_then(|index| TABLE.get(index));
    *status.unwrap_or_else(|| panic!("the answer has a rarer status: {block:?}"))
}
