//! Keys that let requests wait: one behaviour each, on a small world with an upstream of its own.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// What a key does with a request.
#[derive(Debug, Clone, Copy)]
enum Upstream {
    /// A head comes after this time.
    Answers(Duration),
    Rejects,
    Fails,
    /// No head comes before the timeout.
    Hangs,
}

/// How long a head is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Something that happens to an attempt, at a moment.
struct Due {
    ticket: Ticket,
    key: usize,
    tried: Vec<KeyIdentity>,
}

/// Requests at a steady rate, each of which is sent again until it is served.
struct Traffic {
    bench: Bench,
    keys: Vec<Upstream>,
    /// By moment and number.
    agenda: BinaryHeap<Reverse<(Instant, usize)>>,
    out: HashMap<usize, Due>,
    sent: usize,
    attempts: Vec<usize>,
    served: usize,
}

impl Traffic {
    fn new(strategy: Strategy, keys: Vec<Upstream>) -> Self {
        let bench = Bench::with(strategy, Entry::many(keys.len()));
        let attempts = vec![0; keys.len()];
        let (agenda, out) = (BinaryHeap::new(), HashMap::new());
        Self { bench, keys, agenda, out, sent: 0, attempts, served: 0 }
    }

    fn send(&mut self, tried: Vec<KeyIdentity>) {
        self.bench.tried.clone_from(&tried);
        let (key, ticket) = self.bench.take();
        self.attempts[key] += 1;
        self.sent += 1;
        let takes = match self.keys[key] {
            Upstream::Answers(takes) => takes,
            Upstream::Rejects | Upstream::Fails => MS * 5,
            Upstream::Hangs => TIMEOUT,
        };
        self.agenda.push(Reverse((self.bench.now + takes, self.sent)));
        self.out.insert(self.sent, Due { ticket, key, tried });
    }

    /// What happens up to `until`.
    fn pass(&mut self, until: Instant) {
        while let Some(&Reverse((at, number))) = self.agenda.peek()
            && at <= until
        {
            self.agenda.pop();
            self.bench.now = self.bench.now.max(at);
            let Due { mut ticket, key, mut tried } = self.out.remove(&number).unwrap();
            let outcome = match self.keys[key] {
                Upstream::Answers(takes) => {
                    let _ = self.bench.heard(&mut ticket, takes);
                    self.served += 1;
                    Outcome::Good
                }
                Upstream::Rejects => rest(Reason::Rejected),
                Upstream::Fails => FAILED,
                Upstream::Hangs => Outcome::Failed(Trouble::Transport),
            };
            let _ = self.bench.settle(ticket, outcome);
            if outcome != Outcome::Good {
                tried.push(self.bench.keys[key].identity());
                self.send(tried);
            }
        }
        self.bench.now = until;
    }

    /// So many requests, this far apart.
    fn run(&mut self, requests: u32, apart: Duration) {
        for _ in 0..requests {
            self.pass(self.bench.now + apart);
            self.send(Vec::new());
        }
    }

    fn late(&mut self, key: usize) -> bool {
        self.bench.pool.snapshot(self.bench.now).keys[key].late
    }
}

const QUICK: Upstream = Upstream::Answers(Duration::from_millis(30));

#[test]
fn three_bad_keys_of_ten_get_twenty_of_five_thousand_requests() {
    for (name, strategy) in Strategy::NAMES {
        let mut keys = vec![QUICK; 10];
        (keys[1], keys[4], keys[7]) = (Upstream::Rejects, Upstream::Fails, Upstream::Hangs);
        let mut traffic = Traffic::new(strategy, keys);
        traffic.run(5_000, MS * 4);
        traffic.pass(traffic.bench.now + SECOND * 30);
        assert_eq!(traffic.served, 5_000);
        let bad = [1, 4, 7].map(|key| traffic.attempts[key]);
        assert!(bad.iter().sum::<usize>() <= 20, "{name}: {bad:?}");
    }
}

#[test]
fn a_hanging_key_is_passed_over_long_before_its_timeout() {
    for (name, strategy) in Strategy::NAMES {
        let mut traffic = Traffic::new(strategy, vec![QUICK; 10]);
        traffic.run(500, MS * 4);
        traffic.keys[0] = Upstream::Hangs;
        let before = traffic.attempts[0];
        traffic.run(250, MS * 4);
        let more = traffic.attempts[0] - before;
        // Who gets all of it gets that much in the time below which nothing is late.
        let most = if strategy == Strategy::FillFirst { 30 } else { 8 };
        assert!((1..=most).contains(&more), "{name}: {more}");
        assert!(traffic.late(0), "{name}");
    }
}

#[test]
fn a_head_clears_a_late_key_at_once() {
    let mut traffic = Traffic::new(Strategy::RoundRobin, vec![QUICK; 4]);
    traffic.run(100, MS * 10);
    // It takes a second for a while.
    traffic.keys[0] = Upstream::Answers(SECOND);
    traffic.run(60, MS * 10);
    assert!(traffic.late(0));
    traffic.keys[0] = QUICK;
    traffic.run(100, MS * 10);
    assert!(!traffic.late(0));
    let before = traffic.attempts.clone();
    traffic.run(100, MS * 10);
    let more: Vec<_> = traffic.attempts.iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(more, [25, 25, 25, 25]);
}

#[test]
fn where_everything_hangs_nobody_is_late() {
    let mut traffic = Traffic::new(Strategy::RoundRobin, vec![QUICK; 4]);
    traffic.run(100, MS * 10);
    traffic.keys.fill(Upstream::Hangs);
    traffic.pass(traffic.bench.now + SECOND);
    let before = traffic.attempts.clone();
    traffic.run(80, MS * 10);
    assert!((0..4).all(|key| !traffic.late(key)));
    let more: Vec<_> = traffic.attempts.iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(more, [20; 4]);
}

#[test]
fn a_late_key_serves_while_no_other_can() {
    let mut bench = Bench::with(Strategy::RoundRobin, Entry::many(3));
    let mut hung = Vec::new();
    for n in 0..40 {
        bench.now += MS * 50;
        let (key, mut ticket) = bench.take();
        if key == 0 && n >= 20 {
            hung.push(ticket);
        } else {
            let _ = bench.heard(&mut ticket, MS * 30);
            let _ = bench.settle(ticket, Outcome::Good);
        }
    }
    assert!(bench.pool.snapshot(bench.now).keys[0].late);
    let _ = bench.hit(1, limited(60));
    let _ = bench.hit(2, limited(60));
    assert_eq!(bench.serve(Outcome::Abandoned), 0, "nobody is refused for a suspicion");
    // Nor is one who has tried all others.
    let mut bench = Bench { tried: vec![bench.keys[1].identity(), bench.keys[2].identity()], ..bench };
    bench.now += SECOND * 60;
    assert_eq!(bench.serve(Outcome::Abandoned), 0);
}

#[test]
fn one_long_request_among_short_ones_costs_its_key_next_to_nothing() {
    for stream in [false, true] {
        let mut traffic = Traffic::new(Strategy::RoundRobin, vec![QUICK; 4]);
        traffic.bench.stream = stream;
        traffic.run(100, MS * 10);
        let (key, long) = traffic.bench.take();
        let before = traffic.attempts.clone();
        traffic.run(4_000, MS * 10);
        let more = traffic.attempts[key] - before[key];
        assert!((950..=1_001).contains(&more), "{more}");
        let _ = traffic.bench.settle(long, Outcome::Good);
    }
}

#[test]
fn a_client_that_leaves_at_once_makes_no_key_late() {
    let mut traffic = Traffic::new(Strategy::RoundRobin, vec![QUICK; 3]);
    traffic.run(100, MS * 10);
    for _ in 0..3_000 {
        let (_, ticket) = traffic.bench.take();
        let _ = traffic.bench.settle(ticket, Outcome::Abandoned);
    }
    traffic.run(50, MS * 10);
    traffic.pass(traffic.bench.now + SECOND * 100);
    assert!((0..3).all(|key| !traffic.late(key)));
}

#[test]
fn clients_that_wait_in_vain_make_it_late() {
    let mut bench = Bench::with(Strategy::RoundRobin, Entry::many(3));
    for _ in 0..60 {
        let (key, mut ticket) = bench.take();
        if key == 0 {
            // They give up after half a second, long before the timeout.
            bench.now += MS * 500;
            let _ = bench.settle(ticket, Outcome::Abandoned);
        } else {
            bench.now += MS * 30;
            let _ = bench.heard(&mut ticket, MS * 30);
            let _ = bench.settle(ticket, Outcome::Good);
        }
    }
    let snapshot = bench.pool.snapshot(bench.now);
    assert!(snapshot.keys[0].late);
    assert!(snapshot.keys[0].used <= 8, "{}", snapshot.keys[0].used);
}

#[test]
fn a_key_that_gets_everything_makes_way_though_nobody_else_was_asked() {
    let mut bench = Bench::with(Strategy::FillFirst, Entry::many(3));
    let good = |bench: &mut Bench, mut ticket| {
        let _ = bench.heard(&mut ticket, MS * 30);
        let _ = bench.settle(ticket, Outcome::Good);
    };
    for _ in 0..20 {
        let (key, ticket) = bench.take();
        assert_eq!(key, 0);
        good(&mut bench, ticket);
    }
    let mut hung = Vec::new();
    let mut next = bench.take();
    while next.0 == 0 {
        hung.push(next.1);
        assert!(hung.len() < 20);
        bench.now += MS * 20;
        next = bench.take();
    }
    // Whether that is any better nobody knows yet.
    let (other, asked) = next;
    assert_eq!((other, bench.take().0), (1, 0));
    good(&mut bench, asked);
    for _ in 0..20 {
        bench.now += MS * 20;
        let (key, ticket) = bench.take();
        assert_eq!(key, 1);
        good(&mut bench, ticket);
    }
}

#[test]
fn streams_and_whole_answers_are_measured_apart() {
    let mut bench = Bench::with(Strategy::RoundRobin, Entry::many(2));
    for n in 0..60 {
        bench.stream = n % 2 == 0;
        let takes = if bench.stream { MS * 200 } else { SECOND * 20 };
        let (_, mut ticket) = bench.take();
        let _ = bench.heard(&mut ticket, takes);
        let _ = bench.settle(ticket, Outcome::Good);
    }
    bench.stream = false;
    let (key, whole) = bench.take();
    bench.stream = true;
    for _ in 0..100 {
        bench.now += MS * 150;
        let (other, mut ticket) = bench.take();
        if other != key {
            let _ = bench.heard(&mut ticket, MS * 200);
        }
        let _ = bench.settle(ticket, if other == key { Outcome::Unused } else { Outcome::Good });
    }
    assert!(!bench.pool.snapshot(bench.now).keys[key].late, "whole answers take 20 s here");
    let _ = bench.settle(whole, Outcome::Abandoned);
}

#[test]
fn a_lone_key_of_a_host_that_hangs_makes_way_for_another_host() {
    let mut bench = Bench::with(
        Strategy::RoundRobin,
        vec![Entry::new("a").models(&["m"]), Entry::new("b").at(TWO).models(&["m"])],
    );
    bench.model = Some("m");
    for _ in 0..40 {
        let (_, mut ticket) = bench.take();
        let _ = bench.heard(&mut ticket, MS * 100);
        let _ = bench.settle(ticket, Outcome::Good);
    }
    let mut hung = Vec::new();
    for _ in 0..100 {
        bench.now += MS * 20;
        let (key, mut ticket) = bench.take();
        if key == 0 {
            hung.push(ticket);
        } else {
            let _ = bench.heard(&mut ticket, MS * 100);
            let _ = bench.settle(ticket, Outcome::Good);
        }
    }
    assert!(hung.len() <= 8, "{}", hung.len());
}
