//! Content codings (RFC 9110 §8.4), undone in a bounded copy where a body must be understood. What travels stays coded.

use std::{borrow::Cow, io::Read};

use http::{HeaderMap, header::CONTENT_ENCODING};

/// The coding is none that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// At most `most` bytes of `body` as they were before they were coded; of a body that was cut off, as far as it goes.
pub(super) fn decoded<'b>(
    headers: &HeaderMap,
    body: &'b [u8],
    most: usize,
) -> Result<Cow<'b, [u8]>, UnknownCoding> {
    let Some(coding) = headers.get(CONTENT_ENCODING) else { return Ok(Cow::Borrowed(body)) };
    let text = match coding.as_bytes().to_ascii_lowercase().as_slice() {
        b"identity" => return Ok(Cow::Borrowed(body)),
        b"gzip" | b"x-gzip" => bounded(flate2::read::MultiGzDecoder::new(body), most),
        b"deflate" => match bounded(flate2::read::ZlibDecoder::new(body), most) {
            // Some send the bare stream that the name suggests.
            text if text.is_empty() => bounded(flate2::read::DeflateDecoder::new(body), most),
            text => text,
        },
        b"br" => bounded(brotli_decompressor::Decompressor::new(body, 4096), most),
        b"zstd" => ruzstd::decoding::StreamingDecoder::new(body)
            .map(|decoder| bounded(decoder, most))
            .unwrap_or_default(),
        _ => return Err(UnknownCoding),
    };
    Ok(Cow::Owned(text))
}

fn bounded(decoder: impl Read, most: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = decoder.take(most as u64).read_to_end(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const MOST: usize = 64 * 1024;

    fn headers(coding: &'static str) -> HeaderMap {
        [(CONTENT_ENCODING, http::HeaderValue::from_static(coding))].into_iter().collect()
    }

    #[test]
    fn every_usual_coding_is_undone() {
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
            assert_eq!(*decoded(&headers(coding), &coded, MOST).unwrap(), text[..], "{coding}");
        }
    }

    #[test]
    fn a_bomb_is_undone_up_to_the_limit() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'a'; 50 << 20]).unwrap();
        assert_eq!(decoded(&headers("gzip"), &gzip.finish().unwrap(), MOST).unwrap().len(), MOST);
    }

    #[test]
    fn an_unknown_coding_is_said_to_be() {
        assert_eq!(decoded(&headers("compress"), b"x", MOST), Err(UnknownCoding));
    }
}
