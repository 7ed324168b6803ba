//! All contacts, or those with a value, page by page.

use std::{collections::VecDeque, fmt};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::Contacts;
use crate::{
    Delivery, Error, ErrorKind, Result,
    emarsys::{
        client::{Answer, Client},
        ids::{ContactId, FieldId},
        path::Path,
        reply::{List, RowErrors, is_empty},
        request::{Effect, Method, Request, endpoint},
        rows::{self, KeyValue},
    },
};

/// Contacts on one page, which is the most that Emarsys allows.
const PAGE: usize = 10_000;

/// A question for contacts (Emarsys API: List contacts by field); made by [`Contacts::query`].
///
/// Pages of 10,000 contacts are asked for by their offset as the stream is read: contacts that come or go meanwhile
/// may be left out or come twice.
///
/// ```no_run
/// use futures::TryStreamExt;
/// use reverse_etl::emarsys::{Client, FieldId};
///
/// # async fn emails(client: &Client) -> reverse_etl::Result<()> {
/// let mut viennese = client.contacts().query(FieldId::EMAIL).with(FieldId::CITY, "Vienna").stream();
/// while let Some(contact) = viennese.try_next().await? {
///     println!("{} has an e-mail: {}", contact.id(), contact.value().is_some());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Query {
    client: Client,
    field: FieldId,
    filter: Option<(FieldId, String)>,
    exclude_empty: bool,
    page: usize,
}

/// A contact that a query found, with the one field that was asked for. Its `Debug` does not show the value; as a row of
/// a [`Source`](crate::Source) it has the columns `id` and the number of the field.
#[derive(Clone, PartialEq)]
pub struct QueriedContact {
    id: ContactId,
    field: FieldId,
    value: Option<Value>,
}

impl Contacts<'_> {
    /// Asks for one field of all contacts (Emarsys API: List contacts by field), or of those that the query is narrowed
    /// to. Nothing is sent before its stream is read.
    pub fn query(&self, field: FieldId) -> Query {
        Query { client: self.0.clone(), field, filter: None, exclude_empty: false, page: PAGE }
    }
}

impl Query {
    /// Only contacts with this value in `field`, which needs an index (code 2015 if it has none). An empty value stands
    /// for contacts without one. A second filter takes the place of the first.
    pub fn with(mut self, field: FieldId, value: impl KeyValue) -> Self {
        self.filter = Some((field, rows::text(&value)));
        self
    }

    /// Only contacts that have a value in the field that is asked for.
    pub fn exclude_empty(mut self) -> Self {
        self.exclude_empty = true;
        self
    }

    /// Contacts on one page, from 1 to 10,000, which is the default. A number beyond that is taken for the nearest.
    pub fn page(mut self, contacts: usize) -> Self {
        self.page = contacts.clamp(1, PAGE);
        self
    }

    /// The contacts.
    ///
    /// # Errors
    /// An item is an error, and the last one, as with [`Client::send`]: code 2006 if a field does not exist, 2015 if
    /// the field of the filter has no index.
    pub fn stream(self) -> BoxStream<'static, Result<QueriedContact>> {
        let state = State { query: self, offset: 0, page: VecDeque::new(), last: false };
        stream::try_unfold(state, |mut state| async move {
            if state.page.is_empty() && !state.last {
                state.read().await?;
            }
            Ok(state.page.pop_front().map(|contact| (contact, state)))
        })
        .boxed()
    }
}

struct State {
    query: Query,
    offset: usize,
    page: VecDeque<QueriedContact>,
    last: bool,
}

impl State {
    async fn page(&self, exclude_empty: bool, limit: usize) -> Result<Vec<QueryRow>> {
        let request = QueryContacts { query: &self.query, exclude_empty, limit, offset: self.offset };
        let endpoint = endpoint::<QueryContacts<'_>>();
        let Answer { status, reply } = self.query.client.call(&request).await?;
        rows::none_rejected(&endpoint, status, &reply.errors)?;
        let List(found) = reply.result;
        if found.len() > limit {
            // Whoever does not keep to the limit may not keep to the offset either, and the pages would never end.
            let text = format!("{endpoint}: a page has {} contacts, and {limit} were asked for", found.len());
            return Err(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent));
        }
        Ok(found)
    }

    async fn read(&mut self) -> Result<()> {
        let Query { field, exclude_empty, page, .. } = self.query;
        let mut found = self.page(exclude_empty, page).await?;
        // Whether the contacts without a value are left out before a page is cut or after is not documented: then one
        // that is not full, or even empty, need not be the last. It is if nobody at all is there.
        while exclude_empty && found.is_empty() && !self.page(false, 1).await?.is_empty() {
            self.offset += page;
            found = self.page(true, page).await?;
        }
        self.last = found.is_empty() || (!exclude_empty && found.len() < page);
        self.offset += page;
        self.page.extend(found.into_iter().map(|mut found| QueriedContact {
            id: found.id,
            field,
            value: found.values.remove(&field.to_string()).filter(|value| !is_empty(value)),
        }));
        Ok(())
    }
}

impl QueriedContact {
    /// The internal number of the contact.
    pub fn id(&self) -> ContactId {
        self.id
    }

    /// The value of the field that was asked for; `None` if the contact has none.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("field", &self.field).finish_non_exhaustive()
    }
}

impl fmt::Debug for QueriedContact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueriedContact").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Serialize for QueriedContact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry(&self.field.to_string(), &self.value)?;
        map.end()
    }
}

struct QueryContacts<'a> {
    query: &'a Query,
    exclude_empty: bool,
    limit: usize,
    offset: usize,
}

impl Serialize for QueryContacts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl Request for QueryContacts<'_> {
    type Reply = QueryReply;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contact/query";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.list");

    fn path(&self) -> Path {
        let Query { field, filter, .. } = self.query;
        let mut path = Path::fill(Self::ENDPOINT, &[]).slash().query("return", field);
        if let Some((field, value)) = filter {
            path = path.query(field, value);
        }
        path = path.query("limit", self.limit).query("offset", self.offset);
        if self.exclude_empty {
            path = path.query("excludeempty", "true");
        }
        path
    }
}

#[derive(Deserialize)]
struct QueryReply {
    // Not optional: a reply without it is not one that found nobody.
    result: List<QueryRow>,
    #[serde(default)]
    errors: RowErrors,
}

#[derive(Deserialize)]
struct QueryRow {
    id: ContactId,
    #[serde(flatten)]
    values: Map<String, Value>,
}
