//! Which keys share an account.
//!
//! Providers count limits per organization or project, not per key: two keys of one project add no capacity, and a
//! limit that one of them meets is met by the other. What the configuration declares holds, also by the project that it
//! sends with a key. Else a key is its own account until an answer names the one that it counted against. A later answer
//! may name it more exactly, or another: then the key has moved.

use std::collections::HashMap;

use http::HeaderValue;

use super::{cooling::Cooling, effects::family, rotation::index, slot::Slot};
use crate::types::{AccountId, KeySettings};

/// The accounts of a pool's keys.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    list: Vec<Account>,
    /// By host, where an answer named it.
    known: HashMap<(Option<u32>, AccountId), u32>,
}

/// One account.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Its keys.
    pub(super) slots: Vec<u32>,
    /// Its rest, for every model: money has run out, say.
    pub(super) cooling: Cooling,
    /// What it is called. `None`: nobody has said.
    pub(super) id: Option<AccountId>,
}

/// The project or organization that is sent with a key, so that limits are counted against it.
fn sent_with(settings: &KeySettings) -> Option<AccountId> {
    let name = |header: &Option<HeaderValue>| header.as_ref()?.to_str().ok().map(str::to_owned);
    let project = name(&settings.project).and_then(|name| AccountId::project("openai", &name));
    project.or_else(|| AccountId::organization("openai", &name(&settings.organization)?))
}

impl Accounts {
    /// The accounts of these keys, as far as they are declared. Entries of one credential are of one account.
    pub(super) fn new(slots: &mut [Slot]) -> Self {
        let mut accounts = Self::default();
        for at in 0..slots.len() {
            if slots[at].credential as usize != at {
                continue;
            }
            let family: Vec<u32> = family(slots, index(at)).collect();
            let host = Some(slots[at].host);
            let settings = |slot: &u32| slots[*slot as usize].key.settings();
            let declared =
                family.iter().find_map(|slot| AccountId::declared(settings(slot).account.as_deref()?));
            let sent = || family.iter().find_map(|slot| Some((host, sent_with(settings(slot))?)));
            let account = match declared.map(|id| (None, id)).or_else(sent) {
                Some(named) => accounts.known.get(&named).copied().unwrap_or_else(|| {
                    let account = accounts.open(Some(named.1));
                    accounts.known.insert(named, account);
                    account
                }),
                None => accounts.open(None),
            };
            for slot in family {
                slots[slot as usize].account = account;
                accounts.list[account as usize].slots.push(slot);
            }
        }
        accounts
    }

    fn open(&mut self, id: Option<AccountId>) -> u32 {
        self.list.push(Account { id, ..Account::default() });
        index(self.list.len() - 1)
    }

    pub(super) fn get(&self, account: u32) -> &Account {
        &self.list[account as usize]
    }

    pub(super) fn get_mut(&mut self, account: u32) -> &mut Account {
        &mut self.list[account as usize]
    }

    /// An answer to `slot`'s credential says that it counted against `id`. The entries that have moved, if they have.
    pub(super) fn learn(&mut self, slots: &mut [Slot], slot: u32, id: AccountId) -> Vec<u32> {
        let Slot { account: from, host, .. } = slots[slot as usize];
        let before = self.list[from as usize].id;
        if before.is_some_and(|known| known == id || id.is_coarser_than(&known)) {
            return Vec::new();
        }
        let family: Vec<u32> = family(slots, slot).collect();
        let named = (Some(host), id);
        let to = match self.known.get(&named) {
            Some(&to) => to,
            None => {
                // Nobody else is known to be of it. Alone in its account, the key takes along what that has learned.
                let alone = self.list[from as usize].slots.len() == family.len();
                let to = if alone { from } else { self.open(Some(id)) };
                self.known.insert(named, to);
                to
            }
        };
        if to == from {
            if let Some(before) = self.list[from as usize].id.replace(id) {
                self.known.remove(&(Some(host), before));
            }
            return Vec::new();
        }
        for &slot in &family {
            slots[slot as usize].account = to;
        }
        self.list[from as usize].slots.retain(|slot| !family.contains(slot));
        self.list[to as usize].slots.extend(&family);
        family
    }
}
