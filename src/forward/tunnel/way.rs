//! One direction of a tunnel. It takes in what it can give away and no more, so that who reads slowly slows down who
//! writes; and while nothing moves it holds no buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frames, LONGEST_HEAD, Walked, goodbye};

/// As much as is taken in at a time.
const PIECE: usize = 8 << 10;

/// What is said at the end, by RFC 6455 §7.4.1.
pub(super) const GOING_AWAY: u16 = 1001;
pub(super) const TOO_LARGE: u16 = 1009;

#[derive(Debug)]
pub(super) struct Way {
    /// Where the protocol has frames.
    frames: Option<Frames>,
    /// Whether what we say ourselves is masked, as a client's frames are.
    masks: bool,
    /// The beginning of a head, which waits for its end.
    carried: Vec<u8>,
    /// What was taken in and is not given away yet.
    pending: Vec<u8>,
    written: usize,
    unflushed: bool,
    /// What we have to say, as soon as the frame that passes is over.
    goodbye: Option<u16>,
    /// Nothing more passes: we have said goodbye.
    said: bool,
    /// How many bytes have passed.
    pub(super) bytes: u64,
}

/// What stops a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Who writes has come to its end.
    Ended,
    /// The connection to who writes broke.
    ReadBroken,
    /// The connection to who reads broke.
    WriteBroken,
    /// A frame is too large.
    TooLarge,
}

impl Way {
    /// `start` has been taken in already.
    pub(super) fn new(frames: Option<Frames>, masks: bool, start: Vec<u8>) -> (Self, Option<Stopped>) {
        let mut way = Self {
            frames,
            masks,
            carried: start,
            pending: Vec::new(),
            written: 0,
            unflushed: false,
            goodbye: None,
            said: false,
            bytes: 0,
        };
        let mut start = std::mem::take(&mut way.carried);
        let walked = way.walk(&start);
        way.carried = start.split_off(walked.pass);
        way.bytes = start.len() as u64;
        way.pending = start;
        (way, walked.too_large.then_some(Stopped::TooLarge))
    }

    /// Has goodbye said. Where the protocol knows none, nothing more passes.
    pub(super) fn say_goodbye(&mut self, code: u16) {
        if self.frames.is_none() || self.is_closed() {
            self.said = true;
        } else if !self.said {
            self.goodbye = Some(code);
        }
    }

    /// What comes next is too large to pass: goodbye is said in its place.
    pub(super) fn refuse(&mut self, code: u16) {
        if self.frames.take().is_some() && !self.said {
            let mask = self.masks.then(|| fastrand::u32(..).to_ne_bytes());
            self.pending.extend_from_slice(&goodbye(code, mask));
        }
        self.said = true;
        self.carried.clear();
    }

    /// Whether who writes has answered a goodbye, or will not.
    pub(super) fn has_no_answer(&self) -> bool {
        self.frames.as_ref().is_none_or(Frames::is_closed)
    }

    /// Whether goodbye was said by who writes.
    pub(super) fn is_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_closed)
    }

    /// Whether there is nothing to be said or given away any more.
    pub(super) fn is_done(&self) -> bool {
        self.said && self.pending.is_empty() && !self.unflushed
    }

    fn walk(&mut self, bytes: &[u8]) -> Walked {
        match &mut self.frames {
            Some(frames) => frames.walk(bytes),
            None => Walked { pass: bytes.len(), too_large: false },
        }
    }

    /// Moves what can be moved.
    pub(super) fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<Stopped> {
        loop {
            match self.poll_write(writer, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Stopped::WriteBroken),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(code) = self.goodbye.take_if(|_| self.frames.as_ref().is_none_or(Frames::is_between))
            {
                let mask = self.masks.then(|| fastrand::u32(..).to_ne_bytes());
                self.pending = goodbye(code, mask);
                self.said = true;
                continue;
            }
            let mut room = [0; PIECE + LONGEST_HEAD];
            let carried = self.carried.len();
            room[..carried].copy_from_slice(&self.carried);
            let mut buffer = ReadBuf::new(&mut room);
            buffer.set_filled(carried);
            match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
                Poll::Pending => {
                    // With a wait ahead, what was written must be on its way.
                    return match self.poll_flush(writer, context) {
                        Poll::Ready(Err(_)) => Poll::Ready(Stopped::WriteBroken),
                        _ => Poll::Pending,
                    };
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Stopped::ReadBroken),
                Poll::Ready(Ok(())) if buffer.filled().len() == carried => {
                    // What came of a head passes too: it is all there was.
                    let carried = std::mem::take(&mut self.carried);
                    if !self.said {
                        self.bytes += carried.len() as u64;
                        self.pending = carried;
                    }
                    return Poll::Ready(Stopped::Ended);
                }
                Poll::Ready(Ok(())) => {}
            }
            let came = buffer.filled();
            let Walked { pass, too_large } = match &mut self.frames {
                Some(frames) => frames.walk(came),
                None => Walked { pass: came.len(), too_large: false },
            };
            self.carried = came[pass..came.len().min(pass + LONGEST_HEAD)].to_vec();
            if !self.said {
                self.bytes += pass as u64;
                if let Poll::Ready(Err(_)) = self.give(&came[..pass], writer, context) {
                    return Poll::Ready(Stopped::WriteBroken);
                }
            }
            if too_large {
                return Poll::Ready(Stopped::TooLarge);
            }
        }
    }

    /// Gives away what can be given at once, and keeps the rest.
    fn give<W: AsyncWrite + Unpin>(
        &mut self,
        mut bytes: &[u8],
        writer: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(context, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    bytes = &bytes[written..];
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.pending = bytes.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when nothing is kept.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let left = &self.pending[self.written..];
            match ready!(Pin::new(&mut *writer).poll_write(context, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.unflushed = true;
        }
        (self.pending, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut *writer).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Text frames as a client sends them, each of another length.
    fn frames(count: usize) -> Vec<Vec<u8>> {
        let frame = |n: usize| {
            let length = n * 37 % 300;
            let mut frame = vec![0x81];
            match length {
                0..126 => frame.push(0x80 | length as u8),
                _ => frame.extend([0x80 | 126, (length >> 8) as u8, length as u8]),
            }
            frame.extend([1, 2, 3, 4]);
            frame.extend(std::iter::repeat_n(n as u8, length));
            frame
        };
        (0..count).map(frame).collect()
    }

    /// Sends `all` in pieces through a way, which is told to say goodbye after so many of them.
    async fn sent(all: &[u8], piece: usize, room: usize, goodbye_after: Option<usize>) -> (Vec<u8>, Way) {
        let (mut near, mut reader) = duplex(piece);
        let (mut writer, mut far) = duplex(room);
        let (mut way, stopped) = Way::new(Some(Frames::new(1 << 20)), true, Vec::new());
        assert_eq!(stopped, None);
        let (told, mut is_told) = tokio::sync::oneshot::channel();
        let writing = async {
            let mut told = Some(told);
            for (n, bytes) in all.chunks(piece).enumerate() {
                if Some(n) == goodbye_after {
                    let _ = told.take().map(|told| told.send(()));
                }
                near.write_all(bytes).await.unwrap();
            }
            drop(near);
        };
        let moving = async {
            let stopped = poll_fn(|context| {
                if is_told.try_recv().is_ok() {
                    way.say_goodbye(GOING_AWAY);
                }
                way.poll(&mut reader, &mut writer, context)
            });
            assert_eq!(stopped.await, Stopped::Ended);
            poll_fn(|context| way.poll_write(&mut writer, context)).await.unwrap();
            drop(writer);
        };
        let mut came = Vec::new();
        let reading = far.read_to_end(&mut came);
        let ((), (), read) = tokio::join!(writing, moving, reading);
        read.unwrap();
        (came, way)
    }

    #[tokio::test]
    async fn what_passes_is_what_came_whatever_the_pieces_and_the_room() {
        let all = frames(40).concat();
        // The last one has no end, and passes as far as it goes.
        let all = &all[..all.len() - 1];
        for piece in [1, 3, 64, 100_000] {
            for room in [1, 5, 100_000] {
                let (came, way) = sent(all, piece, room, None).await;
                assert!(came == all, "{piece} {room}");
                assert_eq!(way.bytes, all.len() as u64);
            }
        }
    }

    #[tokio::test]
    async fn goodbye_is_said_between_two_frames_and_nothing_follows_it() {
        let frames = frames(40);
        let all = frames.concat();
        let mut ends = vec![0];
        for frame in &frames {
            ends.push(ends.last().unwrap() + frame.len());
        }
        for piece in [1, 3, 64] {
            for room in [1, 5, 100_000] {
                for after in [0, 1, 5, 60] {
                    let (came, way) = sent(&all, piece, room, Some(after)).await;
                    let (passed, goodbye) = came.split_at(came.len() - 8);
                    assert!(
                        ends.contains(&passed.len()) && all.starts_with(passed),
                        "{piece} {room} {after}"
                    );
                    assert_eq!(goodbye[..2], [0x88, 0x82]);
                    let code = [goodbye[6] ^ goodbye[2], goodbye[7] ^ goodbye[3]];
                    assert_eq!(u16::from_be_bytes(code), GOING_AWAY);
                    assert!(way.is_done() || way.unflushed);
                }
            }
        }
    }
}
