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
    openai("nebius", "https://api.studio.nebius.com/v1"),
    openai("siliconflow", "https://api.siliconflow.com/v1"),
    openai("chutes", "https://llm.chutes.ai/v1"),
    openai("huggingface", "https://router.huggingface.co/v1").or(&["hf"]),
    openai("github", "https://models.github.ai/inference"),
    openai("voyage", "https://api.voyageai.com/v1"),
    openai("jina", "https://api.jina.ai/v1").or(&["jina_ai"]),
];
