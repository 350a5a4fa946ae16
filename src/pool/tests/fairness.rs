//! Who waits is served in order of its client's turns.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher},
};

use proptest::prelude::*;

use super::*;
use crate::rate::Gcra;

fn client(number: usize) -> ClientId {
    ClientId::of(&BuildHasherDefault::<DefaultHasher>::default(), number)
}

/// Jain's index: 1 where all got the same, `1 / n` where one of `n` got everything.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// A request of that client comes and stands in line.
fn wait(bench: &mut Bench, who: usize) -> Arrival {
    let arrival = bench.pool.arrive(client(who));
    assert!(bench.ask(arrival).is_err());
    bench.join(arrival).unwrap();
    arrival
}

/// The only key's only place goes to the first in line, and who is first then asks.
fn pass_on(bench: &mut Bench, out: Ticket) -> (Arrival, Ticket) {
    let [first] = bench.settle(out, Outcome::Good).wake[..] else { panic!("one is woken") };
    let ticket = bench.ask(first).unwrap().ticket;
    if let Some(next) = bench.pool.leave(first) {
        assert_eq!(bench.ask(next).unwrap_err().why, Why::NoneFree);
    }
    bench.pool.lines.assert_whole();
    (first, ticket)
}

#[test]
fn each_client_has_a_turn_in_every_round_and_its_own_are_served_as_they_came() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let (_, mut out) = bench.take();
    let heavy: Vec<_> = (0..4).map(|_| wait(&mut bench, 0)).collect();
    let light: Vec<_> = (1..3).map(|who| wait(&mut bench, who)).collect();
    let again = wait(&mut bench, 1);
    let expected = [heavy[0], light[0], light[1], heavy[1], again, heavy[2], heavy[3]];
    for (n, arrival) in expected.into_iter().enumerate() {
        let (first, ticket) = pass_on(&mut bench, out);
        assert_eq!(first, arrival, "turn {n}");
        out = ticket;
    }
}

#[test]
fn a_turn_that_is_given_up_is_the_next_ones_of_its_client() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let (_, out) = bench.take();
    let arrivals: Vec<_> = [0, 0, 0, 1, 1].map(|who| wait(&mut bench, who)).into();
    // Those who have waited longest run out of patience first.
    assert_eq!(bench.pool.leave(arrivals[0]), Some(arrivals[1]));
    assert_eq!(bench.pool.leave(arrivals[1]), Some(arrivals[2]));
    let (first, out) = pass_on(&mut bench, out);
    assert_eq!(first, arrivals[2]);
    assert_eq!(pass_on(&mut bench, out).0, arrivals[3]);
}

#[test]
fn a_request_keeps_its_place_over_its_attempts() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let (_, out) = bench.take();
    let arrivals: Vec<_> = [0, 1, 2].map(|who| wait(&mut bench, who)).into();
    let key = Arc::clone(&bench.keys[0]);
    let (first, ticket) = pass_on(&mut bench, out);
    assert_eq!(first, arrivals[0]);
    assert_eq!(bench.settle(ticket, rest(Reason::RateLimited)).wake, [arrivals[1]]);
    // It had its turn, and that came to nothing.
    bench.tried = vec![key.identity()];
    assert_eq!(bench.ask(arrivals[0]).unwrap_err().why, Why::NoneFree);
    let want = Want {
        arrival: arrivals[0],
        model: None,
        purpose: "chat",
        stream: false,
        tried: &[key.identity()],
        failed_hosts: &[],
        demand: Demand::default(),
    };
    bench.pool.join(&want).unwrap();
    bench.now += SECOND;
    bench.tried.clear();
    assert_eq!(bench.ask(arrivals[1]).unwrap_err().why, Why::InLine);
    bench.tried = vec![key.identity()];
    assert!(bench.ask(arrivals[0]).is_ok());
}

#[test]
fn whoever_fills_the_line_makes_room_for_the_others() {
    let settings = Settings { max_waiting: 4.try_into().unwrap(), ..Settings::default() };
    let mut bench = Bench::set(settings, vec![Entry::new("a").at_once(1)]);
    let (_, _out) = bench.take();
    let heavy: Vec<_> = (0..5).map(|_| bench.pool.arrive(client(0))).collect();
    for arrival in &heavy[..4] {
        assert_eq!(bench.join(*arrival), Ok(vec![]));
    }
    assert_eq!(bench.join(heavy[4]), Err(LineFull), "it makes no room for itself");
    let light: Vec<_> = (0..3).map(|_| bench.pool.arrive(client(1))).collect();
    assert_eq!(bench.join(light[0]), Ok(vec![heavy[3]]), "the last of who has most");
    assert_eq!(bench.ask(heavy[3]).unwrap_err().why, Why::InLine);
    assert_eq!(bench.join(heavy[3]), Err(LineFull), "it has no place any more");
    assert_eq!(bench.join(light[1]), Ok(vec![heavy[2]]));
    assert_eq!(bench.join(light[2]), Err(LineFull), "both have as many");
    assert_eq!(bench.pool.waiting(), 4);
    let other = bench.pool.arrive(client(2));
    assert_eq!(bench.join(other).unwrap().len(), 1);
    bench.pool.lines.assert_whole();
}

#[test]
fn nothing_is_remembered_of_who_does_not_wait() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let (_, mut out) = bench.take();
    // What is remembered is compared with who waits, each time.
    for who in 0..1000 {
        wait(&mut bench, who);
        out = pass_on(&mut bench, out).1;
    }
}

#[test]
fn those_nobody_has_seen_before_do_not_keep_out_the_known() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let (_, mut out) = bench.take();
    for _ in 0..10 {
        wait(&mut bench, 0);
    }
    let mut served = 0;
    for stranger in 1..100 {
        // Two new ones for each turn.
        for who in [stranger, stranger + 1000] {
            wait(&mut bench, who);
        }
        let (first, ticket) = pass_on(&mut bench, out);
        out = ticket;
        served += usize::from(first.client == client(0));
    }
    assert!(served >= 5, "{served}");
}

#[test]
fn those_who_were_refused_take_turns_too() {
    let mut lines = Lines::default();
    lines.open();
    for who in [0; 100].into_iter().chain([1, 2, 1]) {
        let arrival = lines.arrive(client(who));
        assert_eq!(lines.join(0, arrival, true, None, 1000), Ok(Vec::new()));
    }
    let mut order = Vec::new();
    while let Some(first) = lines.first_of(0) {
        lines.served(first);
        lines.leave(first);
        order.push(first.client);
    }
    let [heavy, one, two] = [0, 1, 2].map(client);
    assert_eq!(order[..5], [heavy, one, two, heavy, one]);
}

proptest! {
    /// `ahead` counts exactly those who are served before.
    #[test]
    fn the_number_of_those_ahead_is_the_number_of_those_served_before(
        waiters in prop::collection::vec((0..5_usize, any::<bool>()), 1..60),
        early in 0..20_usize,
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut lines = Lines::default();
        lines.open();
        let mut waiting = Vec::new();
        let mut join = |lines: &mut Lines, arrival: Arrival, returned: bool| {
            lines.join(0, arrival, returned, None, 1000).unwrap();
            waiting.push((arrival, returned));
        };
        // Some who came early join late.
        let late: Vec<_> = (0..early).map(|n| lines.arrive(client(n % 5))).collect();
        for (n, (who, returned)) in waiters.iter().enumerate() {
            let arrival = lines.arrive(client(*who));
            join(&mut lines, arrival, *returned && n % 4 == 0);
            if n % 3 == 0 && let Some(first) = lines.first_of(0) {
                lines.served(first);
                lines.leave(first);
            }
        }
        for arrival in late {
            join(&mut lines, arrival, false);
        }
        for index in gone {
            lines.leave(index.get(&waiting).0);
        }
        lines.assert_whole();
        let newcomer = lines.arrive(client(3));
        let told = lines.ahead(0, newcomer, false).unwrap_or_default();
        waiting.push((newcomer, false));
        lines.join(0, newcomer, false, None, 1000).unwrap();
        let ahead: BTreeMap<_, _> = waiting
            .iter()
            .map(|(arrival, returned)| (*arrival, lines.ahead(0, *arrival, *returned).unwrap_or_default()))
            .collect();
        assert_eq!(told, ahead[&newcomer]);
        let mut served = 0;
        while let Some(first) = lines.first_of(0) {
            prop_assert_eq!(ahead[&first], served);
            lines.served(first);
            lines.leave(first);
            lines.assert_whole();
            served += 1;
        }
    }
}

/// A pool with those who sleep until it says that they may ask, as its shell has them.
struct Crowd {
    bench: Bench,
    /// When each asks by itself.
    asleep: BTreeMap<Arrival, Option<Instant>>,
    /// Who was woken, in this order.
    awake: VecDeque<Arrival>,
    /// Until when they wait.
    patience: Instant,
    served: Vec<(Arrival, usize, Instant)>,
    refused: usize,
    asked: usize,
}

impl Crowd {
    fn ask(&mut self, arrival: Arrival) {
        self.asked += 1;
        match self.bench.ask(arrival) {
            Ok(Grant { key, ticket }) => {
                self.served.push((arrival, self.bench.number(&key), self.bench.now));
                self.asleep.remove(&arrival);
                self.awake.extend(self.bench.pool.leave(arrival));
                self.awake.extend(self.bench.settle(ticket, Outcome::Good).wake);
            }
            Err(told) => {
                let hopeless = told.free_at.is_some_and(|at| at > self.patience) && !told.sooner;
                if hopeless || self.bench.now >= self.patience || self.bench.join(arrival).is_err() {
                    self.refused += 1;
                    self.asleep.remove(&arrival);
                    self.awake.extend(self.bench.pool.leave(arrival));
                } else {
                    let watched = told.free_at.filter(|_| told.why == Why::NoneFree);
                    self.asleep.insert(arrival, watched);
                }
            }
        }
    }

    fn run(&mut self) {
        loop {
            while let Some(arrival) = self.awake.pop_front() {
                if self.asleep.contains_key(&arrival) {
                    self.ask(arrival);
                }
            }
            let next = self.asleep.iter().filter_map(|(arrival, at)| Some(((*at)?, *arrival))).min();
            let Some((at, arrival)) = next else { break };
            assert!(at > self.bench.now, "it was told to wait for the present");
            self.bench.now = at;
            self.awake.push_back(arrival);
        }
        assert!(self.asleep.is_empty(), "somebody is never woken");
    }
}

#[test]
fn a_thousand_who_wait_for_a_reset_are_served_fairly_and_without_a_stampede() {
    const KEYS: usize = 4;
    const LIGHT: usize = 53;
    let (rate, burst) = (25.0, 5);
    let entries = (0..KEYS).map(|n| Entry::new(&format!("sk-{n}")).rate(rate, burst));
    let mut bench = Bench::new(entries.collect());
    let reset = bench.now + SECOND * 5;
    for _ in 0..KEYS {
        bench.serve(limited(5));
    }
    let patience = bench.now + SECOND * 30;
    let mut crowd = Crowd {
        bench,
        asleep: BTreeMap::new(),
        awake: VecDeque::new(),
        patience,
        served: Vec::new(),
        refused: 0,
        asked: 0,
    };
    // One client has ten times the requests of each of nine others, and has them all in line before the others come.
    let clients: Vec<usize> = (0..1000).map(|n| if n < 523 { 0 } else { 1 + n % 9 }).collect();
    for who in &clients {
        let arrival = crowd.bench.pool.arrive(client(*who));
        crowd.ask(arrival);
    }
    assert_eq!((crowd.bench.pool.waiting(), crowd.refused), (1000, 0));
    crowd.asked = 0;
    crowd.run();
    assert_eq!((crowd.served.len(), crowd.refused), (1000, 0));

    // What an upstream with these limits would say to it.
    let limit = Rate::per_second(rate, NonZeroU32::new(burst).unwrap()).unwrap();
    let mut upstream = [(); KEYS].map(|()| Gcra::default());
    let refused = crowd.served.iter().filter(|(_, key, at)| upstream[*key].take(limit, *at).is_err());
    assert_eq!(refused.count(), 0, "it would have been refused upstream");
    assert_eq!(crowd.served[0].2, reset, "the first is served at the reset");
    // The last comes when that many have passed at the rate of all keys together, and not later.
    let whole = SECOND.mul_f64((1000 - KEYS * burst as usize) as f64 / (rate * KEYS as f64));
    let last = crowd.served.last().unwrap().2;
    assert!(last <= reset + whole + MS, "{:?}", last - reset);
    // Each is woken when it is first, and may once more be too early.
    assert!(crowd.asked <= 2 * 1000, "{} asked", crowd.asked);

    let number = |arrival: Arrival| (0..10).find(|number| client(*number) == arrival.client).unwrap();
    let mut shares = [0.0; 10];
    for (arrival, ..) in &crowd.served[..10 * LIGHT - 10] {
        shares[number(*arrival)] += 1.0;
    }
    assert!(jain(&shares) >= 0.99, "while all have demand: {shares:?}");
    for who in 0..10 {
        let own: Vec<_> = crowd.served.iter().map(|(arrival, ..)| *arrival).collect();
        let own = own.into_iter().filter(|arrival| number(*arrival) == who);
        assert!(own.is_sorted(), "first in, first out");
    }
}
