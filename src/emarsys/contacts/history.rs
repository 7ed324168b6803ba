//! What was sent to contacts.

use chrono::{NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};

use super::{Contacts, ROWS_MAX};
use crate::{
    Result,
    emarsys::{
        ids::{ContactId, EmailId},
        reply::{self, List},
        request::{Effect, Method, Request},
    },
};

/// An e-mail that was sent to a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mailing {
    /// The contact.
    pub contact: ContactId,
    /// The campaign.
    pub email: EmailId,
    /// When it was launched, in the local time of Emarsys (Europe/Vienna).
    pub launched: Option<NaiveDateTime>,
    /// What became of it, in the words of Emarsys, such as `launched`.
    pub delivery_status: Option<String>,
    /// How it bounced, if it did, such as `soft`.
    pub bounce_status: Option<String>,
}

impl Contacts<'_> {
    /// The e-mails that were sent to contacts from a day to another (Emarsys API: Get contact history), in the order of
    /// the reply. What is older than about 30 days is archived and not found. More than 1,000 contacts are sent as
    /// several requests.
    ///
    /// # Errors
    /// As [`Client::send`](crate::emarsys::Client::send), with code 10001 if the days are not accepted.
    pub async fn history(
        &self,
        contacts: &[ContactId],
        from: NaiveDate,
        to: NaiveDate,
    ) -> Result<Vec<Mailing>> {
        let mut mailings = Vec::new();
        for contacts in contacts.chunks(ROWS_MAX) {
            let request = GetHistory { contacts, start_date: from, end_date: to };
            let List(found) = self.0.send(&request).await?;
            mailings.extend(found.into_iter().map(Mailing::from));
        }
        Ok(mailings)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GetHistory<'a> {
    contacts: &'a [ContactId],
    start_date: NaiveDate,
    end_date: NaiveDate,
}

impl Request for GetHistory<'_> {
    type Reply = List<MailingReply>;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "contact/getcontacthistory";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contact.history");
}

#[derive(Deserialize)]
struct MailingReply {
    #[serde(rename = "contactId")]
    contact: ContactId,
    #[serde(rename = "emailId")]
    email: EmailId,
    #[serde(default, deserialize_with = "reply::optional_text")]
    launch_date: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    delivery_status: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    bounce_status: Option<String>,
}

impl From<MailingReply> for Mailing {
    fn from(mailing: MailingReply) -> Self {
        Self {
            contact: mailing.contact,
            email: mailing.email,
            launched: mailing.launch_date.and_then(|text| reply::local_time(&text)),
            delivery_status: mailing.delivery_status,
            bounce_status: mailing.bounce_status,
        }
    }
}
