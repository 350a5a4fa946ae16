//! A waker that tells a task what comes from outside of it, and not what its own parts tell each other.
//!
//! A connection and the answer that comes on it talk through channels, and each message wakes whoever waits at the
//! other end: this very task, which is at work on both. Passed on, each would cost another run through everything that
//! the task does. So while the parts are polled, a wake is only remembered, and they are polled until there is none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Stands between a task and its parts.
#[derive(Debug)]
pub(super) struct Gate {
    inner: Arc<Inner>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Inner {
    task: AtomicWaker,
    /// Whether the parts are being polled.
    inside: AtomicBool,
    /// Whether somebody was woken since they were last polled.
    woken: AtomicBool,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order, as `poll` looks at them in the other: a wake from another thread is seen by one of the two.
        self.woken.store(true, SeqCst);
        if !self.inside.load(SeqCst) {
            self.task.wake();
        }
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        let inner = Arc::<Inner>::default();
        Self { waker: Arc::clone(&inner).into(), inner }
    }

    /// Polls `parts` until they are ready, or nothing more comes of polling them now; then `task` is told when more
    /// may come of it.
    pub(super) fn poll<T>(
        &self,
        task: &Waker,
        mut parts: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Inner { task: registered, inside, woken } = &*self.inner;
        registered.register(task);
        loop {
            inside.store(true, SeqCst);
            woken.store(false, SeqCst);
            let polled = parts(&mut Context::from_waker(&self.waker));
            inside.store(false, SeqCst);
            if polled.is_ready() || !woken.load(SeqCst) {
                return polled;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn parts_that_wake_each_other_are_polled_again_and_the_task_is_left_alone() {
        let counter = Arc::<Counter>::default();
        let gate = Gate::new();
        let mut polls = 0;
        let polled = gate.poll(&Arc::clone(&counter).into(), |context| {
            polls += 1;
            if polls < 3 {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((polls, counter.0.load(SeqCst)), (3, 0));
    }

    #[test]
    fn what_comes_later_wakes_whoever_polled_last() {
        let (first, last) = (Arc::<Counter>::default(), Arc::<Counter>::default());
        let gate = Gate::new();
        let mut kept = None;
        for task in [&first, &last] {
            let polled = gate.poll(&Arc::clone(task).into(), |context| {
                kept = Some(context.waker().clone());
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        }
        kept.unwrap().wake();
        assert_eq!((first.0.load(SeqCst), last.0.load(SeqCst)), (0, 1));
    }

    #[test]
    fn no_wake_of_another_thread_is_lost() {
        for _ in 0..2_000 {
            let counter = Arc::<Counter>::default();
            let gate = Gate::new();
            let done = Arc::new(AtomicBool::new(false));
            let mut other = None;
            let poll = |context: &mut Context<'_>, other: &mut Option<std::thread::JoinHandle<()>>| {
                if done.load(SeqCst) {
                    return Poll::Ready(());
                }
                if other.is_none() {
                    let (waker, done) = (context.waker().clone(), Arc::clone(&done));
                    *other = Some(std::thread::spawn(move || {
                        done.store(true, SeqCst);
                        waker.wake();
                    }));
                }
                Poll::Pending
            };
            let task: Waker = Arc::clone(&counter).into();
            let ready = gate.poll(&task, |context| poll(context, &mut other)).is_ready();
            other.unwrap().join().unwrap();
            assert!(ready || counter.0.load(SeqCst) == 1);
        }
    }
}
