//! HTTP/1.1 by hand, since no library can be made to break its rules.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Hub;
use super::body::{Counter, Step};
use super::dialect::key_of;
use super::listen::Socket;
use super::record::{Link, Recorded};
use super::script::{Afterwards, Answer, Body, Framing, Start};

/// How much of a request's body is kept.
pub(super) const KEPT: usize = 64 << 20;
const LARGEST_HEAD: usize = 256 << 10;

/// What becomes of the connection after an answer.
enum Fate {
    Keep,
    Close,
    /// Closed without a farewell, in the middle of the answer.
    Break,
    Reset,
    ResetNext,
    /// The client went away.
    Gone,
}

struct Head {
    method: Method,
    target: String,
    version: Version,
    headers: HeaderMap,
}

/// Serves requests until one side closes.
pub(super) async fn serve<S: Socket>(mut socket: S, mut buffer: BytesMut, hub: &Hub, link: Link) {
    while let Some(head) = next_head(&mut socket, &mut buffer, &link).await {
        let receiving = link.begin();
        let keep = head.version == Version::HTTP_11 && !mentions(&head.headers, CONNECTION, "close");
        let key = key_of(&head.headers, &head.target);
        let answer = hub.keys.choose(key.as_deref());
        let early = answer.early;
        let body =
            if early { Ok(Received::default()) } else { read_body(&mut socket, &mut buffer, &head).await };
        let Ok(body) = body else { return };
        let request = Recorded {
            key,
            method: head.method,
            target: head.target,
            version: head.version,
            headers: head.headers,
            body: body.kept.freeze(),
            body_len: body.length,
            connection: link.id,
        };
        let call = receiving.record(&request);
        let answer = hub.settle(answer, &request);

        let fate = {
            let (mut reader, mut writer) = tokio::io::split(&mut socket);
            tokio::select! {
                biased;
                fate = perform(&mut writer, answer, &request.method) => fate.unwrap_or(Fate::Gone),
                () = gone(&mut reader, &mut buffer, early) => Fate::Gone,
            }
        };
        if !matches!(fate, Fate::Gone) {
            call.finish();
        }
        match fate {
            Fate::Keep if early => return drain(&mut socket).await,
            Fate::Keep if keep => {}
            Fate::Keep | Fate::Close => {
                let _ = socket.shutdown().await;
                return;
            }
            Fate::Break | Fate::Gone => return,
            Fate::Reset => return socket.arm_reset(),
            Fate::ResetNext => {
                tokio::select! {
                    () = link.closing() => {}
                    read = socket.read_u8() => if read.is_ok() { socket.arm_reset() },
                }
                return;
            }
        }
    }
}

/// The next request's head, unless the connection ends before it.
async fn next_head<S: Socket>(socket: &mut S, buffer: &mut BytesMut, link: &Link) -> Option<Head> {
    loop {
        match parse(buffer) {
            Ok(Some(head)) => return Some(head),
            Ok(None) if buffer.len() < LARGEST_HEAD => {}
            Ok(None) | Err(_) => {
                link.malformed();
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
                let _ = socket.shutdown().await;
                return None;
            }
        }
        if buffer.is_empty() && link.is_closing() {
            let _ = socket.shutdown().await;
            return None;
        }
        tokio::select! {
            () = link.closing(), if buffer.is_empty() => {}
            read = socket.read_buf(buffer) => if read.map_or(true, |n| n == 0) { return None },
        }
    }
}

/// Takes a head off the buffer, if a whole one is there.
fn parse(buffer: &mut BytesMut) -> Result<Option<Head>, Malformed> {
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut slots);
    let httparse::Status::Complete(length) = request.parse(buffer).map_err(|_| Malformed)? else {
        return Ok(None);
    };
    let mut headers = HeaderMap::new();
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Malformed)?;
        headers.append(name, HeaderValue::from_bytes(header.value).map_err(|_| Malformed)?);
    }
    let head = Head {
        method: request.method.and_then(|method| method.parse().ok()).ok_or(Malformed)?,
        target: request.path.ok_or(Malformed)?.to_owned(),
        version: if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
        headers,
    };
    buffer.advance(length);
    Ok(Some(head))
}

struct Malformed;

#[derive(Default)]
struct Received {
    kept: BytesMut,
    length: u64,
}

impl Received {
    fn take(&mut self, buffer: &mut BytesMut, length: usize) {
        let bytes = buffer.split_to(length);
        self.length += length as u64;
        self.kept.extend_from_slice(&bytes[..length.min(KEPT - self.kept.len())]);
    }
}

async fn read_body<S: Socket>(socket: &mut S, buffer: &mut BytesMut, head: &Head) -> io::Result<Received> {
    if mentions(&head.headers, EXPECT, "100-continue") {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        socket.flush().await?;
    }
    let mut body = Received::default();
    if mentions(&head.headers, TRANSFER_ENCODING, "chunked") {
        loop {
            let size = loop {
                match httparse::parse_chunk_size(buffer) {
                    Ok(httparse::Status::Complete((line, size))) => {
                        buffer.advance(line);
                        break size;
                    }
                    Ok(httparse::Status::Partial) => more(socket, buffer).await?,
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                }
            };
            if size == 0 {
                while line(socket, buffer).await? > 0 {}
                return Ok(body);
            }
            read_exactly(socket, buffer, size, &mut body).await?;
            line(socket, buffer).await?;
        }
    }
    let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    read_exactly(socket, buffer, length.unwrap_or(0), &mut body).await?;
    Ok(body)
}

async fn read_exactly<S: Socket>(
    socket: &mut S,
    buffer: &mut BytesMut,
    length: u64,
    body: &mut Received,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        if buffer.is_empty() {
            more(socket, buffer).await?;
        }
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        body.take(buffer, here);
        left -= here as u64;
    }
    Ok(())
}

/// Takes one line off the buffer; its length without the line end.
async fn line<S: Socket>(socket: &mut S, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n") {
            buffer.advance(end + 2);
            return Ok(end);
        }
        more(socket, buffer).await?;
    }
}

async fn more<S: Socket>(socket: &mut S, buffer: &mut BytesMut) -> io::Result<()> {
    match socket.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Plays the answer. An error means that the client takes no more.
async fn perform<W: AsyncWrite + Unpin>(writer: &mut W, answer: Answer, method: &Method) -> io::Result<Fate> {
    match answer.begin().await {
        Start::Head => {}
        Start::Hang => std::future::pending().await,
        Start::Reset => return Ok(Fate::Reset),
        Start::Close => return Ok(Fate::Break),
    }
    if let Body::Raw(bytes) = &answer.body {
        write(writer, bytes, None).await?;
        return Ok(if answer.afterwards == Afterwards::KeepAlive { Fate::Keep } else { Fate::Close });
    }
    let bodiless = *method == Method::HEAD || matches!(answer.status.as_u16(), 100..=199 | 204 | 304);
    let chunked = answer.length().is_none() && answer.framing != Framing::UntilClose;
    let afterwards = match answer.afterwards {
        _ if answer.framing == Framing::UntilClose => Fate::Close,
        Afterwards::KeepAlive => Fate::Keep,
        Afterwards::Close => Fate::Close,
        Afterwards::ResetNext => Fate::ResetNext,
    };
    write(writer, head(&answer, bodiless, chunked).as_bytes(), None).await?;
    if bodiless {
        return Ok(afterwards);
    }
    let mut pieces = answer.into_pieces();
    let counter = pieces.counter();
    loop {
        match pieces.next().await {
            Step::Data(data) if data.is_empty() => {}
            Step::Data(data) if chunked => write(writer, &chunk(&data), counter.as_ref()).await?,
            Step::Data(data) => write(writer, &data, counter.as_ref()).await?,
            Step::Cut => return Ok(Fate::Break),
            Step::BadChunk => {
                write(writer, b"no-number\r\n", None).await?;
                return Ok(Fate::Break);
            }
            Step::End => {
                if chunked {
                    write(writer, b"0\r\n\r\n", None).await?;
                }
                return Ok(afterwards);
            }
        }
    }
}

fn head(answer: &Answer, bodiless: bool, chunked: bool) -> String {
    let reason = answer.status.canonical_reason().unwrap_or("Unnamed");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_u16());
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let framed =
        answer.headers.contains_key(CONTENT_LENGTH) || answer.headers.contains_key(TRANSFER_ENCODING);
    if !framed && chunked && !bodiless {
        head.push_str("transfer-encoding: chunked\r\n");
    } else if !framed && let Some(length) = answer.length() {
        let _ = write!(head, "content-length: {length}\r\n");
    }
    head + "\r\n"
}

fn chunk(data: &Bytes) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    bytes: &[u8],
    watcher: Option<&Counter>,
) -> io::Result<()> {
    let mut writing = pin!(async {
        writer.write_all(bytes).await?;
        writer.flush().await
    });
    let Some(counter) = watcher else { return writing.await };
    poll_fn(|context| {
        let polled = writing.as_mut().poll(context);
        counter.set_blocked(polled.is_pending());
        polled
    })
    .await
}

/// Resolves when the client has gone away. What it sends meanwhile is its next request, or, after an early
/// answer, the rest of this one's body.
async fn gone<R: AsyncRead + Unpin>(reader: &mut R, buffer: &mut BytesMut, discard: bool) {
    while buffer.len() < LARGEST_HEAD {
        if reader.read_buf(buffer).await.map_or(true, |n| n == 0) {
            return;
        }
        if discard {
            buffer.clear();
        }
    }
    std::future::pending().await
}

/// Ends our side, and reads the client's to its end, lest unread bytes turn the close into a reset.
async fn drain<S: Socket>(socket: &mut S) {
    let _ = socket.shutdown().await;
    let mut rest = BytesMut::new();
    while socket.read_buf(&mut rest).await.is_ok_and(|n| n > 0) {
        rest.clear();
    }
}

fn mentions(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}
