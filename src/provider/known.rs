//! Providers that are known by name: what they speak and where. Data; adding one is a line or two.
//!
//! A base is written out, with its version; `also` has the paths at the same host where other dialects are spoken,
//! beyond the OpenAI-compatible bases that Anthropic, Gemini and Azure have by nature.

use crate::types::{Dialect, Origin};

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its name: before a model, in a path, and in capitals in the names of variables.
    pub name: &'static str,
    /// Other names that its variables have.
    pub aliases: &'static [&'static str],
    /// What it speaks.
    pub dialect: Dialect,
    /// Where its API lives. `None`: each customer has an address of its own.
    pub base: Option<&'static str>,
    /// What else it speaks at the same host, and below which path.
    pub also: &'static [(Dialect, &'static str)],
}

const fn openai(name: &'static str, base: &'static str) -> Known {
    Known { name, aliases: &[], dialect: Dialect::OpenAi, base: Some(base), also: &[] }
}

impl Known {
    const fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn and_messages_at(self, also: &'static [(Dialect, &'static str)]) -> Self {
        Self { also, ..self }
    }

    /// The name of the provider whose base is at this origin.
    #[must_use]
    pub fn at(origin: &Origin) -> Option<&'static str> {
        let origin = origin.to_string();
        let is_there = |known: &&Self| known.base.is_some_and(|base| base.starts_with(&origin));
        KNOWN.iter().find(is_there).map(|known| known.name)
    }

    /// The provider of this name, or with this alias.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name || known.aliases.contains(&name))
    }
}

/// Every provider that is known, the order of which decides where several would do.
pub const KNOWN: &[Known] = &[
    openai("openai", "https://api.openai.com/v1"),
    Known { dialect: Dialect::Anthropic, ..openai("anthropic", "https://api.anthropic.com/v1") },
    Known {
        dialect: Dialect::Gemini,
        ..openai("gemini", "https://generativelanguage.googleapis.com/v1beta")
    }
    .or(&["google"]),
    Known { dialect: Dialect::Azure, base: None, ..openai("azure", "") }.or(&["azure_openai"]),
    openai("openrouter", "https://openrouter.ai/api/v1").and_messages_at(&[(Dialect::Anthropic, "/api/v1")]),
    openai("groq", "https://api.groq.com/openai/v1"),
    openai("mistral", "https://api.mistral.ai/v1"),
    openai("codestral", "https://codestral.mistral.ai/v1"),
    openai("deepseek", "https://api.deepseek.com/v1")
        .and_messages_at(&[(Dialect::Anthropic, "/anthropic/v1")]),
    openai("xai", "https://api.x.ai/v1").and_messages_at(&[(Dialect::Anthropic, "/v1")]),
    openai("together", "https://api.together.xyz/v1").or(&["together_ai", "togetherai"]),
    openai("fireworks", "https://api.fireworks.ai/inference/v1").or(&["fireworks_ai"]),
    openai("cerebras", "https://api.cerebras.ai/v1"),
    openai("perplexity", "https://api.perplexity.ai").or(&["perplexityai"]),
    openai("cohere", "https://api.cohere.ai/compatibility/v1"),
    openai("nvidia", "https://integrate.api.nvidia.com/v1").or(&["nvidia_nim"]),
    openai("moonshot", "https://api.moonshot.ai/v1")
        .and_messages_at(&[(Dialect::Anthropic, "/anthropic/v1")]),
    openai("zai", "https://api.z.ai/api/paas/v4")
        .and_messages_at(&[(Dialect::Anthropic, "/api/anthropic/v1")]),
    openai("dashscope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1").or(&["qwen"]),
    openai("minimax", "https://api.minimax.io/v1").and_messages_at(&[(Dialect::Anthropic, "/anthropic/v1")]),
    openai("sambanova", "https://api.sambanova.ai/v1"),
    openai("hyperbolic", "https://api.hyperbolic.xyz/v1"),
    openai("deepinfra", "https://api.deepinfra.com/v1/openai"),
    openai("novita", "https://api.novita.ai/openai/v1"),
    openai("nebius", "https://api.tokenfactory.nebius.com/v1"),
    openai("siliconflow", "https://api.siliconflow.com/v1"),
    openai("chutes", "https://llm.chutes.ai/v1"),
    openai("huggingface", "https://router.huggingface.co/v1").or(&["hf"]),
    openai("github", "https://models.github.ai/inference"),
    openai("voyage", "https://api.voyageai.com/v1"),
    openai("jina", "https://api.jina.ai/v1").or(&["jina_ai"]),
];

/// The names of all of them.
pub const NAMES: &[&str] = &{
    let mut names = [""; KNOWN.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = KNOWN[at].name;
        at += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use url::Url;

    use super::*;
    use crate::types::{BaseUrl, is_version};

    #[test]
    fn every_base_is_an_https_url_as_it_is_used() {
        for Known { name, base, also, .. } in KNOWN {
            let Some(base) = base else { continue };
            assert!(base.starts_with("https://") && !base.ends_with('/'), "{name}: {base}");
            let parsed = BaseUrl::parse_of(base, Dialect::Generic).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(parsed.as_str(), *base, "{name}");
            for path in std::iter::once(parsed.path()).chain(also.iter().map(|(_, path)| *path)) {
                let versions = path.split('/').filter(|segment| is_version(segment)).count();
                assert!(versions <= 1, "{name} has several versions in {path}");
            }
        }
    }

    #[test]
    fn what_is_spoken_besides_is_another_dialect_at_a_path() {
        for Known { name, base, dialect, also, .. } in KNOWN {
            let spoken: BTreeSet<Dialect> = also.iter().map(|(other, _)| *other).collect();
            assert!(spoken.len() == also.len() && !spoken.contains(dialect), "{name}");
            assert!(base.is_some() || also.is_empty(), "{name} has paths at no host");
            for (_, path) in *also {
                let url = Url::parse("https://h").and_then(|host| host.join(path)).expect("it is a path");
                assert!(
                    path.starts_with('/') && !path.ends_with('/') && url.path() == *path,
                    "{name}: {path}"
                );
            }
        }
    }

    #[test]
    fn names_are_one_of_a_kind_and_fit_in_paths_and_variables() {
        let mut seen = BTreeSet::new();
        for known in KNOWN {
            for name in std::iter::once(&known.name).chain(known.aliases) {
                let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(!name.is_empty() && name.chars().all(fits), "{name}");
                assert!(seen.insert(*name), "{name} is there twice");
                assert_eq!(Known::find(name), Some(known));
            }
        }
        assert_eq!(NAMES.len(), KNOWN.len());
        assert_eq!(Known::find(""), None);
    }
}
