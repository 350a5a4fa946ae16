//! A stream of events, cut into pieces by its first byte: it makes no difference where they end, what is found is in it,
//! and an error means something.

#![no_main]

use std::time::{Duration, SystemTime};

use key_cycle_proxy::{
    provider::{
        Endpoint, Media, Meter, Spending,
        limits::MAX_WAIT,
        stream::{Extra, Opened, Opening, Watch, judge_event},
    },
    types::{Class, Cost, Demand},
};
use libfuzzer_sys::fuzz_target;

/// Of longer lines only the ends are kept, and more than this is not held back: there pieces make a difference.
const SHORT: usize = 8 * 1024;
/// And of longer lines than this not all is read for what they have cost.
const LEAST: usize = 1024;

fuzz_target!(|input: &[u8]| {
    let Some((size, text)) = input.split_first() else { return };
    let size = usize::from(*size).max(1);
    let (opened, error) = (opened(text, text.len().max(1)), error(text, text.len().max(1)));
    if text.len() <= SHORT {
        assert_eq!(self::opened(text, size), opened, "in pieces of {size}");
        assert_eq!(self::error(text, size), error, "in pieces of {size}");
        assert_eq!(without_extra(text, size), without_extra(text, text.len().max(1)), "in pieces of {size}");
    }
    if text.len() <= LEAST {
        for media in [Media::Events, Media::Json] {
            assert_eq!(cost(text, size, media), cost(text, text.len().max(1), media), "in pieces of {size}");
        }
    }
    if let Opened::Failed(complaint) = &opened {
        // Its lines stand in the text, whatever stands between them.
        for line in complaint.split(|byte| *byte == b'\n') {
            assert!(contains(text, line), "the complaint is not in the text");
        }
        means_something(complaint);
    }
    if let Some(error) = &error {
        assert!(contains(text, error), "the error is not in the text");
        means_something(error);
    }
    assert!(!matches!(opened, Opened::NeedMore), "it has ended");
    means_something(text);
});

fn opened(text: &[u8], size: usize) -> Opened {
    let mut opening = Opening::new();
    for end in (size..text.len()).step_by(size).chain([text.len()]) {
        match opening.look(&text[..end]) {
            Opened::NeedMore => {}
            opened => return opened,
        }
    }
    opening.end(text)
}

fn error(text: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut watch = Watch::new();
    text.chunks(size).find_map(|piece| watch.push(piece)).or_else(|| watch.end())
}

fn without_extra(text: &[u8], size: usize) -> Vec<u8> {
    let mut extra = Extra::new();
    let mut out: Vec<u8> = text.chunks(size).flat_map(|piece| extra.push(piece.to_vec().into())).collect();
    out.extend(extra.end());
    assert!(extra.is_empty() && out.len() <= text.len());
    out
}

/// What it has cost. A stream is known by its first piece to have names or none, so that the first is long enough.
fn cost(text: &[u8], size: usize, media: Media) -> Cost {
    let (first, rest) = text.split_at(text.len().min(16));
    let mut meter = Meter::new(media, Spending::Both, Demand::default());
    std::iter::once(first).chain(rest.chunks(size)).for_each(|piece| meter.push(piece));
    meter.end(b"")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn means_something(event: &[u8]) {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_182_400);
    for endpoint in [Endpoint::Inference, Endpoint::Read] {
        let verdict = judge_event(event, endpoint, wall);
        assert_ne!(verdict.class, Class::Success);
        assert!(verdict.wait.is_none_or(|wait| wait <= MAX_WAIT), "{verdict:?}");
    }
}
