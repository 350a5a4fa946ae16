//! Lines of an event stream, out of pieces that end anywhere.

/// Takes a stream apart into lines. A line that comes in one piece is never copied.
///
/// Of a line longer than its bound the beginning is kept, and [`LAST`] bytes or more of its end.
#[derive(Debug)]
pub(in crate::provider) struct Lines {
    /// The beginning of a line that has not ended.
    begun: Vec<u8>,
    bound: usize,
    /// Whether the last byte was a CR, so that an LF would belong to it.
    after_cr: bool,
}

/// So much of the end of an overlong line is kept.
const LAST: usize = 1024;

impl Lines {
    /// Lines are kept whole up to `bound` bytes.
    pub(in crate::provider) const fn new(bound: usize) -> Self {
        Self { begun: Vec::new(), bound, after_cr: false }
    }

    /// Gives each line that ends in `piece` to `each`, without its end.
    pub(in crate::provider) fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = piece;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, ended) = rest.split_at(at);
            rest = &ended[1..];
            if ended[0] == b'\r' {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            if self.begun.is_empty() {
                each(line);
            } else {
                self.keep(line);
                each(&self.begun);
                self.begun.clear();
            }
        }
        self.keep(rest);
    }

    /// Whether a line has begun and not ended.
    pub(in crate::provider) const fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Takes a piece whose lines nobody asks for; the one that has not ended is kept. No line may have begun before it.
    pub(in crate::provider) fn skip(&mut self, piece: &[u8]) {
        self.after_cr = match piece.last() {
            Some(last) => *last == b'\r',
            None => self.after_cr,
        };
        let start = memchr::memrchr2(b'\n', b'\r', piece).map_or(0, |end| end + 1);
        self.keep(&piece[start..]);
    }

    /// The last line, if it has no end.
    pub(in crate::provider) fn unended(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.begun)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.bound.saturating_sub(self.begun.len());
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.begun.extend_from_slice(first);
        if rest.is_empty() {
            return;
        }
        if rest.len() >= LAST {
            self.begun.truncate(self.bound);
            self.begun.extend_from_slice(&rest[rest.len() - LAST..]);
            return;
        }
        // Now and then what is too much goes, so that a long line costs no more than its bytes.
        if self.begun.len() + rest.len() > self.bound + 2 * LAST {
            self.begun.drain(self.bound..self.begun.len() - LAST);
        }
        self.begun.extend_from_slice(rest);
    }
}

/// A line's field and its value: ("data", "…"). A comment has no name.
pub(super) fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        Some(at) => {
            let value = &line[at + 1..];
            (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
        }
        None => (line, b""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(bound: usize, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut split, mut all) = (Lines::new(bound), Vec::new());
        for piece in pieces {
            split.push(piece, |line| all.push(line.to_vec()));
        }
        all.push(split.unended());
        all
    }

    #[test]
    fn lines_end_in_three_ways() {
        let text = b"a\nb\r\nc\rd\n\n\r\n\r\re";
        let expected: [&[u8]; 9] = [b"a", b"b", b"c", b"d", b"", b"", b"", b"", b"e"];
        assert_eq!(lines(100, &[text]), expected);
        for at in 0..text.len() {
            assert_eq!(lines(100, &[&text[..at], b"", &text[at..]]), expected, "{at}");
        }
    }

    #[test]
    fn of_a_long_line_the_beginning_and_the_end_are_kept() {
        let text: Vec<u8> = (0..100_000_u32).map(|at| b'a' + (at % 26) as u8).collect();
        for size in [1, 7, 1000, 1024, 5000, 100_000] {
            let pieces: Vec<_> = text.chunks(size).chain([&b"\n"[..]]).collect();
            let kept = &lines(64, &pieces)[0];
            assert_eq!(kept[..64], text[..64]);
            assert!(kept.ends_with(&text[text.len() - LAST..]), "{size}");
            assert!(kept.len() <= 64 + 2 * LAST, "{size}: {}", kept.len());
        }
    }

    #[test]
    fn fields() {
        for (line, name, value) in [
            ("data: a: b", "data", "a: b"),
            ("data:a", "data", "a"),
            ("data:  a", "data", " a"),
            (": ping", "", "ping"),
            ("data", "data", ""),
            ("", "", ""),
        ] {
            assert_eq!(field(line.as_bytes()), (name.as_bytes(), value.as_bytes()), "{line}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(pieces in proptest::collection::vec("[ab\r\n]{0,6}", 0..8)) {
            let pieces: Vec<_> = pieces.iter().map(String::as_bytes).collect();
            let whole = pieces.concat();
            let text = String::from_utf8(whole.clone()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
            let expected: Vec<_> = text.split('\n').map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines(100, &pieces), expected.clone());
            prop_assert_eq!(lines(100, &[&whole]), expected);
        }
    }
}
