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
        let opened = limit.headroom.opens_at(now);
        let attempt = (ticket.id, ticket.started);
        limit.headroom.announced(now, attempt, charge, others, announced);
        let opens = limit.headroom.opens_at(now);
        let is_scarce = limit.headroom.share(now).is_some_and(|share| share < SCARCE);
        if is_scarce {
            self.mark_if_cheap(now, account, model, opens.max(now + SCARCE_FOR), &mut effects);
        }
        if opens < opened {
            self.tell_for_model(account, model, &mut effects);
        }
        if self.lines.waiting() > 0 {
            // Who waits for more room than there was may find it.
            for set in self.sets_of(model) {
                self.lines.wake(self.rotation_of(set, Some(model)), &mut effects.wake);
            }
        }
        effects
    }

    fn in_flight_of(&self, account: u32) -> u32 {
        self.accounts.get(account).slots.iter().map(|slot| self.slots[*slot as usize].in_flight).sum()
    }

    /// What an attempt has used, as its answer says at its end.
    pub fn used(&mut self, now: Instant, ticket: &Ticket, want: &Want<'_>, usage: &Usage) {
        let limit = self.limits.named_mut(ticket.account, want.model);
        if let Some(limit) = limit {
            limit.headroom.note_output(usage.output);
            if let Some(charge) = ticket.charge {
                limit.headroom.settle(now, ticket.id, charge, usage.total());
            }
        }
    }

    /// It was refused: no tokens were used.
    pub(super) fn used_nothing(&mut self, now: Instant, ticket: &Ticket, want: &Want<'_>) {
        let charged = ticket.charge.zip(self.limits.named_mut(ticket.account, want.model));
        if let Some((charge, limit)) = charged {
            limit.headroom.settle(now, ticket.id, charge, 0);
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
