//! An answer without the credentials that it repeats.
//!
//! Where a credential is part of the URL, many an answer has it in its links. It is replaced by as many other bytes, so
//! that the length of the answer is what it was, and what passes is held back only as long as it may be its beginning.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use memchr::memmem;

use super::AnswerBody;

/// What stands in the place of a byte of a credential.
const FILLER: u8 = b'*';

/// A body, and what must not be in it.
#[derive(Debug)]
pub(super) struct Scrubbed {
    inner: AnswerBody,
    needles: Needles,
    /// The end of what came, if a credential may begin there.
    held: Vec<u8>,
    ended: bool,
}

/// The credentials to look for. Its `Debug` shows how many there are.
pub(in crate::forward) struct Needles(Vec<Vec<u8>>);

impl std::fmt::Debug for Needles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Needles({})", self.0.len())
    }
}

impl Needles {
    /// These texts, each as it is and as a URL has it.
    pub(in crate::forward) fn of<'t>(texts: impl Iterator<Item = (&'t str, String)>) -> Option<Self> {
        let mut needles: Vec<Vec<u8>> = Vec::new();
        for (plain, encoded) in texts {
            let lower = in_lower_case(&encoded);
            for text in [plain.as_bytes(), encoded.as_bytes(), lower.as_bytes()] {
                if !text.is_empty() && !needles.iter().any(|known| known == text) {
                    needles.push(text.to_vec());
                }
            }
        }
        (!needles.is_empty()).then_some(Self(needles))
    }

    fn cover(&self, text: &mut [u8]) {
        for needle in &self.0 {
            let found: Vec<usize> = memmem::find_iter(text, needle).collect();
            for at in found {
                text[at..at + needle.len()].fill(FILLER);
            }
        }
    }

    /// How much of the end of `text` may be the beginning of one.
    fn begun(&self, text: &[u8]) -> usize {
        let longest = |needle: &Vec<u8>| {
            (1..needle.len().min(text.len() + 1)).rev().find(|length| text.ends_with(&needle[..*length]))
        };
        self.0.iter().filter_map(longest).max().unwrap_or_default()
    }
}

/// The same text, its codes in lower case: some write them so (RFC 3986 §2.1).
fn in_lower_case(encoded: &str) -> String {
    let mut pieces = encoded.split('%');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let (code, rest) = piece.split_at(piece.len().min(2));
        format!("{text}%{}{rest}", code.to_ascii_lowercase())
    })
}

impl Scrubbed {
    pub(super) fn new(inner: AnswerBody, needles: Needles) -> Self {
        Self { inner, needles, held: Vec::new(), ended: false }
    }

    /// What of `piece` can go on, behind what was held back.
    fn pass(&mut self, piece: &[u8]) -> Bytes {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        self.needles.cover(&mut text);
        self.held = text.split_off(text.len() - self.needles.begun(&text));
        text.into()
    }
}

impl Body for Scrubbed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            if self.ended {
                let held = std::mem::take(&mut self.held);
                return Poll::Ready((!held.is_empty()).then(|| Ok(Frame::data(held.into()))));
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(context)).transpose()? {
                Some(frame) => match frame.into_data() {
                    Ok(piece) => {
                        let text = self.pass(&piece);
                        if !text.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(text))));
                        }
                    }
                    // Trailers end here.
                    Err(_) => self.ended = true,
                },
                None => self.ended = true,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && (self.ended || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let held = self.held.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needles() -> Needles {
        Needles::of([("sk+abab", "sk%2Babab".to_owned())].into_iter()).unwrap()
    }

    /// What goes on of these pieces.
    fn scrubbed(pieces: &[&[u8]]) -> Vec<u8> {
        let (needles, mut held, mut all) = (needles(), Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            needles.cover(&mut held);
            let rest = held.split_off(held.len() - needles.begun(&held));
            all.append(&mut held);
            held = rest;
        }
        all.append(&mut held);
        all
    }

    proptest! {
        #[test]
        fn none_goes_on_however_it_is_cut(before in "[sk+%2Bab]{0,12}", after in "[sk+%2Bab]{0,12}", cuts in prop::collection::vec(0..40_usize, 0..6)) {
            for secret in ["sk+abab", "sk%2Babab", "sk%2babab"] {
                let text = format!("{before}{secret}{after}");
                let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
                at.extend([0, text.len()]);
                at.sort_unstable();
                let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
                let sent = scrubbed(&pieces);
                prop_assert_eq!(sent.len(), text.len());
                let sent = String::from_utf8(sent).unwrap();
                prop_assert!(!sent.contains("sk+abab") && !sent.to_lowercase().contains("sk%2babab"), "{}", sent);
            }
        }
    }

    #[test]
    fn what_is_none_goes_on_as_it_is() {
        assert_eq!(scrubbed(&[b"sk+aba", b"sk+ab sk"]), b"sk+abask+ab sk");
        assert_eq!(scrubbed(&[b"a sk+a", b"bab b"]), b"a ******* b");
    }
}
