//! A refusal: the head and the first part of the body of an answer that must be understood before it is delivered.

use std::{borrow::Cow, io::Read, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header::CONTENT_ENCODING};
use http_body_util::BodyExt as _;

use super::{body::Rest, transport::AnswerBody};

/// As much of a refusal's body as is read, and as much as is decoded.
const MOST: usize = 64 * 1024;

/// A refusal, and the rest of its body if that is long.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) start: Bytes,
    pub(super) rest: Rest,
}

impl Refusal {
    /// Reads the start of the body; what doesn't come within `patience` is not waited for.
    pub(super) async fn read(answer: http::Response<AnswerBody>, patience: Duration) -> Self {
        let (parts, mut body) = answer.into_parts();
        let mut start = BytesMut::new();
        let reading = async {
            while start.len() < MOST {
                match body.frame().await {
                    Some(Ok(frame)) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                    Some(Err(_)) => return Some(Rest::Broken),
                    None => return Some(Rest::Ended),
                }
            }
            None
        };
        let ended = tokio::time::timeout(patience, reading).await.unwrap_or(None);
        let rest = ended.unwrap_or(Rest::Coming(body));
        Self { status: parts.status, headers: parts.headers, start: start.freeze(), rest }
    }

    /// The text of the body, decoded if it is coded (RFC 9110 §8.4) and the coding is known.
    pub(super) fn text(&self) -> Cow<'_, [u8]> {
        let Some(coding) = self.headers.get(CONTENT_ENCODING) else { return Cow::Borrowed(&self.start) };
        match coding.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" => Cow::Borrowed(&self.start),
            b"gzip" | b"x-gzip" => bounded(flate2::read::MultiGzDecoder::new(&*self.start)),
            b"deflate" => match bounded(flate2::read::ZlibDecoder::new(&*self.start)) {
                // Some send the bare stream that the name suggests.
                text if text.is_empty() => bounded(flate2::read::DeflateDecoder::new(&*self.start)),
                text => text,
            },
            b"br" => bounded(brotli_decompressor::Decompressor::new(&*self.start, 4096)),
            b"zstd" => {
                ruzstd::decoding::StreamingDecoder::new(&*self.start).map_or(Cow::Borrowed(&[]), bounded)
            }
            _ => Cow::Borrowed(&[]),
        }
    }
}

fn bounded(decoder: impl Read) -> Cow<'static, [u8]> {
    let mut text = Vec::new();
    // A refusal that was cut off is understood as far as it goes.
    let _ = decoder.take(MOST as u64).read_to_end(&mut text);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn refusal(coding: &'static str, start: Vec<u8>) -> Refusal {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
        Refusal { status: StatusCode::TOO_MANY_REQUESTS, headers, start: start.into(), rest: Rest::Ended }
    }

    #[test]
    fn a_coded_refusal_is_understood() {
        let text = br#"{"error":{"code":"insufficient_quota"}}"#;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(text).unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        bare.write_all(text).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest);
        for (coding, coded) in [
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("zstd", zstd),
            ("identity", text.to_vec()),
        ] {
            assert_eq!(*refusal(coding, coded).text(), text[..], "{coding}");
        }
    }

    #[test]
    fn a_bomb_is_read_up_to_the_limit() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'a'; 50 << 20]).unwrap();
        assert_eq!(refusal("gzip", gzip.finish().unwrap()).text().len(), MOST);
    }

    #[test]
    fn an_unknown_coding_is_no_text() {
        assert!(refusal("compress", b"x".to_vec()).text().is_empty());
    }
}
