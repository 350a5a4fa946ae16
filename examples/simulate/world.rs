//! Runs a scenario for one contender: requests come, calls are answered, alarms ring, and everything is counted.

use std::time::{Duration, Instant};

use crate::{
    agenda::Agenda,
    scenario::Scenario,
    tally::Tally,
    traffic::{Request, Traffic},
    upstream::{Answer, Upstream},
};

/// Whoever decides which key a request gets, and what comes after a refusal. It must see to it that each request is
/// served or given up.
pub(crate) trait Contender {
    fn came(&mut self, world: &mut World, id: Id);
    /// The call that was made for the request has come to this.
    fn answered(&mut self, world: &mut World, id: Id, answer: Answer);
    /// The last byte of the request's answer has come.
    fn ended(&mut self, world: &mut World, id: Id);
    /// The moment has come for which [`World::alarm`] gave this mark.
    fn rang(&mut self, world: &mut World, id: Id, mark: Mark);
}

/// A request under way. Used again when that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(u32);

impl Id {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An alarm; no two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

#[derive(Debug)]
enum Event {
    Came(Request),
    Answered(Id, Answer),
    Ended(Id),
    Rang(Id, Mark),
}

#[derive(Debug)]
pub(crate) struct World {
    agenda: Agenda<Event>,
    upstream: Upstream,
    traffic: Traffic,
    requests: Vec<Request>,
    vacant: Vec<Id>,
    marks: u64,
    tally: Tally,
}

impl World {
    /// Everything that happens, up to the end of the last answer.
    pub(crate) fn run(
        scenario: &Scenario,
        start: Instant,
        seed: u64,
        contender: &mut impl Contender,
    ) -> Tally {
        let mut world = Self {
            agenda: Agenda::new(start),
            upstream: Upstream::new(scenario, start, seed),
            traffic: Traffic::new(scenario, start, seed),
            requests: Vec::new(),
            vacant: Vec::new(),
            marks: 0,
            tally: Tally::new(scenario, start),
        };
        world.expect_next();
        while let Some(event) = world.agenda.next() {
            match event {
                Event::Came(request) => {
                    let id = world.enter(request);
                    world.expect_next();
                    contender.came(&mut world, id);
                }
                Event::Answered(id, answer) => {
                    if answer.is_served() {
                        let end = world.now() + world.requests[id.index()].body;
                        world.agenda.add(end, Event::Ended(id));
                    }
                    contender.answered(&mut world, id, answer);
                }
                Event::Ended(id) => {
                    contender.ended(&mut world, id);
                    world.vacant.push(id);
                }
                Event::Rang(id, mark) => contender.rang(&mut world, id, mark),
            }
        }
        assert_eq!(world.vacant.len(), world.requests.len(), "a request was neither served nor given up");
        world.tally
    }

    pub(crate) fn now(&self) -> Instant {
        self.agenda.now()
    }

    pub(crate) fn request(&self, id: Id) -> &Request {
        &self.requests[id.index()]
    }

    /// Sends the request with `key`, and hangs up after `limit`.
    pub(crate) fn call(&mut self, id: Id, key: usize, limit: Duration) {
        let (now, request) = (self.now(), &self.requests[id.index()]);
        let (answer, took) = self.upstream.call(now, key, request, limit);
        self.tally.called(now, request, self.upstream.account_of(key), answer);
        self.agenda.add(now + took, Event::Answered(id, answer));
    }

    /// For those who can see it: how long until `key` would serve the request, and how full its account is.
    pub(crate) fn foresee(&mut self, id: Id, key: usize) -> Option<(Duration, f64)> {
        let now = self.now();
        self.upstream.foresee(now, key, &self.requests[id.index()])
    }

    pub(crate) fn alarm(&mut self, id: Id, at: Instant) -> Mark {
        self.marks += 1;
        let mark = Mark(self.marks);
        self.agenda.add(at, Event::Rang(id, mark));
        mark
    }

    /// The client gets an error.
    pub(crate) fn give_up(&mut self, id: Id) {
        self.tally.gave_up();
        self.vacant.push(id);
    }

    /// The requests come one at a time: there may be millions.
    fn expect_next(&mut self) {
        if let Some(request) = self.traffic.next() {
            self.agenda.add(request.came, Event::Came(request));
        }
    }

    fn enter(&mut self, request: Request) -> Id {
        self.tally.came(&request);
        if let Some(id) = self.vacant.pop() {
            self.requests[id.index()] = request;
            return id;
        }
        self.requests.push(request);
        Id(u32::try_from(self.requests.len() - 1).expect("fewer than 2^32 at once"))
    }
}
