use proptest::prelude::*;

use super::*;

const DEMAND: Demand = Demand { input: 50, output: Some(200) };

fn meter(media: Media) -> Meter {
    Meter::new(media, Spending::Both, DEMAND)
}

const fn estimated(input: u64, output: u64) -> Cost {
    Cost::Estimated(Usage { input, output, cached_input: 0 })
}

#[test]
fn what_is_not_told_is_estimated_and_said_to_be() {
    let cost = |media, text: &str, demand| Meter::new(media, Spending::Both, demand).end(text.as_bytes());
    let told = Usage { input: 19, output: 10, cached_input: 8 };
    assert_eq!(cost(Media::Json, CHAT, DEMAND), Cost::Told(told));
    let words = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".repeat(120);
    assert_eq!(cost(Media::Events, &words, DEMAND), estimated(50, 120));
    assert_eq!(cost(Media::Events, &words.repeat(2), DEMAND), estimated(50, 200));
    assert_eq!(cost(Media::Events, &words.repeat(2), Demand { output: None, ..DEMAND }), estimated(50, 240));
    let named = words.replace("data: ", "event: a\r\ndata: ");
    assert_eq!(cost(Media::Events, &named, DEMAND), estimated(50, 120));
    let text = format!("{{\"text\":\"{}\"}}", "a".repeat(389));
    assert_eq!(cost(Media::Json, &text, DEMAND), estimated(50, 100));
    assert_eq!(cost(Media::Json, "", DEMAND), estimated(50, 0));
    assert_eq!(cost(Media::Events, "", DEMAND), estimated(50, 0));
    assert_eq!(cost(Media::Json, CHAT, DEMAND).as_str(), "told");
    // Numbers of an embedding are no words.
    assert_eq!(Meter::new(Media::Json, Spending::Input, DEMAND).end(text.as_bytes()), estimated(50, 0));
}

#[test]
fn who_leaves_early_has_spent_what_was_counted_until_then() {
    let cut = |media, body: &str, at: &str| {
        let mut meter = meter(media);
        meter.push(&body.as_bytes()[..body.find(at).unwrap()]);
        meter.cut()
    };
    let counted = |input, output, cached_input| Cost::Estimated(Usage { input, output, cached_input });
    // It had been told.
    assert_eq!(cut(Media::Events, CHAT_STREAM, "data: [DONE]"), Cost::Told(usage(9, 2, 0).unwrap()));
    assert_eq!(
        cut(Media::Events, MESSAGE_STREAM, "event: message_stop"),
        Cost::Told(usage(100, 15, 75).unwrap())
    );
    assert_eq!(cut(Media::Events, GROQ_STREAM, "data: [DONE]"), Cost::Told(usage(12, 7, 0).unwrap()));
    let gemini = format!("{GEMINI_STREAM}: end");
    assert_eq!(cut(Media::Events, &gemini, ": end"), Cost::Told(usage(4, 2, 0).unwrap()));
    // Only the input had.
    assert_eq!(cut(Media::Events, MESSAGE_STREAM, "event: message_delta"), counted(100, 4, 75));
    assert_eq!(
        cut(Media::Events, GEMINI_STREAM, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"!\""),
        counted(4, 1, 0)
    );
    // Nothing had.
    assert_eq!(
        cut(
            Media::Events,
            CHAT_STREAM,
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[],"
        ),
        counted(50, 2, 0)
    );
    assert_eq!(cut(Media::Json, CHAT, "\"usage\":{\"prompt_tokens\":19"), counted(50, 45, 0));
    assert_eq!(meter(Media::Json).cut(), counted(50, 0, 0));
    assert_eq!(meter(Media::Events).cut(), counted(50, 0, 0));
    // What counts as it goes, though nothing is said about the end.
    let running =
        CHAT_STREAM.replace("\"usage\":null", "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}");
    assert_eq!(
        cut(
            Media::Events,
            &running,
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[],"
        ),
        counted(9, 1, 0)
    );
    let array = format!("[{GEMINI}\n,\r\n{{\n  \"candidates\"");
    assert_eq!(cut(Media::Json, &array, "{\n  \"candidates\""), counted(50, 0, 0));
    let mut meter = meter(Media::Json);
    meter.push(array.as_bytes());
    assert_eq!(meter.cut(), counted(8, 50, 3));
}

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"The \"usage\":{\"prompt_tokens\":99} of words."},"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"service_tier":"default","system_fingerprint":"fp_1"}"#;
const RESPONSE: &str = r#"{"id":"resp_1","object":"response","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],"tools":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":4},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123},"user":null,"metadata":{}}"#;
const EMBEDDING: &str = r#"{"object":"list","data":[{"object":"embedding","embedding":[0.1,-0.2],"index":0}],"model":"text-embedding-3-small","usage":{"prompt_tokens":5,"total_tokens":5}}"#;
const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"tool_use","id":"t","name":"count","input":{"usage":{"prompt_tokens":77}}}],"stop_reason":"tool_use","usage":{"input_tokens":10,"cache_creation_input_tokens":100,"cache_read_input_tokens":2000,"cache_creation":{"ephemeral_5m_input_tokens":100},"output_tokens":25,"service_tier":"standard"}}"#;
const GEMINI: &str = r#"{
  "candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"usageMetadata": {"promptTokenCount": 77}}}}], "role": "model"}, "finishReason": "STOP"}],
  "usageMetadata": {
    "promptTokenCount": 8,
    "cachedContentTokenCount": 3,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 30,
    "totalTokenCount": 58,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}]
  },
  "modelVersion": "gemini-2.5-flash",
  "responseId": "r"
}
"#;
const MISTRAL: &str = r#"{"id":"c","created":1,"model":"mistral-small","usage":{"prompt_tokens":10,"total_tokens":33,"completion_tokens":23,"num_cached_tokens":0},"object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"…"}}]}"#;

const CHAT_STREAM: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"\"usage\":{\"prompt_tokens\":1}}"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11},"obfuscation":"AbCd"}

data: [DONE]

"#;
const RESPONSE_STREAM: &str = r#"event: response.created
data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress","error":null,"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"Hi"}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","status":"completed","error":null,"usage":{"input_tokens":36,"output_tokens":87,"total_tokens":123},"user":null,"metadata":{"a":"}"}}}

"#;
const MESSAGE_STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"claude-sonnet-4-5","stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":0,"cache_read_input_tokens":75,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;
const GEMINI_STREAM: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}],\"role\":\"model\"}}],\"usageMetadata\":{\"promptTokenCount\":4,\"totalTokenCount\":4},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\ndata: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"!\"}],\"role\":\"model\"},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":4,\"candidatesTokenCount\":2,\"totalTokenCount\":6},\"modelVersion\":\"gemini-2.5-flash\"}\r\n\r\n";
const GROQ_STREAM: &str = r#"data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"req_1","usage":{"queue_time":0.01,"prompt_tokens":12,"prompt_time":0.002,"completion_tokens":7,"total_tokens":19}}}

data: [DONE]

"#;

const COHERE: &str = r#"{"id":"c","finish_reason":"COMPLETE","message":{"role":"assistant","content":[{"type":"text","text":"Hi"}]},"usage":{"billed_units":{"input_tokens":5,"output_tokens":418},"tokens":{"input_tokens":71,"output_tokens":418},"cached_tokens":16}}"#;
const COHERE_EMBEDDING: &str = r#"{"id":"e","embeddings":{"float":[[0.1,-0.2]]},"texts":["hi"],"response_type":"embeddings_by_type","meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":2},"warnings":[]}}"#;
const COHERE_STREAM: &str = r#"event: content-delta
data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hi"}}}}

event: message-end
data: {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":3,"output_tokens":13},"tokens":{"input_tokens":69,"output_tokens":13}}}}

"#;
const DEEPSEEK: &str = r#"{"id":"d","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":6,"total_tokens":36,"prompt_cache_hit_tokens":20,"prompt_cache_miss_tokens":10}}"#;
const TRANSCRIPTION: &str = r#"{"text":"Hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#;
const IMAGE: &str = r#"{"created":1,"data":[{"b64_json":"aGk="}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#;

const fn usage(input: u64, output: u64, cached_input: u64) -> Option<Usage> {
    Some(Usage { input, output, cached_input })
}

/// Each with what it cost.
const WHOLE: [(Media, &str, Option<Usage>); 17] = [
    (Media::Json, CHAT, usage(19, 10, 8)),
    (Media::Json, RESPONSE, usage(36, 87, 4)),
    (Media::Json, EMBEDDING, usage(5, 0, 0)),
    (Media::Json, MESSAGE, usage(2110, 25, 2000)),
    (Media::Json, GEMINI, usage(8, 50, 3)),
    (Media::Json, MISTRAL, usage(10, 23, 0)),
    (Media::Json, COHERE, usage(71, 418, 16)),
    (Media::Json, COHERE_EMBEDDING, usage(2, 0, 0)),
    (Media::Json, DEEPSEEK, usage(30, 6, 20)),
    (Media::Json, TRANSCRIPTION, usage(14, 45, 0)),
    (Media::Json, IMAGE, usage(50, 50, 0)),
    (Media::Events, COHERE_STREAM, usage(69, 13, 0)),
    (Media::Events, CHAT_STREAM, usage(9, 2, 0)),
    (Media::Events, RESPONSE_STREAM, usage(36, 87, 0)),
    (Media::Events, MESSAGE_STREAM, usage(100, 15, 75)),
    (Media::Events, GEMINI_STREAM, usage(4, 2, 0)),
    (Media::Events, GROQ_STREAM, usage(12, 7, 0)),
];

fn cost(media: Media, pieces: &[&[u8]]) -> Cost {
    let mut meter = meter(media);
    let Some((last, before)) = pieces.split_last() else { return meter.end(b"") };
    before.iter().for_each(|piece| meter.push(piece));
    meter.end(last)
}

fn found(media: Media, pieces: &[&[u8]]) -> Option<Usage> {
    // Whether the last piece is known to be the last makes no difference.
    let (one, other) = (cost(media, pieces), cost(media, &[pieces, &[b""]].concat()));
    assert_eq!(one, other);
    if let Cost::Told(usage) = one { Some(usage) } else { None }
}

#[test]
fn every_api_tells_it_somewhere() {
    for (media, body, usage) in WHOLE {
        assert_eq!(found(media, &[body.as_bytes()]), usage, "{body}");
    }
}

#[test]
fn in_pieces_it_is_the_same() {
    for (media, body, usage) in WHOLE {
        for at in 0..=body.len() {
            let (one, other) = body.as_bytes().split_at(at);
            assert_eq!(found(media, &[one, other]), usage, "{at} of {body}");
        }
        let single: Vec<_> = body.as_bytes().chunks(1).collect();
        assert_eq!(found(media, &single), usage, "{body}");
    }
}

#[test]
fn a_body_that_was_cut_off_tells_nothing() {
    for (media, body, usage) in WHOLE {
        let end = body.trim_end().len();
        for at in 0..end {
            let mut meter = meter(media);
            meter.push(&body.as_bytes()[..at]);
            // What was told before the cut stays told.
            if let Cost::Told(told) = meter.cut() {
                assert!(media == Media::Events && Some(told) == usage, "{at} of {body}");
            }
        }
    }
    // Only the input was told, and the answer isn't known to have ended.
    let cut = MESSAGE_STREAM.find("event: message_delta").unwrap();
    assert_eq!(found(Media::Events, &[&MESSAGE_STREAM.as_bytes()[..cut]]), None);
}

#[test]
fn an_array_of_geminis_is_a_stream_too() {
    let event = |text: &str, tokens: u64| {
        format!(
            "{{\n  \"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \"{text}\"}}]}}}}],\n  \"usageMetadata\": {{\"promptTokenCount\": 4, \"candidatesTokenCount\": {tokens}}}\n}}"
        )
    };
    let body = format!("[{}\n,\r\n{}\n]\n", event("a", 1), event("b", 2));
    assert_eq!(found(Media::Json, &[body.as_bytes()]), usage(4, 2, 0));
    let cut = body.trim_end().len() - 1;
    let mut meter = meter(Media::Json);
    meter.push(&body.as_bytes()[..cut]);
    assert_eq!(meter.cut(), estimated(4, 2));
    assert_eq!(found(Media::Json, &[format!("{body}]").as_bytes()]), None);
}

#[test]
fn long_answers_are_searched_at_their_end_only() {
    let long = "word \\\"usage\\\":{ ".repeat(100_000);
    let chat = CHAT.replace("of words.", &long);
    assert_eq!(found(Media::Json, &[chat.as_bytes()]), usage(19, 10, 8));
    let pieces: Vec<_> = chat.as_bytes().chunks(1400).collect();
    assert_eq!(found(Media::Json, &pieces), usage(19, 10, 8));
    let mistral = MISTRAL.replace('…', &long);
    assert_eq!(found(Media::Json, &[mistral.as_bytes()]), usage(10, 23, 0));
    assert_eq!(found(Media::Json, &[mistral.trim_end_matches('}').as_bytes()]), None);
    // The event that tells it holds the whole answer.
    let stream = RESPONSE_STREAM.replace(r#""status":"completed","#, &format!(r#""output":"{long}","#));
    assert_eq!(found(Media::Events, &[stream.as_bytes()]), usage(36, 87, 0));
    let stream = MESSAGE_STREAM.replace("event: ping", &format!("data: \"{long}\"\n\nevent: ping"));
    assert_eq!(found(Media::Events, &[stream.as_bytes()]), usage(100, 15, 75));
}

#[test]
fn newer_deltas_of_anthropics_count_the_input_again() {
    let delta = r#""usage":{"input_tokens":25,"cache_read_input_tokens":75,"output_tokens":15}"#;
    let stream = MESSAGE_STREAM.replace(r#""usage":{"output_tokens":15}"#, delta);
    assert_eq!(found(Media::Events, &[stream.as_bytes()]), usage(100, 15, 75));
    let zero = stream.replace(delta, r#""usage":{"input_tokens":0,"output_tokens":15}"#);
    assert_eq!(found(Media::Events, &[zero.as_bytes()]), usage(100, 15, 75));
}

#[test]
fn what_counts_no_tokens_is_no_usage() {
    for body in [
        r#"{"text":"…","usage":{"type":"duration","seconds":9}}"#,
        r#"{"usage":{"prompt_tokens":"9"}}"#,
        r#"{"usage":{"prompt_tokens":-9}}"#,
        r#"{"usage":[]}"#,
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":{"output_tokens":3}}"#,
        r#"{"a":[{"usage":{"prompt_tokens":9}}]}"#,
        r#"{"a":{"b":{"usage":{"prompt_tokens":9}}}}"#,
        r#"[[{"usage":{"prompt_tokens":9}}]]"#,
        r#"{"usage":{"prompt_tokens":9}"#,
        r#"{"usage":{"prompt_tokens":9},"a":"}"#,
        "",
        "usage",
    ] {
        assert_eq!(found(Media::Json, &[body.as_bytes()]), None, "{body}");
    }
    assert_eq!(found(Media::Json, &[br#"{"usage":{"total_tokens":9}}"#]), usage(9, 0, 0));
    assert_eq!(
        found(Media::Json, &[br#"{"usage":{"prompt_tokens":9.0,"completion_tokens":1}}"#]),
        usage(9, 1, 0)
    );
    let huge = br#"{"usage":{"input_tokens":18446744073709551615,"cache_read_input_tokens":1e300,"output_tokens":18446744073709551615}}"#;
    assert_eq!(found(Media::Json, &[huge]).unwrap().total(), u64::MAX);
}

#[test]
fn hostile_ends_are_read_in_no_time() {
    for bite in [
        "\"usage\":{",
        "\"usage\":{\"prompt_tokens\":1}",
        "\"usage\":{\"a\":{\"usage\":",
        "[",
        "\"usage\"",
        "\\\"",
    ] {
        for media in [Media::Json, Media::Events] {
            assert_eq!(found(media, &[bite.repeat(100_000).as_bytes()]), None, "{bite}");
        }
    }
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        which in (0..WHOLE.len()).prop_filter("what comes first is not behind a filler", |which| WHOLE[*which].1 != MISTRAL),
        filler in 0..12_000_usize,
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let (media, body, usage) = WHOLE[which];
        let body = match media {
            // A long field in front.
            Media::Json => body.replacen("{\"", &format!("{{\"x\":\"{}\",\"", "x".repeat(filler)), 1),
            Media::Events => body.replacen("\n\n", &format!("\n\n:{}\n\n", "x".repeat(filler)), 1),
        };
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts {
            pieces.push(&body.as_bytes()[from..cut]);
            from = cut;
        }
        pieces.push(&body.as_bytes()[from..]);
        prop_assert_eq!(found(media, &pieces), usage);
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        text in r#"(data: |"usage"|"usageMetadata"|"message_start"|"prompt_tokens"|[:{}\[\]"\\,0-9 \n\r])*"#,
        events in any::<bool>(),
    ) {
        let media = if events { Media::Events } else { Media::Json };
        let whole = found(media, &[text.as_bytes()]);
        let single: Vec<_> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(found(media, &single), whole);
    }

    #[test]
    fn the_ring_keeps_the_end(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 0..8)) {
        let mut json = Json::default();
        pieces.iter().for_each(|piece| json.push(piece));
        let all = pieces.concat();
        let (start, end) = json.ends();
        prop_assert_eq!(end, &all[all.len().saturating_sub(END)..]);
        let length = if all.len() > END { json::START } else { all.len() };
        prop_assert_eq!(start, &all[..length]);
        prop_assert!(json.end.capacity() <= END && json.start.capacity() <= json::START);
    }
}
