//! How a log line looks: `2026-11-25T20:53:36.123456Z  INFO target: message name=value …`.
//!
//! The subscriber's own format costs about as much as choosing a key and forwarding the request that the line is
//! about; this one writes the same facts with less ceremony. A value stands in quotes only where it must.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::clock::Clock;

/// Lines for people, in colour where the writer says so.
#[derive(Debug)]
pub(super) struct Plain(pub(super) Clock);

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let (dim, colour, off) = if writer.has_ansi_escapes() {
            ("\x1b[2m", colour(*meta.level()), "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut line = Line(SCRATCH.take());
        line.0.clear();
        line.0.push_str(dim);
        line.time(self.0.wall());
        for part in [off, " ", colour, padded(*meta.level()), off, " ", meta.target(), ":"] {
            line.0.push_str(part);
        }
        event.record(&mut line);
        line.0.push('\n');
        let written = writer.write_str(&line.0);
        SCRATCH.set(line.0);
        written
    }
}

thread_local! {
    /// Where lines are put together: each piece goes through the writer's vtable otherwise.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
    /// The last second that was written.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
}

fn padded(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => " WARN",
        Level::INFO => " INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// A line on its way.
struct Line(String);

impl Line {
    fn name(&mut self, field: &Field) {
        self.0.push(' ');
        if field.name() != MESSAGE {
            self.0.push_str(field.name());
            self.0.push('=');
        }
    }

    fn format(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        // Only a value's own formatting can fail, and then what there is of it stands there.
        let _ = self.0.write_fmt(value);
    }

    fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let length = 1 + number.checked_ilog10().unwrap_or(0) as usize;
        put(&mut digits[..length], number);
        self.digits(&digits[..length]);
    }

    fn digits(&mut self, digits: &[u8]) {
        self.0.push_str(str::from_utf8(digits).expect("digits are ASCII"));
    }

    /// A moment as RFC 3339 with microseconds, in UTC.
    fn time(&mut self, wall: SystemTime) {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (second, mut text) = SECOND.get();
        if second != since.as_secs() {
            text = date_and_time(since.as_secs());
            SECOND.set((since.as_secs(), text));
        }
        let mut fraction = *b".000000Z";
        put(&mut fraction[1..7], since.subsec_micros().into());
        self.digits(&text);
        self.digits(&fraction);
    }
}

const MESSAGE: &str = "message";

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE && !is_plain(value) {
            return self.format(field, format_args!("{value:?}"));
        }
        self.name(field);
        self.0.push_str(value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // Thousandths say enough, and are cheap to write.
        let thousandths = value * 1e3;
        if !(0.0..1e15).contains(&thousandths) {
            return self.format(field, format_args!("{value}"));
        }
        let thousandths = thousandths.round() as u64;
        self.name(field);
        self.number(thousandths / 1000);
        let mut fraction = *b".000";
        put(&mut fraction[1..], thousandths % 1000);
        self.digits(&fraction);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        self.number(value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.format(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record_str(field, if value { "true" } else { "false" });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.format(field, format_args!("{value:?}"));
    }
}

/// Whether a value can stand without quotes: nobody could take part of it for another field, or for another line.
fn is_plain(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    !value.is_empty() && value.bytes().all(plain)
}

/// `2026-11-25T20:53:36` of so many seconds since 1970.
fn date_and_time(seconds: u64) -> [u8; 19] {
    // Years that begin in March end with the leap day.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let second = seconds % 86_400;
    let mut text = *b"0000-00-00T00:00:00";
    put(&mut text[..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second / 3600);
    put(&mut text[14..16], second / 60 % 60);
    put(&mut text[17..], second % 60);
    text
}

/// Fills `digits` with the last decimal digits of `number`.
fn put(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    fn logged(write: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Plain(Clock::system()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, write);
        let text = kept.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_has_time_level_target_message_and_fields() {
        let line = logged(|| {
            let nothing: Option<u64> = None;
            tracing::warn!(
                target: "t",
                a = "plain", b = "two words", c = %"shown", d = ?"quoted", e = 1.5, f = 7_u64, g = -7, h = true, nothing,
                "said {}", 1
            );
        });
        let (time, rest) = line.split_at(27);
        assert!(time.ends_with('Z') && time.starts_with("20"), "{time}");
        assert_eq!(
            rest,
            "  WARN t: said 1 a=plain b=\"two words\" c=shown d=\"quoted\" e=1.500 f=7 g=-7 h=true\n"
        );
    }

    #[test]
    fn no_value_can_be_taken_for_another_field_or_line() {
        for value in ["", "a b", "a=b", "a\"b", "a\\b", "a\nb", "a\u{1b}[0m", "é"] {
            let line = logged(|| tracing::info!(value, "m"));
            assert!(line.ends_with(&format!(" value={value:?}\n")), "{line}");
        }
    }

    proptest! {
        #[test]
        fn dates_are_those_of_the_calendar(seconds in 0..=253_402_300_799_u64) {
            let text = date_and_time(seconds);
            let http = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(&http[8..11]).unwrap() / 3 + 1;
            let expected = format!("{}-{month:02}-{}T{}", &http[12..16], &http[5..7], &http[17..25]);
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
        }
    }
}
