//! Plain round robin: each key in turn, and the next one after any failure.

use std::time::Duration;

use crate::{
    scenario::Scenario,
    upstream::Answer,
    world::{Contender, Id, Mark, World},
};

/// So many further keys are tried.
const RETRIES: u32 = 3;
/// As long as the proxy waits for the head of a stream.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Robin {
    keys: usize,
    next: usize,
    /// Retries that are left, for each request.
    left: Vec<u32>,
}

impl Robin {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let keys = scenario.accounts.iter().map(|account| account.keys).sum();
        Self { keys, next: 0, left: Vec::new() }
    }

    fn call(&mut self, world: &mut World, id: Id) {
        world.call(id, self.next, HEAD_TIMEOUT);
        self.next = (self.next + 1) % self.keys;
    }
}

impl Contender for Robin {
    fn came(&mut self, world: &mut World, id: Id) {
        if self.left.len() <= id.index() {
            self.left.resize(id.index() + 1, 0);
        }
        self.left[id.index()] = RETRIES;
        self.call(world, id);
    }

    fn answered(&mut self, world: &mut World, id: Id, answer: Answer) {
        if answer.is_served() {
            return;
        }
        match self.left[id.index()].checked_sub(1) {
            Some(left) => {
                self.left[id.index()] = left;
                self.call(world, id);
            }
            None => world.give_up(id),
        }
    }

    fn ended(&mut self, _: &mut World, _: Id) {}

    fn rang(&mut self, _: &mut World, _: Id, _: Mark) {}
}
