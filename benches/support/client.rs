//! The least HTTP/1.1 client: one connection, one request at a time, and the caller sees every piece as it comes.

use std::{io, net::SocketAddr};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What is read at once at least.
const ROOM: usize = 16 << 10;
const MOST_HEADERS: usize = 64;

/// A connection to a server.
pub struct Connection {
    socket: TcpStream,
    buffer: BytesMut,
    /// How much of the buffer's start the caller has been given already.
    given: usize,
    rest: Rest,
    keeps: bool,
}

/// What is still to come of an answer's body.
enum Rest {
    Nothing,
    Length(usize),
    /// The line that tells a chunk's size.
    Size,
    Chunk(usize),
    /// The line end after a chunk.
    ChunkEnd,
    /// The lines after the last chunk.
    Trailers,
    UntilClose,
}

/// Why there is no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens.
    #[error("no connection")]
    Connect,
    /// The connection ended before a byte of an answer.
    #[error("no answer")]
    Unanswered,
    /// The connection ended in the middle of an answer.
    #[error("the answer broke off")]
    Cut,
    /// This is no HTTP.
    #[error("the answer is malformed")]
    Malformed,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address).await.map_err(|_| Failure::Connect)?;
        Self::over(socket).map_err(|_| Failure::Connect)
    }

    /// Over a socket that is connected already.
    pub fn over(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let buffer = BytesMut::with_capacity(ROOM);
        Ok(Self { socket, buffer, given: 0, rest: Rest::Nothing, keeps: true })
    }

    /// Writes a request, or a part of one.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.socket.write_all(bytes).await.map_err(|_| Failure::Unanswered)
    }

    /// The status of the answer, when its head is there.
    pub async fn head(&mut self) -> Result<u16, Failure> {
        loop {
            if let Some(status) = self.parse_head()? {
                if status >= 200 {
                    return Ok(status);
                }
                continue;
            }
            let before = if self.buffer.is_empty() { Failure::Unanswered } else { Failure::Cut };
            if !self.fill().await {
                return Err(before);
            }
        }
    }

    /// The next piece of the answer's body; `None` when it is complete, and marked so.
    pub async fn piece(&mut self) -> Result<Option<&[u8]>, Failure> {
        self.buffer.advance(std::mem::take(&mut self.given));
        self.given = self.at_hand().await?;
        Ok((self.given > 0).then(|| &self.buffer[..self.given]))
    }

    /// The rest of the answer's body.
    pub async fn body(&mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(piece);
        }
        Ok(all)
    }

    /// Whether it can carry another request.
    pub fn is_reusable(&self) -> bool {
        self.keeps && matches!(self.rest, Rest::Nothing)
    }

    /// Whether the server has closed it, as far as that has been heard of here; clients look before they use one again.
    pub fn has_ended(&mut self) -> bool {
        let read = self.socket.try_read_buf(&mut self.buffer);
        !read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn parse_head(&mut self) -> Result<Option<u16>, Failure> {
        let mut slots = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut head = httparse::Response::new(&mut slots);
        let httparse::Status::Complete(length) = head.parse(&self.buffer).map_err(|_| Failure::Malformed)?
        else {
            return Ok(None);
        };
        let status = head.code.ok_or(Failure::Malformed)?;
        self.keeps = head.version == Some(1);
        self.rest = Rest::UntilClose;
        for header in head.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).map_err(|_| Failure::Malformed)?;
                self.rest = Rest::Length(text.trim().parse().map_err(|_| Failure::Malformed)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                self.rest = Rest::Size;
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.keeps &= !header.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.buffer.advance(length);
        Ok(Some(status))
    }

    /// How many bytes of the body stand at the start of the buffer; 0 when it is complete.
    async fn at_hand(&mut self) -> Result<usize, Failure> {
        loop {
            match self.rest {
                Rest::Nothing => return Ok(0),
                Rest::Length(0) => self.rest = Rest::Nothing,
                Rest::Chunk(0) => self.rest = Rest::ChunkEnd,
                Rest::Length(left) if !self.buffer.is_empty() => {
                    let length = left.min(self.buffer.len());
                    self.rest = Rest::Length(left - length);
                    return Ok(length);
                }
                Rest::Chunk(left) if !self.buffer.is_empty() => {
                    let length = left.min(self.buffer.len());
                    self.rest = Rest::Chunk(left - length);
                    return Ok(length);
                }
                Rest::UntilClose if !self.buffer.is_empty() => return Ok(self.buffer.len()),
                Rest::UntilClose => {
                    if !self.fill().await {
                        (self.rest, self.keeps) = (Rest::Nothing, false);
                    }
                }
                Rest::Size => match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((line, size))) => {
                        self.buffer.advance(line);
                        let size = usize::try_from(size).map_err(|_| Failure::Malformed)?;
                        self.rest = if size == 0 { Rest::Trailers } else { Rest::Chunk(size) };
                    }
                    Ok(httparse::Status::Partial) => self.more().await?,
                    Err(_) => return Err(Failure::Malformed),
                },
                Rest::ChunkEnd if self.buffer.starts_with(b"\r\n") => {
                    self.buffer.advance(2);
                    self.rest = Rest::Size;
                }
                Rest::ChunkEnd if self.buffer.len() >= 2 => return Err(Failure::Malformed),
                Rest::Trailers => match memchr::memchr(b'\n', &self.buffer) {
                    Some(end) => {
                        let is_last = self.buffer[..end].iter().all(|byte| *byte == b'\r');
                        self.buffer.advance(end + 1);
                        if is_last {
                            self.rest = Rest::Nothing;
                        }
                    }
                    None => self.more().await?,
                },
                Rest::Length(_) | Rest::Chunk(_) | Rest::ChunkEnd => self.more().await?,
            }
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        if self.fill().await { Ok(()) } else { Err(Failure::Cut) }
    }

    /// Reads on; false if the connection has ended.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(ROOM);
        matches!(self.socket.read_buf(&mut self.buffer).await, Ok(length) if length > 0)
    }
}
