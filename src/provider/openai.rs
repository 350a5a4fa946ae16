//! Refusals of OpenAI and of everything compatible: Azure, Groq, OpenRouter, Mistral, DeepSeek, xAI, vLLM, and the
//! compatible bases of Gemini and Anthropic.
//!
//! Words decide before numbers: `code`, then Google's `reason`, then `type`, then a few phrases that are the only
//! sign some providers give, then the status. Only what is named retires a key or spends an account; what nobody
//! has named is a limit (429), an unknown refusal (401, 403), or the client's own matter.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::complaint::Complaint;
use super::google::{self, Details};
use super::words::{Meaning, Meaning::*, *};
use super::{Answer, Endpoint, limits};
use crate::types::{Class, Scope, Verdict};

/// A wait shorter than this doesn't belong to money: some providers put the Retry-After of a rate limit on every 429.
const SHORTEST_BILLING_WAIT: Duration = Duration::from_secs(5 * 60);

/// Judges a status from 400 on.
pub(super) fn judge_refusal(answer: &Answer<'_>, endpoint: Endpoint, wall: SystemTime) -> Verdict {
    let says = Complaint::read(answer.body);
    judge(&Refusal { status: answer.status.as_u16(), headers: answer.headers, endpoint, says, wall })
}

/// Judges a complaint that came without a status, inside an answer that had begun well: as if it had come with the
/// status that it would have had.
pub(super) fn judge_complaint(says: Complaint, endpoint: Endpoint, wall: SystemTime) -> Verdict {
    let told = says.number.filter(|number| (400..600).contains(number));
    let words = [&says.code, &says.kind, &says.status];
    let meant = || words.into_iter().flatten().find_map(|word| status_of(word));
    // What nobody has named is a failure of the server's, which had taken the request.
    let status = told.or_else(meant).unwrap_or(if says.mentions(&BUSY) { 503 } else { 500 });
    judge(&Refusal { status, headers: &HeaderMap::new(), endpoint, says, wall })
}

fn judge(refusal: &Refusal<'_>) -> Verdict {
    let meaning = match refusal.status {
        // Timeouts and failures, whatever they are called; only overload is told apart.
        408 | 500.. => return refusal.failure(),
        407 => Some(WrongPlace),
        413 => Some(BadRequest),
        _ => refusal.named().or_else(|| refusal.phrased()),
    };
    match meaning {
        Some(meaning) => refusal.verdict(meaning),
        None => refusal.by_status(),
    }
}

struct Refusal<'a> {
    status: u16,
    headers: &'a HeaderMap,
    endpoint: Endpoint,
    says: Complaint,
    wall: SystemTime,
}

impl Refusal<'_> {
    fn details(&self) -> Details<'_> {
        Details::read(&self.says.details)
    }

    /// What its words mean, as far as they can be believed with this status.
    fn named(&self) -> Option<Meaning> {
        let words = [self.says.code.as_deref(), self.details().reason, self.says.kind.as_deref()];
        let mut meanings = words.into_iter().flatten().filter_map(meaning_of);
        let meaning = meanings.find(|meaning| self.believes(*meaning))?;
        // A limit's text tells which one.
        Some(if meaning == Limited { self.limited() } else { meaning })
    }

    fn believes(&self, meaning: Meaning) -> bool {
        match meaning {
            KeyDead | AccountDead => matches!(self.status, 400 | 401 | 403),
            Forbidden | WrongPlace => matches!(self.status, 400 | 401 | 403),
            Limited | DaySpent => self.status == 429,
            AccountSpent | KeySpent => matches!(self.status, 400..=403 | 412 | 429),
            NoModel => matches!(self.status, 400 | 403 | 404),
            BadRequest | Busy => true,
        }
    }

    /// What its text means, where the words say nothing.
    fn phrased(&self) -> Option<Meaning> {
        let says = &self.says;
        match self.status {
            400 | 401 | 403 if says.begins(&KEY_DEAD) => Some(KeyDead),
            400 | 401 | 403 if says.begins(&ACCOUNT_DEAD) => Some(AccountDead),
            400 | 401 | 403 if says.begins(&FREE_TIER_ABROAD) => Some(Forbidden),
            400 if says.begins(&WRONG_PLACE) => Some(WrongPlace),
            400 if says.begins(&ACCOUNT_SPENT_400) => Some(AccountSpent),
            400 | 404 if says.begins(&NO_MODEL) => Some(NoModel),
            // OpenRouter quotes the input that it refuses.
            403 if self.is_moderation() => Some(BadRequest),
            401 | 403 if says.mentions(&WRONG_PLACE) => Some(WrongPlace),
            401 | 403 if says.mentions(&FORBIDDEN) => Some(Forbidden),
            402 | 403 | 429 if says.begins(&KEY_SPENT) => Some(KeySpent),
            402 | 403 | 412 | 429 if says.mentions(&ACCOUNT_SPENT) => Some(AccountSpent),
            404 if self.misses_the_model() => Some(NoModel),
            429 => Some(self.limited()),
            _ => None,
        }
    }

    /// Which limit a 429 is about.
    fn limited(&self) -> Meaning {
        if google::has_no_allowance(&self.says.message) {
            NoModel
        } else if self.says.mentions(&ACCOUNT_SPENT) {
            AccountSpent
        } else if self.says.begins(&TOO_LARGE) {
            BadRequest
        } else if self.details().per_day || self.says.mentions(&PER_DAY) {
            DaySpent
        } else if self.says.mentions(&ADDRESS_LIMITED) {
            WrongPlace
        } else {
            Limited
        }
    }

    fn is_moderation(&self) -> bool {
        let quotes = |name| self.says.metadata.get(name).is_some_and(|value| !value.is_null());
        quotes("reasons") || quotes("flagged_input") || self.says.mentions(&FLAGGED)
    }

    /// 404 of vLLM, Ollama, Anthropic, Moonshot: the text names the model. Where no model was asked for, it is
    /// about an object.
    fn misses_the_model(&self) -> bool {
        let says = &self.says;
        let missing = says.mentions(&["does not exist", "not found"]) && says.mentions(&["model"]);
        self.endpoint == Endpoint::Inference
            && (says.begins(&["model: ", "not found the model"])
                || says.param.as_deref() == Some("model")
                || missing)
    }

    fn verdict(&self, meaning: Meaning) -> Verdict {
        match meaning {
            KeyDead => Verdict::new(Class::KeyRejected, Scope::Key),
            AccountDead => Verdict::new(Class::KeyRejected, Scope::Account),
            Forbidden => Verdict::new(Class::NotPermitted, Scope::Key),
            WrongPlace => Verdict::new(Class::EgressRefused, Scope::Egress).with_wait(self.asked()),
            BadRequest => Verdict::CLIENT_FAULT,
            NoModel => Verdict::new(Class::ModelUnavailable, Scope::KeyModel),
            AccountSpent => {
                Verdict::new(Class::QuotaExhausted, Scope::Account).with_wait(self.until_billed())
            }
            KeySpent => Verdict::new(Class::QuotaExhausted, Scope::Key).with_wait(self.until_billed()),
            DaySpent => {
                Verdict::new(Class::QuotaExhausted, Scope::AccountModel).with_wait(self.until_tomorrow())
            }
            Limited => Verdict::new(Class::RateLimited, Scope::AccountModel).with_wait(self.until_refilled()),
            Busy => Verdict::new(Class::Overloaded, Scope::Host).with_wait(self.asked()),
        }
    }

    fn by_status(&self) -> Verdict {
        match self.status {
            401 | 403 => Verdict::new(Class::UnknownRefusal, Scope::Key),
            // OpenRouter: a Retry-After here means that requests in flight have reserved the rest of the budget.
            402 => match self.asked() {
                Some(wait) => Verdict::new(Class::RateLimited, Scope::Account).with_wait(Some(wait)),
                None => self.verdict(AccountSpent),
            },
            _ => Verdict::CLIENT_FAULT,
        }
    }

    fn failure(&self) -> Verdict {
        let words = [self.says.code.as_deref(), self.says.kind.as_deref()];
        let named = words.into_iter().flatten().any(|word| meaning_of(word) == Some(Busy));
        let busy = named || self.status == 529 || self.status == 503 && self.says.mentions(&BUSY);
        let class = if busy { Class::Overloaded } else { Class::ServerError };
        Verdict::new(class, Scope::Host).with_wait(self.asked())
    }

    /// The wait that the answer asks for outright.
    fn asked(&self) -> Option<Duration> {
        limits::retry_after(self.headers, self.wall)
    }

    /// The wait of a limit: from the headers, else from the body.
    fn until_refilled(&self) -> Option<Duration> {
        limits::wait(self.headers, self.wall)
            .or_else(|| limits::wait(&self.says.quoted_headers(), self.wall))
            .or_else(|| self.details().retry)
            .or_else(|| self.says.wait_in_words())
    }

    /// The wait of a limit per day. Google's own is wrong: it speaks of seconds on a day that is spent.
    fn until_tomorrow(&self) -> Option<Duration> {
        if self.details().per_day {
            return Some(limits::capped(google::until_pacific_midnight(self.wall)));
        }
        self.until_refilled()
    }

    fn until_billed(&self) -> Option<Duration> {
        self.asked().filter(|wait| *wait >= SHORTEST_BILLING_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn judged(status: u16, body: &str) -> Verdict {
        judged_with(status, body, &HeaderMap::new())
    }

    fn judged_with(status: u16, body: &str, headers: &HeaderMap) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers, body: body.as_bytes() };
        judge_refusal(&answer, Endpoint::Inference, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn nothing_unnamed_retires_a_key_or_an_account() {
        let bodies = [
            "",
            "no",
            "{}",
            "[]",
            "null",
            r#"{"error":{"message":"No.","code":"novel"}}"#,
            "<html>403</html>",
        ];
        for status in 400..600 {
            for body in bodies {
                let verdict = judged(status, body);
                assert_ne!(verdict.class, Class::KeyRejected, "{status} {body}");
                assert!(status == 402 || verdict.class != Class::QuotaExhausted, "{status} {body}");
                assert_ne!(verdict.class, Class::Success, "{status} {body}");
            }
        }
    }

    #[test]
    fn a_failing_server_cannot_speak_of_keys() {
        let verdict =
            judged(500, r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#);
        assert_eq!((verdict.class, verdict.scope), (Class::ServerError, Scope::Host));
    }

    #[test]
    fn a_short_retry_after_does_not_make_a_bill_a_rate_limit() {
        let body =
            r#"{"error":{"message":"No.","type":"insufficient_quota","code":"credit_balance_exhausted"}}"#;
        for (after, wait) in [("20", None), ("3600", Some(Duration::from_secs(3600)))] {
            let headers =
                [(http::header::RETRY_AFTER, HeaderValue::from_static(after))].into_iter().collect();
            let verdict = judged_with(429, body, &headers);
            assert_eq!((verdict.class, verdict.wait), (Class::QuotaExhausted, wait), "{after}");
        }
    }

    #[test]
    fn a_refusal_that_quotes_the_prompt_is_not_taken_at_its_word() {
        let quoted = r#"{"error":{"message":"Invalid content: 'incorrect api key provided'","code":null}}"#;
        assert_eq!(judged(400, quoted), Verdict::CLIENT_FAULT);
    }
}
