//! From a model's name to the keys that serve it: those that name it first, `others` for what none names.

use std::collections::HashMap;

use super::rotation::index;
use crate::types::Key;

/// The model sets of a pool, each the keys of one rotation.
#[derive(Debug)]
pub(super) struct Routing {
    exact: HashMap<Box<str>, u32>,
    /// Whoever matches the longest prefix also belongs to every shorter one that matches.
    prefixes: HashMap<Box<str>, u32>,
    /// The lengths of these, longest first.
    lengths: Vec<usize>,
    others: Option<u32>,
    /// For requests without a model.
    unnamed: Option<u32>,
}

impl Routing {
    /// The routing over `keys`, and the slots of each set. `home` says which keys serve requests without a model.
    pub(super) fn new<'k>(
        keys: &(impl Iterator<Item = &'k Key> + Clone),
        home: impl Fn(&Key) -> bool,
    ) -> (Self, Vec<Vec<u32>>) {
        let mut sets = Sets::default();
        let mut named: HashMap<&str, Vec<u32>> = HashMap::new();
        let mut prefixed: HashMap<&str, Vec<u32>> = HashMap::new();
        for (slot, key) in keys.clone().enumerate() {
            for name in key.settings().models.exact() {
                named.entry(name).or_default().push(index(slot));
            }
            for prefix in key.settings().models.prefixes() {
                prefixed.entry(prefix).or_default().push(index(slot));
            }
        }
        let mut lengths: Vec<usize> = prefixed.keys().map(|prefix| prefix.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let with_prefixes = |name: &str, mut slots: Vec<u32>| {
            for more in starts(&lengths, name).filter_map(|start| prefixed.get(start)) {
                slots.extend(more);
            }
            slots.sort_unstable();
            slots.dedup();
            slots
        };
        let exact = named
            .iter()
            .map(|(name, slots)| (Box::from(*name), sets.id(with_prefixes(name, slots.clone()))))
            .collect();
        let prefixes = prefixed
            .keys()
            .map(|prefix| (Box::from(*prefix), sets.id(with_prefixes(prefix, Vec::new()))))
            .collect();
        let slots_where = |wanted: &dyn Fn(&Key) -> bool| -> Vec<u32> {
            keys.clone().enumerate().filter(|(_, key)| wanted(key)).map(|(slot, _)| index(slot)).collect()
        };
        let others = slots_where(&|key| key.settings().models.serves_others());
        let others = (!others.is_empty()).then(|| sets.id(others));
        let unnamed = slots_where(&home);
        let unnamed = (!unnamed.is_empty()).then(|| sets.id(unnamed));
        (Self { exact, prefixes, lengths, others, unnamed }, sets.slots)
    }

    /// The set that serves `model`, and whether keys name it.
    pub(super) fn find(&self, model: Option<&str>) -> Option<(u32, bool)> {
        let Some(model) = model else { return self.unnamed.map(|set| (set, false)) };
        let named = self
            .exact
            .get(model)
            .copied()
            .or_else(|| starts(&self.lengths, model).find_map(|start| self.prefixes.get(start).copied()));
        named.map(|set| (set, true)).or_else(|| self.others.map(|set| (set, false)))
    }

    /// The set for what no key names.
    pub(super) fn others(&self) -> Option<u32> {
        self.others
    }
}

/// What `name` starts with, in these lengths.
fn starts<'n>(lengths: &[usize], name: &'n str) -> impl Iterator<Item = &'n str> {
    lengths.iter().filter_map(|length| name.get(..*length))
}

/// Equal sets are one: models that the same keys serve share a rotation.
#[derive(Default)]
struct Sets {
    slots: Vec<Vec<u32>>,
    known: HashMap<Vec<u32>, u32>,
}

impl Sets {
    fn id(&mut self, slots: Vec<u32>) -> u32 {
        if let Some(&id) = self.known.get(&slots) {
            return id;
        }
        let id = index(self.slots.len());
        self.slots.push(slots.clone());
        self.known.insert(slots, id);
        id
    }
}
