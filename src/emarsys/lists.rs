//! Contact lists (Emarsys API: Contact lists).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    client::{Answer, Client},
    ids::{FieldId, KeyField, ListId},
    reply::{List, RowErrors},
    request::{Effect, Method, Request, endpoint},
    rows::{self, Account, Keys, Parts, RowResult},
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
}

impl Lists<'_> {
    /// All contact lists of the account (Emarsys API: List contact lists).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<ContactList>> {
        let List(lists) = self.0.send(&ListLists {}).await?;
        Ok(lists.into_iter().map(|ListReply { id, name }| ContactList { id, name }).collect())
    }

    /// Creates an empty contact list (Emarsys API: Create a contact list). If the error leaves it unknown whether
    /// it was created, [`list`](Self::list) tells.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the name is empty; else as [`Client::send`], with the
    /// codes 3004 (a forbidden character) and 3005 (the name exists).
    pub async fn create(&self, name: &str, description: Option<&str>) -> Result<ListId> {
        if name.trim().is_empty() {
            return Err(Error::config("a contact list to be created has no name"));
        }
        let request = CreateList { name, description, key_id: FieldId::EMAIL.into() };
        self.0.send(&request).await.map(|created| created.id)
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
        keys: &[impl AsRef<str>],
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
        keys: &[impl AsRef<str>],
    ) -> Result<Vec<RowResult>> {
        self.change::<RemoveMembers<'_>>(list, key.into(), &rows::texts(keys)).await
    }

    async fn change<'a, R>(&self, list: ListId, key: KeyField, keys: &'a [&'a str]) -> Result<Vec<RowResult>>
    where
        R: Request<Reply = MembersReply> + From<Members<'a>>,
    {
        let endpoint = endpoint::<R>();
        let known = Keys::new(&endpoint, keys.iter().copied().map(Some))?;
        let mut parts = Parts::new(rows::split(&endpoint, keys, KEYS_MAX)?, RowResult::Failed);
        while let Some(rows) = parts.next() {
            let outcome = async {
                let members = Members { list, key_id: key, external_ids: &keys[rows.clone()] };
                let Answer { status, reply } = self.0.call(&R::from(members)).await?;
                // How members that were there before are counted is not documented, so the reply's count says nothing.
                Account { endpoint: &endpoint, status, keys: &known, rows: rows.clone(), done: None }
                    .settle(&reply.errors)
            };
            parts.settle(rows.clone(), outcome.await)?;
        }
        Ok(parts.finish())
    }
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
    name: String,
}

#[derive(Serialize)]
struct CreateList<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    key_id: KeyField,
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
}

#[derive(Serialize)]
struct Members<'a> {
    #[serde(skip)]
    list: ListId,
    key_id: KeyField,
    external_ids: &'a [&'a str],
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

    fn path(&self) -> Cow<'_, str> {
        format!("contactlist/{}/add", self.0.list).into()
    }
}

impl Request for RemoveMembers<'_> {
    type Reply = MembersReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contactlist/{id}/delete";
    const EFFECT: Effect = Effect::Idempotent;
    const PERMISSION: Option<&'static str> = Some("contactlist.contact.delete");

    fn path(&self) -> Cow<'_, str> {
        format!("contactlist/{}/delete", self.0.list).into()
    }
}

#[derive(Deserialize)]
struct MembersReply {
    #[serde(default)]
    errors: RowErrors,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        emarsys::{
            Refusal,
            transport::fake::{Answer, client},
        },
    };

    #[tokio::test(start_paused = true)]
    async fn lists_have_number_and_name() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":[
            {"id":"4711","name":"spring_buyers","created":"2026-03-01 10:15:00","type":0},{"id":12,"name":"x"}]}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let lists = client.lists().list().await.unwrap();
        assert_eq!(lists[0], ContactList { id: ListId::new(4711), name: "spring_buyers".to_owned() });
        assert_eq!(lists[1].id, ListId::new(12));
        assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/contactlist");
    }

    #[tokio::test(start_paused = true)]
    async fn list_is_created_empty() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":4711}}"#;
        let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, reply)]);
        let list = client.lists().create("spring_buyers", Some("made by sync")).await.unwrap();
        assert_eq!(list, ListId::new(4711));
        client.lists().create("spring_buyers", None).await.unwrap();
        let sent = script.sent();
        assert_eq!(sent[0].body, r#"{"name":"spring_buyers","description":"made by sync","key_id":"3"}"#);
        assert_eq!(sent[1].body, r#"{"name":"spring_buyers","key_id":"3"}"#);
        assert_eq!(client.lists().create(" ", None).await.unwrap_err().kind(), ErrorKind::Config);
    }

    #[tokio::test(start_paused = true)]
    async fn name_that_exists_is_told_by_its_code_under_either_status() {
        for status in [400, 500] {
            let reply = r#"{"replyCode":3005,"replyText":"Contact list with the requested name already exists.","data":""}"#;
            let (client, _) = client([Answer::reply(status, reply)]);
            let error = client.lists().create("spring_buyers", None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert_eq!(error.cause::<Refusal>().unwrap().code, Some(3005));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_added_and_removed_by_key() {
        let added = r#"{"replyCode":0,"replyText":"OK","data":{"inserted_contacts":1,"errors":
            {"zoe@shop.test":{"2008":"No contact found with the external id: 3 - zoe@shop.test"}}}}"#;
        let removed = r#"{"replyCode":0,"replyText":"OK","data":{"deleted_contacts":"2","errors":[]}}"#;
        let (client, script) = client([Answer::reply(200, added), Answer::reply(200, removed)]);
        let (list, keys) = (ListId::new(4711), ["ada@shop.test", "zoe@shop.test"]);
        let results = client.lists().add(list, FieldId::EMAIL, &keys).await.unwrap();
        assert!(
            matches!(&results[..], [RowResult::Done, RowResult::Rejected(no)] if no.is_missing()),
            "{results:?}"
        );
        let results = client.lists().remove(list, FieldId::EMAIL, &keys).await.unwrap();
        assert!(matches!(&results[..], [RowResult::Done, RowResult::Done]));
        let sent = script.sent();
        assert_eq!(sent[0].url, "https://api.emarsys.net/api/v2/contactlist/4711/add");
        assert_eq!(sent[1].url, "https://api.emarsys.net/api/v2/contactlist/4711/delete");
        for sent in sent {
            assert_eq!(sent.body, r#"{"key_id":"3","external_ids":["ada@shop.test","zoe@shop.test"]}"#);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_list_is_refused() {
        let reply = r#"{"replyCode":3004,"replyText":"Invalid contact list id: 4711","data":""}"#;
        let (client, _) = client([Answer::reply(400, reply)]);
        let error = client.lists().add(ListId::new(4711), FieldId::EMAIL, &["a"]).await.unwrap_err();
        let refusal = error.cause::<Refusal>().unwrap();
        assert_eq!((refusal.endpoint.as_str(), refusal.code), ("POST contactlist/{id}/add", Some(3004)));
    }
}
