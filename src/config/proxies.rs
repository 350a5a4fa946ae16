//! The variables that name forward proxies on the way to upstreams, as curl reads them.

use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::{Env, problem::Problem, section::Ledger};

/// The names, the first of each that is set counts.
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NONE: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Reads them. `None`: every way is direct.
pub(super) fn proxies(env: &Env, ledger: &mut Ledger) -> Option<Arc<Matcher>> {
    let mut text = |names: [&'static str; 2]| {
        let (name, text) = names.into_iter().find_map(|name| Some((name, env.get(name)?)))?;
        if !is_proxy(text) {
            // What it says is not quoted: it may hold a password.
            let problem = Problem::new(Env::SOURCE, name, "not the URL of a proxy");
            ledger
                .problems
                .push(problem.hint("such as http://proxy.example:3128 or socks5://127.0.0.1:1080"));
        }
        Some(text.to_owned())
    };
    let (all, http, https) = (text(ALL), text(HTTP), text(HTTPS));
    if all.is_none() && http.is_none() && https.is_none() {
        return None;
    }
    let direct = NONE.into_iter().find_map(|name| env.get(name)).unwrap_or_default();
    // To the matcher that is every name, and no address.
    if direct.split(',').any(|host| host.trim() == "*") {
        return None;
    }
    let matcher = Matcher::builder()
        .all(all.unwrap_or_default())
        .http(http.unwrap_or_default())
        .https(https.unwrap_or_default())
        .no(direct)
        .build();
    Some(Arc::new(matcher))
}

pub(super) fn is_proxy(text: &str) -> bool {
    Matcher::builder().all(text).build().intercept(&Uri::from_static("https://upstream.invalid")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Option<Arc<Matcher>>, usize) {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut ledger = Ledger::default();
        let proxies = proxies(&Env::from_map(owned.collect()), &mut ledger);
        (proxies, ledger.problems.len())
    }

    fn way(proxies: &Matcher, host: &'static str) -> Option<String> {
        proxies.intercept(&Uri::from_static(host)).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn without_a_variable_every_way_is_direct() {
        assert!(read(&[("NO_PROXY", "*")]).0.is_none());
        assert!(read(&[("ALL_PROXY", "http://a.example"), ("NO_PROXY", "b.example, *")]).0.is_none());
    }

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_have_none() {
        let (proxies, _) = read(&[
            ("https_proxy", "http://user:pw@a.example:3128"),
            ("ALL_PROXY", "socks5h://b.example:1080"),
            ("NO_PROXY", "10.0.0.0/8, internal.example"),
        ]);
        let proxies = proxies.unwrap();
        assert_eq!(way(&proxies, "https://api.example").as_deref(), Some("http://a.example:3128/"));
        assert_eq!(way(&proxies, "http://api.example").as_deref(), Some("socks5h://b.example:1080/"));
        assert_eq!(way(&proxies, "http://10.1.2.3"), None);
        assert_eq!(way(&proxies, "https://x.internal.example"), None);
        assert!(!format!("{proxies:?}").contains("pw"));
    }

    #[test]
    fn what_is_no_proxy_is_a_problem() {
        assert_eq!(read(&[("HTTPS_PROXY", "ftp://a.example")]).1, 1);
        assert_eq!(read(&[("HTTPS_PROXY", "a b")]).1, 1);
        assert_eq!(read(&[("HTTPS_PROXY", "proxy.example:3128")]).1, 0);
    }
}
