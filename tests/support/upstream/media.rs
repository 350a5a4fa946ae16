//! Endpoints about vectors, pictures, sound and files.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use memchr::memmem;
use serde_json::{Value, json};

use super::api::{Api, CREATED, Refusal, bad_request, fnv, missing, ok, served, unknown_url};
use super::lock;
use super::record::Recorded;
use super::script::Answer;

/// Categories of the moderation endpoint.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// A grey pixel.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\n\
    IDATx\xdach\0\0\0\x82\0\x81\xdaE\x08;\0\0\0\0IEND\xaeB`\x82";

pub(super) struct StoredFile {
    name: String,
    purpose: String,
    content: Bytes,
}

pub(super) fn embeddings(body: &Value) -> Result<Answer, Refusal> {
    let inputs = match &body["input"] {
        Value::Array(items) if !items.iter().all(Value::is_number) => items.clone(),
        Value::Null => return Err(missing("input")),
        one => vec![one.clone()],
    };
    let dimensions = body["dimensions"].as_u64().unwrap_or(16);
    let as_base64 = body["encoding_format"] == "base64";
    let data: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.to_string(), dimensions);
            let embedding = if as_base64 {
                base64(&vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).into()
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens = inputs.len() * 4;
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(ok(&json!({"object": "list", "data": data, "model": body["model"], "usage": usage})))
}

/// Flags what contains the word "violence".
pub(super) fn moderation(body: &Value) -> Result<Answer, Refusal> {
    let inputs = match &body["input"] {
        Value::Null => return Err(missing("input")),
        Value::Array(inputs) => inputs.clone(),
        one => vec![one.clone()],
    };
    let judge = |input: &Value| {
        let flagged = input.to_string().contains("violence");
        let by_category = |value: &dyn Fn(bool) -> Value| -> Value {
            CATEGORIES
                .iter()
                .map(|name| ((*name).to_owned(), value(flagged && *name == "violence")))
                .collect()
        };
        json!({
            "flagged": flagged,
            "categories": by_category(&|hit| hit.into()),
            "category_scores": by_category(&|hit| if hit { 0.95.into() } else { 0.0001.into() }),
            "category_applied_input_types": by_category(&|_| json!(["text"])),
        })
    };
    let results: Vec<_> = inputs.iter().map(judge).collect();
    let model = body["model"].as_str().unwrap_or("omni-moderation-latest");
    Ok(ok(&json!({"id": "modr-simulated", "model": model, "results": results})))
}

pub(super) fn image(body: &Value) -> Result<Answer, Refusal> {
    if !body["prompt"].is_string() {
        return Err(missing("prompt"));
    }
    let image = if body["response_format"] == "url" {
        json!({"url": "https://images.example/simulated.png", "revised_prompt": body["prompt"]})
    } else {
        json!({"b64_json": base64(PNG), "revised_prompt": body["prompt"]})
    };
    let images = vec![image; body["n"].as_u64().unwrap_or(1).min(10) as usize];
    Ok(ok(&json!({"created": CREATED, "data": images})))
}

/// Sound that is none: 8 KiB of every byte in turn, in two chunks.
pub(super) fn speech(body: &Value) -> Result<Answer, Refusal> {
    if !body["input"].is_string() {
        return Err(missing("input"));
    }
    let half: Vec<u8> = (0..4096).map(|i: u32| i.to_le_bytes()[0]).collect();
    Ok(Answer::pieces([half.clone(), half]).header("content-type", "audio/mpeg"))
}

/// Says how large the file was.
pub(super) fn transcription(request: &Recorded) -> Result<Answer, Refusal> {
    let form = Form::parse(request)?;
    let file = form.part("file").ok_or_else(|| missing("file"))?;
    served(&form.text("model").ok_or_else(|| missing("model"))?)?;
    let text = format!("{} bytes of sound", file.content.len());
    Ok(match form.text("response_format").as_deref() {
        Some("text") => Answer::status(200).header("content-type", "text/plain").body(text + "\n"),
        Some("verbose_json") => ok(
            &json!({"task": "transcribe", "language": "english", "duration": 1.0, "text": text, "segments": []}),
        ),
        _ => ok(&json!({"text": text, "usage": {"type": "duration", "seconds": 1}})),
    })
}

impl Api {
    /// Files belong to an account; the others cannot see them.
    pub(super) fn files(
        &self,
        method: &Method,
        rest: &[&str],
        request: &Recorded,
        account: &str,
    ) -> Result<Answer, Refusal> {
        let mut files = lock(&self.files);
        if let (&Method::POST, []) = (method, rest) {
            let form = Form::parse(request)?;
            let part = form.part("file").ok_or_else(|| missing("file"))?;
            let purpose = form.text("purpose").ok_or_else(|| missing("purpose"))?;
            let number = self.uploads.fetch_add(1, Ordering::Relaxed);
            let id = format!("file-{:08x}{number:04}", fnv(account.as_bytes()) >> 32);
            let name = part.filename.clone().unwrap_or_default();
            let file = StoredFile { name, purpose, content: part.content.clone() };
            let answer = ok(&file.object(&id));
            files.insert((account.to_owned(), id), file);
            return Ok(answer);
        }
        if let (&Method::GET, []) = (method, rest) {
            let data: Vec<_> = files
                .iter()
                .filter(|((owner, _), _)| owner == account)
                .map(|((_, id), file)| file.object(id))
                .collect();
            let (first, last) = (data.first().map(|file| &file["id"]), data.last().map(|file| &file["id"]));
            return Ok(ok(&json!({
                "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": false,
            })));
        }
        let id = rest.first().copied().unwrap_or_default();
        let place = (account.to_owned(), id.to_owned());
        let file = files.get(&place).ok_or_else(|| {
            let message = format!("No such File object: {id}");
            Refusal::new(Answer::status(404).error("invalid_request_error", "", &message))
        })?;
        match (method, &rest[1..]) {
            (&Method::GET, []) => Ok(ok(&file.object(id))),
            (&Method::GET, ["content"]) => Ok(Answer::status(200)
                .header("content-type", "application/octet-stream")
                .header("content-disposition", format_args!("attachment; filename=\"{}\"", file.name))
                .body(file.content.clone())),
            (&Method::DELETE, []) => {
                files.remove(&place);
                Ok(ok(&json!({"id": id, "object": "file", "deleted": true})))
            }
            _ => Err(unknown_url(request)),
        }
    }
}

impl StoredFile {
    fn object(&self, id: &str) -> Value {
        json!({
            "id": id, "object": "file", "bytes": self.content.len(), "created_at": CREATED, "expires_at": null,
            "filename": self.name, "purpose": self.purpose, "status": "processed", "status_details": null,
        })
    }
}

/// A multipart form in memory.
struct Form(Vec<Part>);

struct Part {
    name: String,
    filename: Option<String>,
    content: Bytes,
}

impl Form {
    fn parse(request: &Recorded) -> Result<Self, Refusal> {
        let boundary = request
            .header("content-type")
            .filter(|kind| kind.starts_with("multipart/form-data"))
            .and_then(|kind| attribute(kind, "boundary"))
            .ok_or_else(|| bad_request("Expected a multipart form.", "file", None))?;
        let delimiter = format!("--{boundary}");
        let mut ends = memmem::find_iter(&request.body, delimiter.as_bytes());
        let mut start = ends.next().unwrap_or(0) + delimiter.len();
        let mut parts = Vec::new();
        for end in ends {
            parts.extend(Part::parse(&request.body, start, end));
            start = end + delimiter.len();
        }
        Ok(Self(parts))
    }

    fn part(&self, name: &str) -> Option<&Part> {
        self.0.iter().find(|part| part.name == name)
    }

    fn text(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.part(name)?.content).into_owned())
    }
}

impl Part {
    fn parse(body: &Bytes, start: usize, end: usize) -> Option<Self> {
        let head_end = start + memmem::find(&body[start..end], b"\r\n\r\n")?;
        let (from, to) = (head_end + 4, end.checked_sub(2)?);
        let head = String::from_utf8_lossy(&body[start..head_end]);
        let disposition =
            head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
        Some(Self {
            name: attribute(disposition, "name")?,
            filename: attribute(disposition, "filename"),
            content: (from <= to).then(|| body.slice(from..to))?,
        })
    }
}

/// The value of `name=` in a header such as `form-data; name="file"; filename="a.txt"`.
fn attribute(header: &str, name: &str) -> Option<String> {
    let value = header.split(';').find_map(|item| item.trim().strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// Equal inputs have equal vectors of length 1.
pub(super) fn vector(input: &str, dimensions: u64) -> Vec<f32> {
    let mut dice = fastrand::Rng::with_seed(fnv(input.as_bytes()));
    let raw: Vec<f32> = (0..dimensions).map(|_| dice.f32() - 0.5).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.iter().map(|x| x / length).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { letter as char } else { '=' });
        }
    }
    text
}
