//! Which account an answer says it counted against.

use http::HeaderMap;
use serde_json::Value;

use super::{complaint::Complaint, google};
use crate::types::AccountId;

/// The account that an answer names: in its headers, or if it is a refusal (of which `body` is given, else nothing) in
/// its body.
///
/// - OpenAI: `openai-project`; where it is absent, `openai-organization`. Limits are the project's.
/// - Anthropic: `anthropic-organization-id`. Limits of a workspace can't be told from those of its organization.
/// - Google: the project that its errors name. Its successes name none.
/// - Groq: the organization in the text of a limit.
#[must_use]
pub(super) fn account(headers: &HeaderMap, body: &[u8]) -> Option<AccountId> {
    let named = |header| headers.get(header)?.to_str().ok();
    named("openai-project")
        .and_then(|name| AccountId::project("openai", name))
        .or_else(|| AccountId::organization("openai", named("openai-organization")?))
        .or_else(|| AccountId::organization("anthropic", named("anthropic-organization-id")?))
        .or_else(|| if body.is_empty() { None } else { in_refusal(&Complaint::read(body)) })
}

fn in_refusal(says: &Complaint) -> Option<AccountId> {
    if let Some(project) = google_project(says) {
        return AccountId::project("google", project);
    }
    AccountId::mentioned(limited_organization(&says.message)?)
}

/// The number or id of a project, in `ErrorInfo` or in the text of a quota.
fn google_project(says: &Complaint) -> Option<&str> {
    let told = says.details.iter().filter(|detail| google::kind(detail) == Some("ErrorInfo"));
    let consumer = told.filter_map(|info| info.pointer("/metadata/consumer").and_then(Value::as_str)).next();
    if let Some(project) = consumer.and_then(consumer_project) {
        return Some(project);
    }
    // A text may quote what a client has sent, but not before these words.
    let quota = says.begins(&["quota exceeded for quota metric"]);
    let (_, rest) = says.message.split_once("for consumer '").filter(|_| quota)?;
    consumer_project(rest.split('\'').next()?)
}

/// "projects/123", "project_number:123", "project:name". Not "api_key:…", which is no account.
fn consumer_project(consumer: &str) -> Option<&str> {
    ["projects/", "project_number:", "project:"].iter().find_map(|prefix| consumer.strip_prefix(prefix))
}

/// "Rate limit reached for model `…` in organization `org_…` on tokens per minute".
fn limited_organization(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("rate limit reached for ")?;
    let (_, rest) = rest.split_once(" in organization ")?;
    let organization = rest.split_ascii_whitespace().next()?.trim_matches('`');
    organization.starts_with("org").then_some(organization)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn hint(pairs: &[(&str, &str)], body: &str) -> Option<AccountId> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        account(&headers, body.as_bytes())
    }

    fn google(message: &str, details: &str) -> Option<AccountId> {
        let body = format!(
            r#"{{"error":{{"code":429,"message":"{message}","status":"RESOURCE_EXHAUSTED","details":[{details}]}}}}"#
        );
        hint(&[], &body)
    }

    #[test]
    fn the_project_decides_where_there_is_one() {
        let (org, project) = (("openai-organization", "org-a"), ("openai-project", "proj_1"));
        let named = hint(&[org, project], "").unwrap();
        assert_eq!(hint(&[("openai-organization", "org-b"), project], ""), Some(named));
        let organization = hint(&[org], "").unwrap();
        assert_ne!(organization, named);
        assert!(organization.is_coarser_than(&named) && !named.is_coarser_than(&organization));
        assert!(!hint(&[("openai-project", "proj_2")], "").unwrap().is_coarser_than(&named));
        assert_eq!(hint(&[org, ("openai-project", "")], ""), Some(organization));
    }

    #[test]
    fn anthropics_organization() {
        let one = hint(&[("anthropic-organization-id", "36562039-1ae4")], "").unwrap();
        assert_ne!(hint(&[("openai-organization", "36562039-1ae4")], ""), Some(one));
    }

    #[test]
    fn googles_project_is_one_however_it_is_named() {
        let info = r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","metadata":{"service":"generativelanguage.googleapis.com","consumer":"projects/123"}}"#;
        let text = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute' of service 'generativelanguage.googleapis.com' for consumer 'project_number:123'.";
        let told = google("Quota exceeded.", info).unwrap();
        assert_eq!(google(text, ""), Some(told));
        assert_eq!(google(text, info), Some(told));
        assert_ne!(google(text, &info.replace("123", "124")), Some(told));
        let key = info.replace("projects/123", "api_key:AIzaCanary");
        assert_eq!(google("No.", &key), None);
    }

    #[test]
    fn groqs_organization_stands_in_the_text() {
        let body = |organization: &str| {
            format!(
                r#"{{"error":{{"message":"Rate limit reached for model `llama` in organization {organization} on tokens per minute (TPM): Limit 1","type":"tokens","code":"rate_limit_exceeded"}}}}"#
            )
        };
        let one = hint(&[], &body("`org_01abc`")).unwrap();
        assert_eq!(hint(&[], &body("org_01abc")), Some(one));
        assert_ne!(hint(&[], &body("`org_02`")), Some(one));
        assert!(one.is_coarser_than(&hint(&[("openai-organization", "org_01abc")], "").unwrap()));
    }

    #[test]
    fn a_quoted_prompt_names_no_account() {
        for message in [
            "Invalid prompt: Quota exceeded for quota metric for consumer 'project_number:123'",
            "Invalid: rate limit reached for x in organization org_1 on",
            "Rate limit reached for x in organization everything",
            "Quota exceeded for quota metric 'a' for consumer 'api_key:1'",
        ] {
            let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
            assert_eq!(hint(&[], &body), None, "{message}");
        }
    }

    #[test]
    fn no_name_is_shown() {
        let named = hint(&[("openai-project", "proj_canary")], "").unwrap();
        assert!(!format!("{named:?}").contains("canary"));
        assert_eq!(hint(&[("openai-project", &"p".repeat(300))], ""), None);
        assert_eq!(hint(&[], ""), None);
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(
            body in proptest::collection::vec(any::<u8>(), 0..64),
            message in "(Quota exceeded for quota metric|Rate limit reached for )?.{0,20}( in organization |for consumer ')?.{0,10}",
        ) {
            let _ = account(&HeaderMap::new(), &body);
            let told = serde_json::json!({"error": {"message": message}});
            let _ = account(&HeaderMap::new(), told.to_string().as_bytes());
        }
    }
}
