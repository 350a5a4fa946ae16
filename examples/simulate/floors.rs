//! What must hold for the pool, scenario by scenario: a little less than what holds today.

use std::time::Duration;

use crate::tally::{Tally, ratio};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    /// At least this part of what the optimum serves.
    pub(crate) served: f64,
    /// At most this part of the requests ends with an error, beyond those that do so with the optimum.
    pub(crate) errors: f64,
    /// At most this part of the calls comes to nothing.
    pub(crate) waste: f64,
    /// So long at most 99 of 100 of those served have waited.
    pub(crate) wait: Duration,
    /// Jain's index over the clients.
    pub(crate) fairness: f64,
}

/// Parts served, of errors and of wasted calls, and milliseconds of waiting.
const fn floor(served: f64, errors: f64, waste: f64, wait_millis: u64) -> Floor {
    Floor { served, errors, waste, wait: Duration::from_millis(wait_millis), fairness: 0.999 }
}

/// Nobody gets an error as long as there is enough for all, and hardly anybody waits.
pub(crate) const STEADY: Floor = floor(1.0, 0.0, 0.001, 500);
/// Where there is not enough, next to all that there is gets used. Who is served may have waited as long as the policy
/// lets it, and then for the answers to its attempts.
pub(crate) const OVERLOAD: Floor = floor(0.99, 0.01, 0.002, 10_500);
/// Each refusal costs a request.
pub(crate) const REFUSALS_COUNT: Floor = floor(0.98, 0.01, 0.005, 10_500);
/// As much is offered as can be served within the longest wait.
pub(crate) const BURSTS: Floor = floor(1.0, 0.0, 0.005, 8000);
/// A large request waits for the first account that has so many tokens.
pub(crate) const LARGE_REQUESTS: Floor = floor(1.0, 0.0, 0.005, 5000);
pub(crate) const WINDOWS: Floor = floor(1.0, 0.0, 0.001, 500);
pub(crate) const WINDOWS_OVERLOAD: Floor = floor(0.98, 0.01, 0.005, 10_500);
pub(crate) const REFUSALS_ALONE: Floor = floor(1.0, 0.0, 0.01, 500);
pub(crate) const LOST_HEADERS: Floor = floor(1.0, 0.0, 0.035, 500);
/// After each rest whose end was guessed the load grows step by step.
pub(crate) const LOST_HEADERS_OVERLOAD: Floor = floor(0.94, 0.045, 0.1, 10_500);
pub(crate) const LOST_HEADERS_WINDOWS: Floor = floor(0.96, 0.03, 0.03, 10_500);
pub(crate) const SHARED: Floor = floor(1.0, 0.0, 0.002, 500);
/// A host that hangs is found out after the timeout for heads, a minute; then more requests are due for a retry than the
/// budget for retries allows.
pub(crate) const OUTAGE: Floor = floor(0.975, 0.025, 0.08, 61_000);
/// A key that hangs has a tenth of the requests for a minute.
pub(crate) const BAD_KEYS: Floor = floor(1.0, 0.0, 0.02, 61_000);
pub(crate) const DAY: Floor = floor(0.99, 0.01, 0.002, 10_500);

impl Floor {
    /// What does not hold.
    pub(crate) fn complaints(&self, ours: &mut Tally, optimum: &Tally) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut expect = |holds: bool, complaint: String| {
            if !holds {
                complaints.push(complaint);
            }
        };
        let served = ratio(ours.served, optimum.served);
        expect(served >= self.served, format!("{served:.4} of the possible served, not {}", self.served));
        let errors = ratio(ours.errors.saturating_sub(optimum.errors), ours.offered);
        expect(errors <= self.errors, format!("{errors:.4} errors too many, not {}", self.errors));
        let waste = ours.waste();
        expect(waste <= self.waste, format!("{waste:.4} of the calls wasted, not {}", self.waste));
        let wait = ours.wait(0.99);
        expect(wait <= self.wait, format!("waits of {wait:?}, not {:?}", self.wait));
        let fairness = ours.client_fairness();
        expect(fairness >= self.fairness, format!("fairness of {fairness:.4}, not {}", self.fairness));
        complaints
    }
}
