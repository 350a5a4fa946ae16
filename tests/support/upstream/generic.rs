//! Two REST services that are no model's: weather, with a key in the query, and maps, with one in a header.

use http::Method;
use serde_json::{Value, json};

use super::api::{Refusal, fnv, ok};
use super::dialect::parameter;
use super::faults::Fault;
use super::openai_faults::seconds;
use super::record::Recorded;
use super::script::Answer;

pub(super) fn answer(request: &Recorded) -> Answer {
    route(request).unwrap_or_else(|refusal| *refusal)
}

fn route(request: &Recorded) -> Result<Answer, Refusal> {
    let wanted = |name| {
        let message = format!("Missing parameter: {name}");
        parameter(&request.target, name).ok_or_else(|| Refusal::new(error(400, &message)))
    };
    let segments: Vec<_> = request.path().trim_matches('/').split('/').collect();
    match (&request.method, segments.as_slice()) {
        (&Method::GET, ["weather", "current"]) => {
            let place = wanted("q")?;
            let units = parameter(&request.target, "units").unwrap_or_else(|| "standard".to_owned());
            let degrees = fnv(place.as_bytes()) % 30;
            Ok(ok(&json!({"name": place, "units": units, "main": {"temp": degrees}, "cod": 200})))
        }
        (&Method::POST, ["weather", "stations"]) => {
            let mut station = object(request)?;
            station["ID"] = format!("{:016x}", fnv(&request.body)).into();
            Ok(Answer::status(201).json(&station))
        }
        (&Method::DELETE, ["weather", "stations", _]) => Ok(Answer::status(204)),
        (&Method::GET, ["maps", "geocode"]) => {
            let address = wanted("address")?;
            Ok(ok(&json!({"status": "OK", "results": [{"address": address, "lat": 1.5, "lng": 2.5}]})))
        }
        (&Method::POST, ["maps", "routes"]) => {
            let wish = object(request)?;
            let metres = fnv(wish.to_string().as_bytes()) % 100_000;
            Ok(ok(&json!({"from": wish["origin"], "to": wish["destination"], "metres": metres})))
        }
        (_, ["weather", "current"] | ["maps", "geocode"]) => {
            Err(error(405, "Method not allowed").header("allow", "GET").into())
        }
        _ => Err(error(404, "Not found").into()),
    }
}

fn object(request: &Recorded) -> Result<Value, Refusal> {
    let body = request.json();
    if body.is_object() { Ok(body) } else { Err(error(400, "Malformed body").into()) }
}

fn error(status: u16, message: &str) -> Answer {
    Answer::status(status).json(&json!({"cod": status, "message": message}))
}

pub(super) fn fault(fault: Fault) -> Answer {
    match fault {
        Fault::NoKey | Fault::Revoked => error(401, "Invalid API key."),
        Fault::OutOfQuota => error(402, "Your plan's calls of this month are used up."),
        Fault::RateLimited(wait, _) => {
            error(429, "Your account is blocked for the time being: too many calls.")
                .retry_after(seconds(wait))
        }
        Fault::Overloaded => error(503, "Service unavailable"),
        Fault::Failing => error(500, "Internal error"),
    }
}
