//! Lists of our own: which models there are, and which pools.

use serde_json::{Map, Value, json};

use crate::{forward::Listed, types::Dialect};

/// The models, as the API of this dialect lists them.
pub(super) fn models(spoken: Dialect, listed: Vec<Listed>) -> Value {
    match spoken {
        // https://platform.claude.com/docs/en/api/models-list
        Dialect::Anthropic => {
            let ends = [listed.first(), listed.last()].map(|model| model.map(|model| model.id.clone()));
            let models: Vec<Value> = listed.into_iter().map(anthropic).collect();
            let [first, last] = ends;
            json!({"data": models, "has_more": false, "first_id": first, "last_id": last})
        }
        // https://ai.google.dev/api/models
        Dialect::Gemini => {
            json!({"models": listed.into_iter().map(gemini).collect::<Vec<_>>()})
        }
        // https://platform.openai.com/docs/api-reference/models/list
        Dialect::OpenAi | Dialect::Azure | Dialect::Generic => {
            json!({"object": "list", "data": listed.into_iter().map(openai).collect::<Vec<_>>()})
        }
    }
}

/// What its upstream says of a model, where that is in this list's shape, under the name that we list it by.
fn told(told: Option<Value>, name: &str, id: String) -> Option<Map<String, Value>> {
    let Some(Value::Object(mut entry)) = told else { return None };
    entry.get(name)?;
    entry.insert(name.to_owned(), Value::String(id));
    Some(entry)
}

fn openai(model: Listed) -> Value {
    let Listed { id, pool, told: entry } = model;
    let mut entry = told(entry, "id", id.clone()).unwrap_or_default();
    entry.insert("id".to_owned(), Value::String(id));
    entry.entry("object").or_insert_with(|| json!("model"));
    entry.entry("created").or_insert_with(|| json!(0));
    entry.entry("owned_by").or_insert_with(|| json!(pool.as_str()));
    Value::Object(entry)
}

fn anthropic(model: Listed) -> Value {
    let Listed { id, told: entry, .. } = model;
    let mut entry = told(entry, "id", id.clone()).unwrap_or_default();
    entry.entry("type").or_insert_with(|| json!("model"));
    entry.entry("display_name").or_insert_with(|| json!(id));
    entry.entry("created_at").or_insert_with(|| json!("1970-01-01T00:00:00Z"));
    entry.insert("id".to_owned(), Value::String(id));
    Value::Object(entry)
}

fn gemini(model: Listed) -> Value {
    let Listed { id, told: entry, .. } = model;
    let name = format!("models/{id}");
    let mut entry = told(entry, "name", name.clone()).unwrap_or_default();
    entry.insert("name".to_owned(), Value::String(name));
    entry.entry("displayName").or_insert_with(|| json!(id));
    Value::Object(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PoolName;

    #[test]
    fn each_dialect_has_a_list_of_its_own_shape() {
        let listed = || {
            let pool = PoolName::new("acme");
            vec![
                Listed { id: "a".to_owned(), pool: pool.clone(), told: None },
                Listed {
                    id: "acme/b".to_owned(),
                    pool,
                    told: Some(json!({"id": "b", "name": "models/b", "more": 1})),
                },
            ]
        };
        let openai = models(Dialect::OpenAi, listed());
        assert_eq!(
            openai["data"][0],
            json!({"id": "a", "object": "model", "created": 0, "owned_by": "acme"})
        );
        assert_eq!((&openai["data"][1]["id"], &openai["data"][1]["more"]), (&json!("acme/b"), &json!(1)));
        let anthropic = models(Dialect::Anthropic, listed());
        assert_eq!((&anthropic["first_id"], &anthropic["last_id"]), (&json!("a"), &json!("acme/b")));
        assert_eq!(anthropic["data"][1]["type"], "model");
        let gemini = models(Dialect::Gemini, listed());
        assert_eq!(gemini["models"][1]["name"], "models/acme/b");
        assert_eq!(models(Dialect::Anthropic, vec![])["first_id"], Value::Null);
    }
}
