//! What to do after an attempt: deliver, go to another key, or give up. Pure.
//!
//! Moving off a key that is limited or refused is rotation: it costs neither budget nor pause. Repeating after a failure
//! is retry: it costs one of `max_retries` rounds, a pause, and a place in the budget, unless the failure is the key's
//! own, which is rotation too but for the budget.

use std::time::{Duration, Instant};

use super::policy::Policy;
use crate::types::{Class, Verdict};

/// Keys of so many accounts are asked for a model that one says it does not have.
const MODEL_TRIES: u32 = 3;
/// A request that waits for limited keys may come round to each again, but not for ever.
const ROTATIONS_PER_KEY: usize = 2;
const ROTATIONS_IN_ANY_CASE: usize = 16;
/// How often a request is sent again after nothing came in time.
const TIMEOUT_REPEATS: u32 = 1;

/// One request's attempts so far.
#[derive(Debug)]
pub struct Plan<'p> {
    policy: &'p Policy,
    deadline: Instant,
    /// Whether the request may be sent again after something of it was written.
    may_repeat: bool,
    /// How often the request may still move on from a refusal.
    rotations: usize,
    rounds: u32,
    timeouts: u32,
    models_missing: u32,
}

/// What is known beside the verdict.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The host works for other keys: the failure is the key's own.
    pub local: bool,
    /// Some of the request's body is gone, so that it can't be sent again.
    pub spent: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Give the client this answer.
    Deliver,
    /// Another key, at once.
    Next,
    /// Another key, after a pause.
    NextAfter(Duration),
    /// Another key, of another host; there is no use in trying this one.
    NextHost,
    /// No further attempt.
    Stop(Stop),
}

impl Step {
    /// The name in the log of attempts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Next => "next key",
            Self::NextAfter(_) => "next key after a pause",
            Self::NextHost => "next host",
            Self::Stop(stop) => stop.as_str(),
        }
    }
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// What was written may have had effect.
    NotRepeatable,
    /// As often as may be.
    Spent,
    /// The budget for retries is used up.
    Budget,
    /// No time is left.
    Deadline,
}

impl Stop {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::NotRepeatable, Self::Spent, Self::Budget, Self::Deadline];

    /// The name in logs and metrics; a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRepeatable => "not_repeatable",
            Self::Spent => "spent",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
        }
    }
}

impl<'p> Plan<'p> {
    /// No attempts yet, of a request that came at `start` to a pool of so many keys.
    #[must_use]
    pub fn new(policy: &'p Policy, start: Instant, may_repeat: bool, keys: usize) -> Self {
        Self {
            policy,
            deadline: start + policy.total_timeout,
            may_repeat,
            rotations: keys.saturating_mul(ROTATIONS_PER_KEY).saturating_add(ROTATIONS_IN_ANY_CASE),
            rounds: 0,
            timeouts: 0,
            models_missing: 0,
        }
    }

    /// When the head must have been delivered.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Decides. `afford` is asked at most once, when a retry would be made.
    pub fn step(
        &mut self,
        verdict: &Verdict,
        facts: Facts,
        now: Instant,
        rng: &mut fastrand::Rng,
        afford: impl FnOnce() -> bool,
    ) -> Step {
        match verdict.class {
            Class::Success | Class::ClientFault => return Step::Deliver,
            _ if facts.spent => return Step::Stop(Stop::NotRepeatable),
            _ if now >= self.deadline => return Step::Stop(Stop::Deadline),
            Class::RateLimited
            | Class::QuotaExhausted
            | Class::KeyRejected
            | Class::NotPermitted
            | Class::UnknownRefusal => return self.rotate(Step::Next),
            Class::ModelUnavailable => {
                self.models_missing += 1;
                return if self.models_missing < MODEL_TRIES { Step::Next } else { Step::Stop(Stop::Spent) };
            }
            Class::EgressRefused => return self.rotate(Step::NextHost),
            Class::TimedOut if self.timeouts >= TIMEOUT_REPEATS => return Step::Stop(Stop::Spent),
            Class::Unreachable => {}
            _ if !self.may_repeat => return Step::Stop(Stop::NotRepeatable),
            Class::TimedOut => self.timeouts += 1,
            Class::ServerError | Class::Overloaded | Class::Broken => {}
        }
        let rotation =
            facts.local && matches!(verdict.class, Class::ServerError | Class::TimedOut | Class::Broken);
        if !rotation && self.rounds >= self.policy.max_retries {
            return Step::Stop(Stop::Spent);
        }
        let mut pause = Duration::ZERO;
        if !rotation {
            pause = self.policy.backoff.pause(self.rounds, rng).max(verdict.wait.unwrap_or_default());
            if pause > self.policy.max_wait.max(self.policy.backoff.max()) {
                return Step::Stop(Stop::Spent);
            }
            if now + pause >= self.deadline {
                return Step::Stop(Stop::Deadline);
            }
        }
        if !afford() {
            return Step::Stop(Stop::Budget);
        }
        if rotation {
            return Step::Next;
        }
        self.rounds += 1;
        Step::NextAfter(pause)
    }

    /// Moves on from a refusal, if it may still.
    fn rotate(&mut self, step: Step) -> Step {
        match self.rotations.checked_sub(1) {
            Some(left) => {
                self.rotations = left;
                step
            }
            None => Step::Stop(Stop::Spent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, types::Scope};

    const LOCAL: Facts = Facts { local: true, spent: false };
    const SHARED: Facts = Facts { local: false, spent: false };

    struct Case {
        policy: Policy,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            Self { policy: Policy::default(), now: Clock::system().now().mono }
        }

        fn steps(&self, may_repeat: bool, facts: Facts, class: Class, count: usize) -> Vec<Step> {
            let mut plan = Plan::new(&self.policy, self.now, may_repeat, 100);
            let verdict = Verdict::new(class, Scope::Host);
            let mut rng = fastrand::Rng::with_seed(1);
            (0..count).map(|_| plan.step(&verdict, facts, self.now, &mut rng, || true)).collect()
        }
    }

    #[test]
    fn the_clients_own_fault_is_delivered_at_once() {
        let case = Case::new();
        assert_eq!(case.steps(true, SHARED, Class::ClientFault, 1), [Step::Deliver]);
        assert_eq!(case.steps(false, SHARED, Class::Success, 1), [Step::Deliver]);
    }

    #[test]
    fn rotation_costs_no_round_and_no_pause_and_is_for_every_request() {
        let case = Case::new();
        for class in [
            Class::RateLimited,
            Class::QuotaExhausted,
            Class::KeyRejected,
            Class::NotPermitted,
            Class::UnknownRefusal,
        ] {
            assert!(case.steps(false, SHARED, class, 50).iter().all(|step| *step == Step::Next), "{class:?}");
        }
    }

    #[test]
    fn no_request_moves_on_for_ever() {
        let case = Case::new();
        for class in [Class::RateLimited, Class::EgressRefused] {
            let steps = case.steps(true, SHARED, class, 1000);
            assert_eq!(steps.last(), Some(&Step::Stop(Stop::Spent)), "{class:?}");
        }
    }

    #[test]
    fn server_errors_get_max_retries_rounds_with_jitter_below_the_doubling_ceiling() {
        let case = Case::new();
        let steps = case.steps(true, SHARED, Class::ServerError, 4);
        for (round, step) in steps[..3].iter().enumerate() {
            let Step::NextAfter(pause) = step else { panic!("{step:?}") };
            assert!(*pause <= Duration::from_millis(50 << round));
        }
        assert_eq!(steps[3], Step::Stop(Stop::Spent));
    }

    #[test]
    fn a_key_local_server_error_is_rotation_within_the_budget() {
        let case = Case::new();
        assert!(case.steps(true, LOCAL, Class::ServerError, 50).iter().all(|step| *step == Step::Next));
        let mut plan = Plan::new(&case.policy, case.now, true, 100);
        let verdict = Verdict::new(Class::ServerError, Scope::Host);
        let step = plan.step(&verdict, LOCAL, case.now, &mut fastrand::Rng::with_seed(1), || false);
        assert_eq!(step, Step::Stop(Stop::Budget));
    }

    #[test]
    fn what_may_have_had_effect_is_not_repeated_but_a_failed_connect_is() {
        let case = Case::new();
        for class in [Class::ServerError, Class::Broken, Class::TimedOut, Class::Overloaded] {
            assert_eq!(case.steps(false, LOCAL, class, 1), [Step::Stop(Stop::NotRepeatable)], "{class:?}");
        }
        assert!(matches!(case.steps(false, SHARED, Class::Unreachable, 1)[0], Step::NextAfter(_)));
    }

    #[test]
    fn what_can_not_be_sent_again_stops_at_every_refusal() {
        let case = Case::new();
        let spent = Facts { local: true, spent: true };
        for class in Class::ALL {
            let expected = match class {
                Class::Success | Class::ClientFault => Step::Deliver,
                _ => Step::Stop(Stop::NotRepeatable),
            };
            assert_eq!(case.steps(true, spent, class, 1), [expected], "{class:?}");
        }
    }

    #[test]
    fn a_head_timeout_is_repeated_once() {
        let case = Case::new();
        let steps = case.steps(true, LOCAL, Class::TimedOut, 2);
        assert_eq!(steps, [Step::Next, Step::Stop(Stop::Spent)]);
    }

    #[test]
    fn a_missing_model_is_asked_of_three_keys() {
        let case = Case::new();
        let steps = case.steps(true, SHARED, Class::ModelUnavailable, 3);
        assert_eq!(steps, [Step::Next, Step::Next, Step::Stop(Stop::Spent)]);
    }

    #[test]
    fn an_overloaded_upstream_is_given_the_time_it_asks_for() {
        let case = Case::new();
        let mut plan = Plan::new(&case.policy, case.now, true, 100);
        let mut step = |wait| {
            let verdict =
                Verdict::new(Class::Overloaded, Scope::Host).with_wait(Some(Duration::from_secs(wait)));
            plan.step(&verdict, SHARED, case.now, &mut fastrand::Rng::with_seed(1), || true)
        };
        assert_eq!(step(3), Step::NextAfter(Duration::from_secs(3)));
        assert_eq!(step(60), Step::Stop(Stop::Spent));
    }

    #[test]
    fn nothing_is_tried_beyond_the_deadline() {
        let case = Case::new();
        let mut plan = Plan::new(&case.policy, case.now, true, 100);
        let verdict = Verdict::new(Class::RateLimited, Scope::AccountModel);
        let late = case.now + case.policy.total_timeout;
        let step = plan.step(&verdict, SHARED, late, &mut fastrand::Rng::with_seed(1), || true);
        assert_eq!(step, Step::Stop(Stop::Deadline));
    }
}
