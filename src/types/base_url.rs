//! Where a key's API lives, whatever way the user wrote it.

use std::fmt;

use http::{
    HeaderValue,
    uri::{Authority, Scheme},
};
use url::Url;

use super::Dialect;

/// An origin: what an outage belongs to (RFC 6454: scheme, host, port).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(String);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The base of an API, with its version segment if it has one and without a trailing slash.
///
/// Of an OpenAI-compatible API:
/// `https://api.openai.com`, `https://api.openai.com/`, `https://api.openai.com/v1` and `https://api.openai.com/v1/`
/// are one base. A prefix path is kept. A path that has a version segment anywhere (`/v1beta/openai`,
/// `/api/paas/v4`) is taken as it stands; to any other, `/v1` is added.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    text: String,
    origin: Origin,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
}

/// Why a text is no base URL. Never contains the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// It is not a URL.
    #[error("not a URL ({0})")]
    Syntax(url::ParseError),
    /// Its scheme is neither http nor https.
    #[error("the scheme must be http or https")]
    Scheme,
    /// It has a user, a password, a query or a fragment.
    #[error("a base URL has no user, password, query or fragment")]
    Extras,
}

impl BaseUrl {
    /// Reads the base URL of an OpenAI-compatible API.
    ///
    /// # Errors
    /// [`BaseUrlError`] if it is not an absolute http or https URL of origin and path alone.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        Self::parse_of(text, Dialect::OpenAi)
    }

    /// Reads the base URL of an API that speaks `dialect`. Each has its own version segment, if any: `/v1`, Gemini's
    /// `/v1beta`. What names a compatible base of Gemini's or a kind of address of Azure's is left out: `/openai`.
    ///
    /// # Errors
    /// [`BaseUrlError`] if it is not an absolute http or https URL of origin and path alone.
    pub fn parse_of(text: &str, dialect: Dialect) -> Result<Self, BaseUrlError> {
        let url = Url::parse(text.trim()).map_err(BaseUrlError::Syntax)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BaseUrlError::Scheme);
        }
        let plain = url.username().is_empty() && url.password().is_none();
        if !plain || url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::Extras);
        }
        let origin = Origin(url.origin().ascii_serialization());
        let scheme = if url.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP };
        // Of a host that has no URL's form, an HTTP request would have none either.
        let odd = || BaseUrlError::Syntax(url::ParseError::InvalidDomainCharacter);
        let authority: Authority = url.authority().parse().map_err(|_| odd())?;
        let host = HeaderValue::from_str(url.authority()).map_err(|_| odd())?;
        let mut segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
        match dialect {
            Dialect::Azure => {
                let end = segments.iter().position(|segment| *segment == "openai");
                segments.truncate(end.unwrap_or(segments.len()));
            }
            Dialect::Gemini if segments.last() == Some(&"openai") => drop(segments.pop()),
            _ => {}
        }
        let mut base = origin.0.clone();
        for segment in &segments {
            base.push('/');
            base.push_str(segment);
        }
        let version = match dialect {
            Dialect::OpenAi | Dialect::Anthropic => "/v1",
            Dialect::Gemini => "/v1beta",
            Dialect::Azure | Dialect::Generic => "",
        };
        if !segments.iter().any(|segment| is_version(segment)) {
            base.push_str(version);
        }
        Ok(Self { text: base, origin, scheme, authority, host })
    }

    /// The base, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Host and port, the latter if it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The same as the `Host` header has it.
    #[must_use]
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The same as [`path`](Self::path) without the version segment that it ends in, if it does: what a path that has a
    /// version of its own goes below.
    #[must_use]
    pub fn root(&self) -> &str {
        match self.path().rsplit_once('/') {
            Some((root, version)) if is_version(version) => root,
            _ => self.path(),
        }
    }

    /// What stands before the path of each request, without a trailing slash: `/v1`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.origin.0.len()..]
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `v1`, `v4`, `v1beta`, `v1beta1`, `v2alpha`: a `v`, a number, perhaps a stage.
pub(crate) fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else { return false };
    let stage = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    stage.len() < rest.len() && (stage.is_empty() || stage.starts_with("beta") || stage.starts_with("alpha"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_base_means_the_same() {
        for text in [
            "https://api.openai.com",
            "https://api.openai.com/",
            "https://api.openai.com/v1",
            "https://api.openai.com/v1/",
            " https://API.openai.com:443//v1// ",
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().as_str(), "https://api.openai.com/v1", "{text}");
        }
    }

    #[test]
    fn a_prefix_path_is_kept_and_a_version_is_never_doubled() {
        for (text, base) in [
            ("https://api.groq.com/openai", "https://api.groq.com/openai/v1"),
            ("https://api.groq.com/openai/v1/", "https://api.groq.com/openai/v1"),
            (
                "https://generativelanguage.googleapis.com/v1beta/openai/",
                "https://generativelanguage.googleapis.com/v1beta/openai",
            ),
            ("https://open.bigmodel.cn/api/paas/v4", "https://open.bigmodel.cn/api/paas/v4"),
            ("http://127.0.0.1:8000/vllm", "http://127.0.0.1:8000/vllm/v1"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().as_str(), base, "{text}");
        }
    }

    #[test]
    fn each_dialect_has_a_version_of_its_own() {
        for (dialect, text, base, root) in [
            (Dialect::Anthropic, "https://api.anthropic.com", "https://api.anthropic.com/v1", ""),
            (Dialect::Gemini, "https://g.example", "https://g.example/v1beta", ""),
            (Dialect::Gemini, "https://g.example/p/v1beta/openai/", "https://g.example/p/v1beta", "/p"),
            (Dialect::Gemini, "https://g.example/v1", "https://g.example/v1", ""),
            (Dialect::Azure, "https://r.openai.azure.com/", "https://r.openai.azure.com", ""),
            (Dialect::Azure, "https://gw.example/p/openai/v1", "https://gw.example/p", "/p"),
            (
                Dialect::Generic,
                "https://api.weather.example/data/2.5/",
                "https://api.weather.example/data/2.5",
                "/data/2.5",
            ),
        ] {
            let found = BaseUrl::parse_of(text, dialect).unwrap();
            assert_eq!((found.as_str(), found.root()), (base, root), "{dialect} {text}");
        }
    }

    #[test]
    fn its_parts_make_the_whole() {
        for text in ["https://bücher.example:443/a", "http://[::1]:8000", "http://10.0.0.1/v4/x"] {
            let base = BaseUrl::parse(text).unwrap();
            let whole = format!("{}://{}{}", base.scheme(), base.authority(), base.path());
            assert_eq!(whole, base.as_str(), "{text}");
        }
    }

    #[test]
    fn what_is_no_base_is_refused() {
        for text in [
            "",
            "api.openai.com",
            "/v1",
            "ftp://host",
            "https://user@host",
            "https://:pw@host",
            "https://host?x=1",
            "https://host#f",
        ] {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_origins() {
        let origin = |text: &str| BaseUrl::parse(text).unwrap().origin().clone();
        assert_eq!(origin("https://h/a"), origin("https://h:443/b/v1"));
        assert_ne!(origin("https://h"), origin("http://h"));
    }
}
