//! Contacts (Emarsys API: Contacts).

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{
    client::{Answer, Client},
    ids::{ContactId, FieldId, KeyField, ListId, SourceId},
    reply::{KeyMap, List, RowErrors, key_text},
    request::{Effect, Method, Request, endpoint},
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
    /// The key is among them.
    fields: Vec<(KeyField, Value)>,
    source: Option<SourceId>,
}

impl Contact {
    /// The contact whose field `key` has this value.
    pub fn new(key: impl Into<KeyField>, value: impl Into<Value>) -> Self {
        Self { fields: vec![(key.into(), value.into())], source: None }
    }

    /// The same contact with a value for `field`, in place of one it may have had.
    #[must_use]
    pub fn with(mut self, field: FieldId, value: impl Into<Value>) -> Self {
        match self.fields.iter_mut().find(|(known, _)| *known == field.into()) {
            Some((_, known)) => *known = value.into(),
            None => self.fields.push((field.into(), value.into())),
        }
        self
    }

    /// The same contact, said to come from this source (Emarsys API: Contact sources). An unknown one is rejected
    /// with 2013.
    #[must_use]
    pub fn from_source(mut self, source: SourceId) -> Self {
        self.source = Some(source);
        self
    }

    /// The value to be written to `field`, or of the key, if there is one.
    pub fn value(&self, field: impl Into<KeyField>) -> Option<&Value> {
        let field = field.into();
        self.fields.iter().find(|(known, _)| *known == field).map(|(_, value)| value)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.fields.iter().map(|(field, _)| field.to_string()).collect();
        f.debug_struct("Contact").field("fields", &fields).finish_non_exhaustive()
    }
}

impl Serialize for Contact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map =
            serializer.serialize_map(Some(self.fields.len() + usize::from(self.source.is_some())))?;
        for (field, value) in &self.fields {
            map.serialize_entry(field, value)?;
        }
        if let Some(source) = self.source {
            map.serialize_entry("source_id", &source)?;
        }
        map.end()
    }
}

/// Some fields of one contact, as read. Its `Debug` shows the fields and not their values.
#[derive(Clone, PartialEq)]
pub struct ContactData {
    id: ContactId,
    uid: Option<String>,
    values: BTreeMap<FieldId, Value>,
}

impl ContactData {
    /// The internal number of the contact.
    pub fn id(&self) -> ContactId {
        self.id
    }

    /// The internal text id of the contact, if the reply has it.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
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
    pub async fn update(&self, key: impl Into<KeyField>, contacts: &[Contact]) -> Result<Vec<RowResult>> {
        self.write::<UpdateContacts<'_>>(key.into(), contacts, None).await
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
        key: impl Into<KeyField>,
        contacts: &[Contact],
        list: Option<ListId>,
    ) -> Result<Vec<RowResult>> {
        self.write::<CreateContacts<'_>>(key.into(), contacts, list).await
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

    /// Reads fields of contacts, each found by the value of its field `key` (Emarsys API: Get contact data).
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
        let endpoint = endpoint::<GetData<'_>>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        // The reply names a contact by its fields only, so the key has to be among them.
        let mut wanted: Vec<String> = fields.iter().map(FieldId::to_string).collect();
        if let KeyField::Field(key) = key
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

    async fn write<'a, R>(
        &self,
        key: KeyField,
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
                let body =
                    WriteContacts { key_id: key, contacts: &contacts[rows.clone()], contact_list_id: list };
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

#[derive(Serialize)]
struct WriteContacts<'a> {
    key_id: KeyField,
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
    const EFFECT: Effect = Effect::Idempotent;
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

    fn people() -> [Contact; 2] {
        [
            Contact::new(FieldId::EMAIL, "ada@shop.test").with(FieldId::FIRST_NAME, "Ada"),
            Contact::new(FieldId::EMAIL, "zoe@shop.test").with(FieldId::OPT_IN, Value::Null),
        ]
    }

    fn words(results: &[RowResult]) -> Vec<String> {
        let word = |result: &RowResult| match result {
            RowResult::Done => "done".to_owned(),
            RowResult::Rejected(rejection) => rejection.code().to_string(),
            RowResult::Failed(error) => format!("{:?}", error.delivery()),
        };
        results.iter().map(word).collect()
    }

    async fn update(reply: &str) -> Result<Vec<String>> {
        let (client, _) =
            client([Answer::reply(200, reply).header("content-type", "text/html; charset=utf-8")]);
        client.contacts().update(FieldId::EMAIL, &people()).await.map(|results| words(&results))
    }

    #[test]
    fn contact_is_written_with_field_numbers_as_names_and_shown_without_values() {
        let contact = Contact::new(FieldId::EMAIL, "ada@shop.test")
            .with(FieldId::new(20417), json!([5501, 5504]))
            .with(FieldId::EMAIL, "ada@new.test");
        assert_eq!(serde_json::to_string(&contact).unwrap(), r#"{"3":"ada@new.test","20417":[5501,5504]}"#);
        assert_eq!(contact.value(FieldId::EMAIL), Some(&"ada@new.test".into()));
        assert_eq!(format!("{contact:?}"), r#"Contact { fields: ["3", "20417"], .. }"#);
    }

    #[tokio::test(start_paused = true)]
    async fn updated_and_missing_contacts_are_told_apart() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001"],"errors":
            {"zoe@shop.test":{"2008":"No contact found with the external id: 3 - zoe@shop.test"}}}}"#;
        assert_eq!(update(reply).await.unwrap(), ["done", "2008"]);
    }

    #[tokio::test(start_paused = true)]
    async fn reply_without_errors_is_done() {
        assert_eq!(
            update(r#"{"replyCode":0,"data":{"ids":["700001",700002]}}"#).await.unwrap(),
            ["done", "done"]
        );
        let reply = r#"{"replyCode":"0","data":{"ids":["700001","700002"],"errors":[]}}"#;
        assert_eq!(update(reply).await.unwrap(), ["done", "done"]);
    }

    #[tokio::test(start_paused = true)]
    async fn reply_that_does_not_account_for_all_rows_leaves_them_unknown() {
        assert_eq!(update(r#"{"replyCode":0,"data":""}"#).await.unwrap(), ["Unknown", "Unknown"]);
        assert_eq!(
            update(r#"{"replyCode":0,"data":{"ids":["700001"]}}"#).await.unwrap(),
            ["Unknown", "Unknown"]
        );
        let reply = r#"{"replyCode":0,"data":{"ids":["700001"],"errors":{"someone@else.test":{"2008":""}}}}"#;
        assert_eq!(update(reply).await.unwrap(), ["Unknown", "Unknown"]);
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_key_field_refuses_the_request() {
        let reply = r#"{"data":{"ids":[],"errors":{"<NO_KEY_ID>":{"2004":"Invalid key field id: 999"}}},
            "replyCode":0,"replyText":"OK"}"#;
        let error = update(reply).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(2004));
    }

    #[tokio::test(start_paused = true)]
    async fn creation_names_the_list_and_tells_who_exists() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{"ids":[700003],"errors":
            {"ada@shop.test":{"2009":"Contact with the external id already exists: 3"}}}}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let results =
            client.contacts().create(FieldId::EMAIL, &people(), Some(ListId::new(4711))).await.unwrap();
        assert!(matches!(&results[0], RowResult::Rejected(rejection) if rejection.is_existing()));
        assert!(matches!(&results[1], RowResult::Done));
        let sent = script.sent();
        assert_eq!(
            (sent[0].method, sent[0].url.as_str()),
            ("POST", "https://api.emarsys.net/api/v2/contact")
        );
        assert_eq!(
            sent[0].body,
            r#"{"key_id":"3","contacts":[{"3":"ada@shop.test","1":"Ada"},{"3":"zoe@shop.test","31":null}],"contact_list_id":4711}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rows_without_a_usable_key_are_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        for contacts in [
            vec![Contact::new(FieldId::FIRST_NAME, "Ada")],
            vec![Contact::new(FieldId::EMAIL, Value::Null)],
            vec![Contact::new(FieldId::EMAIL, " ")],
            vec![Contact::new(FieldId::EMAIL, "a"), Contact::new(FieldId::EMAIL, "A ")],
        ] {
            let error = client.contacts().update(FieldId::EMAIL, &contacts).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        }
        assert!(client.contacts().update(FieldId::EMAIL, &[]).await.unwrap().is_empty());
        assert!(script.sent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_of_contacts_come_in_the_order_of_the_keys() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{
            "ids":{"ada@shop.test":"700001","bob@shop.test":700002},
            "errors":{"zoe@shop.test":{"2008":"No contact found with the external id: 3"}}}}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let keys = ["zoe@shop.test", "bob@shop.test", "ADA@shop.test"];
        let found = client.contacts().check_ids(FieldId::EMAIL, &keys).await.unwrap();
        assert!(matches!(found[0], Lookup::Missing));
        assert!(matches!(found[1], Lookup::Found(id) if id == ContactId::new(700_002)));
        assert!(matches!(found[2], Lookup::Found(id) if id == ContactId::new(700_001)));
        assert_eq!(
            script.sent()[0].body,
            r#"{"key_id":"3","external_ids":["zoe@shop.test","bob@shop.test","ADA@shop.test"]}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn data_is_matched_by_the_key_field_and_shown_without_values() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{
            "errors":[{"key":"zoe@shop.test","errorCode":"2008","errorMsg":"No contact found with the external id: 3"}],
            "result":[{"id":"700002","uid":"x","1":null,"3":"bob@shop.test"},
                {"id":700001,"uid":"k3Jd82LsQx","1":"Ada","3":"ada@shop.test","20417":[5501,5504]}]}}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let keys = ["ada@shop.test", "zoe@shop.test", "bob@shop.test"];
        let fields = [FieldId::FIRST_NAME, FieldId::new(20417)];
        let data = client.contacts().get_data(FieldId::EMAIL, &keys, &fields).await.unwrap();
        let [Lookup::Found(ada), Lookup::Missing, Lookup::Found(bob)] = data.as_slice() else {
            panic!("{data:?}")
        };
        assert_eq!(ada.id(), ContactId::new(700_001));
        assert_eq!(ada.value(FieldId::FIRST_NAME), Some(&"Ada".into()));
        assert_eq!(ada.value(FieldId::new(20417)), Some(&json!([5501, 5504])));
        assert_eq!(bob.value(FieldId::FIRST_NAME), Some(&Value::Null));
        assert_eq!(bob.value(FieldId::new(20417)), None);
        assert!(!format!("{data:?}").to_lowercase().contains("ada"), "{data:?}");
        assert_eq!(
            script.sent()[0].body,
            r#"{"keyId":"3","keyValues":["ada@shop.test","zoe@shop.test","bob@shop.test"],"fields":["1","20417","3"]}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_found_is_no_error() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{"errors":
            [{"key":"zoe@shop.test","errorCode":2008,"errorMsg":"No contact found with the external id: 3"}],
            "result":false}}"#;
        let (client, _) = client([Answer::reply(200, reply)]);
        let data = client.contacts().get_data(FieldId::EMAIL, &["zoe@shop.test"], &[]).await.unwrap();
        assert!(matches!(data[0], Lookup::Missing));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_beyond_the_limit_are_asked_for_in_further_requests() {
        let keys: Vec<_> = (0..1001).map(|row| format!("k{row}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let ids = |range: std::ops::Range<usize>| {
            let ids: serde_json::Map<_, _> =
                keys[range].iter().map(|key| ((*key).to_owned(), json!("7"))).collect();
            Answer::reply(200, json!({"replyCode": 0, "data": {"ids": ids, "errors": []}}).to_string())
        };
        let (client, script) = client([ids(0..1000), ids(1000..1001)]);
        let found = client.contacts().check_ids(FieldId::EMAIL, &keys).await.unwrap();
        assert_eq!(found.len(), 1001);
        assert!(found.iter().all(|found| matches!(found, Lookup::Found(_))));
        assert_eq!(script.sent()[1].body, r#"{"key_id":"3","external_ids":["k1000"]}"#);
    }
}
