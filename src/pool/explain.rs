//! Why this key, and what was passed over for which reason: for people, and made only when somebody asks.
//!
//! A pick looks at no more keys than it must; this looks at all of them, just before.

use std::{collections::BTreeMap, fmt, time::Instant};

use super::{Pool, Reason, Strategy, Ticket, Want, cooling::Leave};

/// Why a key was not the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PassedOver {
    /// It rests, or its account does.
    Resting(Reason),
    /// Its account has not so much left.
    NoHeadroom,
    /// At its own rate, its pace or its number of requests in flight.
    Busy,
    /// Its host is out of order.
    HostDown,
    /// Its host has failed this request.
    HostFailed,
    /// This request has tried it.
    Tried,
    /// It may not use this kind of endpoint.
    Denied,
    /// It lets requests wait while others answer.
    Late,
    /// Its rest is over, and nobody knows whether it is well.
    OnTrial,
    /// One of an earlier priority could serve.
    LowerPriority,
}

impl PassedOver {
    /// The name in logs and headers; a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resting(reason) => reason.as_str(),
            Self::NoHeadroom => "no_headroom",
            Self::Busy => "busy",
            Self::HostDown => "host_down",
            Self::HostFailed => "host_failed",
            Self::Tried => "tried",
            Self::Denied => "denied",
            Self::Late => "late",
            Self::OnTrial => "on_trial",
            Self::LowerPriority => "lower_priority",
        }
    }
}

/// How the chosen one came to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It was next by the strategy.
    Next,
    /// It is on trial after a rest.
    Trial,
    /// Its host is on trial after an outage.
    HostTrial,
    /// It serves other models, and steps in.
    StepIn,
}

impl Turn {
    /// The name in logs and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "turn",
            Self::Trial => "trial",
            Self::HostTrial => "host_trial",
            Self::StepIn => "step_in",
        }
    }
}

/// How things stood when a key was asked for.
#[derive(Debug)]
pub struct Survey {
    /// The set that was asked first.
    set: Option<u32>,
    own: Vec<Stand>,
    /// Those that may step in.
    others: Vec<Stand>,
}

#[derive(Debug, Clone, Copy)]
struct Stand {
    slot: u32,
    priority: u8,
    /// What stands in its way. `None`: nothing, but for the turns of others.
    obstacle: Option<PassedOver>,
}

/// Why a key was given, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// By which strategy keys take turns.
    pub strategy: Strategy,
    /// How the key was chosen, if one was.
    pub turn: Option<Turn>,
    /// How many were passed over, per reason.
    pub passed_over: Counts,
}

/// How many per reason, in the order of the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts(pub Vec<(PassedOver, usize)>);

impl Counts {
    /// As text, unless there is nothing to tell.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.to_string())
    }
}

impl fmt::Display for Counts {
    /// `2 rate_limited, 1 busy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (reason, count)) in self.0.iter().enumerate() {
            let separator = if n > 0 { ", " } else { "" };
            write!(f, "{separator}{count} {}", reason.as_str())?;
        }
        Ok(())
    }
}

impl Pool {
    /// How the keys stand for `want`. Looks at each: for [`Pool::explain`] alone, and to be taken just before
    /// [`Pool::acquire`].
    #[must_use]
    pub fn survey(&self, now: Instant, want: &Want<'_>) -> Survey {
        let Some((set, named)) = self.routing.find(want.model) else {
            return Survey { set: None, own: Vec::new(), others: Vec::new() };
        };
        let others = self.routing.others().filter(|_| named && self.settings.others_step_in);
        let others = others.map(|others| self.stands(others, now, want)).unwrap_or_default();
        Survey { set: Some(set), own: self.stands(set, now, want), others }
    }

    fn stands(&self, set: u32, now: Instant, want: &Want<'_>) -> Vec<Stand> {
        let (at, asking) = (self.rotation_of(set, want.model), self.asking(want));
        let order = &self.rotations[at as usize];
        let members = order.rotation.members.iter().zip(0_u32..);
        let stand = |(member, number): (&super::rotation::Member, u32)| {
            let slot = &self.slots[member.slot as usize];
            let host = &self.hosts[slot.host as usize];
            let (leave, doubtful) = self.standing(at, number, now);
            let obstacle = if let Some((reason, ..)) = self.rest_of(order, member, now) {
                Some(PassedOver::Resting(reason))
            } else if !host.breaker.leave(now).is_granted() {
                Some(PassedOver::HostDown)
            } else if self.fits_at(at, number, now, asking) > now {
                Some(PassedOver::NoHeadroom)
            } else if !leave.is_granted() {
                Some(PassedOver::Busy)
            } else if want.tried.contains(&slot.key.identity()) {
                Some(PassedOver::Tried)
            } else if slot.is_denied(now, want.purpose) {
                Some(PassedOver::Denied)
            } else if want.failed_hosts.contains(&host.origin) {
                Some(PassedOver::HostFailed)
            } else if self.is_late(member.slot, now) {
                Some(PassedOver::Late)
            } else if doubtful || host.breaker.leave(now) == Leave::Probe {
                Some(PassedOver::OnTrial)
            } else {
                None
            };
            Stand { slot: member.slot, priority: slot.key.settings().priority, obstacle }
        };
        members.map(stand).collect()
    }

    /// Why the key of `ticket` was given, or none was, when things stood as in `survey`.
    #[must_use]
    pub fn explain(&self, survey: &Survey, ticket: Option<&Ticket>) -> Explanation {
        let steps_in = ticket.is_some_and(|ticket| Some(ticket.set) != survey.set);
        let turn = ticket.map(|ticket| {
            if ticket.probes.any_rest() {
                Turn::Trial
            } else if ticket.probes.host {
                Turn::HostTrial
            } else if steps_in {
                Turn::StepIn
            } else {
                Turn::Next
            }
        });
        let chosen =
            ticket.map(|ticket| (ticket.slot, self.slots[ticket.slot as usize].key.settings().priority));
        // A key may stand in both sets.
        let asked = &survey.others[..if steps_in || ticket.is_none() { survey.others.len() } else { 0 }];
        let stands: BTreeMap<u32, &Stand> =
            survey.own.iter().chain(asked).map(|stand| (stand.slot, stand)).collect();
        let mut counts: BTreeMap<PassedOver, usize> = BTreeMap::new();
        for stand in stands.into_values().filter(|stand| chosen.is_none_or(|(slot, _)| slot != stand.slot)) {
            let is_lower = chosen.is_some_and(|(_, priority)| priority < stand.priority);
            let reason = stand.obstacle.or(is_lower.then_some(PassedOver::LowerPriority));
            if let Some(reason) = reason {
                *counts.entry(reason).or_default() += 1;
            }
        }
        Explanation {
            strategy: self.settings.strategy,
            turn,
            passed_over: Counts(counts.into_iter().collect()),
        }
    }
}
