//! How long an answer asks us to stay away. Pure; whatever comes in, what goes out is at most [`MAX_WAIT`].

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::limit_header::{Field, LimitHeader};

/// No answer keeps a key away for longer: limits that reset daily are the longest we know of, and a header may lie.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What asks for a wait in milliseconds, in order of trust: OpenAI's and Azure's, then Azure's older one.
const RETRY_AFTER_MILLIS: [&str; 2] = ["retry-after-ms", "x-ms-retry-after-ms"];

/// Numbers from here on are dates in seconds (2001), since no limit resets after thirty years.
const EPOCH_SECONDS: f64 = 1e9;

/// Numbers from here on are dates in milliseconds (1973), since no date in seconds is so far away.
const EPOCH_MILLIS: f64 = 1e11;

/// How long `headers` ask us to wait: what they say outright, else until the exhausted limits are filled up again.
#[must_use]
pub fn wait(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    retry_after(headers, wall).or_else(|| exhausted(headers, wall))
}

/// What `headers` say outright: `retry-after-ms`, `x-ms-retry-after-ms`, `retry-after` (seconds or a date).
///
/// A date in the past means now; a negative number or nonsense says nothing.
#[must_use]
pub fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let millis = RETRY_AFTER_MILLIS.iter().find_map(|name| number(text(headers, name)?));
    if let Some(millis) = millis {
        return Some(from_seconds(millis / 1e3));
    }
    let text = text(headers, "retry-after")?;
    seconds(text).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(capped(date.duration_since(wall).unwrap_or_default()))
    })
}

/// Until every limit with nothing left is full again. Limits with something left don't count: the reset of OpenAI's
/// headers is the time to a *full* refill, so that a limit hardly touched may name a longer time than the one hit.
fn exhausted(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let resets = headers.iter().filter_map(|(name, left)| {
        let limit = LimitHeader::read(name.as_str()).filter(|limit| limit.field == Field::Remaining)?;
        if number(left.to_str().ok()?.trim())? > 0.0 {
            return None;
        }
        reset(text(headers, &limit.reset())?, wall)
    });
    resets.max()
}

/// The time to a reset: a Go duration (OpenAI), an RFC 3339 date (Anthropic), a number of seconds, or a date in
/// seconds or milliseconds since 1970. A date in the past means now.
pub(super) fn reset(text: &str, wall: SystemTime) -> Option<Duration> {
    let Some(number) = number(text) else {
        let date = || {
            let date = SystemTime::from(OffsetDateTime::parse(text, &Rfc3339).ok()?);
            // Go writes the year 1 where there is none.
            let named = date > SystemTime::UNIX_EPOCH;
            named.then(|| date.duration_since(wall).unwrap_or_default())
        };
        return go_duration(text).or_else(date).map(capped);
    };
    let since_epoch = match number {
        EPOCH_MILLIS.. => Duration::try_from_secs_f64(number / 1e3).ok()?,
        EPOCH_SECONDS.. => Duration::try_from_secs_f64(number).ok()?,
        _ => return Some(from_seconds(number)),
    };
    let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(capped(since_epoch.saturating_sub(now)))
}

/// Reads a duration as Go writes it: "6m0s", "1m26.4s", "20ms", "143h4m52.73s", "0".
///
/// `None` for what Go would not read, and for negative durations, which no limit has.
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    // The longer name first where one begins with the other.
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) =
            UNITS.iter().find_map(|(name, nanos)| Some((*nanos, after.strip_prefix(name)?)))?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(unit)?)?.checked_add(part_of(unit, fraction))?;
        rest = after;
    }
    (!text.trim_start_matches('+').is_empty()).then(|| Duration::from_nanos(nanos))
}

/// Reads a number of seconds, with or without decimals, capped.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    number(text).map(from_seconds)
}

/// `wait`, or the longest wait there is.
pub(super) fn capped(wait: Duration) -> Duration {
    wait.min(MAX_WAIT)
}

/// The digits at the beginning of `text`, and what comes after them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `0.fraction` of `unit`, rounded down. Digits beyond the ninth are less than a nanosecond per second.
fn part_of(unit: u64, fraction: &str) -> u64 {
    let (mut part, mut place) = (0, unit);
    for digit in fraction.bytes().take(9) {
        part += place * u64::from(digit - b'0') / 10;
        place /= 10;
    }
    part
}

/// A plain decimal number, not negative. (What `f64` reads beside that — `inf`, `NaN`, `1e9` — no header means.)
pub(super) fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

fn from_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).map_or(MAX_WAIT, capped)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const WALL: Duration = Duration::from_secs(784_111_777);

    fn wait_ms(pairs: &[(&str, &str)]) -> Option<u128> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        wait(&headers, SystemTime::UNIX_EPOCH + WALL).map(|wait| wait.as_millis())
    }

    #[test]
    fn milliseconds_come_before_seconds_and_both_before_resets() {
        let mut pairs = vec![
            ("retry-after-ms", "1500"),
            ("x-ms-retry-after-ms", "1600"),
            ("retry-after", "2"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "3s"),
        ];
        for expected in [1500, 1600, 2000, 3000] {
            assert_eq!(wait_ms(&pairs), Some(expected));
            pairs.remove(0);
        }
        assert_eq!(wait_ms(&pairs), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, expected) in [
            ("0", Some(0)),
            ("20", Some(20_000)),
            ("0.25", Some(250)),
            (" 7 ", Some(7_000)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400_000)),
            ("99999999999999999999999", Some(86_400_000)),
            ("-3", None),
            ("NaN", None),
            ("inf", None),
            ("1e3", None),
            (".", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait_ms(&[("retry-after", value)]), expected, "{value:?}");
        }
        assert_eq!(wait_ms(&[("retry-after-ms", "soon"), ("retry-after", "4")]), Some(4_000));
    }

    #[test]
    fn only_exhausted_limits_count_and_the_longest_of_them() {
        let tokens_hit = [
            ("x-ratelimit-remaining-requests", "12"),
            ("x-ratelimit-reset-requests", "8h"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "20ms"),
            ("x-ratelimit-remaining-project-tokens", "0"),
            ("x-ratelimit-reset-project-tokens", "1m26.4s"),
        ];
        assert_eq!(wait_ms(&tokens_hit), Some(86_400));
        assert_eq!(wait_ms(&tokens_hit[..2]), None);
        assert_eq!(wait_ms(&tokens_hit[..3]), None);
    }

    #[test]
    fn anthropic_names_moments() {
        let hit = [
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "1994-11-06T09:49:37Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "1994-11-06T08:50:00Z"),
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "1994-11-06T08:49:50Z"),
        ];
        assert_eq!(wait_ms(&hit), Some(23_000));
        assert_eq!(wait_ms(&hit[..2]), None);
        let told: Vec<_> = hit.into_iter().chain([("retry-after", "5")]).collect();
        assert_eq!(wait_ms(&told), Some(5_000));
    }

    #[test]
    fn unknown_is_not_exhausted() {
        for left in ["-1", "", "many", "0.5"] {
            let pairs = [("x-ratelimit-remaining-tokens", left), ("x-ratelimit-reset-tokens", "5s")];
            assert_eq!(wait_ms(&pairs), None, "{left:?}");
        }
        assert_eq!(wait_ms(&[("x-ratelimit-remainingfoo", "0"), ("x-ratelimit-resetfoo", "5s")]), None);
    }

    #[test]
    fn a_reset_is_a_duration_a_number_or_a_date() {
        for (prefix, value, expected) in [
            ("x-ratelimit-", "27", Some(27_000)),
            ("x-ratelimit-", "33.5", Some(33_500)),
            ("ratelimit-", "60", Some(60_000)),
            ("x-ratelimit-", "6m0s", Some(360_000)),
            // A date before the wall clock's, and one far beyond it.
            ("x-ratelimit-", "1000000000000", Some(86_400_000)),
            ("x-ratelimit-", "784111807000", Some(30_000)),
            ("x-ratelimit-", "200000000000", Some(0)),
            ("x-ratelimit-", "4000000000", Some(86_400_000)),
            ("x-ratelimit-", "1994-11-06T08:50:07Z", Some(30_000)),
            ("x-ratelimit-", "1994-11-06T08:49:07+00:00", Some(0)),
            ("x-ratelimit-", "tomorrow", None),
        ] {
            let (left, reset) = (format!("{prefix}remaining"), format!("{prefix}reset"));
            assert_eq!(wait_ms(&[(&left, "0"), (&reset, value)]), expected, "{value}");
        }
    }

    #[test]
    fn go_durations() {
        for (text, millis) in [
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1m26.4s", Some(86_400)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("+.5s", Some(500)),
            ("1.h", Some(3_600_000)),
            ("143h4m52.73s", Some(515_092_730)),
            ("1500µs", Some(1)),
            ("-1s", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("", None),
            ("+", None),
            ("1s ", None),
            ("1d", None),
            ("99999999999999999999h", None),
            ("9999999999h", None),
        ] {
            assert_eq!(go_duration(text).map(|duration| duration.as_millis()), millis, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_always_bounded(
            pairs in proptest::collection::vec((0..8_usize, "[ -~]{0,24}|[0-9]{0,30}|[0-9]{0,6}[hms.]{0,3}"), 0..8),
            wall in any::<u32>(),
        ) {
            const NAMES: [&str; 8] = [
                "retry-after-ms", "x-ms-retry-after-ms", "retry-after", "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-remaining",
            ];
            let headers = pairs
                .iter()
                .filter_map(|(name, value)| {
                    Some((HeaderName::from_static(NAMES[*name]), HeaderValue::from_str(value).ok()?))
                })
                .collect();
            let wait = wait(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(wall.into()));
            prop_assert!(wait.is_none_or(|wait| wait <= MAX_WAIT));
        }

        #[test]
        fn go_duration_reads_what_go_writes(hours in 0..9_000_u64, minutes in 0..60_u64, millis in 0..60_000_u64) {
            let text = format!("{hours}h{minutes}m{}.{:03}s", millis / 1000, millis % 1000);
            let expected = Duration::from_millis((hours * 60 + minutes) * 60_000 + millis);
            prop_assert_eq!(go_duration(&text), Some(expected));
        }

        #[test]
        fn go_duration_never_panics(text in ".*|[0-9.hmsuµn+-]*") {
            let _ = go_duration(&text);
        }
    }
}
