//! What kind of thing a request does upstream, and so whether it may be sent twice.

use http::Method;

use crate::types::is_version;

/// What a request does upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Asks a model: sending it twice costs money and changes nothing.
    Inference,
    /// A POST that makes or moves something there (files, batches, threads …), or that we don't know.
    Create,
    /// GET, HEAD, OPTIONS.
    Read,
    /// DELETE, PUT, PATCH and other methods.
    Change,
}

/// What may stand before the path of the API itself, beside versions: the names of compatible bases.
const PREFIXES: [&str; 2] = ["api", "openai"];

/// POSTs that ask a model and leave nothing behind that a repetition would double.
///
/// `responses` may keep its answer (`store`), which is a record of the inference and nobody's to clean up; what
/// stands below a response (`cancel`) acts on one that exists and isn't listed. `input_tokens`, `count_tokens` and
/// `compact` only calculate.
const INFERENCE: [&[&str]; 24] = [
    &["chat", "completions"],
    &["completions"],
    &["responses"],
    &["responses", "input_tokens"],
    &["responses", "compact"],
    &["messages"],
    &["messages", "count_tokens"],
    &["embeddings"],
    &["audio", "speech"],
    &["audio", "transcriptions"],
    &["audio", "translations"],
    &["images", "generations"],
    &["images", "edits"],
    &["images", "variations"],
    &["moderations"],
    &["chat", "moderations"],
    &["rerank"],
    &["reranking"],
    &["score"],
    &["tokenize"],
    &["fim", "completions"],
    &["agents", "completions"],
    &["classifications"],
    &["ocr"],
];

/// Gemini's verbs that ask a model: `models/{model}:verb`.
const INFERENCE_VERBS: [&str; 5] =
    ["generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"];

/// What a request does, by its method and its path below the base URL (a query is ignored).
#[must_use]
pub fn classify(method: &Method, path: &str) -> Endpoint {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Endpoint::Read,
        Method::POST if asks_a_model(path) => Endpoint::Inference,
        Method::POST => Endpoint::Create,
        _ => Endpoint::Change,
    }
}

/// What asking a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spending {
    /// Nothing, or it isn't known to cost anything: what counts tokens spends none.
    Nothing,
    /// Tokens of the input; what comes back is no text (embeddings, images, scores).
    Input,
    /// Those that are generated too.
    Both,
}

/// What a request costs that does this, by its path below the base URL, without a query.
#[must_use]
pub fn spending(endpoint: Endpoint, path: &str) -> Spending {
    if endpoint != Endpoint::Inference {
        return Spending::Nothing;
    }
    let last = last_segments(path)[1];
    let operation = last.rsplit_once(':').map_or(last, |(_, verb)| verb);
    match operation {
        "input_tokens" | "count_tokens" | "tokenize" | "countTokens" => Spending::Nothing,
        "completions"
        | "responses"
        | "compact"
        | "messages"
        | "transcriptions"
        | "translations"
        | "generateContent"
        | "streamGenerateContent" => Spending::Both,
        _ => Spending::Input,
    }
}

/// Whether a request to ask a model may say `stream_options`, by its path: OpenAI's chats and completions may.
#[must_use]
pub fn takes_stream_options(path: &str) -> bool {
    matches!(last_segments(path), [before, "completions"] if !matches!(before, "fim" | "agents"))
}

/// The last two segments of a path; empty where it has fewer.
fn last_segments(path: &str) -> [&str; 2] {
    let mut segments = path.rsplit('/').filter(|segment| !segment.is_empty());
    let last = segments.next().unwrap_or_default();
    [segments.next().unwrap_or_default(), last]
}

impl Endpoint {
    /// Whether such a request may be sent again although upstream may already have acted on it.
    ///
    /// (Where upstream certainly has not, [`Verdict::nothing_done`](crate::types::Verdict::nothing_done),
    /// anything may be.)
    #[must_use]
    pub const fn may_repeat_after_write(self, has_idempotency_key: bool) -> bool {
        has_idempotency_key || matches!(self, Self::Inference | Self::Read)
    }
}

fn asks_a_model(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is_before = |segment: &&&str| PREFIXES.contains(*segment) || is_version(segment);
    let prefixes = segments.iter().take_while(is_before).count();
    segments.drain(..prefixes);
    // Azure names the model before the operation.
    if let ["deployments", _, _, ..] = segments[..] {
        segments.drain(..2);
    }
    match segments[..] {
        // A model's name may have slashes.
        ["models" | "tunedModels", .., model] => {
            model.rsplit_once(':').is_some_and(|(_, verb)| INFERENCE_VERBS.contains(&verb))
        }
        _ => INFERENCE.contains(&&segments[..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_that_ask_a_model_may_be_repeated() {
        for path in [
            "/chat/completions",
            "/v1/chat/completions/",
            "/v1/chat/completions?api-version=1",
            "/completions",
            "/responses",
            "/responses/input_tokens",
            "/messages",
            "/embeddings",
            "/audio/transcriptions",
            "/images/edits",
            "/moderations",
            "/rerank",
            "/openai/deployments/gpt-4o/chat/completions",
            "/v1beta/openai/chat/completions",
            "/v1beta/models/gemini-2.5-pro:generateContent",
            "/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
        ] {
            assert_eq!(classify(&Method::POST, path), Endpoint::Inference, "{path}");
        }
        assert!(Endpoint::Inference.may_repeat_after_write(false));
    }

    #[test]
    fn what_counts_tokens_spends_none_and_not_all_that_asks_a_model_gets_text() {
        for (path, expected) in [
            ("/v1/chat/completions", Spending::Both),
            ("/v1/completions/", Spending::Both),
            ("/fim/completions", Spending::Both),
            ("/openai/deployments/gpt-4o/chat/completions", Spending::Both),
            ("/responses", Spending::Both),
            ("/v1/messages", Spending::Both),
            ("/audio/transcriptions", Spending::Both),
            ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", Spending::Both),
            ("/embeddings", Spending::Input),
            ("/images/generations", Spending::Input),
            ("/models/m:embedContent", Spending::Input),
            ("/responses/input_tokens", Spending::Nothing),
            ("/messages/count_tokens", Spending::Nothing),
            ("/models/gemini-2.5-pro:countTokens", Spending::Nothing),
            ("/files", Spending::Nothing),
        ] {
            assert_eq!(spending(classify(&Method::POST, path), path), expected, "{path}");
            let is_openais = path.contains("completions") && !path.contains("fim");
            assert_eq!(takes_stream_options(path), is_openais, "{path}");
        }
        assert_eq!(spending(Endpoint::Read, "/chat/completions"), Spending::Nothing);
    }

    #[test]
    fn posts_that_make_or_move_objects_may_not() {
        for path in [
            "/files",
            "/uploads",
            "/batches",
            "/fine_tuning/jobs",
            "/vector_stores",
            "/threads",
            "/threads/runs",
            "/assistants",
            "/conversations",
            "/responses/resp_1/cancel",
            "/chat/completions/chatcmpl_1",
            "/messages/batches",
            "/audio/voices",
            "/videos",
            "/models/gemini-2.5-pro:batchGenerateContent",
            "/models/gemini-2.5-pro",
            "/deployments/completions",
            "/something/new",
            "/chat%2Fcompletions",
            "/",
            "",
        ] {
            assert_eq!(classify(&Method::POST, path), Endpoint::Create, "{path}");
        }
        assert!(!Endpoint::Create.may_repeat_after_write(false));
        assert!(Endpoint::Create.may_repeat_after_write(true));
    }

    #[test]
    fn other_methods_read_or_change() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(classify(&method, "/files/file_1"), Endpoint::Read);
        }
        for method in [Method::DELETE, Method::PUT, Method::PATCH, Method::TRACE] {
            assert_eq!(classify(&method, "/chat/completions"), Endpoint::Change, "{method}");
        }
        assert!(Endpoint::Read.may_repeat_after_write(false));
        assert!(!Endpoint::Change.may_repeat_after_write(false));
    }
}
