//! Relational data: `/api/rds/v1/connections/{connection}/tables/{table}/records`, and the older form without `v1`.
//!
//! Of these calls only addresses, verbs, limits and some codes are documented. Decided here, for want of better:
//! either kind of credentials is good; records are sent as an array of objects, or as such an array named `records`; a
//! record is known by its key columns; a request is carried out as a whole or refused, with 15001 if a record has no
//! key or an insert finds its key taken; a patch or a removal of a record that does not exist does nothing.

mod tables;

use serde_json::{Map, Value, json};

use super::{
    Sandbox,
    context::Context,
    endpoint::{Endpoint, Query, Route},
    exchange::{Request, Response},
    faults::Twist,
    reply::{self, Data, Failure},
    switches::{ErrorBody, RelationalBody, Switches},
};

pub use self::tables::StoredTable;
pub(super) use self::tables::Tables;

/// Records in one request.
const RECORDS_MAX: usize = 1_000;

/// What a request does with its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Insert,
    /// All records of the table make room for them.
    Replace,
    Patch,
    Upsert,
    Remove,
}

/// Relational data behind the client's back.
impl Sandbox {
    /// Adds a table, and the connection if there is none of this name. A record is known by its `keys`, which have an
    /// index; without any it is known by all that it holds. A table of this name makes room for it.
    pub fn add_table<'a>(&self, connection: &str, table: &str, keys: impl IntoIterator<Item = &'a str>) {
        let table = StoredTable::new(connection, table, keys, false);
        self.shared.now(|account, _| account.store.tables.add(table));
    }

    /// Adds a view: as a table, but requests cannot write it.
    pub fn add_view<'a>(&self, connection: &str, view: &str, keys: impl IntoIterator<Item = &'a str>) {
        let view = StoredTable::new(connection, view, keys, true);
        self.shared.now(|account, _| account.store.tables.add(view));
    }

    /// Gives a column of a table an index, so that queries can filter by it; whether there is such a table.
    pub fn index_column(&self, connection: &str, table: &str, column: &str) -> bool {
        self.shared.now(|account, _| {
            let table = account.store.tables.get_mut(connection, table);
            table.map(|table| table.index(column)).is_some()
        })
    }

    /// Adds a record, or replaces the one with its key; whether there is such a table.
    pub fn add_record(&self, connection: &str, table: &str, record: Map<String, Value>) -> bool {
        self.shared.now(|account, _| {
            let table = account.store.tables.get_mut(connection, table);
            table.map(|table| table.upsert(record, true)).is_some()
        })
    }

    /// The records of a table or view, in the order in which they were added; none if there is no such table.
    pub fn table(&self, connection: &str, table: &str) -> Vec<Map<String, Value>> {
        self.shared.now(|account, _| {
            let table = account.store.tables.get(connection, table);
            table.map(|table| table.records().to_vec()).unwrap_or_default()
        })
    }

    /// All tables and views, by connection and name.
    pub fn tables(&self) -> Vec<StoredTable> {
        self.shared.now(|account, _| account.store.tables.all().cloned().collect())
    }
}

pub(super) fn query(cx: &Context<'_>, route: &Route) -> Data {
    let (connection, table) = names(route);
    let table = cx.store.tables.get(&connection, &table);
    let table = table.ok_or_else(|| unknown(&cx.store.tables, &connection))?;
    if let Some((column, _)) = route.query.pairs().find(|(column, _)| !table.is_indexed(column)) {
        return Err(Failure::bad(15_007, format!("The column {column} of the criteria is not indexed.")));
    }
    let filters: Vec<_> = route.query.pairs().collect();
    Ok(table.matching(&filters).cloned().map(Value::Object).collect())
}

pub(super) fn write(cx: &mut Context<'_>, request: &Request, route: &Route, edit: Edit) -> Data {
    let (connection, table) = names(route);
    let mut records = records(&request.body)?;
    let tables = &mut cx.store.tables;
    let Some(table) = tables.get_mut(&connection, &table) else { return Err(unknown(tables, &connection)) };
    if table.is_view() {
        return Err(Failure::bad(15_009, "A view cannot be written."));
    }
    if records.len() > RECORDS_MAX {
        return Err(Failure::bad(15_002, "The request exceeded the maximum of 1,000 records."));
    }
    if !records.iter().all(|record| table.has_key(record)) {
        return Err(Failure::bad(15_001, "A record has no value in a key column."));
    }
    let fresh = match edit {
        Edit::Insert => table.admits(&records),
        Edit::Replace => table.emptied().admits(&records),
        Edit::Patch | Edit::Upsert | Edit::Remove => true,
    };
    if !fresh {
        return Err(Failure::bad(15_001, "The key of a record is taken."));
    }
    if cx.twist == Some(Twist::Half) {
        records.truncate(records.len() / 2);
    }
    if edit == Edit::Replace {
        *table = table.emptied();
    }
    for record in records {
        match edit {
            Edit::Insert | Edit::Replace => table.insert(record),
            Edit::Patch => table.patch(record),
            Edit::Upsert => table.upsert(record, cx.switches.relational_upsert_replaces),
            Edit::Remove => table.remove(&record),
        }
    }
    Ok(json!(""))
}

/// A success in the shape that is switched; `data` are the records of a query.
pub(super) fn success(switches: &Switches, endpoint: Endpoint, data: &Value) -> Response {
    let bare = |body: String| Response::new(200, "application/json; charset=utf-8", body);
    match (switches.relational_body, endpoint) {
        (RelationalBody::Envelope, _) => reply::success(data),
        (_, Endpoint::QueryRecords) => bare(data.to_string()),
        (RelationalBody::Object, _) => bare("{}".to_owned()),
        (RelationalBody::Empty, _) => bare(String::new()),
    }
}

/// The gateway's words for a status. Two of them have another code here.
pub(super) fn gateway_status(status: u16, body: ErrorBody) -> Response {
    match status {
        403 => reply::gateway(403, Some(15_012), "Forbidden", body),
        429 => reply::gateway(429, Some(15_011), "Too many requests.", body),
        _ => reply::gateway_status(status, body),
    }
}

/// Connection and table of the address.
fn names(route: &Route) -> (String, String) {
    let (connection, table) = route.item.split_once('/').unwrap_or_default();
    (decoded(connection), decoded(table))
}

/// A part of a path without its percent signs. Unlike in a query, a plus is a plus.
fn decoded(part: &str) -> String {
    let query = format!("part={}", part.replace('+', "%2B").replace('&', "%26"));
    Query::parse(&query).get("part").unwrap_or_default().to_owned()
}

fn unknown(tables: &Tables, connection: &str) -> Failure {
    if tables.has_connection(connection) {
        Failure::new(404, 15_004, "The table does not exist.")
    } else {
        Failure::new(404, 15_010, "The connection does not exist.")
    }
}

fn records(body: &[u8]) -> Result<Vec<Map<String, Value>>, Failure> {
    let sent = match serde_json::from_slice(body) {
        Ok(Value::Object(mut members)) => members.remove("records").unwrap_or_default(),
        Ok(other) => other,
        Err(_) => return Err(Failure::payload()),
    };
    let Value::Array(records) = sent else { return Err(Failure::payload()) };
    let objects = records.into_iter().map(|record| match record {
        Value::Object(members) => Some(members),
        _ => None,
    });
    objects.collect::<Option<_>>().ok_or_else(Failure::payload)
}
