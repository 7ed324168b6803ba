//! Two calls about single contacts: merge, and unsubscribe.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::Contacts;
use crate::{
    Result,
    emarsys::{
        client::Answer,
        ids::{EmailId, FieldId, KeyField, ListId},
        reply::RowErrors,
        request::{Effect, Method, Request, endpoint},
        rows::{self, KeyValue},
        words::words,
    },
};

words! {
    /// What becomes of a field when two contacts are merged. The documentation names one rule only.
    MergeRule {
        /// The value of the source replaces that of the target.
        Overwrite = "overwrite",
    }
}

/// Two contacts that are to become one (Emarsys API: Merge contacts). Its `Debug` shows no key values.
#[derive(Clone, Serialize)]
#[must_use]
pub struct Merge {
    key_id: KeyField,
    source_key_value: String,
    target_key_value: String,
    #[serde(rename = "merge_rules")]
    rules: BTreeMap<FieldId, MergeRule>,
    delete_source: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact_list_id: Option<ListId>,
}

impl Merge {
    /// Fields of the contact `source` go to the contact `target`, both named by the value of their field `key`. Without
    /// [rules](Self::rule), none do.
    pub fn new(key: impl Into<KeyField>, source: impl KeyValue, target: impl KeyValue) -> Self {
        Self {
            key_id: key.into(),
            source_key_value: rows::text(&source),
            target_key_value: rows::text(&target),
            rules: BTreeMap::new(),
            delete_source: false,
            contact_list_id: None,
        }
    }

    /// What becomes of a field.
    pub fn rule(mut self, field: FieldId, rule: MergeRule) -> Self {
        self.rules.insert(field, rule);
        self
    }

    /// The source is deleted afterwards, with everything known of it. By default it stays.
    pub fn delete_source(mut self) -> Self {
        self.delete_source = true;
        self
    }

    /// A list that the target is put into.
    pub fn list(mut self, list: ListId) -> Self {
        self.contact_list_id = Some(list);
        self
    }
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Which e-mail made a contact unsubscribe (Emarsys API: Unsubscribe). Its `Debug` does not show the contact.
#[derive(Clone, Serialize)]
pub struct Unsubscription {
    launch_list_id: u64,
    email_id: EmailId,
    contact_uid: String,
}

impl Unsubscription {
    /// The launch, the campaign, and the internal text id of the contact: what the links of an e-mail carry.
    pub fn new(launch_list: u64, email: EmailId, contact_uid: impl Into<String>) -> Self {
        Self { launch_list_id: launch_list, email_id: email, contact_uid: contact_uid.into() }
    }
}

impl fmt::Debug for Unsubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsubscription").field("email_id", &self.email_id).finish_non_exhaustive()
    }
}

impl Contacts<'_> {
    /// Merges two contacts (Emarsys API: Merge contacts). It is not repeated when no answer comes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a key is empty; else as
    /// [`Client::send`](crate::emarsys::Client::send). Which codes there are is not documented.
    pub async fn merge(&self, merge: &Merge) -> Result<()> {
        for value in [&merge.source_key_value, &merge.target_key_value] {
            rows::check_key(&endpoint::<MergeContacts<'_>>(), merge.key_id, value)?;
        }
        let Answer { status, reply } = self.0.call(&MergeContacts(merge)).await?;
        rows::none_rejected(&endpoint::<MergeContacts<'_>>(), status, &reply.errors)
    }

    /// Has an unsubscription counted for the e-mail that led to it (Emarsys API: Unsubscribe). It does not take the
    /// contact's consent away: for that, [`OPT_IN`](FieldId::OPT_IN) is set to 2 as well.
    ///
    /// # Errors
    /// As [`Client::send`](crate::emarsys::Client::send), and so it is if the reply has an error of the contact: its code
    /// is that of the [`Refusal`](crate::emarsys::Refusal).
    pub async fn unsubscribe(&self, unsubscription: &Unsubscription) -> Result<()> {
        let Answer { status, reply } = self.0.call(&Unsubscribe(unsubscription)).await?;
        rows::none_rejected(&endpoint::<Unsubscribe<'_>>(), status, &reply.errors)
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct MergeContacts<'a>(&'a Merge);

impl Request for MergeContacts<'_> {
    type Reply = ErrorsReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/merge";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("contact.merge");
}

#[derive(Serialize)]
#[serde(transparent)]
struct Unsubscribe<'a>(&'a Unsubscription);

impl Request for Unsubscribe<'_> {
    type Reply = ErrorsReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "email/unsubscribe";
    const EFFECT: Effect = Effect::Write;
}

#[derive(Deserialize)]
struct ErrorsReply {
    #[serde(default)]
    errors: RowErrors,
}
