//! Contact lists (Emarsys API: Contact lists).

mod members;

use std::sync::Arc;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    client::{Answer, Client},
    ids::{ContactId, FieldId, KeyField, ListId},
    path::Path,
    reply::{self, Count, Flag, Ignored, List, RowErrors},
    request::{Effect, Method, Request, endpoint},
    rows::{self, Account, Done, KeyValue, Keys, RowResult},
};
use crate::{Error, Result};

/// The most keys of one request.
const KEYS_MAX: usize = 10_000;

/// The calls about contact lists; made by [`Client::lists`].
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a>(pub(crate) &'a Client);

/// A contact list of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContactList {
    /// Its number.
    pub id: ListId,
    /// Its name, unique in the account.
    pub name: String,
    /// When it was created, in the local time of Emarsys (Europe/Vienna), if the reply says so.
    pub created: Option<NaiveDateTime>,
    /// Its type, if the reply says so: always 0, as others are reserved.
    pub list_type: Option<u64>,
}

/// A contact list that was created with members.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CreatedList {
    /// Its number.
    pub id: ListId,
    /// What became of each key, in their order.
    pub rows: Vec<RowResult>,
}

impl Lists<'_> {
    /// All contact lists of the account (Emarsys API: List contact lists).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<ContactList>> {
        let List(lists) = self.0.send(&ListLists {}).await?;
        Ok(lists.into_iter().map(ContactList::from).collect())
    }

    /// Creates an empty contact list (Emarsys API: Create a contact list). If the error leaves it unknown whether
    /// it was created, [`list`](Self::list) tells.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the name is empty; else as [`Client::send`], with the
    /// codes 3004 (a forbidden character) and 3005 (the name exists).
    pub async fn create(&self, name: &str, description: Option<&str>) -> Result<ListId> {
        let request = CreateList::new(name, description)?;
        self.0.send(&request).await.map(|created| created.id)
    }

    /// Creates a contact list with members, each found by the value of its field `key` (Emarsys API: Create a contact
    /// list). No contact is created: one that does not exist is rejected with 2008.
    ///
    /// More than 10,000 keys are sent as several requests: one that creates the list, and others that
    /// [`add`](Self::add) to it. If keys are refused that way or in the reply to the first request, their rows say so;
    /// the list is there nevertheless.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`Contacts::update`](super::Contacts::update), of the request that creates the
    /// list.
    pub async fn create_with(
        &self,
        name: &str,
        description: Option<&str>,
        key: impl Into<KeyField>,
        keys: &[impl KeyValue],
    ) -> Result<CreatedList> {
        let (key, keys) = (key.into(), rows::texts(keys));
        let mut request = CreateList::new(name, description)?;
        request.key_id = key;
        let known = &Keys::new(endpoint::<CreateList<'_>>(), key, &keys)?;
        let Some(first) = rows::split(&known.endpoint, &keys, KEYS_MAX)?.into_iter().next() else {
            return self
                .0
                .send(&request)
                .await
                .map(|created| CreatedList { id: created.id, rows: Vec::new() });
        };
        request.external_ids = Some(&keys[first.clone()]);
        let Answer { status, reply: Created { id, errors } } = self.0.call(&request).await?;
        let account = Account { keys: known, status, rows: first.clone(), done: Done::Unsaid };
        let mut rows = match account.settle(&errors) {
            Ok(rows) => rows,
            // The list was made, so its number must not get lost. Further keys would be refused likewise.
            Err(error) => return Ok(CreatedList { id, rows: failed(&keys, error) }),
        };
        rows.extend(self.add_rest(id, key, &keys[first.end..]).await);
        Ok(CreatedList { id, rows })
    }

    /// Replaces the members of a list by contacts, each found by the value of its field `key` (Emarsys API: Replace a
    /// contact list). Members that are not named are dropped; without keys, all are. The contacts themselves stay.
    ///
    /// There is one result per key, in their order. Of more than 10,000 keys the first 10,000 replace the members and
    /// the others are [added](Self::add): for a moment the list is short of them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn replace(
        &self,
        list: ListId,
        key: impl Into<KeyField>,
        keys: &[impl KeyValue],
    ) -> Result<Vec<RowResult>> {
        let (key, keys) = (key.into(), rows::texts(keys));
        let known = &Keys::new(endpoint::<ReplaceMembers<'_>>(), key, &keys)?;
        let first = rows::split(&known.endpoint, &keys, KEYS_MAX)?.into_iter().next().unwrap_or(0..0);
        let request = ReplaceMembers(Members { list, key_id: key, external_ids: &keys[first.clone()] });
        // A copy that takes effect late would drop those that are added after it.
        let client = if first.end < keys.len() { self.0.at_most_once() } else { self.0.clone() };
        let Answer { status, reply } = client.call(&request).await?;
        let account = Account { keys: known, status, rows: first.clone(), done: reply.done() };
        let mut rows = account.settle(&reply.errors)?;
        rows.extend(self.add_rest(list, key, &keys[first.end..]).await);
        Ok(rows)
    }

    /// Adds contacts to a list, each found by the value of its field `key` (Emarsys API: Add contacts to a list).
    /// No contact is created: one that does not exist is rejected with 2008. One that is in the list stays there.
    ///
    /// There is one result per key, in their order. More than 10,000 keys are sent as several requests, one after
    /// the other.
    ///
    /// # Errors
    /// As [`Contacts::update`](super::Contacts::update); an unknown list is refused with code 3004.
    pub async fn add(
        &self,
        list: ListId,
        key: impl Into<KeyField>,
        keys: &[impl KeyValue],
    ) -> Result<Vec<RowResult>> {
        self.change::<AddMembers<'_>>(list, key.into(), &rows::texts(keys)).await
    }

    /// Removes contacts from a list (Emarsys API: Remove contacts from a list). The contacts themselves stay; to
    /// remove one that is not in the list is no error. Otherwise as [`add`](Self::add).
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn remove(
        &self,
        list: ListId,
        key: impl Into<KeyField>,
        keys: &[impl KeyValue],
    ) -> Result<Vec<RowResult>> {
        self.change::<RemoveMembers<'_>>(list, key.into(), &rows::texts(keys)).await
    }

    /// Gives a list another name (Emarsys API: Rename a contact list).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the name is empty; else as [`Client::send`], with the codes
    /// 3005 (the name exists) and 3006 (no such list).
    pub async fn rename(&self, list: ListId, name: &str) -> Result<()> {
        if name.trim().is_empty() {
            return Err(Error::config("a contact list cannot have an empty name"));
        }
        self.0.send(&RenameList { list, name }).await.map(|Ignored| ())
    }

    /// Deletes a list (Emarsys API: Delete a contact list). Its contacts stay.
    ///
    /// # Errors
    /// As [`Client::send`], with the codes 3006 (no such list) and 3008 (a combined segment uses it).
    pub async fn delete(&self, list: ListId) -> Result<()> {
        self.0.send(&DeleteList { list }).await.map(|Ignored| ())
    }

    /// How many contacts are in a list (Emarsys API: Count contacts in a contact list).
    ///
    /// # Errors
    /// As [`Client::send`], with code 3006 if there is no such list.
    pub async fn count(&self, list: ListId) -> Result<u64> {
        self.0.send(&CountMembers { list }).await.map(|Count(count)| count)
    }

    /// Whether a contact is in a list (Emarsys API: Look up a contact in a contact list).
    ///
    /// # Errors
    /// As [`Client::send`], with code 3006 if there is no such list.
    pub async fn contains(&self, list: ListId, contact: ContactId) -> Result<bool> {
        self.0.send(&FindMember { list, contact }).await.map(|Flag(found)| found)
    }

    async fn add_rest(&self, list: ListId, key: KeyField, keys: &[String]) -> Vec<RowResult> {
        if keys.is_empty() {
            return Vec::new();
        }
        self.change::<AddMembers<'_>>(list, key, keys).await.unwrap_or_else(|error| failed(keys, error))
    }

    async fn change<'a, R>(&self, list: ListId, key: KeyField, keys: &'a [String]) -> Result<Vec<RowResult>>
    where
        R: Request<Reply = MembersReply> + From<Members<'a>>,
    {
        let known = &Keys::new(endpoint::<R>(), key, keys)?;
        rows::in_parts(rows::split(&known.endpoint, keys, KEYS_MAX)?, RowResult::Failed, |rows| async move {
            let members = Members { list, key_id: key, external_ids: &keys[rows.clone()] };
            let Answer { status, reply } = self.0.call(&R::from(members)).await?;
            Account { keys: known, status, rows, done: reply.done() }.settle(&reply.errors)
        })
        .await
    }
}

/// The results of keys that share an error.
fn failed(keys: &[String], error: Error) -> Vec<RowResult> {
    let error = Arc::new(error);
    keys.iter().map(|_| RowResult::Failed(Arc::clone(&error))).collect()
}

#[derive(Serialize)]
struct ListLists {}

impl Request for ListLists {
    type Reply = List<ListReply>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contactlist";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contactlist.list");
}

#[derive(Deserialize)]
struct ListReply {
    id: ListId,
    #[serde(default, deserialize_with = "reply::optional_text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    created: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "reply::optional_number")]
    list_type: Option<u64>,
}

impl From<ListReply> for ContactList {
    fn from(list: ListReply) -> Self {
        Self {
            id: list.id,
            name: list.name.unwrap_or_default(),
            created: list.created.and_then(|text| reply::local_time(&text)),
            list_type: list.list_type,
        }
    }
}

#[derive(Serialize)]
struct CreateList<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    key_id: KeyField,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_ids: Option<&'a [String]>,
}

impl<'a> CreateList<'a> {
    fn new(name: &'a str, description: Option<&'a str>) -> Result<Self> {
        if name.trim().is_empty() {
            return Err(Error::config("a contact list to be created has no name"));
        }
        Ok(Self { name, description, key_id: FieldId::EMAIL.into(), external_ids: None })
    }
}

impl Request for CreateList<'_> {
    type Reply = Created;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contactlist.create");
}

#[derive(Deserialize)]
struct Created {
    id: ListId,
    #[serde(default)]
    errors: RowErrors,
}

#[derive(Serialize)]
struct Members<'a> {
    #[serde(skip)]
    list: ListId,
    key_id: KeyField,
    external_ids: &'a [String],
}

#[derive(Serialize)]
#[serde(transparent)]
struct AddMembers<'a>(Members<'a>);

#[derive(Serialize)]
#[serde(transparent)]
struct RemoveMembers<'a>(Members<'a>);

impl<'a> From<Members<'a>> for AddMembers<'a> {
    fn from(members: Members<'a>) -> Self {
        Self(members)
    }
}

impl<'a> From<Members<'a>> for RemoveMembers<'a> {
    fn from(members: Members<'a>) -> Self {
        Self(members)
    }
}

impl Request for AddMembers<'_> {
    type Reply = MembersReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist/{id}/add";
    const EFFECT: Effect = Effect::Idempotent;
    const PERMISSION: Option<&'static str> = Some("contactlist.contact.add");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.0.list])
    }
}

impl Request for RemoveMembers<'_> {
    type Reply = MembersReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist/{id}/delete";
    const EFFECT: Effect = Effect::Idempotent;
    const PERMISSION: Option<&'static str> = Some("contactlist.contact.delete");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.0.list])
    }
}

#[derive(Deserialize)]
struct MembersReply {
    #[serde(default)]
    errors: RowErrors,
    #[serde(default)]
    inserted_contacts: Value,
    #[serde(default)]
    deleted_contacts: Value,
}

impl MembersReply {
    /// How members that were there before are counted is not documented.
    fn done(&self) -> Done {
        match Done::at_least(&self.inserted_contacts) {
            Done::Unsaid => Done::at_least(&self.deleted_contacts),
            done => done,
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct ReplaceMembers<'a>(Members<'a>);

impl Request for ReplaceMembers<'_> {
    type Reply = MembersReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist/{id}/replace";
    const EFFECT: Effect = Effect::Idempotent;
    const PERMISSION: Option<&'static str> = Some("contactlist.replace");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.0.list])
    }
}

#[derive(Serialize)]
struct RenameList<'a> {
    #[serde(skip)]
    list: ListId,
    name: &'a str,
}

impl Request for RenameList<'_> {
    type Reply = Ignored;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist/{id}/rename";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contactlist.rename");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.list])
    }
}

#[derive(Serialize)]
struct DeleteList {
    #[serde(skip)]
    list: ListId,
}

impl Request for DeleteList {
    type Reply = Ignored;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist/{id}/deletelist";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contactlist.delete");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.list])
    }
}

#[derive(Serialize)]
struct CountMembers {
    list: ListId,
}

impl Request for CountMembers {
    type Reply = Count;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contactlist/{id}/count";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contactlist.contact.count");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.list])
    }
}

#[derive(Serialize)]
struct FindMember {
    list: ListId,
    contact: ContactId,
}

impl Request for FindMember {
    type Reply = Flag;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contactlist/{id}/contacts/{contactId}";
    const EFFECT: Effect = Effect::Read;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.list, &self.contact])
    }
}

#[cfg(test)]
mod tests;
