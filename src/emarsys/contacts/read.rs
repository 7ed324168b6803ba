//! Who is who, and what is known of them.

use std::{collections::BTreeMap, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{ContactData, Contacts, ROWS_MAX};
use crate::{
    Error, ErrorKind, Result,
    emarsys::{
        client::Answer,
        ids::{ContactId, FieldId, KeyField},
        path::Path,
        refusal::Refusal,
        reply::{KeyMap, List, RowErrors, key_text},
        request::{Effect, Method, Request, endpoint},
        rows::{self, KeyValue, Keys, Lookup},
    },
};

impl Contacts<'_> {
    /// The internal number of the one contact with this value in its field `key` (Emarsys API: Get internal id); `None`
    /// if nobody has it. The value stands in the address of the request, which logs of others may keep:
    /// [`check_ids`](Self::check_ids) does without.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the value is empty; else as
    /// [`Client::send`](crate::emarsys::Client::send), with code 2010
    /// ([`Refusal::is_ambiguous`](crate::emarsys::Refusal::is_ambiguous)) if several contacts have it.
    pub async fn find(&self, key: impl Into<KeyField>, value: impl KeyValue) -> Result<Option<ContactId>> {
        let (key, value) = (key.into(), rows::text(&value));
        rows::check_key(&endpoint::<FindContact>(), key, &value)?;
        match self.0.send(&FindContact { key, value }).await {
            Ok(found) => Ok(Some(found.id)),
            Err(error)
                if error.kind() == ErrorKind::Refused
                    && error.cause::<Refusal>().is_some_and(Refusal::is_missing) =>
            {
                Ok(None)
            }
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
        keys: &[impl KeyValue],
    ) -> Result<Vec<Lookup<ContactId>>> {
        self.look_up_ids::<ContactId, _>(key.into(), &rows::texts(keys), false, |id| id).await
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
        keys: &[impl KeyValue],
        fields: &[FieldId],
    ) -> Result<Vec<Lookup<ContactData>>> {
        let (key, keys) = (key.into(), rows::texts(keys));
        if key == KeyField::Eid {
            return Err(Error::config(
                "contact data is read by a field, the internal number or the internal text id",
            ));
        }
        let known = &Keys::new(endpoint::<GetData<'_>>(), key, &keys)?;
        // The reply names a contact by its fields only, so the key has to be among them.
        let mut wanted: Vec<String> = fields.iter().map(FieldId::to_string).collect();
        if let KeyField::Field(key) = key
            && !fields.is_empty()
            && !fields.contains(&key)
        {
            wanted.push(key.to_string());
        }
        let (keys, wanted) = (&keys, &wanted);
        rows::in_parts(rows::split(&known.endpoint, keys, ROWS_MAX)?, Lookup::Failed, |rows| async move {
            let request = GetData { key_id: key, key_values: &keys[rows.clone()], fields: wanted };
            let Answer { status, reply } = self.0.call(&request).await?;
            let found = reply.result.0.into_iter().map(|contact| contact.keyed(key)).collect();
            rows::look_up(known, status, rows, found, &reply.errors)
        })
        .await
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
        keys: &[impl KeyValue],
    ) -> Result<Vec<Lookup<Vec<ContactId>>>> {
        self.look_up_ids::<Ids, _>(key.into(), &rows::texts(keys), true, |Ids(ids)| ids).await
    }

    async fn look_up_ids<I: DeserializeOwned, T>(
        &self,
        key: KeyField,
        keys: &[String],
        all: bool,
        ids: fn(I) -> T,
    ) -> Result<Vec<Lookup<T>>> {
        let known = &Keys::new(endpoint::<CheckIds<'_, I>>(), key, keys)?;
        rows::in_parts(rows::split(&known.endpoint, keys, ROWS_MAX)?, Lookup::Failed, |rows| async move {
            let external_ids = &keys[rows.clone()];
            let request =
                CheckIds { key_id: key, external_ids, get_multiple_ids: all, ids: PhantomData::<fn() -> I> };
            let Answer { status, reply } = self.0.call(&request).await?;
            let found = reply.ids.0.into_iter().map(|(key, found)| (key, ids(found))).collect();
            rows::look_up(known, status, rows, found, &reply.errors)
        })
        .await
    }
}

#[derive(Serialize)]
struct FindContact {
    key: KeyField,
    value: String,
}

impl Request for FindContact {
    type Reply = FoundContact;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contact";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.get");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[]).slash().query(self.key, &self.value)
    }
}

#[derive(Deserialize)]
struct FoundContact {
    id: ContactId,
}

#[derive(Serialize)]
struct CheckIds<'a, I> {
    key_id: KeyField,
    external_ids: &'a [String],
    #[serde(skip_serializing_if = "is_false")]
    get_multiple_ids: bool,
    /// In what form an id, or several, are in the reply.
    #[serde(skip)]
    ids: PhantomData<fn() -> I>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl<I: DeserializeOwned> Request for CheckIds<'_, I> {
    type Reply = CheckIdsReply<I>;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/checkids";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.contactid.verify");
}

#[derive(Deserialize)]
#[serde(bound = "I: DeserializeOwned")]
struct CheckIdsReply<I> {
    #[serde(default = "KeyMap::default")]
    ids: KeyMap<I>,
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

/// The one call whose members are in camel case.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GetData<'a> {
    key_id: KeyField,
    key_values: &'a [String],
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
