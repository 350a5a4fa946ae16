//! Time that passes only when a test says so, although sockets are real.

use std::{
    future::Future,
    pin::pin,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

/// Tokio's clock, stopped. The pool, the timeouts and the simulated upstream all go by it.
///
/// Where tokio's clock is paused it jumps to the next alarm whenever nothing runs, and to wait for a socket is to run
/// nothing. A blocking task that lasts keeps it from jumping.
pub struct StillClock(Sender<()>);

impl StillClock {
    /// Stops the clock until the end of the test.
    pub fn stop() -> Self {
        let (sender, receiver) = channel();
        tokio::time::pause();
        tokio::task::spawn_blocking(move || {
            let _ = receiver.recv();
        });
        Self(sender)
    }

    /// Lets so much time pass at once, and what an alarm takes to notice: they go by whole milliseconds.
    pub async fn pass(&self, time: Duration) {
        tokio::time::advance(time + Duration::from_millis(1)).await;
    }

    /// Waits for `future` while time trickles, slower than real time, for the short pauses on its way.
    ///
    /// # Panics
    /// After 30 s of the real clock.
    pub async fn trickle<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        for _ in 0..10_000 {
            let tick = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(3)));
            tokio::select! {
                biased;
                output = &mut future => return output,
                _ = tick => self.pass(Duration::from_millis(1)).await,
            }
        }
        panic!("it took more than 30 s of the real clock");
    }
}
