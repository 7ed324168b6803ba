//! Things of the account that have an id and a name, and nothing else that a request can see.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Named {
    names: BTreeMap<u64, String>,
    next: u64,
}

impl Named {
    pub(super) fn new(first: u64) -> Self {
        Self { names: BTreeMap::new(), next: first }
    }

    pub(super) fn add(&mut self, name: &str) -> u64 {
        let id = self.next;
        self.next += 1;
        self.names.insert(id, name.to_owned());
        id
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.names.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.names.remove(&id).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.names.iter().map(|(id, name)| (*id, name.as_str()))
    }
}
