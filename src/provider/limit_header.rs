//! The names of the headers that tell of limits: who writes them, what they tell, and of what.

use std::time::Duration;

use crate::types::Refill;

/// What the name of a limit header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitHeader<'a> {
    family: Family,
    /// What it tells.
    pub(super) field: Field,
    /// Of which limit: "tokens", "input-images"; empty where there is only one.
    pub(super) dimension: &'a str,
}

/// Who writes limits so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `x-ratelimit-remaining-tokens`: OpenAI, and nearly everyone.
    OpenAi,
    /// `ratelimit-remaining`: drafts 0 to 6 of the IETF's.
    Ietf,
    /// `anthropic-ratelimit-tokens-remaining`.
    Anthropic,
}

/// What is told of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// How much there is when it is full.
    Limit,
    /// How much is left.
    Remaining,
    /// When it is full again.
    Reset,
    /// How long it takes from empty to full, in seconds: Azure's `x-ratelimit-renewalperiod-tokens`.
    Period,
}

impl Field {
    const ALL: [(&'static str, Self); 4] = [
        ("limit", Self::Limit),
        ("remaining", Self::Remaining),
        ("reset", Self::Reset),
        ("renewalperiod", Self::Period),
    ];
}

impl<'a> LimitHeader<'a> {
    /// Reads the name of a header. `None` for most: it tells of no limit.
    pub(super) fn read(name: &'a str) -> Option<Self> {
        let (family, rest) = match name.as_bytes().first()? {
            b'x' => (Family::OpenAi, name.strip_prefix("x-ratelimit-")?),
            b'r' => (Family::Ietf, name.strip_prefix("ratelimit-")?),
            b'a' => (Family::Anthropic, name.strip_prefix("anthropic-ratelimit-")?),
            _ => return None,
        };
        let (field, dimension) = match family {
            Family::Anthropic => rest.rsplit_once('-').map(|(dimension, field)| (field, dimension))?,
            _ => rest.split_once('-').unwrap_or((rest, "")),
        };
        let (_, field) = *Field::ALL.iter().find(|(known, _)| *known == field)?;
        Some(Self { family, field, dimension })
    }

    /// Whether both tell of one limit.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (self.family, self.dimension) == (other.family, other.dimension)
    }

    /// The name of the header that tells when this limit is full again.
    pub(super) fn reset(&self) -> String {
        let dimension = self.dimension;
        match (self.family, dimension) {
            (Family::OpenAi, "") => "x-ratelimit-reset".to_owned(),
            (Family::OpenAi, _) => format!("x-ratelimit-reset-{dimension}"),
            (Family::Ietf, "") => "ratelimit-reset".to_owned(),
            (Family::Ietf, _) => format!("ratelimit-reset-{dimension}"),
            (Family::Anthropic, _) => format!("anthropic-ratelimit-{dimension}-reset"),
        }
    }

    /// What the limit counts. `None`: something that isn't spent by every request (images, say).
    pub(super) fn counted(&self) -> Option<Counted> {
        let mut counted = Counted { unit: Unit::Requests, refill: Refill::Continuous, period: None };
        if self.dimension.is_empty() {
            counted.refill = Refill::Window;
            return Some(counted);
        }
        let (mut part, mut named, mut window) = (false, false, None);
        for word in self.dimension.split(['-', '_']) {
            match word {
                "requests" | "req" => named = true,
                "tokens" => (counted.unit, named) = (Unit::Tokens, true),
                // Anthropic; Fireworks.
                "input" | "output" | "prompt" | "generated" => part = true,
                // OpenAI: the same tokens, counted for the project.
                "project" => {}
                // Cerebras, Mistral: limits of several lengths side by side.
                "second" => window = Some(Some(1)),
                "minute" => window = Some(Some(60)),
                "hour" => window = Some(Some(60 * 60)),
                "day" => window = Some(Some(24 * 60 * 60)),
                "month" => window = Some(None),
                _ => return None,
            }
        }
        if let Some(seconds) = window {
            counted.refill = Refill::Window;
            counted.period = seconds.map(Duration::from_secs);
        }
        match (part, counted.unit) {
            (true, Unit::Tokens) => counted.unit = Unit::SomeTokens,
            (true, _) => return None,
            (false, _) => {}
        }
        named.then_some(counted)
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) unit: Unit,
    pub(super) refill: Refill,
    /// From one beginning of a window to the next, if the name says so and it isn't a month.
    pub(super) period: Option<Duration>,
}

/// In what a limit is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Requests,
    /// All tokens of a request.
    Tokens,
    /// Only those of the input, or only those of the output.
    SomeTokens,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_every_family() {
        for (name, field, dimension, reset) in [
            ("x-ratelimit-remaining-tokens", Field::Remaining, "tokens", "x-ratelimit-reset-tokens"),
            (
                "x-ratelimit-limit-project-tokens",
                Field::Limit,
                "project-tokens",
                "x-ratelimit-reset-project-tokens",
            ),
            ("x-ratelimit-reset", Field::Reset, "", "x-ratelimit-reset"),
            ("x-ratelimit-renewalperiod-tokens", Field::Period, "tokens", "x-ratelimit-reset-tokens"),
            ("ratelimit-remaining", Field::Remaining, "", "ratelimit-reset"),
            (
                "anthropic-ratelimit-input-tokens-remaining",
                Field::Remaining,
                "input-tokens",
                "anthropic-ratelimit-input-tokens-reset",
            ),
        ] {
            let read = LimitHeader::read(name).unwrap();
            assert_eq!((read.field, read.dimension), (field, dimension), "{name}");
            assert_eq!(read.reset(), reset);
            let reset = LimitHeader::read(reset).unwrap();
            assert!(read.is_of(&reset) && reset.field == Field::Reset);
        }
    }

    #[test]
    fn most_headers_tell_of_no_limit() {
        for name in [
            "",
            "x",
            "x-request-id",
            "x-ratelimit",
            "x-ratelimit-",
            "x-ratelimit-remainingfoo",
            "x-ratelimit-type",
            "x-ratelimit-over-limit",
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "anthropic-ratelimit-remaining",
            "anthropic-ratelimit-unified-status",
            "anthropic-organization-id",
            "date",
        ] {
            assert_eq!(LimitHeader::read(name), None, "{name}");
        }
    }

    #[test]
    fn what_limits_count() {
        use Refill::{Continuous, Window};
        use Unit::{Requests, SomeTokens, Tokens};
        for (dimension, counted) in [
            ("requests", Some((Requests, Continuous, 0))),
            ("", Some((Requests, Window, 0))),
            ("req-minute", Some((Requests, Window, 60))),
            ("requests-day", Some((Requests, Window, 86_400))),
            ("tokens", Some((Tokens, Continuous, 0))),
            ("project-tokens", Some((Tokens, Continuous, 0))),
            ("tokens-minute", Some((Tokens, Window, 60))),
            ("tokens-month", Some((Tokens, Window, 0))),
            ("input-tokens", Some((SomeTokens, Continuous, 0))),
            ("tokens-generated", Some((SomeTokens, Continuous, 0))),
            ("input-images", None),
            ("tokens_usage_based", None),
            ("tokens-cache-adjusted-prompt", None),
            ("input-requests", None),
            ("unified-5h", None),
            ("dynamic", None),
            ("minute", None),
            ("-", None),
        ] {
            let header = LimitHeader { family: Family::OpenAi, field: Field::Remaining, dimension };
            let expected = counted.map(|(unit, refill, seconds)| Counted {
                unit,
                refill,
                period: (seconds > 0).then(|| Duration::from_secs(seconds)),
            });
            assert_eq!(header.counted(), expected, "{dimension}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_without_panic(name in "(x-|anthropic-)?(ratelimit-)?[a-zé_-]{0,24}") {
            if let Some(header) = LimitHeader::read(&name) {
                let _ = header.counted();
                prop_assert!(LimitHeader::read(&header.reset()).is_some_and(|reset| reset.is_of(&header)));
            }
        }
    }
}
