//! Deletion of contacts.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{Contacts, ROWS_MAX};
use crate::{
    Delivery, Result,
    emarsys::{
        client::Answer,
        ids::KeyField,
        refusal::{Refusal, Rejection},
        reply::{RowErrors, number},
        request::{Effect, Method, Request, endpoint},
        rows::{self, Account, Done, KeyValue, Keys, RowResult},
    },
};

impl Contacts<'_> {
    /// Deletes contacts **with everything known of them**, for good, each found by the value of its field `key`
    /// (Emarsys API: Delete contacts). To take them out of a list only, there is
    /// [`Lists::remove`](crate::emarsys::Lists::remove).
    ///
    /// There is one result per key, in their order: a contact that does not exist is rejected with 2008
    /// ([`Rejection::is_missing`](crate::emarsys::Rejection::is_missing)), a key that several have with 2010. More than
    /// 1,000 keys are sent as several requests, one after the other.
    ///
    /// # Errors
    /// As [`update`](Self::update). If nobody of several can be deleted, some accounts are known to refuse the request as a
    /// whole with 2008 ([`Refusal::is_missing`]): then nothing is known of any key, or, if it was not the first request, the
    /// rows of that one share the error and those after it are not sent.
    pub async fn delete(&self, key: impl Into<KeyField>, keys: &[impl KeyValue]) -> Result<Vec<RowResult>> {
        let (key, keys) = (key.into(), &rows::texts(keys));
        let known = &Keys::new(endpoint::<DeleteContacts<'_>>(), key, keys)?;
        rows::in_parts(rows::split(&known.endpoint, keys, ROWS_MAX)?, RowResult::Failed, |rows| async move {
            match self.0.call(&DeleteContacts { key, keys: &keys[rows.clone()] }).await {
                Ok(Answer { status, reply }) => {
                    let done = number(&reply.deleted_contacts).and_then(|count| count.try_into().ok());
                    let done = done.map_or(Done::Unsaid, Done::Exactly);
                    Account { keys: known, status, rows, done }.settle(&reply.errors)
                }
                // What is said of a request with one key is said of that key. Of several, it is not documented
                // whether it is said of all.
                Err(error) => {
                    let refused = error.delivery() == Delivery::Refused && rows.len() == 1;
                    match error.cause::<Refusal>().filter(|_| refused) {
                        Some(refusal) if refusal.is_missing() || refusal.is_ambiguous() => {
                            Ok(vec![RowResult::Rejected(Rejection::of(refusal))])
                        }
                        _ => Err(error),
                    }
                }
            }
        })
        .await
    }
}

struct DeleteContacts<'a> {
    key: KeyField,
    keys: &'a [String],
}

/// The keys are under the name of their field.
impl Serialize for DeleteContacts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key_id", &self.key)?;
        map.serialize_entry(&self.key, self.keys)?;
        map.end()
    }
}

impl Request for DeleteContacts<'_> {
    type Reply = DeleteReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/delete";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contact.delete");
}

#[derive(Deserialize)]
struct DeleteReply {
    #[serde(default)]
    errors: RowErrors,
    /// How many, as a number or a string; older replies do not say.
    #[serde(default)]
    deleted_contacts: Value,
}
