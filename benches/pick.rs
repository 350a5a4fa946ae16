//! What a pick costs: `cargo bench --bench pick`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use divan::{Bencher, black_box};
use key_cycle_proxy::{
    clock::Clock,
    pool::{Arrival, Grant, Outcome, Pool, Reason, Rests, Settings, Strategy, Want},
    types::{BaseUrl, ClientId, Demand, Key, KeySettings, PoolName, Secret},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Clone, Copy)]
enum Health {
    All,
    Tenth,
    One,
}

fn main() {
    divan::main();
}

fn pool(strategy: Strategy, keys: usize, priorities: usize, health: Health) -> (Pool, Arrival, Instant) {
    let base = BaseUrl::parse("https://api.test").expect("a URL");
    let entries = (0..keys)
        .map(|n| {
            let secret = Secret::new(&format!("sk-{n}")).expect("a secret");
            let priority = u8::try_from(n * priorities / keys).expect("256 priorities at most");
            (secret, KeySettings { priority, ..KeySettings::at(base.clone()) })
        })
        .collect();
    let keys = Key::pool(&PoolName::default(), entries);
    let alive = match health {
        Health::All => keys.len(),
        Health::Tenth => keys.len() / 10,
        Health::One => 1,
    };
    let keys: Vec<Arc<Key>> = keys.into_iter().map(Arc::new).collect();
    let settings = Settings { strategy, ..Settings::default() };
    let mut pool = Pool::new(settings, keys.clone(), base.origin(), fastrand::Rng::with_seed(1));
    let (arrival, now) = (pool.arrive(ClientId::default()), Clock::system().now().mono);
    let want = want(arrival);
    for _ in 0..keys.len() - alive {
        let Ok(Grant { ticket, .. }) = pool.acquire(now, &want) else { break };
        let outcome = Outcome::Rest { reason: Reason::RateLimited, of: Rests::Account, named: Some(DAY) };
        let _ = pool.settle(now, ticket, outcome, &want);
    }
    for _ in 0..2 * keys.len() {
        let Ok(Grant { mut ticket, .. }) = pool.acquire(now, &want) else { break };
        let _ = pool.heard(now, &mut ticket, Duration::from_millis(200), &want);
        let _ = pool.settle(now, ticket, Outcome::Good, &want);
    }
    (pool, arrival, now)
}

fn want(arrival: Arrival) -> Want<'static> {
    Want {
        arrival,
        model: Some("gpt-4o-mini"),
        purpose: "chat",
        stream: false,
        tried: &[],
        failed_hosts: &[],
        demand: Demand::default(),
    }
}

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const HEALTHS: [Health; 3] = [Health::All, Health::Tenth, Health::One];

/// Every size in every state of health.
fn cases() -> impl Iterator<Item = (usize, Health)> {
    SIZES.into_iter().flat_map(|keys| HEALTHS.map(|health| (keys, health)))
}

fn request(bencher: Bencher<'_, '_>, (mut pool, arrival, mut now): (Pool, Arrival, Instant)) {
    let want = want(arrival);
    bencher.bench_local(|| {
        now += Duration::from_micros(1);
        let Ok(Grant { key, mut ticket }) = pool.acquire(now, &want) else { panic!("a key is free") };
        let _ = black_box(pool.heard(now, &mut ticket, Duration::from_millis(200), &want));
        let _ = black_box(pool.settle(now, ticket, Outcome::Good, &want));
        key
    });
}

/// A whole request: acquire, heard, settle.
#[divan::bench(args = cases())]
fn whole_request(bencher: Bencher<'_, '_>, (keys, health): (usize, Health)) {
    request(bencher, pool(Strategy::default(), keys, 1, health));
}

/// A whole request on 10,000 keys.
#[divan::bench(args = Strategy::NAMES.map(|(name, _)| name))]
fn by_strategy(bencher: Bencher<'_, '_>, name: &str) {
    request(bencher, pool(name.parse().expect("a strategy"), 10_000, 1, Health::All));
}

/// The same while 50,000 others are under way, for which nobody has to be looked at.
#[divan::bench(args = Strategy::NAMES.map(|(name, _)| name))]
fn by_strategy_when_busy(bencher: Bencher<'_, '_>, name: &str) {
    let (mut pool, arrival, now) = pool(name.parse().expect("a strategy"), 10_000, 1, Health::All);
    let out: Vec<_> = (0..50_000).map(|_| pool.acquire(now, &want(arrival))).collect();
    request(bencher, (pool, arrival, now));
    drop(out);
}

/// The same where nine of ten keys rest, those of the first priorities.
#[divan::bench(args = [1, 2, 16, 256])]
fn by_priorities(bencher: Bencher<'_, '_>, priorities: usize) {
    request(bencher, pool(Strategy::default(), 10_000, priorities, Health::Tenth));
}

/// The pick alone.
#[divan::bench(args = cases())]
fn acquire(bencher: Bencher<'_, '_>, (keys, health): (usize, Health)) {
    let (mut pool, arrival, mut now) = pool(Strategy::default(), keys, 1, health);
    let want = want(arrival);
    bencher.bench_local(|| {
        now += Duration::from_micros(1);
        pool.acquire(now, &want)
    });
}

/// The 429 of a whole pool that rests.
#[divan::bench(args = SIZES.map(|keys| (keys, 1)).into_iter().chain([(10_000, 256)]))]
fn refusal(bencher: Bencher<'_, '_>, (keys, priorities): (usize, usize)) {
    let (mut pool, arrival, now) = pool(Strategy::default(), keys, priorities, Health::One);
    let want = want(arrival);
    if let Ok(Grant { ticket, .. }) = pool.acquire(now, &want) {
        let outcome = Outcome::Rest { reason: Reason::RateLimited, of: Rests::Account, named: Some(DAY) };
        let _ = pool.settle(now, ticket, outcome, &want);
    }
    bencher.bench_local(|| pool.acquire(now, &want).is_err());
}
