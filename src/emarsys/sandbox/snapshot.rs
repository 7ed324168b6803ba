//! The whole account at a moment, to compare with another moment.

use super::{
    Sandbox,
    catalog::StoredField,
    relational::StoredTable,
    sources::StoredSource,
    store::{StoredContact, StoredList},
};

/// What an account held at a moment.
///
/// Two are equal if contacts with their values and lists, lists, fields, sources and tables are the same. Tokens,
/// requests and what was set off, such as events, are no part of it. `Debug` shows everything: whoever fills a sandbox
/// with real people should not print it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    contacts: Vec<StoredContact>,
    lists: Vec<StoredList>,
    fields: Vec<StoredField>,
    sources: Vec<StoredSource>,
    tables: Vec<StoredTable>,
}

impl Snapshot {
    /// All contacts, by id.
    pub fn contacts(&self) -> &[StoredContact] {
        &self.contacts
    }

    /// All contact lists, by id.
    pub fn lists(&self) -> &[StoredList] {
        &self.lists
    }

    /// All fields, in the order in which the API lists them.
    pub fn fields(&self) -> &[StoredField] {
        &self.fields
    }

    /// All contact sources, by id.
    pub fn sources(&self) -> &[StoredSource] {
        &self.sources
    }

    /// All tables and views of relational data, by connection and name.
    pub fn tables(&self) -> &[StoredTable] {
        &self.tables
    }
}

impl Sandbox {
    /// Everything that the account holds now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.now(|account, _| Snapshot {
            contacts: account.store.contact_snapshots(),
            lists: account.store.list_snapshots(),
            fields: account.store.catalog.fields().to_vec(),
            sources: account.store.source_snapshots(),
            tables: account.store.tables.all().cloned().collect(),
        })
    }
}
