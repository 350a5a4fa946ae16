//! What Google's APIs add to a refusal: `google.rpc` details, and days that end at midnight in California.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::limits;

/// Google's `details`, as far as they decide something.
#[derive(Debug, Default)]
pub(super) struct Details<'a> {
    /// `ErrorInfo.reason`: a word for the cause, more exact than status and text.
    pub(super) reason: Option<&'a str>,
    /// `RetryInfo.retryDelay`. Not to be believed for a limit per day, where it is short.
    pub(super) retry: Option<Duration>,
    /// Whether `QuotaFailure` names a limit per day.
    pub(super) per_day: bool,
}

impl<'a> Details<'a> {
    /// Picks out what matters from `details`.
    pub(super) fn read(details: &'a [Value]) -> Self {
        let mut read = Self::default();
        for detail in details {
            let text = |name| detail.get(name).and_then(Value::as_str);
            match kind(detail) {
                Some("ErrorInfo") => read.reason = text("reason"),
                Some("RetryInfo") => {
                    read.retry = text("retryDelay").and_then(limits::go_duration).map(limits::capped);
                }
                Some("QuotaFailure") => {
                    let violations = detail.get("violations").and_then(Value::as_array);
                    read.per_day |= violations.into_iter().flatten().any(|violation| {
                        let id = violation.get("quotaId").and_then(Value::as_str);
                        id.is_some_and(|id| id.contains("PerDay"))
                    });
                }
                _ => {}
            }
        }
        read
    }
}

/// What kind of detail it is: "ErrorInfo", "RetryInfo", "QuotaFailure" …
pub(super) fn kind(detail: &Value) -> Option<&str> {
    detail.get("@type")?.as_str()?.rsplit('.').next()
}

/// Whether a text in lower case says "limit: 0": the project has no allowance at all for the model.
/// (`quotaValue` can't be asked: Google leaves out what is zero.)
pub(super) fn has_no_allowance(message: &str) -> bool {
    message.match_indices("limit: 0").any(|(at, found)| {
        let mut after = message[at + found.len()..].bytes();
        match after.next() {
            Some(b'0'..=b'9') => false,
            Some(b'.') => !after.next().is_some_and(|byte| byte.is_ascii_digit()),
            _ => true,
        }
    })
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Time until the next midnight in California, when Google's daily limits start anew.
///
/// By the rule in force since 2007 (daylight saving from the second Sunday of March to the first of November). If
/// the rule changes, a wait is an hour off: too early costs one more refusal, too late an hour of one allowance.
pub(super) fn until_pacific_midnight(wall: SystemTime) -> Duration {
    let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let today = now.as_secs() / DAY;
    let midnights = (today..).map(|day| {
        let behind_utc = if starts_in_daylight_saving(day) { 7 } else { 8 };
        Duration::from_secs(day * DAY + behind_utc * HOUR)
    });
    // Of today's and tomorrow's midnight one is still to come.
    midnights.take(2).find(|midnight| *midnight > now).map_or(Duration::ZERO, |midnight| midnight - now)
}

/// Whether California's clocks are an hour ahead at the midnight that begins `day` (days since 1970). They change
/// at two o'clock, so that the day of the change still begins by the old time.
fn starts_in_daylight_saving(day: u64) -> bool {
    let (month, of_month) = month_and_day(day);
    // 1970 began on a Thursday; Sunday is 0.
    let weekday = (day + 4) % 7;
    let last_sunday = of_month.saturating_sub(if weekday == 0 { 7 } else { weekday });
    match month {
        4..=10 => true,
        3 => last_sunday >= 8,
        11 => last_sunday == 0,
        _ => false,
    }
}

/// Month and day of the month of a day since 1970, by counting in years that begin in March, so that the leap day
/// comes last.
fn month_and_day(day: u64) -> (u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 1 March of the year 0 to 1 January 1970.
    let in_era = (day + 719_468) % DAYS_IN_400_YEARS;
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, and again: 153 in five.
    let since_march = (5 * in_year + 2) / 153;
    let of_month = in_year - (153 * since_march + 2) / 5 + 1;
    (if since_march < 10 { since_march + 3 } else { since_march - 9 }, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_midnight(date: &str) -> u64 {
        until_pacific_midnight(httpdate::parse_http_date(date).unwrap()).as_secs()
    }

    #[test]
    fn the_day_ends_at_midnight_in_california() {
        // Winter: 08:00 UTC. Summer: 07:00 UTC.
        assert_eq!(until_midnight("Thu, 15 Jan 2026 07:59:59 GMT"), 1);
        assert_eq!(until_midnight("Thu, 15 Jan 2026 08:00:00 GMT"), DAY);
        assert_eq!(until_midnight("Wed, 15 Jul 2026 06:00:00 GMT"), HOUR);
        assert_eq!(until_midnight("Wed, 15 Jul 2026 20:00:00 GMT"), 11 * HOUR);
        assert_eq!(until_midnight("Thu, 29 Feb 2024 20:00:00 GMT"), 12 * HOUR);
    }

    #[test]
    fn the_days_of_the_change_begin_by_the_old_time() {
        // 8 March 2026 has 23 hours, 1 November 2026 has 25.
        assert_eq!(until_midnight("Sun, 08 Mar 2026 07:00:00 GMT"), HOUR);
        assert_eq!(until_midnight("Sun, 08 Mar 2026 08:00:00 GMT"), 23 * HOUR);
        assert_eq!(until_midnight("Sun, 01 Nov 2026 06:00:00 GMT"), HOUR);
        assert_eq!(until_midnight("Sun, 01 Nov 2026 07:00:00 GMT"), 25 * HOUR);
        assert_eq!(until_midnight("Mon, 02 Nov 2026 08:00:00 GMT"), DAY);
        // The first of November as a Saturday: the change is on the second.
        assert_eq!(until_midnight("Sun, 02 Nov 2025 06:00:00 GMT"), HOUR);
        assert_eq!(until_midnight("Sun, 02 Nov 2025 07:00:00 GMT"), 25 * HOUR);
    }

    #[test]
    fn a_limit_of_zero_is_no_other_limit() {
        for (text, none) in [
            ("quota exceeded for metric: x, limit: 0, model: gemini-2.5-pro", true),
            ("limit: 0.", true),
            ("limit: 0", true),
            ("limit: 0.5, x", false),
            ("limit: 05", false),
            ("limit: 20, then limit: 0\nplease retry", true),
            ("limit: 20", false),
        ] {
            assert_eq!(has_no_allowance(text), none, "{text}");
        }
    }
}
