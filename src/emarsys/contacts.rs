//! Contacts (Emarsys API: Contacts).

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{
    client::{Answer, Client},
    ids::{ContactId, FieldId, ListId},
    reply::{KeyMap, List, RowErrors, key_text},
    request::{Effect, Method, Request},
    rows::{self, Account, Keys, Lookup, Parts, RowResult},
};
use crate::Result;

/// The most contacts, or keys, of one request.
const ROWS_MAX: usize = 1_000;

/// The calls about contacts; made by [`Client::contacts`].
#[derive(Clone, Copy, Debug)]
pub struct Contacts<'a>(pub(crate) &'a Client);

/// Some fields of one contact, to be written.
///
/// A field that is not in it stays as it is; one that is null or an empty string is cleared. Its `Debug` shows the
/// fields and not their values.
#[derive(Clone, PartialEq)]
pub struct Contact {
    fields: Vec<(FieldId, Value)>,
}

impl Contact {
    /// The contact whose field `key` has this value.
    pub fn new(key: FieldId, value: impl Into<Value>) -> Self {
        Self { fields: vec![(key, value.into())] }
    }

    /// The same contact with a value for `field`, in place of one it may have had.
    #[must_use]
    pub fn with(mut self, field: FieldId, value: impl Into<Value>) -> Self {
        match self.fields.iter_mut().find(|(known, _)| *known == field) {
            Some((_, known)) => *known = value.into(),
            None => self.fields.push((field, value.into())),
        }
        self
    }

    /// The value to be written to `field`, if there is one.
    pub fn value(&self, field: FieldId) -> Option<&Value> {
        self.fields.iter().find(|(known, _)| *known == field).map(|(_, value)| value)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<u32> = self.fields.iter().map(|(field, _)| field.get()).collect();
        f.debug_struct("Contact").field("fields", &fields).finish_non_exhaustive()
    }
}

impl Serialize for Contact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields.iter().map(|(field, value)| (field, value)))
    }
}

/// Some fields of one contact, as read. Its `Debug` shows the fields and not their values.
#[derive(Clone, PartialEq)]
pub struct ContactData {
    id: ContactId,
    values: BTreeMap<FieldId, Value>,
}

impl ContactData {
    /// The internal number of the contact.
    pub fn id(&self) -> ContactId {
        self.id
    }

    /// The value of a field: mostly a string, of a multiple choice a list of numbers, null if it is empty. `None`
    /// if the reply does not have the field.
    pub fn value(&self, field: FieldId) -> Option<&Value> {
        self.values.get(&field)
    }
}

impl fmt::Debug for ContactData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<u32> = self.values.keys().map(|field| field.get()).collect();
        f.debug_struct("ContactData").field("id", &self.id).field("fields", &fields).finish_non_exhaustive()
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
    /// have the same, apart from case and surrounding blanks; else as [`Client::send`].
    pub async fn update(&self, key: FieldId, contacts: &[Contact]) -> Result<Vec<RowResult>> {
        self.write::<UpdateContacts<'_>>(key, contacts, None).await
    }

    /// Creates contacts (Emarsys API: Create contacts) and puts them into `list`, if one is given, which must
    /// exist. A contact that exists is rejected with 2009 ([`Rejection::is_existing`](super::Rejection)); whether
    /// it is put into the list nevertheless is not documented.
    ///
    /// There is one result per contact, in their order. More than 1,000 contacts, or 8 MB, are sent as several
    /// requests, one after the other.
    ///
    /// # Errors
    /// As [`update`](Self::update); an unknown list is refused with code 2020.
    pub async fn create(
        &self,
        key: FieldId,
        contacts: &[Contact],
        list: Option<ListId>,
    ) -> Result<Vec<RowResult>> {
        self.write::<CreateContacts<'_>>(key, contacts, list).await
    }

    /// Finds the internal numbers of contacts by the value of their field `key` (Emarsys API: Check contact ids).
    ///
    /// There is one result per key, in their order. More than 1,000 keys are sent as several requests.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn check_ids(&self, key: FieldId, keys: &[&str]) -> Result<Vec<Lookup<ContactId>>> {
        let endpoint = endpoint::<CheckIds<'_>>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        let mut parts = Parts::new(rows::split(&endpoint, keys, ROWS_MAX)?, Lookup::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let request = CheckIds { key_id: key.to_string(), external_ids: &keys[rows.clone()] };
                let Answer { status, reply } = self.0.call(&request).await?;
                rows::look_up(&endpoint, status, &known, rows.clone(), reply.ids.0, &reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }

    /// Reads fields of contacts, each found by the value of its field `key` (Emarsys API: Get contact data).
    ///
    /// There is one result per key, in their order. More than 1,000 keys are sent as several requests.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn get_data(
        &self,
        key: FieldId,
        keys: &[&str],
        fields: &[FieldId],
    ) -> Result<Vec<Lookup<ContactData>>> {
        let endpoint = endpoint::<GetData<'_>>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        // The reply names a contact by its fields only, so the key has to be among them.
        let mut wanted: Vec<String> = fields.iter().map(FieldId::to_string).collect();
        if !fields.contains(&key) {
            wanted.push(key.to_string());
        }
        let mut parts = Parts::new(rows::split(&endpoint, keys, ROWS_MAX)?, Lookup::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let request =
                    GetData { key_id: key.to_string(), key_values: &keys[rows.clone()], fields: &wanted };
                let Answer { status, reply } = self.0.call(&request).await?;
                let found = reply.result.0.into_iter().map(|contact| contact.keyed(key)).collect();
                rows::look_up(&endpoint, status, &known, rows.clone(), found, &reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }

    async fn write<'a, R>(
        &self,
        key: FieldId,
        contacts: &'a [Contact],
        list: Option<ListId>,
    ) -> Result<Vec<RowResult>>
    where
        R: Request<Reply = WriteReply> + From<WriteContacts<'a>>,
    {
        let endpoint = endpoint::<R>();
        let keys: Vec<Option<String>> =
            contacts.iter().map(|contact| contact.value(key).and_then(rows::usable_key)).collect();
        let keys = Keys::new(&endpoint, keys.iter().map(Option::as_deref))?;
        let mut parts = Parts::new(rows::split(&endpoint, contacts, ROWS_MAX)?, RowResult::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let body = WriteContacts {
                    key_id: key.to_string(),
                    contacts: &contacts[rows.clone()],
                    contact_list_id: list,
                };
                let Answer { status, reply } = self.0.call(&R::from(body)).await?;
                let done = Some(reply.ids.0.len());
                Account { endpoint: &endpoint, status, keys: &keys, rows: rows.clone(), done }
                    .settle(&reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }
}

pub(crate) fn endpoint<R: Request>() -> String {
    format!("{} {}", R::METHOD.as_str(), R::ENDPOINT)
}

#[derive(Serialize)]
struct WriteContacts<'a> {
    key_id: String,
    contacts: &'a [Contact],
    #[serde(skip_serializing_if = "Option::is_none")]
    contact_list_id: Option<ListId>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct UpdateContacts<'a>(WriteContacts<'a>);

#[derive(Serialize)]
#[serde(transparent)]
struct CreateContacts<'a>(WriteContacts<'a>);

impl<'a> From<WriteContacts<'a>> for UpdateContacts<'a> {
    fn from(body: WriteContacts<'a>) -> Self {
        Self(body)
    }
}

impl<'a> From<WriteContacts<'a>> for CreateContacts<'a> {
    fn from(body: WriteContacts<'a>) -> Self {
        Self(body)
    }
}

impl Request for UpdateContacts<'_> {
    type Reply = WriteReply;
    const METHOD: Method = Method::Put;
    const ENDPOINT: &'static str = "contact";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contact.update");

    fn path(&self) -> Cow<'_, str> {
        "contact/?create_if_not_exists=0".into()
    }
}

impl Request for CreateContacts<'_> {
    type Reply = WriteReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contact.create");
}

/// The ids of the contacts that were written, in no useful order and short of those that were not.
#[derive(Deserialize)]
struct WriteReply {
    #[serde(default)]
    ids: List<ContactId>,
    #[serde(default)]
    errors: RowErrors,
}

#[derive(Serialize)]
struct CheckIds<'a> {
    key_id: String,
    external_ids: &'a [&'a str],
}

impl Request for CheckIds<'_> {
    type Reply = CheckIdsReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/checkids";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.contactid.verify");
}

#[derive(Deserialize)]
struct CheckIdsReply {
    #[serde(default)]
    ids: KeyMap<ContactId>,
    #[serde(default)]
    errors: RowErrors,
}

/// The one call whose members are in camel case.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GetData<'a> {
    key_id: String,
    key_values: &'a [&'a str],
    fields: &'a [String],
}

impl Request for GetData<'_> {
    type Reply = GetDataReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/getdata";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.getdata");
}

#[derive(Deserialize)]
struct GetDataReply {
    #[serde(default)]
    result: List<ContactReply>,
    #[serde(default)]
    errors: RowErrors,
}

#[derive(Deserialize)]
struct ContactReply {
    id: ContactId,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl ContactReply {
    fn keyed(self, key: FieldId) -> (String, ContactData) {
        let values: BTreeMap<FieldId, Value> =
            self.fields.into_iter().filter_map(|(field, value)| Some((field.parse().ok()?, value))).collect();
        let key = values.get(&key).map(key_text).unwrap_or_default();
        (key, ContactData { id: self.id, values })
    }
}
