//! Update, create and upsert: many contacts in a request, or one.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Contact, Contacts, ROWS_MAX};
use crate::{
    Error, Result,
    emarsys::{
        client::Answer,
        ids::{ContactId, KeyField, ListId},
        path::Path,
        reply::{List, RowErrors},
        request::{Effect, Method, Request, endpoint},
        rows::{self, Account, Done, Keys, RowResult},
    },
};

/// What became of contacts that were upserted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Upserted {
    /// What became of each contact, in their order.
    pub rows: Vec<RowResult>,
    /// The contacts that did not exist before, in no promised order.
    pub created: Vec<ContactId>,
    /// The contacts that existed, in no promised order.
    pub updated: Vec<ContactId>,
}

/// A contact that was upserted alone. That it was created is read from the form of its number, which is documented for
/// several contacts only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It did not exist before.
    Created(ContactId),
    /// It existed.
    Updated(ContactId),
}

impl Written {
    /// The internal number of the contact.
    pub fn id(self) -> ContactId {
        match self {
            Self::Created(id) | Self::Updated(id) => id,
        }
    }
}

impl Contacts<'_> {
    /// Updates contacts that exist, each found by the value of its field `key` (Emarsys API: Update contacts, with
    /// `create_if_not_exists=0`). It creates none: a contact that does not exist is rejected with 2008.
    ///
    /// There is one result per contact, in their order. More than 1,000 contacts, or 8 MB, are sent as several
    /// requests, one after the other.
    ///
    /// # Errors
    /// Nothing is known of any contact, beyond what [`Error::delivery`](crate::Error::delivery) says:
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with nothing sent, if a contact lacks a usable key or two
    /// have the same, apart from case and surrounding blanks; else as [`Client::send`](crate::emarsys::Client::send).
    pub async fn update(&self, key: impl Into<KeyField>, contacts: &[Contact]) -> Result<Vec<RowResult>> {
        self.write(key.into(), contacts, None, Update).await.map(|written| written.rows)
    }

    /// Creates contacts (Emarsys API: Create contacts) and puts them into `list`, if one is given, which must
    /// exist. A contact that exists is rejected with 2009 ([`Rejection`](crate::emarsys::Rejection)). It may be put into
    /// the list nevertheless: the documentation speaks of every contact that can be identified or created.
    ///
    /// There is one result per contact, in their order. More than 1,000 contacts, or 8 MB, are sent as several
    /// requests, one after the other. Which number belongs to which contact, [`check_ids`](Self::check_ids) tells.
    ///
    /// # Errors
    /// As [`update`](Self::update), and with [`ErrorKind::Config`](crate::ErrorKind::Config) if `key` is one of the
    /// internal ids; an unknown list is refused with code 2020.
    pub async fn create(
        &self,
        key: impl Into<KeyField>,
        contacts: &[Contact],
        list: Option<ListId>,
    ) -> Result<Vec<RowResult>> {
        let key = creating(key.into())?;
        self.write(key, contacts, list, Create).await.map(|written| written.rows)
    }

    /// Updates contacts that exist and creates the others (Emarsys API: Update contacts, with
    /// `create_if_not_exists=1`). All of them are put into `list`, if one is given, which must exist.
    ///
    /// There is one result per contact, in their order. More than 1,000 contacts, or 8 MB, are sent as several
    /// requests, one after the other. Which number belongs to which contact is not documented:
    /// [`check_ids`](Self::check_ids) tells. It is not repeated when no answer comes.
    ///
    /// ```no_run
    /// use reverse_etl::emarsys::{Client, Contact, FieldId};
    ///
    /// # async fn upsert(client: &Client) -> reverse_etl::Result<()> {
    /// let contacts = [
    ///     Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada"),
    ///     Contact::new(FieldId::EMAIL, "bob@shop.test").with(FieldId::OPT_IN, 1),
    /// ];
    /// let upserted = client.contacts().upsert(FieldId::EMAIL, &contacts, None).await?;
    /// println!("{} created, {} updated", upserted.created.len(), upserted.updated.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`update`](Self::update); an unknown list is refused with code 2020.
    pub async fn upsert(
        &self,
        key: impl Into<KeyField>,
        contacts: &[Contact],
        list: Option<ListId>,
    ) -> Result<Upserted> {
        self.write(key.into(), contacts, list, Upsert).await
    }

    /// Updates one contact that exists (Emarsys API: Update contacts).
    ///
    /// # Errors
    /// As [`update`](Self::update), with a [`Refusal`](crate::emarsys::Refusal) as cause if it is not updated: no
    /// contact has the key (2008), several have it (2010), or a value does not fit (2007).
    pub async fn update_one(&self, key: impl Into<KeyField>, contact: &Contact) -> Result<ContactId> {
        self.write_one(key.into(), contact, None, Update).await.map(Written::id)
    }

    /// Creates one contact (Emarsys API: Create contacts) and puts it into `list`, if one is given.
    ///
    /// # Errors
    /// As [`create`](Self::create), with a [`Refusal`](crate::emarsys::Refusal) as cause if it is not created:
    /// [`is_existing`](crate::emarsys::Refusal::is_existing) if there is one with this key.
    pub async fn create_one(
        &self,
        key: impl Into<KeyField>,
        contact: &Contact,
        list: Option<ListId>,
    ) -> Result<ContactId> {
        let key = creating(key.into())?;
        self.write_one(key, contact, list, Create).await.map(Written::id)
    }

    /// Updates one contact, or creates it (Emarsys API: Update contacts), and puts it into `list`, if one is given.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert), with a [`Refusal`](crate::emarsys::Refusal) as cause if it is not written.
    pub async fn upsert_one(
        &self,
        key: impl Into<KeyField>,
        contact: &Contact,
        list: Option<ListId>,
    ) -> Result<Written> {
        self.write_one(key.into(), contact, list, Upsert).await
    }

    async fn write<'a, R: Request<Reply = WriteReply>>(
        &self,
        key: KeyField,
        contacts: &'a [Contact],
        list: Option<ListId>,
        request: impl Fn(Body<'a>) -> R,
    ) -> Result<Upserted> {
        let values = contacts.iter().map(|contact| rows::usable_key(contact.value(key)));
        let keys = &Keys::new(endpoint::<R>(), key, values)?;
        // The ids come beside the results of the rows, and the future of a request may not borrow a list to change it.
        let written = Mutex::new(Vec::new());
        let (request, ids) = (&request, &written);
        let requests = rows::split(&keys.endpoint, contacts, ROWS_MAX)?;
        let rows = rows::in_parts(requests, RowResult::Failed, |rows| async move {
            let contents = Contents::Many { contacts: &contacts[rows.clone()] };
            let body = Body { key_id: key, contents, contact_list_id: list };
            let Answer { status, reply } = self.0.call(&request(body)).await?;
            let done = Done::Exactly(reply.ids.0.len());
            let results = Account { keys, status, rows, done }.settle(&reply.errors)?;
            ids.lock().unwrap_or_else(PoisonError::into_inner).extend(reply.ids.0);
            Ok(results)
        });
        let rows = rows.await?;
        let (mut created, mut updated) = (Vec::new(), Vec::new());
        for WrittenId(written) in written.into_inner().unwrap_or_else(PoisonError::into_inner) {
            match written {
                Written::Created(id) => created.push(id),
                Written::Updated(id) => updated.push(id),
            }
        }
        Ok(Upserted { rows, created, updated })
    }

    async fn write_one<'a, R: Request<Reply = WriteReply>>(
        &self,
        key: KeyField,
        contact: &'a Contact,
        list: Option<ListId>,
        request: impl Fn(Body<'a>) -> R,
    ) -> Result<Written> {
        // The reply to one contact has another form, which is read by another request of the same endpoint.
        let body = Body { key_id: key, contents: Contents::One(contact), contact_list_id: list };
        let request = One(request(body));
        let endpoint = endpoint::<R>();
        rows::check_key(&endpoint, key, &rows::usable_key(contact.value(key)))?;
        // Refuses one that is too long.
        rows::split(&endpoint, std::slice::from_ref(contact), 1)?;
        self.0.send(&request).await.map(|reply| reply.id.0)
    }
}

/// The key field of contacts that are created; the internal ids are given by Emarsys.
fn creating(key: KeyField) -> Result<KeyField> {
    match key {
        KeyField::Id | KeyField::Uid => Err(Error::config(format!(
            "no contact can be created with `{key}` as its key field: Emarsys gives it; use a field such as the e-mail"
        ))),
        KeyField::Field(_) | KeyField::Eid => Ok(key),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    key_id: KeyField,
    #[serde(flatten)]
    contents: Contents<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact_list_id: Option<ListId>,
}

/// Several contacts are a list, one stands in the body itself.
#[derive(Serialize)]
#[serde(untagged)]
enum Contents<'a> {
    Many { contacts: &'a [Contact] },
    One(&'a Contact),
}

#[derive(Serialize)]
#[serde(transparent)]
struct Update<'a>(Body<'a>);

#[derive(Serialize)]
#[serde(transparent)]
struct Create<'a>(Body<'a>);

#[derive(Serialize)]
#[serde(transparent)]
struct Upsert<'a>(Body<'a>);

impl Request for Update<'_> {
    type Reply = WriteReply;
    const METHOD: Method = Method::Put;
    const ENDPOINT: &'static str = "contact";
    // It sets fields, and nothing else: the second time to what they are.
    const EFFECT: Effect = Effect::Idempotent;
    const PERMISSION: Option<&'static str> = Some("contact.update");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[]).slash().query("create_if_not_exists", 0)
    }
}

impl Request for Create<'_> {
    type Reply = WriteReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contact.create");
}

impl Request for Upsert<'_> {
    type Reply = WriteReply;
    const METHOD: Method = Method::Put;
    const ENDPOINT: &'static str = "contact";
    // Sent twice, it would call those updated whom it created.
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contact.update and contact.create");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[]).slash().query("create_if_not_exists", 1)
    }
}

/// The ids of the contacts that were written, in no useful order and short of those that were not.
#[derive(Deserialize)]
struct WriteReply {
    #[serde(default)]
    ids: List<WrittenId>,
    #[serde(default)]
    errors: RowErrors,
}

#[derive(Serialize)]
#[serde(transparent)]
struct One<R>(R);

impl<R: Request> Request for One<R> {
    type Reply = WriteOneReply;
    const METHOD: Method = R::METHOD;
    const ENDPOINT: &'static str = R::ENDPOINT;
    const EFFECT: Effect = R::EFFECT;
    const PERMISSION: Option<&'static str> = R::PERMISSION;

    fn path(&self) -> Path {
        self.0.path()
    }
}

#[derive(Deserialize)]
struct WriteOneReply {
    id: WrittenId,
}

/// An id that was created is printed as a number, one that existed as a string.
struct WrittenId(Written);

impl<'de> Deserialize<'de> for WrittenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let value = Value::deserialize(deserializer)?;
        let is_number = value.is_number();
        let id =
            serde_json::from_value(value).map_err(|_| D::Error::custom("expected the id of a contact"))?;
        Ok(Self(if is_number { Written::Created(id) } else { Written::Updated(id) }))
    }
}
