//! The optimum: who sees how full every account is and what is wrong with it, makes no call in vain, and takes from the
//! fullest account, so that none overflows while another is empty. Who comes first is served first; as many wait, and as
//! long, as the proxy lets them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    scenario::Scenario,
    upstream::Answer,
    world::{Contender, Id, Mark, World},
};

#[derive(Debug)]
pub(crate) struct Seer {
    /// A key of each account that has one.
    keys: Vec<usize>,
    max_wait: Duration,
    max_waiting: usize,
    /// Who waits, for each model.
    lines: Vec<VecDeque<Id>>,
    /// The alarm of who is first in each.
    marks: Vec<Option<Mark>>,
}

impl Seer {
    pub(crate) fn new(scenario: &Scenario, max_wait: Duration, max_waiting: usize) -> Self {
        let mut next = 0;
        let mut first_of = |keys: usize| {
            let first = next;
            next += keys;
            (keys > 0).then_some(first)
        };
        let models = scenario.models.len();
        Self {
            keys: scenario.accounts.iter().filter_map(|account| first_of(account.keys)).collect(),
            max_wait,
            max_waiting,
            lines: vec![VecDeque::new(); models],
            marks: vec![None; models],
        }
    }

    /// Serves who is first in line as long as somebody can be served.
    fn serve(&mut self, world: &mut World, model: usize) {
        while let Some(&id) = self.lines[model].front() {
            let patience = world.request(id).came + self.max_wait;
            let at = match self.best(world, id) {
                Some((Duration::ZERO, key)) => {
                    self.lines[model].pop_front();
                    world.call(id, key, Duration::MAX);
                    continue;
                }
                _ if world.now() >= patience => {
                    self.lines[model].pop_front();
                    world.give_up(id);
                    continue;
                }
                Some((wait, _)) => patience.min(world.now() + wait),
                None => patience,
            };
            self.watch(world, model, id, at);
            return;
        }
    }

    fn watch(&mut self, world: &mut World, model: usize, id: Id, at: Instant) {
        self.marks[model] = Some(world.alarm(id, at));
    }

    /// The fullest account that would serve the request now, else the one that will do so first; and when.
    fn best(&self, world: &mut World, id: Id) -> Option<(Duration, usize)> {
        let seen = self.keys.iter().filter_map(|key| {
            let (wait, fill) = world.foresee(id, *key)?;
            Some((wait, fill, *key))
        });
        let best = seen.min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        best.map(|(wait, _, key)| (wait, key))
    }
}

impl Contender for Seer {
    fn came(&mut self, world: &mut World, id: Id) {
        let model = world.request(id).model;
        if self.lines.iter().map(VecDeque::len).sum::<usize>() >= self.max_waiting {
            world.give_up(id);
            return;
        }
        self.lines[model].push_back(id);
        // Who is first in a line of several has set its alarm.
        if self.lines[model].len() == 1 {
            self.serve(world, model);
        }
    }

    fn answered(&mut self, _: &mut World, _: Id, answer: Answer) {
        assert!(answer.is_served(), "who sees everything calls nobody in vain");
    }

    fn ended(&mut self, _: &mut World, _: Id) {}

    fn rang(&mut self, world: &mut World, id: Id, mark: Mark) {
        let model = world.request(id).model;
        if self.marks[model] == Some(mark) {
            self.serve(world, model);
        }
    }
}
