//! What answers announce is left, and what follows from it for who is asked next.

use std::time::{Duration, Instant};

use super::{
    Effects, Pool, Ticket, Want,
    headroom::{Charge, Headroom},
    limits::ModelHash,
};
use crate::types::{Announced, Usage};

/// Where less than this share is left, the model gets a rotation of its own, in which who is empty stands aside.
const SCARCE: f64 = 0.5;
/// For so long at least it is worth having.
const SCARCE_FOR: Duration = Duration::from_secs(60);
/// The smallest share of its turns that an account keeps while it has anything left.
const LEAST_SHARE: f64 = 0.02;

impl Ticket {
    /// Whether it was charged to a limit of tokens.
    #[must_use]
    pub fn counts_tokens(&self) -> bool {
        self.charge.is_some_and(|charge| charge.counts_tokens())
    }
}

impl Pool {
    /// The answer to an attempt says what is left of its account's limits for the model.
    pub fn announced(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        want: &Want<'_>,
        announced: &Announced,
    ) -> Effects {
        let mut effects = Effects::default();
        let Some(model) = want.model.filter(|_| !announced.is_empty()) else { return effects };
        let account = self.slots[ticket.slot as usize].account;
        // What was charged to another account is not in this one's numbers.
        let charge = ticket.charge.filter(|_| ticket.account == account);
        let others = if charge.is_some() { 0 } else { self.in_flight_of(account).saturating_sub(1) };
        let limit = self.limits.entry(now, account, model);
        let before = limit.free_at(now);
        limit.headroom.announced(now, (ticket.id, ticket.started), charge, others, announced);
        let (after, opens) = (limit.free_at(now), limit.headroom.opens_at(now));
        let is_scarce = opens > now || limit.headroom.share(now).is_some_and(|share| share < SCARCE);
        self.tell_of_room(account, model, (before, after), &mut effects);
        if is_scarce {
            self.mark_if_cheap(now, account, model, Some(opens.max(now + SCARCE_FOR)), &mut effects);
        }
        effects
    }

    /// What an attempt has used, as its answer says at its end.
    pub fn used(&mut self, now: Instant, ticket: &Ticket, want: &Want<'_>, usage: &Usage) -> Effects {
        let mut effects = Effects::default();
        self.with_headroom(now, ticket.account, want, &mut effects, |headroom| {
            headroom.note_output(usage.output);
            if let Some(charge) = ticket.charge {
                headroom.settle(now, ticket.id, charge, usage.total());
            }
        });
        effects
    }

    /// It was refused: no tokens were used.
    pub(super) fn used_nothing(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
        if let Some(charge) = ticket.charge {
            self.with_headroom(now, ticket.account, want, effects, |headroom| {
                headroom.settle(now, ticket.id, charge, 0);
            });
        }
    }

    /// It was never sent.
    pub(super) fn used_no_request(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
        if let Some(charge) = ticket.charge {
            self.with_headroom(now, ticket.account, want, effects, |headroom| {
                headroom.refund(now, ticket.id, charge);
            });
        }
    }

    /// Changes what is known, and tells those for whom there is room sooner by that.
    fn with_headroom(
        &mut self,
        now: Instant,
        account: u32,
        want: &Want<'_>,
        effects: &mut Effects,
        change: impl FnOnce(&mut Headroom),
    ) {
        let Some((model, limit)) = want.model.zip(self.limits.named_mut(account, want.model)) else { return };
        let before = limit.free_at(now);
        change(&mut limit.headroom);
        let after = limit.free_at(now);
        self.tell_of_room(account, model, (before, after), effects);
    }

    /// The model gets rotations of its own wherever the account serves it, if they cost nobody else's.
    pub(super) fn mark_scarce(&mut self, now: Instant, account: u32, model: &str, effects: &mut Effects) {
        let opens = self.limits.named_mut(account, Some(model)).map(|limit| limit.headroom.opens_at(now));
        self.mark_if_cheap(now, account, model, opens.max(Some(now + SCARCE_FOR)), effects);
    }

    fn in_flight_of(&self, account: u32) -> u32 {
        self.accounts.get(account).slots.iter().map(|slot| self.slots[*slot as usize].in_flight).sum()
    }

    /// The account may be asked from another moment on than `before`. Who is parked until that is told if it is sooner;
    /// and who waits for more room than there was may find it.
    fn tell_of_room(
        &mut self,
        account: u32,
        model: &str,
        (before, after): (Option<Instant>, Option<Instant>),
        effects: &mut Effects,
    ) {
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.tell_for_model(account, model, effects);
        }
        if self.lines.waiting() == 0 {
            return;
        }
        for set in self.sets_of(model) {
            self.lines.wake(self.rotation_of(set, Some(model)), &mut effects.wake);
        }
    }

    /// What the account of `slot` has left for the model.
    pub(super) fn headroom(&self, slot: u32, model: Option<ModelHash>) -> Option<&Headroom> {
        let account = self.slots[slot as usize].account;
        self.limits.get(account, model).map(|limit| &limit.headroom)
    }

    /// A request goes out: what it was charged, and the part of its turns that the account should have from now on.
    pub(super) fn charge(
        &mut self,
        now: Instant,
        account: u32,
        model: Option<ModelHash>,
        want: &Want<'_>,
    ) -> (Option<Charge>, f64) {
        let Some(limit) = self.limits.get_mut(account, model) else { return (None, 1.0) };
        let charge = limit.headroom.charge(now, want.demand);
        (Some(charge), limit.headroom.share(now).map_or(1.0, |share| share.max(LEAST_SHARE)))
    }
}
