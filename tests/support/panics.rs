//! Panics of which nobody would hear: a task's is caught by whatever runs it.

use std::{
    cell::Cell,
    panic::{self, Location, PanicHookInfo},
    sync::Once,
    thread,
};

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// As long as it lives, nothing on this thread may panic: its drop fails the test. A test's daemon and upstream run on
/// the test's own thread, every task of them.
pub struct NoPanics {
    before: usize,
}

impl NoPanics {
    /// From now on.
    pub fn watch() -> Self {
        Self { before: panics() }
    }
}

/// How many there were on this thread, since this was first asked.
pub fn panics() -> usize {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_a_check_of_h2(info) {
                PANICS.set(PANICS.get() + 1);
            }
            usual(info);
        }));
    });
    PANICS.get()
}

/// In debug builds h2 asserts that a connection ends with no stream open, which it needn't where a client just leaves
/// (hyperium/h2#907). In release builds nothing is asserted, and nothing happens.
fn is_a_check_of_h2(info: &PanicHookInfo<'_>) -> bool {
    let file = info.location().map(Location::file).unwrap_or_default();
    file.contains("/h2-0.4.") && info.payload_as_str() == Some("assertion failed: !self.has_streams()")
}

impl Drop for NoPanics {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(PANICS.get(), self.before, "a task panicked; its message is above");
        }
    }
}
