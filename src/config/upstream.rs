//! `[upstream]` and the rates.

use std::num::{NonZeroU32, NonZeroUsize};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{Env, proxies, section::Section};
use crate::{
    forward::{Backoff, Policy, transport},
    rate::Rate,
    types::{BaseUrl, Dialect},
};

/// What `[upstream]` says.
pub(super) struct Upstream {
    pub(super) base: BaseUrl,
    pub(super) policy: Policy,
    pub(super) transport: transport::Settings,
    pub(super) max_waiting: Option<NonZeroUsize>,
}

/// Where a key without a URL lives.
const DEFAULT_BASE: &str = "https://api.openai.com";

/// So many connections, or so many that wait, at most: no machine has more, and a semaphore takes them.
pub(super) const MANY: u64 = u32::MAX as u64;

/// Reads `[upstream]`.
pub(super) fn upstream(mut section: Section<'_, '_>, env: &Env) -> Upstream {
    let base = section.parsed("base_url", |text| base_url(text, Dialect::OpenAi));
    let (policy, transport) = (Policy::default(), transport::Settings::default());
    let policy = Policy {
        head_timeout: section.millis("request_timeout_ms", 1).unwrap_or(policy.head_timeout),
        first_byte_timeout: section.millis("first_byte_timeout_ms", 1).unwrap_or(policy.first_byte_timeout),
        idle_timeout: section.millis("idle_timeout_ms", 1).unwrap_or(policy.idle_timeout),
        total_timeout: section.millis("total_timeout_ms", 1).unwrap_or(policy.total_timeout),
        max_retries: section.whole("max_retries", 0..=100).unwrap_or(policy.max_retries),
        max_wait: section.millis("max_wait_ms", 0).unwrap_or(policy.max_wait),
        backoff: backoff(&mut section, policy.backoff),
        hedge_after: section.millis("hedge_after_ms", 0).filter(|after| !after.is_zero()),
        ask_for_usage: section.flag("ask_for_usage").unwrap_or(policy.ask_for_usage),
    };
    let transport = transport::Settings {
        connect_timeout: section.millis("connect_timeout_ms", 1).unwrap_or(transport.connect_timeout),
        extra_roots: certificates(&mut section).unwrap_or(transport.extra_roots),
        http2: section.flag("http2").unwrap_or(transport.http2),
        proxies: proxies::proxies(env, section.ledger()),
    };
    let max_waiting = section.whole("max_waiting", 1..=MANY).and_then(NonZeroUsize::new);
    let base = base.unwrap_or_else(|| BaseUrl::parse(DEFAULT_BASE).expect("it is a base URL"));
    Upstream { base, policy, transport, max_waiting }
}

/// A base URL. What is wrong with it is told without quoting it: it may hold a password.
pub(super) fn base_url(text: &str, dialect: Dialect) -> Result<BaseUrl, (String, Option<String>)> {
    BaseUrl::parse_of(text, dialect)
        .map_err(|error| (error.to_string(), Some("such as https://api.openai.com/v1".to_owned())))
}

/// A rate in requests a second: `None` if it is not set, `Some(None)` if there is to be no limit.
pub(super) fn rate(
    section: &mut Section<'_, '_>,
    name: &'static str,
    burst: Option<NonZeroU32>,
) -> Option<Option<Rate>> {
    let bounds = "0 (no limit) or from 0.000001 to 1000000";
    let rps = section.number(name, bounds, |rps| rps == 0.0 || (1e-6..=1e6).contains(&rps))?;
    let burst = burst.or(NonZeroU32::new(rps.ceil() as u32)).unwrap_or(NonZeroU32::MIN);
    Some(Rate::per_second(rps, burst))
}

fn backoff(section: &mut Section<'_, '_>, default: Backoff) -> Backoff {
    let (first, longest) = ("retry_initial_backoff_ms", "retry_max_backoff_ms");
    let (initial, max) = (section.millis(first, 1), section.millis(longest, 1));
    let (least, most) = (initial.unwrap_or(default.initial()), max.unwrap_or(default.max()));
    Backoff::try_new(least, most).unwrap_or_else(|_| {
        let name = if initial.is_some() { first } else { longest };
        let (initial_ms, max_ms) = (least.as_millis(), most.as_millis());
        section.refuse(name, format!("{first} ({initial_ms}) must not be more than {longest} ({max_ms})"));
        default
    })
}

/// The certificates of `ca_file`, a PEM bundle.
fn certificates(section: &mut Section<'_, '_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = section.text("ca_file")?;
    let path = section.place("ca_file")?.source.folder.join(path);
    let certificates = std::fs::read(&path).map_err(|error| error.to_string()).and_then(|pem| {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("no PEM certificate in it".to_owned());
        }
        // Only a store tells whether the certificates can be used.
        let mut store = RootCertStore::empty();
        certificates
            .iter()
            .try_for_each(|certificate| store.add(certificate.clone()))
            .map_err(|error| error.to_string())?;
        Ok(certificates)
    });
    certificates.map_err(|reason| section.refuse("ca_file", format!("{}: {reason}", path.display()))).ok()
}
