//! The way of log lines out of the process: written by a thread of its own, many at a time.
//!
//! A channel that carries each line alone wakes its reader for each, which at a thousand requests a second costs more
//! than the request. Here lines gather in one buffer, and the thread, once it has written, sleeps for a moment before
//! it looks again.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// For so long lines gather after some were written.
const GATHER: Duration = Duration::from_millis(10);
/// As soon as so many bytes wait, they are written.
const PLENTY: usize = 64 << 10;
/// When so many bytes wait, whoever reads them is too slow, and further lines are dropped.
const MOST: usize = 16 << 20;

/// Where log lines go.
#[derive(Debug, Clone)]
pub(super) struct Sink(Arc<Shared>);

/// Writes what is left when dropped.
#[derive(Debug)]
pub struct Flush {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    /// Lines that did not fit.
    dropped: u64,
    /// Whether the thread sleeps until there is something.
    idle: bool,
    closed: bool,
}

impl Sink {
    /// Lines go to `out` until what is returned with it is dropped.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn new(out: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_to(out)
        })?;
        Ok((Self(Arc::clone(&shared)), Flush { shared, thread: Some(thread) }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.lines.len() + line.len() > MOST {
            pending.dropped += 1;
            return;
        }
        pending.lines.extend_from_slice(line);
        let wake =
            pending.idle || (pending.lines.len() >= PLENTY && pending.lines.len() - line.len() < PLENTY);
        drop(pending);
        if wake {
            self.changed.notify_one();
        }
    }

    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut pending = self.lock();
            pending.idle = true;
            let nothing = |pending: &mut Pending| pending.lines.is_empty() && !pending.closed;
            pending = self.changed.wait_while(pending, nothing).unwrap_or_else(PoisonError::into_inner);
            pending.idle = false;
            mem::swap(&mut pending.lines, &mut batch);
            let (dropped, closed) = (mem::take(&mut pending.dropped), pending.closed);
            drop(pending);
            // If nobody reads, nobody can be told.
            let _ = out.write_all(&batch);
            if dropped > 0 {
                let _ =
                    writeln!(out, "{dropped} log lines were dropped: they came faster than they were read");
            }
            let _ = out.flush();
            if closed {
                return;
            }
            batch.clear();
            batch.shrink_to(PLENTY);
            let few = |pending: &mut Pending| pending.lines.len() < PLENTY && !pending.closed;
            drop(self.changed.wait_timeout_while(self.lock(), GATHER, few));
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// Each write is a whole line.
impl Write for &Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What was written, write by write; each waits until it is let through.
    struct Slow {
        written: mpsc::Sender<Vec<u8>>,
        through: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).expect("the test listens");
            let _ = self.through.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Slow, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let (written, writes) = mpsc::channel();
        let (let_through, through) = mpsc::channel();
        (Slow { written, through }, writes, let_through)
    }

    #[test]
    fn what_comes_while_others_are_written_goes_out_together_and_nothing_is_left_behind() {
        let (out, writes, let_through) = slow();
        let (sink, flush) = Sink::new(out).unwrap();
        (&sink).write_all(b"one\n").unwrap();
        assert_eq!(writes.recv().unwrap(), b"one\n");
        for line in [b"two\n", b"six\n"] {
            (&sink).write_all(line).unwrap();
        }
        drop(let_through);
        drop(flush);
        assert_eq!(writes.iter().collect::<Vec<_>>(), [b"two\nsix\n"]);
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_lines_and_is_told() {
        let (out, writes, let_through) = slow();
        let (sink, flush) = Sink::new(out).unwrap();
        (&sink).write_all(b"first\n").unwrap();
        writes.recv().unwrap();
        let line = vec![b'x'; MOST / 4];
        for _ in 0..6 {
            (&sink).write_all(&line).unwrap();
        }
        drop(let_through);
        drop(flush);
        let rest: Vec<u8> = writes.iter().flatten().collect();
        let told = String::from_utf8_lossy(&rest[MOST..]).into_owned();
        assert_eq!(told, "2 log lines were dropped: they came faster than they were read\n");
    }
}
