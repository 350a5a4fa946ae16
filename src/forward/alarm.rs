//! The one alarm of a request.
//!
//! A request waits for one thing after another, each with a deadline of its own: its body, an answer's head, the next
//! piece of the answer. An alarm for each would be set, and taken back, a dozen times a second for every client. This
//! one is set once. While deadlines only move away it is left where it is, and when it goes off too early it is moved.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::time::Sleep;

use crate::clock::Clock;

/// Goes off at deadlines.
#[derive(Debug)]
pub struct Alarm {
    clock: Clock,
    /// Made when something first has to be waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// One that is not set.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self { clock, sleep: None }
    }

    /// The clock that it goes by.
    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// What `future` comes to, or `None` if `deadline` comes first.
    pub(super) async fn limit<F: Future>(&mut self, deadline: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_due(context, deadline).map(|()| None),
        })
        .await
    }

    /// Ready when `deadline` has come.
    pub(super) fn poll_due(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let set = || Box::pin(tokio::time::sleep_until(deadline.into()));
        let sleep = self.sleep.get_or_insert_with(set);
        if sleep.deadline().into_std() > deadline {
            sleep.as_mut().reset(deadline.into());
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if deadline <= self.clock.mono() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_each_deadline_whichever_comes_first() {
        let clock = Clock::system();
        let mut alarm = Alarm::new(clock);
        for wait in [60, 600, 2, 2, 120, 1] {
            let start = clock.mono();
            let deadline = start + SECOND * wait;
            assert_eq!(alarm.limit(deadline, std::future::pending::<()>()).await, None);
            let late = clock.mono() - deadline;
            assert!(late <= Duration::from_millis(1), "{wait} s: {late:?} late");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_before_the_deadline_is_not_cut() {
        let clock = Clock::system();
        let mut alarm = Alarm::new(clock);
        for wait in [9, 1, 59] {
            let deadline = clock.mono() + SECOND * (wait + 1);
            let came = alarm.limit(deadline, tokio::time::sleep(SECOND * wait)).await;
            assert_eq!(came, Some(()));
        }
    }
}
