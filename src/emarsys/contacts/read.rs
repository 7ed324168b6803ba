//! Who is who, and what is known of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{ContactData, Contacts, ROWS_MAX};
use crate::{
    Error, Result,
    emarsys::{
        client::Answer,
        ids::{ContactId, FieldId, KeyField},
        path::Path,
        refusal::Refusal,
        reply::{KeyMap, List, RowErrors, key_text},
        request::{Effect, Method, Request, endpoint},
        rows::{self, Keys, Lookup, Parts},
    },
};

impl Contacts<'_> {
    /// The internal number of the one contact with this value in its field `key` (Emarsys API: Get internal id); `None`
    /// if nobody has it. The value stands in the address of the request, which logs of others may keep:
    /// [`check_ids`](Self::check_ids) does without.
    ///
    /// # Errors
    /// As [`Client::send`](crate::emarsys::Client::send), with code 2010
    /// ([`Refusal::is_ambiguous`](crate::emarsys::Refusal::is_ambiguous)) if several contacts have it.
    pub async fn find(&self, key: impl Into<KeyField>, value: &str) -> Result<Option<ContactId>> {
        match self.0.send(&FindContact { key: key.into(), value }).await {
            Ok(found) => Ok(Some(found.id)),
            Err(error) if error.cause::<Refusal>().is_some_and(Refusal::is_missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds the internal numbers of contacts by the value of their field `key` (Emarsys API: Check contact ids).
    ///
    /// There is one result per key, in their order. More than 1,000 keys are sent as several requests.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn check_ids(
        &self,
        key: impl Into<KeyField>,
        keys: &[impl AsRef<str>],
    ) -> Result<Vec<Lookup<ContactId>>> {
        let (key, keys) = (key.into(), &rows::texts(keys)[..]);
        let endpoint = endpoint::<CheckIds<'_>>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        let mut parts = Parts::new(rows::split(&endpoint, keys, ROWS_MAX)?, Lookup::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let request = CheckIds { key_id: key, external_ids: &keys[rows.clone()] };
                let Answer { status, reply } = self.0.call(&request).await?;
                rows::look_up(&endpoint, status, &known, rows.clone(), reply.ids.0, &reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }

    /// Reads fields of contacts, each found by the value of its field `key` (Emarsys API: Get contact data). Without
    /// `fields` it reads all that the account has.
    ///
    /// There is one result per key, in their order. More than 1,000 keys are sent as several requests.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn get_data(
        &self,
        key: impl Into<KeyField>,
        keys: &[impl AsRef<str>],
        fields: &[FieldId],
    ) -> Result<Vec<Lookup<ContactData>>> {
        let (key, keys) = (key.into(), &rows::texts(keys)[..]);
        if key == KeyField::Eid {
            return Err(Error::config(
                "contact data is read by a field, the internal number or the internal text id",
            ));
        }
        let endpoint = endpoint::<GetData<'_>>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        // The reply names a contact by its fields only, so the key has to be among them.
        let mut wanted: Vec<String> = fields.iter().map(FieldId::to_string).collect();
        if let KeyField::Field(key) = key
            && !fields.is_empty()
            && !fields.contains(&key)
        {
            wanted.push(key.to_string());
        }
        let mut parts = Parts::new(rows::split(&endpoint, keys, ROWS_MAX)?, Lookup::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let request = GetData { key_id: key, key_values: &keys[rows.clone()], fields: &wanted };
                let Answer { status, reply } = self.0.call(&request).await?;
                let found = reply.result.0.into_iter().map(|contact| contact.keyed(key)).collect();
                rows::look_up(&endpoint, status, &known, rows.clone(), found, &reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }

    /// Finds the internal numbers of all contacts that have a value in their field `key` (Emarsys API: Check contact
    /// ids, with `get_multiple_ids`): of a key that several have, all of them.
    ///
    /// There is one result per key, in their order. More than 1,000 keys are sent as several requests.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn check_all_ids(
        &self,
        key: impl Into<KeyField>,
        keys: &[impl AsRef<str>],
    ) -> Result<Vec<Lookup<Vec<ContactId>>>> {
        let (key, keys) = (key.into(), &rows::texts(keys)[..]);
        let endpoint = endpoint::<CheckAllIds<'_>>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        let mut parts = Parts::new(rows::split(&endpoint, keys, ROWS_MAX)?, Lookup::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let external_ids = &keys[rows.clone()];
                let request = CheckAllIds { key_id: key, external_ids, get_multiple_ids: true };
                let Answer { status, reply } = self.0.call(&request).await?;
                let found = reply.ids.0.into_iter().map(|(key, Ids(ids))| (key, ids)).collect();
                rows::look_up(&endpoint, status, &known, rows.clone(), found, &reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }
}

#[derive(Serialize)]
struct FindContact<'a> {
    key: KeyField,
    value: &'a str,
}

impl Request for FindContact<'_> {
    type Reply = FoundContact;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contact";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.get");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[]).slash().query(&self.key.to_string(), self.value)
    }
}

#[derive(Deserialize)]
struct FoundContact {
    id: ContactId,
}

#[derive(Serialize)]
struct CheckAllIds<'a> {
    key_id: KeyField,
    external_ids: &'a [&'a str],
    get_multiple_ids: bool,
}

impl Request for CheckAllIds<'_> {
    type Reply = CheckAllIdsReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/checkids";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.contactid.verify");
}

#[derive(Deserialize)]
struct CheckAllIdsReply {
    #[serde(default)]
    ids: KeyMap<Ids>,
    #[serde(default)]
    errors: RowErrors,
}

/// One id, or a list of them.
struct Ids(Vec<ContactId>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let value = Value::deserialize(deserializer)?;
        let ids = match value {
            Value::Number(_) | Value::String(_) => serde_json::from_value(value).map(|id| vec![id]),
            list => serde_json::from_value(list).map(|List(ids)| ids),
        };
        ids.map(Self).map_err(|_| D::Error::custom("expected ids of contacts"))
    }
}

#[derive(Serialize)]
struct CheckIds<'a> {
    key_id: KeyField,
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
    key_id: KeyField,
    key_values: &'a [&'a str],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
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
    #[serde(default)]
    uid: Option<String>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl ContactReply {
    /// The contact, and the value of its key.
    fn keyed(self, key: KeyField) -> (String, ContactData) {
        let key = match key {
            KeyField::Id => self.id.to_string(),
            KeyField::Uid => self.uid.clone().unwrap_or_default(),
            KeyField::Field(_) | KeyField::Eid => {
                self.fields.get(&key.to_string()).map(key_text).unwrap_or_default()
            }
        };
        let values: BTreeMap<FieldId, Value> =
            self.fields.into_iter().filter_map(|(field, value)| Some((field.parse().ok()?, value))).collect();
        (key, ContactData { id: self.id, uid: self.uid, values })
    }
}
