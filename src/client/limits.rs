//! Requests a second, in all and per client address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::rate::{Gcra, Rate};

/// Addresses remembered at once. When there are more, those that have been quiet are forgotten.
const ADDRESSES: usize = 65_536;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// That of all requests together.
    Global,
    /// That of one address.
    Client,
}

/// A limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a limit of this proxy was reached")]
pub struct Limited {
    /// Which.
    pub limit: Limit,
    /// When one more request will pass.
    pub free_in: Duration,
}

#[derive(Debug)]
pub(super) struct Limits {
    global: Option<(Rate, Gcra)>,
    per_client: Option<Rate>,
    clients: HashMap<IpAddr, Gcra>,
}

impl Limits {
    pub(super) fn new(global: Option<Rate>, per_client: Option<Rate>) -> Self {
        Self { global: global.map(|rate| (rate, Gcra::default())), per_client, clients: HashMap::new() }
    }

    pub(super) fn count(&mut self, now: Instant, address: Option<IpAddr>) -> Result<(), Limited> {
        let limited =
            |limit| move |free: Instant| Limited { limit, free_in: free.saturating_duration_since(now) };
        if let Some((rate, gcra)) = &self.global {
            let free = gcra.free_at(*rate, now);
            if free > now {
                return Err(limited(Limit::Global)(free));
            }
        }
        if let (Some(rate), Some(address)) = (self.per_client, address) {
            if self.clients.len() >= ADDRESSES {
                self.clients.retain(|_, gcra| !gcra.is_idle(now));
            }
            let client = self.clients.entry(household(address)).or_default();
            client.take(rate, now).map_err(limited(Limit::Client))?;
        }
        if let Some((rate, gcra)) = &mut self.global {
            gcra.charge(*rate, now);
        }
        Ok(())
    }
}

/// One IPv6 client has a /64 to itself (RFC 6177) and could use a new address for each request.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::clock::Clock;

    fn rate(per_second: f64) -> Option<Rate> {
        Rate::per_second(per_second, NonZeroU32::MIN)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_address_cannot_use_up_what_is_anothers() {
        let now = Clock::system().now().mono;
        let mut limits = Limits::new(None, rate(1.0));
        assert_eq!(limits.count(now, ip("10.0.0.1")), Ok(()));
        let limited = limits.count(now, ip("10.0.0.1")).unwrap_err();
        assert_eq!(limited, Limited { limit: Limit::Client, free_in: Duration::from_secs(1) });
        assert_eq!(limits.count(now, ip("10.0.0.2")), Ok(()));
    }

    #[test]
    fn a_v6_household_is_one_client_and_a_mapped_v4_its_own() {
        let now = Clock::system().now().mono;
        let mut limits = Limits::new(None, rate(1.0));
        assert_eq!(limits.count(now, ip("2001:db8::1")), Ok(()));
        assert!(limits.count(now, ip("2001:db8::2")).is_err());
        assert_eq!(limits.count(now, ip("10.0.0.1")), Ok(()));
        assert!(limits.count(now, ip("::ffff:10.0.0.1")).is_err());
    }

    #[test]
    fn what_one_limit_refuses_is_not_counted_by_the_other() {
        let now = Clock::system().now().mono;
        let mut limits = Limits::new(rate(1.0), rate(1.0));
        assert_eq!(limits.count(now, ip("10.0.0.1")), Ok(()));
        assert_eq!(limits.count(now, ip("10.0.0.2")).unwrap_err().limit, Limit::Global);
        let later = now + Duration::from_secs(1);
        assert_eq!(limits.count(later, ip("10.0.0.2")), Ok(()));
    }

    #[test]
    fn quiet_addresses_are_forgotten() {
        let now = Clock::system().now().mono;
        let mut limits = Limits::new(None, rate(1000.0));
        for n in 0..u32::try_from(ADDRESSES).unwrap() {
            limits.count(now, Some(IpAddr::V4(n.into()))).unwrap();
        }
        limits.count(now + Duration::from_secs(1), ip("192.0.2.1")).unwrap();
        assert_eq!(limits.clients.len(), 1);
    }
}
