//! How an API speaks.

use std::{fmt, str::FromStr};

/// How an API speaks: where it takes a credential and a model, and how it words its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Dialect {
    /// OpenAI's, and what is compatible with it.
    #[default]
    OpenAi,
    /// Anthropic's: `/v1/messages`.
    Anthropic,
    /// Gemini's: the model in the path, before a colon and a verb.
    Gemini,
    /// OpenAI's as Azure offers it: deployments in the path.
    Azure,
    /// Any other API over HTTP: nothing is known but where the credential goes.
    Generic,
}

impl Dialect {
    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("openai", Self::OpenAi),
        ("anthropic", Self::Anthropic),
        ("gemini", Self::Gemini),
        ("azure", Self::Azure),
        ("generic", Self::Generic),
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Azure => "azure",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// It is no dialect's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such dialect")]
pub struct UnknownDialect;

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(name: &str) -> Result<Self, UnknownDialect> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, dialect)| *dialect).ok_or(UnknownDialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_known_by_its_name() {
        for (name, dialect) in Dialect::NAMES {
            assert_eq!((name.parse(), dialect.as_str()), (Ok(dialect), name));
        }
        assert_eq!("OpenAI".parse::<Dialect>(), Err(UnknownDialect));
    }
}
