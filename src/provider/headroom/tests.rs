use http::HeaderName;
use proptest::prelude::*;

use super::*;

/// 2025-08-21 12:41:00 UTC.
const WALL: Duration = Duration::from_secs(1_755_780_060);

fn told(pairs: &[(&str, &str)]) -> Announced {
    let headers = pairs
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    announced(&headers, SystemTime::UNIX_EPOCH + WALL)
}

const fn continuous(limit: u64, remaining: u64, millis: u64) -> Option<Allowance> {
    let reset = Some(Duration::from_millis(millis));
    Some(Allowance { limit: Some(limit), remaining, reset, refill: Refill::Continuous })
}

const fn window(limit: u64, remaining: u64, seconds: u64) -> Option<Allowance> {
    let reset = Some(Duration::from_secs(seconds));
    Some(Allowance { limit: Some(limit), remaining, reset, refill: Refill::Window })
}

#[test]
fn openai() {
    let announced = told(&[
        ("date", "Thu, 21 Aug 2025 12:41:00 GMT"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "200000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "199979"),
        ("x-ratelimit-reset-requests", "8.64s"),
        ("x-ratelimit-reset-tokens", "6ms"),
        ("x-ratelimit-limit-input-images", "250"),
        ("x-ratelimit-remaining-input-images", "0"),
        ("x-ratelimit-reset-input-images", "1m0s"),
    ]);
    assert_eq!(announced.requests, continuous(10_000, 9_999, 8_640));
    assert_eq!(announced.tokens, continuous(200_000, 199_979, 6));
}

#[test]
fn of_limits_that_count_the_same_the_least_decides() {
    let organization = [
        ("x-ratelimit-limit-tokens", "10000000"),
        ("x-ratelimit-remaining-tokens", "100000"),
        ("x-ratelimit-reset-tokens", "59.4s"),
    ];
    let project = [
        ("x-ratelimit-limit-project-tokens", "10000"),
        ("x-ratelimit-remaining-project-tokens", "5000"),
        ("x-ratelimit-reset-project-tokens", "30s"),
    ];
    let both: Vec<_> = organization.into_iter().chain(project).collect();
    assert_eq!(told(&both).tokens, continuous(10_000, 5_000, 30_000));
    assert_eq!(told(&organization).tokens, continuous(10_000_000, 100_000, 59_400));
    // Both empty: the one that stays so for longer.
    let empty = told(&[
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "20ms"),
        ("x-ratelimit-remaining-project-tokens", "0"),
        ("x-ratelimit-reset-project-tokens", "6s"),
    ]);
    assert_eq!(empty.tokens.unwrap().reset, Some(Duration::from_secs(6)));
}

#[test]
fn groqs_requests_are_per_day_and_its_tokens_per_minute() {
    let announced = told(&[
        ("x-ratelimit-limit-requests", "14400"),
        ("x-ratelimit-limit-tokens", "18000"),
        ("x-ratelimit-remaining-requests", "14370"),
        ("x-ratelimit-remaining-tokens", "15702"),
        ("x-ratelimit-reset-requests", "2m59.56s"),
        ("x-ratelimit-reset-tokens", "7.66s"),
    ]);
    let [requests, tokens] = [announced.requests, announced.tokens].map(Option::unwrap);
    assert_eq!((requests.limit, requests.remaining), (Some(14_400), 14_370));
    assert_eq!((tokens.limit, tokens.remaining), (Some(18_000), 15_702));
    assert_eq!([requests.reset, tokens.reset], [179_560, 7_660].map(|ms| Some(Duration::from_millis(ms))));
}

const ANTHROPIC: [(&str, &str); 12] = [
    ("anthropic-ratelimit-requests-limit", "1000"),
    ("anthropic-ratelimit-requests-remaining", "999"),
    ("anthropic-ratelimit-requests-reset", "2025-08-21T12:40:59Z"),
    ("anthropic-ratelimit-tokens-limit", "96000"),
    ("anthropic-ratelimit-tokens-remaining", "96000"),
    ("anthropic-ratelimit-tokens-reset", "2025-08-21T12:40:59Z"),
    ("anthropic-ratelimit-input-tokens-limit", "80000"),
    ("anthropic-ratelimit-input-tokens-remaining", "80000"),
    ("anthropic-ratelimit-input-tokens-reset", "2025-08-21T12:40:59Z"),
    ("anthropic-ratelimit-output-tokens-limit", "16000"),
    ("anthropic-ratelimit-output-tokens-remaining", "16000"),
    ("anthropic-ratelimit-output-tokens-reset", "2025-08-21T12:41:00Z"),
];

#[test]
fn anthropic_untouched() {
    let announced = told(&ANTHROPIC);
    assert_eq!(announced.requests, continuous(1000, 999, 0));
    assert_eq!(announced.tokens, continuous(96_000, 96_000, 0));
}

#[test]
fn anthropics_input_and_output_count_by_their_share() {
    let mut pairs = ANTHROPIC;
    pairs[4].1 = "81000";
    pairs[10].1 = "1600";
    pairs[11].1 = "2025-08-21T12:41:54Z";
    assert_eq!(told(&pairs).tokens, continuous(96_000, 9_600, 54_000));
    // Without a limit of both together, the parts make it up.
    assert_eq!(told(&pairs[6..]).tokens, continuous(96_000, 9_600, 54_000));
    pairs[10].1 = "0";
    assert_eq!(told(&pairs).tokens, continuous(96_000, 0, 54_000));
}

#[test]
fn a_workspace_with_less_than_its_organization_decides() {
    // `tokens` are the workspace's then.
    let mut pairs = ANTHROPIC;
    (pairs[3].1, pairs[4].1) = ("5000", "2000");
    assert_eq!(told(&pairs).tokens, continuous(5_000, 2_000, 0));
}

#[test]
fn a_part_without_a_limit_tells_when_nothing_is_left() {
    let part = |left| [("x-ratelimit-remaining-tokens-generated", left)];
    assert_eq!(told(&part("300")).tokens, None);
    assert_eq!(told(&part("0")).tokens.unwrap().remaining, 0);
}

#[test]
fn azure() {
    let bare = told(&[("x-ratelimit-remaining-requests", "49"), ("x-ratelimit-remaining-tokens", "119000")]);
    let expected = Allowance { limit: None, remaining: 49, reset: None, refill: Refill::Continuous };
    assert_eq!(bare.requests, Some(expected));
    assert_eq!(bare.tokens, Some(Allowance { remaining: 119_000, ..expected }));

    let spent = told(&[
        ("x-ratelimit-limit-requests", "5"),
        ("x-ratelimit-limit-tokens", "5000"),
        ("x-ratelimit-remaining-requests", "4"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-renewalperiod-requests", "60"),
        ("x-ratelimit-renewalperiod-tokens", "60"),
        ("x-ratelimit-reset-requests", "12"),
        ("x-ratelimit-reset-tokens", "0"),
        ("x-ratelimit-type", "Tokens"),
    ]);
    assert_eq!(spent.requests, continuous(5, 4, 12_000));
    assert_eq!(spent.tokens, continuous(5_000, 0, 60_000));
}

#[test]
fn limits_of_several_lengths() {
    let cerebras = [
        ("x-ratelimit-limit-requests-day", "10000"),
        ("x-ratelimit-remaining-requests-day", "9500"),
        ("x-ratelimit-reset-requests-day", "33011.382867"),
        ("x-ratelimit-limit-requests-minute", "120"),
        ("x-ratelimit-remaining-requests-minute", "115"),
        ("x-ratelimit-reset-requests-minute", "45"),
        ("x-ratelimit-limit-tokens-minute", "200000"),
        ("x-ratelimit-remaining-tokens-minute", "195000"),
        ("x-ratelimit-reset-tokens-minute", "30"),
    ];
    assert_eq!(told(&cerebras).requests, window(120, 115, 45));
    assert_eq!(told(&cerebras).tokens, window(200_000, 195_000, 30));
    // Mistral names no reset, but then a minute is over after a minute.
    let mistral = [("x-ratelimit-limit-req-minute", "60"), ("x-ratelimit-remaining-req-minute", "3")];
    assert_eq!(told(&mistral).requests, window(60, 3, 60));
}

#[test]
fn a_plain_limit_counts_requests_in_a_window() {
    let openrouter = [
        ("x-ratelimit-limit", "50"),
        ("x-ratelimit-remaining", "49"),
        ("x-ratelimit-reset", "1755820800000"),
    ];
    assert_eq!(told(&openrouter).requests, window(50, 49, 40_740));
    assert_eq!(told(&openrouter).tokens, None);
    let draft = [("ratelimit-limit", "10"), ("ratelimit-remaining", "9"), ("ratelimit-reset", "50")];
    assert_eq!(told(&draft).requests, window(10, 9, 50));
}

#[test]
fn drafts_with_everything_in_one_header() {
    assert_eq!(told(&[("ratelimit", "limit=100, remaining=50, reset=5")]).requests, window(100, 50, 5));
    let policy = ("ratelimit-policy", r#""burst";q=100;w=60,"daily";q=1000;w=86400"#);
    assert_eq!(told(&[policy, ("ratelimit", r#""burst";r=50;t=30"#)]).requests, window(100, 50, 30));
    let both = ("ratelimit", r#""burst";r=50;t=30, "daily";r=7;t=3600"#);
    assert_eq!(told(&[both, policy]).requests, window(1000, 7, 3600));
    let bytes = ("ratelimit-policy", r#""burst";q=100;qu="content-bytes";w=60"#);
    assert_eq!(told(&[bytes, ("ratelimit", r#""burst";r=50;t=30"#)]).requests, None);
    for nonsense in ["", "remaining=", "\"a\"", "r=-1", ";;=,", "\"a\";r=x"] {
        assert_eq!(told(&[("ratelimit", nonsense)]), Announced::default(), "{nonsense}");
    }
}

#[test]
fn nonsense_says_nothing() {
    for left in ["-1", "", "many", "1e9", "NaN", "inf", "0x10"] {
        assert_eq!(told(&[("x-ratelimit-remaining-tokens", left)]), Announced::default(), "{left:?}");
    }
    assert_eq!(told(&[("x-ratelimit-limit-tokens", "5"), ("x-ratelimit-reset-tokens", "5s")]).tokens, None);
    // Such a limit is no limit, and such a reset no time.
    let odd = told(&[
        ("x-ratelimit-limit-tokens", "5"),
        ("x-ratelimit-remaining-tokens", "7.9"),
        ("x-ratelimit-reset-tokens", "soon"),
    ]);
    let expected = Allowance { limit: None, remaining: 7, reset: None, refill: Refill::Continuous };
    assert_eq!(odd.tokens, Some(expected));
}

#[test]
fn what_is_huge_is_capped() {
    let huge = "9".repeat(60);
    let announced = told(&[
        ("x-ratelimit-limit-tokens", &huge),
        ("x-ratelimit-remaining-tokens", &huge),
        ("x-ratelimit-reset-tokens", "9999h"),
    ]);
    assert_eq!(announced.tokens, continuous(HIGHEST, HIGHEST, limits::MAX_WAIT.as_millis() as u64));
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        "x-ratelimit-(limit|remaining|reset|renewalperiod)(-(project-|input-|output-)?(requests|tokens)(-day)?)?",
        "anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-(limit|remaining|reset)",
        "ratelimit(-(limit|remaining|reset|policy))?",
    ];
    let value = prop_oneof![
        "[0-9]{1,4}",
        "[0-9]{0,30}",
        "[ -~]{0,24}",
        "[0-9]{0,6}[hms.]{0,3}",
        r#""a";[rqt]=[0-9]{0,3}(;[rtw]=[0-9])?"#
    ];
    proptest::collection::vec((name, value), 0..40)
}

proptest! {
    #[test]
    fn whatever_is_said_is_sane(pairs in pairs(), wall in any::<u32>()) {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let announced = announced(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(wall.into()));
        for allowance in [announced.requests, announced.tokens].into_iter().flatten() {
            prop_assert!(allowance.remaining <= HIGHEST);
            prop_assert!(allowance.limit.is_none_or(|limit| limit >= allowance.remaining));
            prop_assert!(allowance.reset.is_none_or(|reset| reset <= limits::MAX_WAIT));
        }
    }
}
