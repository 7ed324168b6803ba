//! Tables as they are kept: records in the order in which they were added, known by their key columns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::super::value;

/// A table or a view of relational data.
///
/// Two of them are equal if they hold the same records in the same order. `Debug` shows the records.
#[derive(Clone, Debug)]
pub struct StoredTable {
    connection: String,
    name: String,
    keys: Vec<String>,
    indexed: BTreeSet<String>,
    view: bool,
    records: Vec<Map<String, Value>>,
    /// Key → place among the records.
    places: HashMap<Vec<(String, String)>, usize>,
}

impl PartialEq for StoredTable {
    fn eq(&self, other: &Self) -> bool {
        // The places follow from the rest.
        self.connection == other.connection
            && self.name == other.name
            && self.keys == other.keys
            && self.indexed == other.indexed
            && self.view == other.view
            && self.records == other.records
    }
}

impl StoredTable {
    /// The name of the connection.
    pub fn connection(&self) -> &str {
        &self.connection
    }

    /// The name of the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns by which a record is known.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Whether it is a view.
    pub fn is_view(&self) -> bool {
        self.view
    }

    /// The records, in the order in which they were added.
    pub fn records(&self) -> &[Map<String, Value>] {
        &self.records
    }

    pub(super) fn new<'a>(
        connection: &str,
        name: &str,
        keys: impl IntoIterator<Item = &'a str>,
        view: bool,
    ) -> Self {
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        Self {
            connection: connection.to_owned(),
            name: name.to_owned(),
            indexed: keys.iter().cloned().collect(),
            keys,
            view,
            records: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// The same table without records.
    pub(super) fn emptied(&self) -> Self {
        let keys = self.keys.iter().map(String::as_str);
        let indexed = self.indexed.clone();
        Self { indexed, ..Self::new(&self.connection, &self.name, keys, self.view) }
    }

    pub(super) fn index(&mut self, column: &str) {
        self.indexed.insert(column.to_owned());
    }

    pub(super) fn is_indexed(&self, column: &str) -> bool {
        self.indexed.contains(column)
    }

    /// The records whose columns have these values, as text.
    pub(super) fn matching<'a>(
        &'a self,
        filters: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Map<String, Value>> {
        let has = |record: &Map<String, Value>, column: &str, wanted: &str| {
            record.get(column).and_then(value::text).unwrap_or_default() == wanted
        };
        self.records
            .iter()
            .filter(move |record| filters.iter().all(|(column, wanted)| has(record, column, wanted)))
    }

    /// Whether a record has a value in every key column.
    pub(super) fn has_key(&self, record: &Map<String, Value>) -> bool {
        self.keys.iter().all(|column| record.get(column).and_then(value::text).is_some())
    }

    /// Whether all records can be inserted: no key is here, and none occurs twice.
    pub(super) fn admits(&self, records: &[Map<String, Value>]) -> bool {
        let mut keys = BTreeSet::new();
        records.iter().map(|record| self.key(record)).all(|key| {
            let free = !self.places.contains_key(&key);
            keys.insert(key) && free
        })
    }

    /// Adds a record whose key is free.
    pub(super) fn insert(&mut self, record: Map<String, Value>) {
        self.places.insert(self.key(&record), self.records.len());
        self.records.push(record);
    }

    /// Changes columns of the record with this key, if there is one.
    pub(super) fn patch(&mut self, record: Map<String, Value>) {
        if let Some(known) = self.find(&record) {
            known.extend(record);
        }
    }

    /// Adds a record; one with its key is replaced or has the columns changed that were sent.
    pub(super) fn upsert(&mut self, record: Map<String, Value>, replaces: bool) {
        match self.find(&record) {
            Some(known) if replaces => *known = record,
            Some(known) => known.extend(record),
            None => self.insert(record),
        }
    }

    /// Removes the record with this key, if there is one.
    pub(super) fn remove(&mut self, record: &Map<String, Value>) {
        if let Some(place) = self.places.remove(&self.key(record)) {
            self.records.remove(place);
            self.places.values_mut().filter(|later| **later > place).for_each(|later| *later -= 1);
        }
    }

    fn find(&mut self, record: &Map<String, Value>) -> Option<&mut Map<String, Value>> {
        let place = *self.places.get(&self.key(record))?;
        self.records.get_mut(place)
    }

    /// The values of the key columns as text, or all values if the table has no key.
    fn key(&self, record: &Map<String, Value>) -> Vec<(String, String)> {
        let text = |value: &Value| value::text(value).unwrap_or_else(|| value.to_string());
        let pair = |(column, value): (&String, &Value)| (column.clone(), text(value));
        if self.keys.is_empty() {
            let mut pairs: Vec<_> = record.iter().map(pair).collect();
            pairs.sort_unstable();
            return pairs;
        }
        self.keys.iter().filter_map(|column| record.get_key_value(column)).map(pair).collect()
    }
}

/// All tables of the account, by connection and name.
#[derive(Debug, Default)]
pub(in super::super) struct Tables(BTreeMap<(String, String), StoredTable>);

impl Tables {
    pub(super) fn add(&mut self, table: StoredTable) {
        self.0.insert((table.connection.clone(), table.name.clone()), table);
    }

    pub(super) fn has_connection(&self, connection: &str) -> bool {
        self.0.keys().any(|(known, _)| known == connection)
    }

    pub(super) fn get(&self, connection: &str, table: &str) -> Option<&StoredTable> {
        self.0.get(&(connection.to_owned(), table.to_owned()))
    }

    pub(super) fn get_mut(&mut self, connection: &str, table: &str) -> Option<&mut StoredTable> {
        self.0.get_mut(&(connection.to_owned(), table.to_owned()))
    }

    pub(in super::super) fn all(&self) -> impl Iterator<Item = &StoredTable> {
        self.0.values()
    }
}
