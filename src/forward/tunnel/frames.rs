//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2), as its bytes pass. What is in them is not looked at.

/// The longest head of a frame.
pub(super) const LONGEST_HEAD: usize = 14;

const CLOSE: u8 = 8;
const MASKED: u8 = 0x80;

/// Follows one direction of a WebSocket.
#[derive(Debug)]
pub(super) struct Frames {
    /// The largest payload of a frame.
    limit: u64,
    /// What is still to come of the frame that has begun.
    left: u64,
    /// Whether that one says goodbye.
    closing: bool,
    closed: bool,
}

/// How much of some bytes may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// So many of them. What is behind is the beginning of a head, which must come again with more.
    pub(super) pass: usize,
    /// Behind them a frame begins that is larger than the limit.
    pub(super) too_large: bool,
}

impl Frames {
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, left: 0, closing: false, closed: false }
    }

    /// Whether the next byte begins a frame.
    pub(super) const fn is_between(&self) -> bool {
        self.left == 0
    }

    /// Whether goodbye was said.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Goes over what comes next.
    pub(super) fn walk(&mut self, bytes: &[u8]) -> Walked {
        let mut pass = 0;
        loop {
            let payload = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - pass);
            pass += payload;
            self.left -= payload as u64;
            if self.left > 0 {
                return Walked { pass, too_large: false };
            }
            self.closed |= self.closing;
            let Some((head, length)) = head(&bytes[pass..]) else {
                return Walked { pass, too_large: false };
            };
            if length > self.limit {
                return Walked { pass, too_large: true };
            }
            self.closing = bytes[pass] & 0x0f == CLOSE;
            self.left = length;
            pass += head;
        }
    }
}

/// The length of a head, and of the payload behind it, once the head is there.
fn head(bytes: &[u8]) -> Option<(usize, u64)> {
    let (_, second) = (bytes.first()?, *bytes.get(1)?);
    let mask = if second & MASKED == 0 { 0 } else { 4 };
    let (length, head) = match second & !MASKED {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        length => (u64::from(length), 2),
    };
    (bytes.len() >= head + mask).then_some((head + mask, length))
}

/// A frame that says goodbye for this reason, as a server or (masked) as a client sends it.
pub(super) fn goodbye(code: u16, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes();
    let mut frame = vec![0x80 | CLOSE, 2];
    if let Some(mask) = mask {
        frame[1] |= MASKED;
        frame.extend_from_slice(&mask);
        payload.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    frame.extend_from_slice(&payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let bit = if masked { MASKED } else { 0 };
        match length {
            0..126 => frame.push(bit | length as u8),
            126..65536 => {
                frame.push(bit | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    /// Feeds `bytes` in pieces as a tunnel does: what did not pass comes again.
    fn fed(frames: &mut Frames, bytes: &[u8], piece: usize) -> (usize, bool) {
        let (mut passed, mut carried) = (0, Vec::new());
        for piece in bytes.chunks(piece) {
            carried.extend_from_slice(piece);
            let Walked { pass, too_large } = frames.walk(&carried);
            carried.drain(..pass);
            passed += pass;
            if too_large {
                return (passed, true);
            }
            assert!(carried.len() < LONGEST_HEAD);
        }
        (passed, false)
    }

    #[test]
    fn frames_of_every_length_are_walked_in_pieces_of_every_size() {
        let lengths = [0, 1, 125, 126, 127, 65535, 65536, 70000];
        for piece in [1, 2, 3, 13, 4096, 1 << 20] {
            for masked in [false, true] {
                let mut frames = Frames::new(70000);
                for length in lengths {
                    let bytes = frame(2, length, masked);
                    assert_eq!(fed(&mut frames, &bytes, piece), (bytes.len(), false), "{length} {piece}");
                    assert!(frames.is_between() && !frames.is_closed());
                }
                let mut large = frame(1, 5, masked);
                large.extend(frame(2, 70001, masked));
                assert_eq!(fed(&mut frames, &large, piece), (frame(1, 5, masked).len(), true));
                assert!(frames.is_between());
                let bye = goodbye(1000, masked.then_some([9, 8, 7, 6]));
                let (most, last) = bye.split_at(bye.len() - 1);
                fed(&mut frames, most, piece);
                assert!(!frames.is_closed() && !frames.is_between());
                frames.walk(last);
                assert!(frames.is_closed() && frames.is_between());
            }
        }
    }

    #[test]
    fn a_goodbye_without_a_reason_is_one() {
        let mut frames = Frames::new(10);
        assert_eq!(frames.walk(&[0x88, 0]), Walked { pass: 2, too_large: false });
        assert!(frames.is_closed());
    }

    proptest! {
        #[test]
        fn any_bytes_pass_or_are_carried(bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0..300_u64) {
            let mut frames = Frames::new(limit);
            let Walked { pass, too_large } = frames.walk(&bytes);
            prop_assert!(pass <= bytes.len());
            prop_assert!(too_large || bytes.len() - pass < LONGEST_HEAD);
            prop_assert!(!too_large || frames.is_between());
        }
    }
}
