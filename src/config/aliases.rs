//! `[[models]]`: names that clients use for models, and what serves them where their own keys can't.

use super::{section::Section, tree::Place};
use crate::{
    forward::{Aim, Alias},
    types::PoolName,
};

/// Reads `[[models]]`. `pools` are the names of those that there are.
pub(super) fn aliases(root: &mut Section<'_, '_>, pools: &[&str]) -> Vec<Alias> {
    let mut aliases: Vec<(Alias, &Place)> = Vec::new();
    root.each("models", "models", false, |place, section| {
        if let Some(alias) = alias(place, section, pools, &aliases) {
            aliases.push((alias, place));
        }
    });
    aliases.into_iter().map(|(alias, _)| alias).collect()
}

fn alias(
    place: &Place,
    mut section: Section<'_, '_>,
    pools: &[&str],
    before: &[(Alias, &Place)],
) -> Option<Alias> {
    let name = section.parsed("name", |text| {
        let text = text.trim();
        if text.is_empty() {
            Err(("a model has a name".to_owned(), None))
        } else {
            Ok(Box::<str>::from(text))
        }
    });
    if name.is_none() && section.place("name").is_none() {
        section.ledger().problems.push(place.problem("this model has no `name`"));
    }
    if let Some((_, other)) = before.iter().find(|(alias, _)| Some(&alias.name) == name.as_ref()) {
        section.refuse("name", format!("a model of this name is at {}", other.describe()));
    }
    let target = section.text("target");
    let fallbacks = section.texts("fallbacks").unwrap_or_default();
    if target.is_none() && fallbacks.is_empty() {
        let hint = "target = \"another-name\" or fallbacks = [\"pool/model\"]";
        section.ledger().problems.push(place.problem("this model is what it is already").hint(hint));
    }
    let name = name?;
    let mut targets = vec![aim(target.unwrap_or(&name), &name, pools)];
    for (text, place) in fallbacks {
        let aim = aim(text, &name, pools);
        if targets.contains(&aim) {
            section.ledger().problems.push(place.problem("named twice: who has failed is not asked again"));
        } else {
            targets.push(aim);
        }
    }
    Some(Alias { name, targets })
}

/// `model`, `pool/model`, or `pool/*` for the same model there.
fn aim(text: &str, name: &str, pools: &[&str]) -> Aim {
    let text = text.trim();
    match text.split_once('/') {
        Some((pool, model)) if pools.contains(&pool) && !model.is_empty() => {
            let model = if model == "*" { name } else { model };
            Aim { pool: Some(PoolName::new(pool)), model: Box::from(model) }
        }
        _ => Aim { pool: None, model: Box::from(text) },
    }
}
