//! What campaigns leave behind: who was sent what (`contact/getcontacthistory`), and who unsubscribed
//! (`email/unsubscribe`).

use std::time::{Duration, SystemTime};

use chrono::NaiveDate;
use serde_json::{Map, Value, json};

use super::{
    Sandbox,
    context::Context,
    key::Key,
    limits::CONTACTS_MAX,
    reply::{Data, Failure, RowErrors},
    store::Horizon,
    value, vienna,
};
use crate::emarsys::ids::{ContactId, EmailId};

/// For how long mailings are shown; older ones are archived.
const HISTORY: Duration = Duration::from_secs(30 * 24 * 3_600);

/// An e-mail that a contact was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct StoredMailing {
    email: EmailId,
    launched: SystemTime,
    delivery_status: String,
    bounce_status: Option<String>,
}

impl StoredMailing {
    /// An e-mail, by its id, that was launched at a moment. Its delivery status is `launched`, and it did not bounce.
    pub fn new(email: EmailId, launched: SystemTime) -> Self {
        Self { email, launched, delivery_status: "launched".to_owned(), bounce_status: None }
    }

    /// Another delivery status.
    pub fn delivery_status(mut self, status: &str) -> Self {
        status.clone_into(&mut self.delivery_status);
        self
    }

    /// It bounced, such as `soft`.
    pub fn bounce_status(mut self, status: &str) -> Self {
        self.bounce_status = Some(status.to_owned());
        self
    }
}

/// An unsubscription that was counted for a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUnsubscription {
    launch_list: u64,
    email: EmailId,
    contact: ContactId,
}

impl StoredUnsubscription {
    /// The id of the launch list.
    pub fn launch_list(&self) -> u64 {
        self.launch_list
    }

    /// The id of the e-mail.
    pub fn email(&self) -> EmailId {
        self.email
    }

    /// The id of the contact.
    pub fn contact(&self) -> ContactId {
        self.contact
    }
}

/// What campaigns left behind in this account.
#[derive(Debug, Default)]
pub(super) struct Campaigns {
    mailings: Vec<(u64, StoredMailing)>,
    unsubscriptions: Vec<StoredUnsubscription>,
}

impl Sandbox {
    /// Lets a contact have been sent an e-mail. It shows for 30 days.
    pub fn add_mailing(&self, contact: ContactId, mailing: StoredMailing) {
        self.shared.now(|account, _| account.store.campaigns.mailings.push((contact.get(), mailing)));
    }

    /// The unsubscriptions counted for campaigns, in the order of the requests. The opt-in is another matter: it is a
    /// value of the contact, and not changed by them.
    pub fn unsubscriptions(&self) -> Vec<StoredUnsubscription> {
        self.shared.now(|account, _| account.store.campaigns.unsubscriptions.clone())
    }
}

/// Both dates are days of the server and belong to the span; a missing one does not limit it.
pub(super) fn history(cx: &Context<'_>, body: &Map<String, Value>) -> Data {
    let refused = |name: &str| Failure::bad(10_001, format!("Invalid parameter: {name}"));
    let contacts = body.get("contacts").and_then(Value::as_array).ok_or_else(|| refused("contacts"))?;
    if contacts.len() > CONTACTS_MAX {
        return Err(Failure::bad(10_001, "Max. number of contacts: 1000"));
    }
    let contacts: Option<Vec<u64>> =
        contacts.iter().map(|id| value::text(id).and_then(|id| id.parse().ok())).collect();
    let contacts = contacts.ok_or_else(|| refused("contacts"))?;
    let day = |name: &str| match body.get(name).filter(|day| !day.is_null()) {
        None => Ok(None),
        Some(day) => {
            let day = day.as_str().and_then(|day| NaiveDate::parse_from_str(day, "%Y-%m-%d").ok());
            day.map(|day| Some(day.to_string())).ok_or_else(|| refused(name))
        }
    };
    let (first, last) = (day("startDate")?, day("endDate")?);
    if first.is_some() && last.is_some() && last < first {
        return Err(refused("endDate"));
    }
    let shows = |(contact, mailing): &&(u64, StoredMailing)| {
        let launched = vienna::print(mailing.launched);
        let launched = launched.get(..10).unwrap_or_default();
        contacts.contains(contact)
            && cx.now.duration_since(mailing.launched).is_ok_and(|age| age <= HISTORY)
            && first.as_deref().is_none_or(|first| first <= launched)
            && last.as_deref().is_none_or(|last| launched <= last)
    };
    let print = |(contact, mailing): &(u64, StoredMailing)| {
        json!({
            "emailId": mailing.email,
            "contactId": contact.to_string(),
            "launch_date": vienna::print(mailing.launched),
            "delivery_status": mailing.delivery_status,
            "bounce_status": mailing.bounce_status,
        })
    };
    Ok(cx.store.campaigns.mailings.iter().filter(shows).map(print).collect())
}

/// Counts an unsubscription. The opt-in has to be set by another call.
pub(super) fn unsubscribe(cx: &mut Context<'_>, body: &Map<String, Value>) -> Data {
    let number = |name: &str| {
        let sent = body.get(name).and_then(value::text);
        sent.and_then(|sent| sent.parse().ok()).ok_or_else(Failure::parameters)
    };
    let (launch_list, email) = (number("launch_list_id")?, number("email_id")?);
    let uid = body.get("contact_uid").and_then(value::text).ok_or_else(Failure::parameters)?;
    let mut errors = RowErrors::default();
    match cx.resolve(Key::Uid, &uid, Horizon::NONE) {
        Ok(contact) => {
            let (email, contact) = (EmailId::new(email), ContactId::new(contact));
            cx.store.campaigns.unsubscriptions.push(StoredUnsubscription { launch_list, email, contact });
        }
        Err(error) => errors.insert(uid, error),
    }
    Ok(json!({ "errors": errors.into_value() }))
}
