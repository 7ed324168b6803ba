//! External events: what starts a program for a contact (Emarsys API: External events).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    client::{Answer, Client},
    ids::{EventId, KeyField},
    path::Path,
    reply::RowErrors,
    request::{Effect, Method, Request, endpoint},
    rows::{self, Account, Done, KeyValue, Keys, RowResult},
};
use crate::{Error, Result};

/// The most contacts of one request. Emarsys states no limit; this is that of its other calls.
const CONTACTS_MAX: usize = 1_000;

/// The calls about external events; made by [`Client::events`].
#[derive(Clone, Copy, Debug)]
pub struct Events<'a>(pub(crate) &'a Client);

/// An event of one contact: who it is, and what the e-mails of the program may show. Its `Debug` shows neither.
#[derive(Clone, PartialEq, Serialize)]
pub struct Trigger {
    external_id: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    data: Value,
}

impl Trigger {
    /// An event of the contact with this key value.
    pub fn new(key: impl KeyValue) -> Self {
        Self { external_id: rows::text(&key), data: Value::Null }
    }

    /// The same event with data, which has to be an object. More than 100 kB of it does not get everywhere, and may be
    /// refused with code 5008.
    #[must_use]
    pub fn data(mut self, data: impl Into<Value>) -> Self {
        self.data = data.into();
        self
    }

    fn has_usable_data(&self) -> bool {
        matches!(self.data, Value::Null | Value::Object(_))
    }
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trigger").finish_non_exhaustive()
    }
}

impl Events<'_> {
    /// Triggers an event for one contact (Emarsys API: Trigger an external event). It is not repeated when no answer
    /// comes: the contact might get an e-mail twice.
    ///
    /// ```no_run
    /// use reverse_etl::emarsys::{Client, EventId, FieldId, Trigger};
    ///
    /// # async fn shipped(client: &Client) -> reverse_etl::Result<()> {
    /// let trigger = Trigger::new("ada@shop.test").data(serde_json::json!({"order": "4711"}));
    /// client.events().trigger_one(EventId::new(12), FieldId::EMAIL, &trigger).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the key is empty or the data is no object; else as
    /// [`Client::send`], with code 2008 ([`Refusal::is_missing`](super::Refusal::is_missing)) if no contact has the
    /// key, and 5001 if there is no such event.
    pub async fn trigger_one(
        &self,
        event: EventId,
        key: impl Into<KeyField>,
        trigger: &Trigger,
    ) -> Result<()> {
        let (key, endpoint) = (key.into(), endpoint::<TriggerOne<'_>>());
        if !trigger.has_usable_data() {
            return Err(Error::config(format!(
                "{endpoint}: the data of the event is not a JSON object; send one, or no data"
            )));
        }
        rows::check_key(&endpoint, key, &trigger.external_id)?;
        let Answer { status, reply } = self.0.call(&TriggerOne { event, key_id: key, trigger }).await?;
        rows::none_rejected(&endpoint, status, &reply.errors)
    }

    /// Triggers an event for several contacts (Emarsys API: Trigger an external event).
    ///
    /// There is one result per contact, in their order. More than 1,000 are sent as several requests, one after the
    /// other.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with nothing sent, if the data of one is no object,
    /// or if one has no key or two have the same, apart from case and surrounding blanks; else as [`Client::send`].
    pub async fn trigger(
        &self,
        event: EventId,
        key: impl Into<KeyField>,
        triggers: &[Trigger],
    ) -> Result<Vec<RowResult>> {
        let key = key.into();
        let endpoint = endpoint::<TriggerMany<'_>>();
        if let Some(row) = triggers.iter().position(|trigger| !trigger.has_usable_data()) {
            return Err(Error::config(format!(
                "{endpoint}: the data of row {row} (the first is 0) is not a JSON object; send one, or no data"
            )));
        }
        let keys = &Keys::new(endpoint, key, triggers.iter().map(|trigger| &trigger.external_id))?;
        let requests = rows::split(&keys.endpoint, triggers, CONTACTS_MAX)?;
        rows::in_parts(requests, RowResult::Failed, |rows| async move {
            let request = TriggerMany { event, key_id: key, contacts: &triggers[rows.clone()] };
            let Answer { status, reply } = self.0.call(&request).await?;
            Account { keys, status, rows, done: Done::Unsaid }.settle(&reply.errors)
        })
        .await
    }
}

#[derive(Serialize)]
struct TriggerOne<'a> {
    #[serde(skip)]
    event: EventId,
    key_id: KeyField,
    #[serde(flatten)]
    trigger: &'a Trigger,
}

impl Request for TriggerOne<'_> {
    type Reply = TriggerReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "event/{id}/trigger";
    const EFFECT: Effect = Effect::Write;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.event])
    }
}

#[derive(Serialize)]
struct TriggerMany<'a> {
    #[serde(skip)]
    event: EventId,
    key_id: KeyField,
    contacts: &'a [Trigger],
}

impl Request for TriggerMany<'_> {
    type Reply = TriggerReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "event/{id}/trigger";
    const EFFECT: Effect = Effect::Write;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.event])
    }
}

#[derive(Deserialize)]
struct TriggerReply {
    #[serde(default)]
    errors: RowErrors,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Delivery, ErrorKind,
        emarsys::{
            FieldId, Refusal,
            transport::fake::{Answer, client},
        },
    };

    const EVENT: EventId = EventId::new(12);

    #[tokio::test(start_paused = true)]
    async fn event_of_one_contact_is_flat() {
        let (client, script) = client([Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":{}}"#)]);
        let trigger = Trigger::new("ada@shop.test").data(json!({"order": "4711"}));
        client.events().trigger_one(EVENT, FieldId::EMAIL, &trigger).await.unwrap();
        let sent = script.sent();
        assert_eq!(sent[0].url, "https://api.emarsys.net/api/v2/event/12/trigger");
        assert_eq!(sent[0].body, r#"{"key_id":"3","external_id":"ada@shop.test","data":{"order":"4711"}}"#);
        assert_eq!(format!("{trigger:?}"), "Trigger { .. }");
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_contact_is_told_by_its_code_and_a_lost_answer_is_not_repeated() {
        let text =
            r#"{"replyCode":2008,"replyText":"No contact found with the external id: 3 - a","data":""}"#;
        let (client, script) = client([Answer::reply(400, text), Answer::Lost]);
        let trigger = Trigger::new("a");
        let error = client.events().trigger_one(EVENT, FieldId::EMAIL, &trigger).await.unwrap_err();
        assert!(error.cause::<Refusal>().unwrap().is_missing());
        let error = client.events().trigger_one(EVENT, FieldId::EMAIL, &trigger).await.unwrap_err();
        assert_eq!(error.delivery(), Delivery::Unknown);
        assert_eq!(script.sent()[0].body, r#"{"key_id":"3","external_id":"a"}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn error_inside_a_success_is_a_refusal() {
        let reply = r#"{"replyCode":0,"data":{"errors":{"a":{"2008":"No contact"}}}}"#;
        let (client, _) = client([Answer::reply(200, reply)]);
        let error = client.events().trigger_one(EVENT, FieldId::EMAIL, &Trigger::new("a")).await.unwrap_err();
        assert_eq!(error.delivery(), Delivery::Refused);
        assert!(error.cause::<Refusal>().unwrap().is_missing());
    }

    #[tokio::test(start_paused = true)]
    async fn each_contact_of_many_has_its_result() {
        let (client, script) = client([
            Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":{"errors":[]}}"#),
            Answer::reply(
                200,
                r#"{"replyCode":0,"replyText":"OK","data":{"errors":{"zoe@shop.test":{"2008":"No contact"}}}}"#,
            ),
        ]);
        let triggers = [Trigger::new("ada@shop.test").data(json!({"n": 1})), Trigger::new("zoe@shop.test")];
        let results = client.events().trigger(EVENT, FieldId::EMAIL, &triggers).await.unwrap();
        assert!(matches!(results[..], [RowResult::Done, RowResult::Done]));
        let results = client.events().trigger(EVENT, FieldId::EMAIL, &triggers).await.unwrap();
        assert!(
            matches!(&results[..], [RowResult::Done, RowResult::Rejected(missing)] if missing.is_missing())
        );
        assert_eq!(
            script.sent()[0].body,
            r#"{"key_id":"3","contacts":[{"external_id":"ada@shop.test","data":{"n":1}},{"external_id":"zoe@shop.test"}]}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn data_that_cannot_be_taken_is_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        for data in [json!([1]), json!("text")] {
            let triggers = [Trigger::new("a"), Trigger::new("b").data(data)];
            let error = client.events().trigger(EVENT, FieldId::EMAIL, &triggers).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("row 1"), "{error}");
        }
        assert!(script.sent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn event_of_nobody_is_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        let error = client.events().trigger_one(EVENT, FieldId::EMAIL, &Trigger::new(" ")).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        assert!(script.sent().is_empty());
    }
}
