//! Tables beside the contacts (Emarsys API: Relational data).
//!
//! Of these calls only addresses, verbs, limits and error codes are documented. That records are sent as a JSON array
//! of objects, and that a reply with status 2xx and without an error code says that all of them were taken, is
//! inferred.

use std::marker::PhantomData;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value};

use super::{
    client::Client,
    path::Path,
    reply::{List, is_empty},
    request::{Effect, Method, ReplyForm, Request, Root, endpoint},
    rows::{self, RowResult},
};
use crate::{Error, Result};

/// The most records of one request.
const RECORDS_MAX: usize = 1_000;

/// The calls about relational data; made by [`Client::relational_data`].
#[derive(Clone, Copy, Debug)]
pub struct RelationalData<'a>(pub(crate) &'a Client);

impl<'a> RelationalData<'a> {
    /// A table of a connection, both by the names that they have in Emarsys. Nothing is asked yet.
    pub fn table(&self, connection: impl Into<String>, table: impl Into<String>) -> Table<'a> {
        Table { client: self.0, connection: connection.into(), name: table.into() }
    }
}

/// A table of relational data; made by [`RelationalData::table`].
///
/// Calls for several records have one result per record, in their order. More than 1,000 records, or 8 MB, are sent as
/// several requests, one after the other; the reply of a request speaks for all of its records.
///
/// ```no_run
/// use reverse_etl::emarsys::Client;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Order {
///     id: u64,
///     customer: String,
/// }
///
/// # async fn orders(client: &Client, new: &[Order]) -> reverse_etl::Result<()> {
/// let orders = client.relational_data().table("shop", "orders");
/// orders.upsert(new).await?;
/// let of_ada: Vec<Order> = orders.query(&[("customer", "ada@shop.test")]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Table<'a> {
    client: &'a Client,
    connection: String,
    name: String,
}

impl Table<'_> {
    /// The records whose columns have these values (Emarsys API: Query records); without any, all that one reply holds.
    ///
    /// # Errors
    /// As [`Client::send`], with code 15007 if a column has no index. [`Undecodable`](crate::ErrorKind::Undecodable) if
    /// a record is no `T`.
    pub async fn query<T: DeserializeOwned>(&self, columns: &[(&str, &str)]) -> Result<Vec<T>> {
        let request = Query { table: self, columns, records: PhantomData };
        self.client.send(&request).await.map(|Records(records)| records)
    }

    /// Adds records (Emarsys API: Insert records). It is not repeated when no answer comes: a table without a key might
    /// get them twice.
    ///
    /// # Errors
    /// Of the first request, as [`Client::send`]: 15004 (no such table), 15009 (a view), 15010 (no such connection).
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with nothing sent, if the name of the table or the connection
    /// is empty or consists of dots.
    pub async fn insert<T: Serialize + Sync>(&self, records: &[T]) -> Result<Vec<RowResult>> {
        self.write(records, |records| Insert(Body { table: self, records })).await
    }

    /// Changes columns of records that exist (Emarsys API: Update records). Twice is the same as once, so it is repeated
    /// when no answer comes. What is said of records that do not exist is not documented: [`RowResult::Done`] does not
    /// say that there was one.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn patch<T: Serialize + Sync>(&self, records: &[T]) -> Result<Vec<RowResult>> {
        self.write(records, |records| Patch(Body { table: self, records })).await
    }

    /// Changes records that exist and adds the others (Emarsys API: Upsert records). What becomes of columns that are not
    /// sent of a record that exists is not documented. Twice is the same as once, so it is repeated when no answer comes.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn upsert<T: Serialize + Sync>(&self, records: &[T]) -> Result<Vec<RowResult>> {
        self.write(records, |records| Upsert(Body { table: self, records })).await
    }

    /// Removes records (Emarsys API: Remove records). It is not repeated when no answer comes, because what is said of
    /// records that are gone is not documented; so [`RowResult::Done`] does not say that there was one.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn remove<T: Serialize + Sync>(&self, records: &[T]) -> Result<Vec<RowResult>> {
        self.write(records, |records| Remove(Body { table: self, records })).await
    }

    /// Replaces **all** records of the table by these, which may be none (Emarsys API: Replace records). Twice is the same as once, so it is
    /// repeated when no answer comes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with nothing sent, if they do not fit into one request, that is
    /// if they are more than 1,000 or 8 MB: a second request would replace the first. Else as [`insert`](Self::insert).
    pub async fn replace<T: Serialize + Sync>(&self, records: &[T]) -> Result<()> {
        let request = Replace(Body { table: self, records });
        if rows::split(&endpoint::<Replace<'_, T>>(), records, RECORDS_MAX)?.len() > 1 {
            return Err(Error::config(
                "the records that are to replace a table are more than fit into one request (1,000 records, 8 MB); \
                 replace by no records, and then insert them",
            ));
        }
        self.client.send(&request).await.map(|Written| ())
    }

    async fn write<'r, T, R>(
        &self,
        records: &'r [T],
        request: impl Fn(&'r [T]) -> R,
    ) -> Result<Vec<RowResult>>
    where
        T: Serialize,
        R: Request<Reply = Written>,
    {
        let requests = rows::split(&endpoint::<R>(), records, RECORDS_MAX)?;
        let request = &request;
        rows::in_parts(requests, RowResult::Failed, |rows| async move {
            let Written = self.client.send(&request(&records[rows.clone()])).await?;
            Ok(vec![RowResult::Done; rows.len()])
        })
        .await
    }

    fn path(&self, endpoint: &str) -> Path {
        Path::fill(endpoint, &[&self.connection, &self.name])
    }
}

/// A reply to records that were taken: anything without errors in it.
struct Written;

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reply = Value::deserialize(deserializer)?;
        let errors = ["errors", "error"].into_iter().filter_map(|name| reply.get(name));
        if errors.into_iter().all(is_empty) { Ok(Self) } else { Err(D::Error::custom("expected no errors")) }
    }
}

/// Records as a reply may have them: a list, one alone, or none in any spelling.
struct Records<T>(Vec<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Records<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reply = match Value::deserialize(deserializer)? {
            Value::Object(record) if !record.is_empty() && !is_numbered(&record) => {
                vec![Value::Object(record)].into()
            }
            reply => reply,
        };
        let List(records) =
            serde_json::from_value(reply).map_err(|_| D::Error::custom("expected records"))?;
        Ok(Self(records))
    }
}

/// Whether this is no record but a list of them, printed as an object with numbers for names.
fn is_numbered(records: &Map<String, Value>) -> bool {
    records.iter().all(|(name, record)| name.parse::<u64>().is_ok() && record.is_object())
}

struct Query<'a, T> {
    table: &'a Table<'a>,
    columns: &'a [(&'a str, &'a str)],
    records: PhantomData<fn() -> T>,
}

impl<T> Serialize for Query<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<T: DeserializeOwned> Request for Query<'_, T> {
    type Reply = Records<T>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "connections/{connection}/tables/{table}/records";
    const EFFECT: Effect = Effect::Read;
    const ROOT: Root = Root::RelationalData;
    const REPLY: ReplyForm = ReplyForm::Any;

    fn path(&self) -> Path {
        let path = self.table.path(Self::ENDPOINT);
        self.columns.iter().fold(path, |path, (column, value)| path.query(column, value))
    }
}

struct Body<'a, T> {
    table: &'a Table<'a>,
    records: &'a [T],
}

impl<T: Serialize> Serialize for Body<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.records.serialize(serializer)
    }
}

/// The requests that carry records and differ in little else.
macro_rules! write {
    ($($name:ident: $method:ident $endpoint:literal, $effect:ident;)+) => {$(
        #[derive(Serialize)]
        #[serde(transparent, bound = "T: Serialize")]
        struct $name<'a, T>(Body<'a, T>);

        impl<T: Serialize + Sync> Request for $name<'_, T> {
            type Reply = Written;
            const METHOD: Method = Method::$method;
            const ENDPOINT: &'static str = $endpoint;
            const EFFECT: Effect = Effect::$effect;
            const ROOT: Root = Root::RelationalData;
            const REPLY: ReplyForm = ReplyForm::Any;

            fn path(&self) -> Path {
                self.0.table.path(Self::ENDPOINT)
            }
        }
    )+};
}

write! {
    Insert: Post "connections/{connection}/tables/{table}/records", Write;
    Replace: Put "connections/{connection}/tables/{table}/records", Idempotent;
    Patch: Patch "connections/{connection}/tables/{table}/records", Idempotent;
    Upsert: Post "connections/{connection}/tables/{table}/records/upsert", Idempotent;
    Remove: Post "connections/{connection}/tables/{table}/records/remove", Write;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Delivery, ErrorKind,
        emarsys::{
            Refusal,
            transport::fake::{Answer, client},
        },
    };

    const RECORDS: &str = "https://api.emarsys.net/api/rds/v1/connections/my%20shop/tables/orders/records";

    #[tokio::test(start_paused = true)]
    async fn records_are_read_in_every_form_a_reply_may_have() {
        let forms = [
            (r#"[{"id":1},{"id":2}]"#, 2),
            (r#"{"replyCode":0,"replyText":"OK","data":[{"id":1},{"id":2}]}"#, 2),
            (r#"{"id":1}"#, 1),
            ("[]", 0),
            ("", 0),
            (r#"{"replyCode":0,"data":""}"#, 0),
        ];
        for (body, count) in forms {
            let (client, script) = client([Answer::reply(200, body)]);
            let orders = client.relational_data().table("my shop", "orders");
            let found: Vec<Value> = orders.query(&[("customer", "ada@shop.test")]).await.unwrap();
            assert_eq!(found.len(), count, "{body}");
            assert_eq!(script.sent()[0].url, format!("{RECORDS}?customer=ada%40shop.test"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_sent_as_a_list_with_the_verb_of_the_call() {
        let done = ["", "{}", "OK", r#"{"replyCode":0,"replyText":"OK","data":""}"#, "[]"];
        let (client, script) = client(done.map(|body| Answer::reply(200, body)));
        let orders = client.relational_data().table("my shop", "orders");
        let records = [json!({"id": 1}), json!({"id": 2})];
        assert_eq!(orders.insert(&records).await.unwrap().len(), 2);
        assert!(matches!(orders.patch(&records).await.unwrap()[..], [RowResult::Done, RowResult::Done]));
        orders.upsert(&records).await.unwrap();
        orders.remove(&records).await.unwrap();
        orders.replace(&records).await.unwrap();
        let sent = script.sent();
        let lines: Vec<_> = sent.iter().map(|sent| (sent.method, sent.url.clone())).collect();
        let at = |action: &str| format!("{RECORDS}{action}");
        assert_eq!(
            lines,
            [
                ("POST", at("")),
                ("PATCH", at("")),
                ("POST", at("/upsert")),
                ("POST", at("/remove")),
                ("PUT", at("")),
            ]
        );
        assert!(sent.iter().all(|sent| sent.body == r#"[{"id":1},{"id":2}]"#));
    }

    #[tokio::test(start_paused = true)]
    async fn error_code_is_a_refusal_under_any_status_and_name() {
        for (status, body) in [
            (400, r#"{"replyCode":15007,"replyText":"","data":""}"#),
            (200, r#"{"replyCode":15007,"replyText":"","data":""}"#),
            (200, r#"{"code":15007,"message":"not indexed"}"#),
        ] {
            let (client, _) = client([Answer::reply(status, body)]);
            let orders = client.relational_data().table("shop", "orders");
            let error = orders.insert(&[json!({"id": 1})]).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
            assert_eq!(error.cause::<Refusal>().unwrap().code, Some(15_007), "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reply_that_is_no_answer_of_emarsys_leaves_records_unknown() {
        for body in ["<html></html>", r#"{"replyCode":0,"da"#, r#"{"errors":{"1":"no"}}"#] {
            let (client, _) = client([Answer::reply(200, body)]);
            let orders = client.relational_data().table("shop", "orders");
            let error = orders.insert(&[json!({"id": 1})]).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.delivery()),
                (ErrorKind::Undecodable, Delivery::Unknown),
                "{body}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_records_than_a_request_takes_are_split_but_never_replace_each_other() {
        let (client, script) = client([Answer::reply(200, ""), Answer::reply(400, r#"{"replyCode":15004}"#)]);
        let records: Vec<_> = (0..1_001).map(|id| json!({"id": id})).collect();
        let orders = client.relational_data().table("shop", "orders");
        let results = orders.insert(&records).await.unwrap();
        assert!(matches!(results[999], RowResult::Done));
        assert!(matches!(&results[1_000], RowResult::Failed(error) if error.delivery() == Delivery::Refused));
        let error = orders.replace(&records).await.unwrap_err();
        assert_eq!((error.kind(), script.sent().len()), (ErrorKind::Config, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn records_in_an_object_with_numbers_for_names_are_a_list() {
        for (body, count) in [(r#"{"0":{"id":1},"1":{"id":2}}"#, 2), (r#"{"7":"a column"}"#, 1)] {
            let (client, _) = client([Answer::reply(200, body)]);
            let found: Vec<Value> =
                client.relational_data().table("shop", "orders").query(&[]).await.unwrap();
            assert_eq!(found.len(), count, "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_would_lead_to_another_address_are_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        let names = [("shop", ".."), ("shop", "."), ("shop", ""), ("..", "orders"), (" ", "orders")];
        for (connection, table) in names {
            let table = client.relational_data().table(connection, table);
            let records = [json!({"id": 1})];
            assert_eq!(table.replace(&records).await.unwrap_err().kind(), ErrorKind::Config);
            assert_eq!(table.upsert(&records).await.unwrap_err().kind(), ErrorKind::Config);
            assert_eq!(table.query::<Value>(&[]).await.unwrap_err().kind(), ErrorKind::Config);
        }
        assert!(script.sent().is_empty());
    }
}
