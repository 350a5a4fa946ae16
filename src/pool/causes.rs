//! Why no key is free, and whether waiting helps.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    Pool, Reason, Want,
    cooling::{Cooling, Leave},
    orders::Order,
    rotation::{Member, index},
};

/// How old the causes of a refusal may be: under load many are refused for the same ones.
const CAUSES_KEPT: Duration = Duration::from_millis(250);

/// Why the keys of a model set are not free: how many for which reason, and when the first of these is back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Causes {
    /// Per reason, who rests.
    pub resting: Vec<Resting>,
    /// Keys at their own rate or number of requests in flight.
    pub busy: usize,
    /// Keys whose host is out of order.
    pub host_down: usize,
    /// When the first of these hosts is asked again, where that is known.
    pub host_asked: Option<Instant>,
    /// Keys that could serve.
    pub free: usize,
}

/// Who rests for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resting {
    /// Why.
    pub reason: Reason,
    /// How many keys.
    pub keys: usize,
    /// Of how many accounts that is the rest. A key of which nobody has said whose it is counts as none.
    pub accounts: usize,
    /// How many of the keys are of these.
    pub of_accounts: usize,
    /// The soonest end.
    pub until: Instant,
}

impl Causes {
    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.resting.iter().map(|rest| rest.keys).sum::<usize>() + self.busy + self.host_down + self.free
    }

    /// When the first rest ends that ends by itself.
    #[must_use]
    pub fn soonest(&self) -> Option<Instant> {
        let rests = self.resting.iter().filter(|rest| rest.reason.is_passing()).map(|rest| rest.until);
        rests.chain(self.host_asked).min()
    }

    /// Whether all that stands in the way is that no key has access to the model.
    #[must_use]
    pub fn is_model_missing(&self) -> bool {
        self.keys() > 0
            && self.resting.iter().all(|rest| rest.reason == Reason::ModelUnavailable)
            && self.is_hopeless()
    }

    /// Whether every key is rejected, refused, without money or without the model: no wait of minutes would help.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.free + self.busy + self.host_down == 0
            && !self.resting.iter().any(|rest| rest.reason.is_passing())
    }

    fn rests(&mut self, reason: Reason, until: Instant, account: Option<bool>) {
        let at = self.resting.iter().position(|known| known.reason == reason).unwrap_or_else(|| {
            self.resting.push(Resting { reason, keys: 0, accounts: 0, of_accounts: 0, until });
            self.resting.len() - 1
        });
        let rest = &mut self.resting[at];
        rest.keys += 1;
        rest.until = rest.until.min(until);
        if let Some(is_new) = account {
            rest.of_accounts += 1;
            rest.accounts += usize::from(is_new);
        }
    }
}

impl Pool {
    /// The rest that keeps a member from serving, and whether that is its account's.
    pub(super) fn rest_of(
        &self,
        order: &Order,
        member: &Member,
        now: Instant,
    ) -> Option<(Reason, Instant, bool)> {
        let slot = &self.slots[member.slot as usize];
        let rests = |cooling: &Cooling| cooling.current(now).filter(|_| !cooling.leave(now).is_granted());
        let of_the_key = std::iter::once(&slot.cooling).chain(member.cooling.as_deref()).find_map(rests);
        if let Some((reason, until)) = of_the_key {
            return Some((reason, until, false));
        }
        let (reason, until) = self.shared(order, member).find_map(rests)?;
        Some((reason, until, true))
    }

    /// Why no key is free for what `want` wants. Up to a quarter of a second old.
    pub fn causes(&mut self, now: Instant, want: &Want<'_>) -> Causes {
        let Some((set, _)) = self.routing.find(want.model) else { return Causes::default() };
        let asking = self.asking(want);
        let at = self.rotation_of(set, want.model) as usize;
        let model = self.limits.look_up(want.model);
        if let Some((taken, changes, of, causes)) = &self.rotations[at].causes
            && (*changes, *of) == (self.changes, model)
            && now.saturating_duration_since(*taken) < CAUSES_KEPT
        {
            return causes.clone();
        }
        let mut causes = Causes::default();
        let mut accounts = BTreeSet::new();
        let order = &self.rotations[at];
        for (member, number) in order.rotation.members.iter().zip(0..) {
            let slot = &self.slots[member.slot as usize];
            let host = &self.hosts[slot.host as usize];
            let rest = self.rest_of(order, member, now).or_else(|| {
                // Nothing left is a limit as well.
                let fits_at = self.fits_at(index(at), number, now, asking);
                (fits_at > now).then_some((Reason::RateLimited, fits_at, true))
            });
            if let Some((reason, until, shared)) = rest {
                let named = shared && self.accounts.get(slot.account).id.is_some();
                let account = named.then(|| accounts.insert((reason, slot.account)));
                causes.rests(reason, until, account);
            } else if !host.breaker.is_closed() {
                causes.host_down += 1;
                if let Leave::NotBefore(until) = host.breaker.leave(now) {
                    causes.host_asked = causes.host_asked.into_iter().chain([until]).min();
                }
            } else if self.standing(index(at), number, now).0.is_granted() {
                causes.free += 1;
            } else {
                causes.busy += 1;
            }
        }
        causes.resting.sort_unstable();
        self.rotations[at].causes = Some((now, self.changes, model, causes.clone()));
        causes
    }

    /// Whether waiting can't help, however long: each key that may serve is rejected, refused, out of quota or without
    /// the model, and not yet due for another try. The first that is not ends the search, and begins the next.
    #[must_use]
    pub fn is_hopeless(&mut self, now: Instant, want: &Want<'_>) -> bool {
        let Some((set, named)) = self.routing.find(want.model) else { return true };
        let others = self.routing.others().filter(|_| named && self.settings.others_step_in);
        std::iter::once(set).chain(others).all(|set| {
            let at = self.rotation_of(set, want.model) as usize;
            let order = &self.rotations[at];
            let gives_hope = |member: &Member| {
                let own = &self.slots[member.slot as usize].cooling;
                std::iter::once(own).chain(self.shared(order, member)).all(|cooling| {
                    !matches!(cooling.leave(now), Leave::NotBefore(_))
                        || cooling.current(now).is_none_or(|(reason, _)| reason.is_passing())
                })
            };
            let members = &order.rotation.members;
            let known = members.get(order.hope as usize).is_some_and(gives_hope);
            let found = if known { Some(order.hope) } else { members.iter().position(gives_hope).map(index) };
            if let Some(hope) = found {
                self.rotations[at].hope = hope;
            }
            found.is_none()
        })
    }
}
