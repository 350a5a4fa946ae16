use proptest::{prelude::*, sample::Index};

use super::*;

const CHUNK: &str = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"a":[]}},"obfuscation":"}\"]"}"#;
const WORD: &str = r#"data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"\"choices\":[],\"usage\":{}"},"finish_reason":null}],"usage":null}"#;

/// Everything that comes out of a stream that comes in these pieces.
fn out(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut extra, mut out) = (Extra::new(), Vec::new());
    for piece in pieces {
        out.extend_from_slice(&extra.push(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&extra.end());
    assert!(extra.is_empty());
    out
}

/// Of every cut into two pieces, and of single bytes, the same comes out.
fn passes(text: &str, expected: &str) {
    let single: Vec<_> = text.as_bytes().chunks(1).collect();
    assert_eq!(String::from_utf8_lossy(&out(&single)), expected, "{text}");
    for at in 0..=text.len() {
        let (one, other) = text.as_bytes().split_at(at);
        assert_eq!(String::from_utf8_lossy(&out(&[one, other])), expected, "{at} of {text}");
    }
}

#[test]
fn the_chunk_goes_and_nothing_else_does() {
    for end in ["\n", "\r\n", "\r"] {
        let (word, done) = (format!("{WORD}{end}{end}"), format!("data: [DONE]{end}{end}"));
        let chunk = format!("{CHUNK}{end}{end}");
        passes(&format!("{word}{chunk}{done}"), &format!("{word}{done}"));
        passes(&format!("{chunk}{done}"), &done);
        passes(&format!("{word}{done}"), &format!("{word}{done}"));
        passes(&format!("{word}{chunk}"), &word);
        // A stream may end without an empty line, or without any.
        passes(&format!("{word}{CHUNK}{end}"), &word);
        passes(&format!("{word}{CHUNK}"), &word);
        passes(&format!("{word}{WORD}"), &format!("{word}{WORD}"));
        // Comments stay, wherever they are.
        let comment = format!(": ping{end}");
        passes(&format!("{comment}{end}{chunk}{done}"), &format!("{comment}{end}{done}"));
        passes(&format!("{comment}{chunk}{done}"), &format!("{comment}{done}"));
        passes(&format!("{CHUNK}{end}{comment}{end}{done}"), &format!("{comment}{done}"));
        passes(&format!("{WORD}{end}{comment}{end}{done}"), &format!("{WORD}{end}{comment}{end}{done}"));
        // Its data may stand in several lines, and have other fields beside them.
        let lines = CHUNK.replace(",\"", &format!(",{end}data:\""));
        passes(&format!("{word}{lines}{end}{end}{done}"), &format!("{word}{done}"));
        passes(&format!("id: 7{end}{chunk}{done}"), &done);
        passes(&format!("{end}{chunk}{end}{done}"), &format!("{end}{end}{done}"));
    }
    let spaced = r#"data:  { "usage" : { } , "choices" : [ ] } "#;
    passes(&format!("{spaced}\n\n"), "");
}

#[test]
fn what_is_something_else_passes() {
    for data in [
        r#"{"choices":[]}"#,
        r#"{"choices":[],"usage":null}"#,
        r#"{"usage":{"prompt_tokens":9}}"#,
        r#"{"usage":{"prompt_tokens":9},"choices":null}"#,
        r#"{"usage":{"prompt_tokens":9},"choices":[{"finish_reason":"stop"}]}"#,
        r#"{"choices":[null],"usage":{"prompt_tokens":9}}"#,
        r#"{"choices":["]"],"usage":{"prompt_tokens":9}}"#,
        r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":9}}}"#,
        r#"{"choices":[],"a":"\"usage\":{}"}"#,
        r#"{"choices":[],"usage":{},"error":{"message":"No."}}"#,
        r#"{"type":"message_delta","usage":{"output_tokens":1}}"#,
        r#"{"choices":[],"usage":{}} and more"#,
        r#"{"choices":[],"usage":{}"#,
        r#"[{"choices":[],"usage":{}}]"#,
        r#""choices":[],"usage":{}"#,
        "[DONE]",
        "{}",
        "",
    ] {
        let text = format!("data: {data}\n\n");
        passes(&text, &text);
    }
    for text in [
        format!("event: {CHUNK}\n\n"),
        format!("x{CHUNK}\n\n"),
        format!(" {CHUNK}\n\n"),
        format!("{CHUNK}\n{CHUNK}\n\n"),
        format!("{CHUNK}\ndata: x\n\n"),
        "retry: 10\n\nid\n\ndata\n\n:\n\n".to_owned(),
        format!("data: {{\"a\":\"{}\",\"choices\":[],\"usage\":{{}}}}\n\n", "x".repeat(MOST)),
        String::new(),
    ] {
        passes(&text, &text);
    }
}

#[test]
fn an_event_is_held_back_only_while_it_may_be_the_chunk() {
    let mut extra = Extra::new();
    let mut push = |text: &str| extra.push(Bytes::copy_from_slice(text.as_bytes()));
    let whole = format!("{WORD}\n\n{WORD}\n\n");
    assert_eq!(push(&whole), whole);
    // Another's beginning shows soon that it is another.
    assert_eq!(push("data: {\"id\":\"c\",\"choi"), "");
    assert_eq!(push("ces\":[{"), "data: {\"id\":\"c\",\"choices\":[{");
    assert_eq!(push("\"index\":0}]}"), "\"index\":0}]}");
    assert_eq!(push("\n"), "\n");
    assert_eq!(push("\ndata: [DONE]"), "\ndata: [DONE]");
    assert_eq!(push("\n\n:"), "\n\n:");
    assert_eq!(push(" ping"), " ping");
    assert_eq!(push("\n\ndata: {\"usage\":null"), "\n\ndata: {\"usage\":null");
    assert_eq!(push("}\n\ndata: {\"usage\":{}"), "}\n\n");
    assert_eq!(push("}\n"), "data: {\"usage\":{}}\n");
}

#[test]
fn what_passes_whole_is_not_copied() {
    let piece = Bytes::from(format!("{WORD}\n\n"));
    let passed = Extra::new().push(piece.clone());
    assert_eq!(passed.as_ptr(), piece.as_ptr());
}

/// Events, which of them are the chunk, and comments.
fn event() -> impl Strategy<Value = (String, bool)> {
    prop_oneof![
        Just((CHUNK.to_owned(), true)),
        Just((CHUNK.replace(",\"", ",\ndata: \""), true)),
        Just((CHUNK.replace(",\"", ",\ndata\ndata: \""), true)),
        Just((WORD.to_owned(), false)),
        Just((": ping".to_owned(), false)),
        Just((r#"data: {"choices":[],"usage":null}"#.to_owned(), false)),
        Just((r#"data: {"choices":[],"prompt_filter_results":[{}]}"#.to_owned(), false)),
        Just(("data: [DONE]".to_owned(), false)),
        "(data|id|event|x): ?[a-z{}\\[\\]\":,]{0,12}".prop_map(|text| (text, false)),
    ]
}

proptest! {
    #[test]
    fn whatever_is_cut_wherever_the_chunks_go_and_the_rest_passes(
        events in proptest::collection::vec(event(), 0..6),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        cuts in proptest::collection::vec(any::<Index>(), 0..10),
    ) {
        let written = |(event, _): &(String, bool)| format!("{event}\n\n").replace('\n', end);
        let all: String = events.iter().map(written).collect();
        let rest: String = events.iter().filter(|(_, is_chunk)| !is_chunk).map(written).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(all.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts {
            pieces.push(&all.as_bytes()[from..cut]);
            from = cut;
        }
        pieces.push(&all.as_bytes()[from..]);
        prop_assert_eq!(String::from_utf8(out(&pieces)).unwrap(), rest);
    }

    #[test]
    fn cuts_make_no_difference_to_any_bytes(
        text in r#"(data:|"usage":|"choices":|\{|\}|\[|\]|null|,|"a":|: ?|[\r\n"\\a 1])*"#,
        size in 1..20_usize,
    ) {
        let whole = out(&[text.as_bytes()]);
        let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
        prop_assert_eq!(out(&pieces), whole);
    }
}
