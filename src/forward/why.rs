//! The story of a request's keys in one line: `x-key-cycle-why`, and the log of each pick.
//!
//! ```text
//! why   = pick [ "; passed over: " count *( ", " count ) ] [ "; tried: " try *( ", " try ) [ ", " n " more" ] ]
//! pick  = key-id " " strategy " " turn  |  "none " cause
//! count = n " " reason
//! try   = key-id " " verdict [ " " status ]
//! ```

use std::fmt::Write as _;

use super::leases::NoLeaseWhy;
use crate::{
    pool::Explanation,
    types::{Class, KeyId},
};

/// So many attempts are told of.
const TRIES_TOLD: usize = 8;

/// The attempts so far, where somebody wants to be told.
#[derive(Debug, Default)]
pub(super) struct Story {
    tries: Vec<(KeyId, Class, Option<u16>)>,
    untold: usize,
}

impl Story {
    /// An attempt that was not delivered.
    pub(super) fn tried(&mut self, key: &KeyId, class: Class, status: Option<u16>) {
        if self.tries.len() < TRIES_TOLD {
            self.tries.push((key.clone(), class, status));
        } else {
            self.untold += 1;
        }
    }

    /// With this key next.
    pub(super) fn picked(&self, key: &KeyId, why: &Explanation) -> String {
        let turn = why.turn.map_or("", |turn| turn.as_str());
        self.told(format!("{key} {} {turn}", why.strategy.as_str()), why)
    }

    /// With no further key.
    pub(super) fn ended(&self, cause: &str, why: &Explanation) -> String {
        self.told(format!("none {cause}"), why)
    }

    fn told(&self, mut text: String, why: &Explanation) -> String {
        // Writing to a string can't fail.
        if let Some(passed_over) = why.passed_over.told() {
            let _ = write!(text, "; passed over: {passed_over}");
        }
        for (n, (key, class, status)) in self.tries.iter().enumerate() {
            let _ = write!(text, "{}{key} {}", if n == 0 { "; tried: " } else { ", " }, class.as_str());
            if let Some(status) = status {
                let _ = write!(text, " {status}");
            }
        }
        if self.untold > 0 {
            let _ = write!(text, ", {} more", self.untold);
        }
        text
    }
}

impl NoLeaseWhy {
    /// The name in logs and headers.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoKeyForModel => "no_key_for_model",
            Self::LineFull => "line_full",
            Self::NoneFree => "none_free",
        }
    }
}

/// Whoever was picked is of no use to the request.
pub(super) const RULED_OUT: &str = "ruled_out";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pool::{Counts, PassedOver, Reason, Strategy, Turn},
        types::{BaseUrl, Key, KeySettings, PoolName, Secret},
    };

    #[test]
    fn the_line_has_its_grammar_and_an_end() {
        let at = || KeySettings::at(BaseUrl::parse("https://one.test").unwrap());
        let entries = (0..40).map(|n| (Secret::new(&format!("sk-{n}")).unwrap(), at())).collect();
        let keys = Key::pool(&PoolName::default(), entries);
        let mut why = Explanation {
            strategy: Strategy::RoundRobin,
            turn: Some(Turn::Next),
            passed_over: Counts(Vec::new()),
        };
        let mut story = Story::default();
        let id = |n: usize| keys[n].id();
        assert_eq!(story.picked(id(0), &why), format!("{} round_robin turn", id(0)));
        story.tried(id(0), Class::RateLimited, Some(429));
        story.tried(id(1), Class::Unreachable, None);
        why.passed_over.0 =
            vec![(PassedOver::Resting(Reason::Rejected), 2), (PassedOver::Busy, 1), (PassedOver::Tried, 2)];
        let tail = format!(
            "; passed over: 2 rejected, 1 busy, 2 tried; tried: {} rate_limited 429, {} {}",
            id(0),
            id(1),
            Class::Unreachable.as_str()
        );
        assert_eq!(story.picked(id(2), &why), format!("{} round_robin turn{tail}", id(2)));
        assert_eq!(story.ended("none_free", &why), format!("none none_free{tail}"));
        for key in &keys[2..] {
            story.tried(key.id(), Class::RateLimited, Some(429));
        }
        let text = story.ended("none_free", &why);
        assert!(text.ends_with(", 32 more") && text.len() < 512, "{text}");
        assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
    }
}
