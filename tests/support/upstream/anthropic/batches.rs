//! Batches of messages. They end as soon as they are made, and belong to an account.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::Method;
use serde_json::{Value, json};

use super::super::api::{fnv, ok};
use super::super::lock;
use super::super::record::Recorded;
use super::super::script::{Answer, Body};
use super::{Refused, body, invalid, messages, not_found};

/// Results by account and id, each a line of JSON.
#[derive(Default)]
pub(in super::super) struct Batches(Mutex<BTreeMap<(String, String), Vec<String>>>);

impl Batches {
    pub(super) fn answer(
        &self,
        method: &Method,
        rest: &[&str],
        request: &Recorded,
        account: &str,
    ) -> Result<Answer, Refused> {
        let mut batches = lock(&self.0);
        let object =
            |id: &str, results: usize| batch(id, results, request.header("host").unwrap_or_default());
        if let (&Method::POST, []) = (method, rest) {
            let body = body(request)?;
            let requests = body["requests"].as_array().ok_or_else(|| invalid("requests: Field required"))?;
            let results: Vec<_> = requests.iter().map(result).collect();
            let id = format!("msgbatch_{:08x}{:04}", fnv(account.as_bytes()) >> 32, batches.len());
            let made = object(&id, results.len());
            batches.insert((account.to_owned(), id), results);
            return Ok(ok(&made));
        }
        if let (&Method::GET, []) = (method, rest) {
            let own = batches.iter().filter(|((owner, _), _)| owner == account);
            let data: Vec<_> = own.map(|((_, id), results)| object(id, results.len())).collect();
            let (first, last) =
                (data.first().map(|batch| &batch["id"]), data.last().map(|batch| &batch["id"]));
            return Ok(ok(&json!({"data": data, "has_more": false, "first_id": first, "last_id": last})));
        }
        let id = rest.first().copied().unwrap_or_default();
        let place = (account.to_owned(), id.to_owned());
        let results = batches.get(&place).ok_or_else(|| not_found(format!("Batch {id} not found")))?;
        match (method, &rest[1..]) {
            (&Method::GET, []) | (&Method::POST, ["cancel"]) => Ok(ok(&object(id, results.len()))),
            (&Method::GET, ["results"]) => {
                Ok(Answer::status(200).header("content-type", "application/x-jsonl").body(results.concat()))
            }
            (&Method::DELETE, []) => {
                batches.remove(&place);
                Ok(ok(&json!({"id": id, "type": "message_batch_deleted"})))
            }
            _ => Err(not_found("Not Found")),
        }
    }
}

/// What one of the requests comes to.
fn result(request: &Value) -> String {
    let result = match messages::create(&request["params"]) {
        Ok(Answer { body: Body::Bytes(message), .. }) => {
            let message: Value = serde_json::from_slice(&message).unwrap_or_default();
            json!({"type": "succeeded", "message": message})
        }
        Ok(_) => json!({"type": "errored", "error": {"type": "error", "error": {
            "type": "invalid_request_error", "message": "stream: not in a batch"}}}),
        Err(Refused { kind, message, .. }) => json!({"type": "errored", "error": {"type": "error", "error": {
            "type": kind, "message": message}}}),
    };
    format!("{}\n", json!({"custom_id": request["custom_id"], "result": result}))
}

fn batch(id: &str, results: usize, host: &str) -> Value {
    let (made, expires) = ("2025-06-15T15:06:40Z", "2025-06-16T15:06:40Z");
    json!({
        "id": id, "type": "message_batch", "processing_status": "ended", "created_at": made, "ended_at": made,
        "expires_at": expires, "archived_at": null, "cancel_initiated_at": null,
        "request_counts": {"processing": 0, "succeeded": results, "errored": 0, "canceled": 0, "expired": 0},
        "results_url": format!("http://{host}/v1/messages/batches/{id}/results"),
    })
}
