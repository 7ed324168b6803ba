//! A stateful Emarsys on loopback, for tests, examples and benchmarks, in any language.
//!
//! It serves `/api/v2` (WSSE) and `/api/v3` (OAuth 2) from one account and behaves like the real service as far as
//! that is known: real credentials and limits, mixed id types, rows that fail inside a reply with status 200. Where
//! nobody knows, a [switch](Switches) decides. It can be told to [fail](Fault) at chosen requests, to let
//! "other people" edit the account behind the client's back, and to show everything that it holds.
//!
//! A request goes `server` (HTTP) → `account` (faults, limit, credentials, size) → one module per resource →
//! `store`. Only the first knows sockets and only the [`Host`] knows the time, so a simulation can
//! [build](SandboxBuilder::build) a sandbox without a server and [hand it requests](Sandbox::handle) itself.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use reverse_etl::emarsys::{
//!     FieldId,
//!     sandbox::{Endpoint, Fault, Sandbox},
//! };
//! use serde_json::json;
//!
//! let sandbox = Sandbox::start().await?;
//! let ada = sandbox.add_contact([
//!     (FieldId::EMAIL, json!("ada@shop.test")),
//!     (FieldId::FIRST_NAME, json!("Ada")),
//! ]);
//! sandbox.fail(Fault::lose_answer().on(Endpoint::UpdateContacts));
//!
//! // … let the program under test talk to `sandbox.url()` …
//!
//! assert_eq!(sandbox.contact(ada).unwrap().value(FieldId::FIRST_NAME), "Ada");
//! assert_eq!(sandbox.write_requests(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! Segments are really evaluated by their contact criteria; criteria about behaviour are kept, and met by everybody. An
//! export holds what the account held when it was asked for, and is served as CSV if its `distribution_method` is
//! `local`; the others are accepted and go nowhere.
//!
//! Events that are triggered and unsubscriptions set nothing off: they are kept, for the test to look at.
//!
//! Of relational data and of `contact/merge` hardly more than the addresses and some codes are known. Here records are
//! taken as an array of objects, or as such an array named `records`, with either kind of credentials; a record is
//! known by its key columns, and a request is carried out as a whole or refused. A merge knows the rule `overwrite`,
//! which copies the source's value even if it is empty; any other rule is refused with 10001, fields without a rule
//! and lists stay as they are.
//!
//! What it does not serve: the external id (`eid`) as a key, relational and AI segments, the export of responses, the
//! notification of a finished export, `contact/last_change`, the list of events, programs, and e-mails. Paths that it does
//! not serve are answered as an unknown action, with status 400 and code 1.
//!
//! # Where it is more lenient than Emarsys may be
//!
//! What Emarsys may refuse, but is not known to, is accepted. A [switch](Switches) makes it strict:
//!
//! | Accepted by default | Strict with |
//! |---|---|
//! | texts that are too long, which are kept whole | [`texts_checked`](Switches::texts_checked), [`long_texts_cut`](Switches::long_texts_cut) |
//! | e-mails that cannot be any, and numbers of more than 24 digits | [`texts_checked`](Switches::texts_checked) |
//! | read-only fields in a row, which are ignored | [`read_only_refused`](Switches::read_only_refused) |
//! | the other rows of a request in which one has an unknown field or source | [`unknown_field`](Switches::unknown_field), [`invalid_source`](Switches::invalid_source) |
//! | the rows of an unknown key field, as errors of a reply with status 200 | [`invalid_key`](Switches::invalid_key) |
//! | e-mails in another case than the contact's | [`email_match`](Switches::email_match) |
//! | string ids of new fields that are not nine digits | [`string_id_nine_digits`](Switches::string_id_nine_digits) |
//! | a WSSE header that comes again | [`replays_refused`](Switches::replays_refused) |
//! | reads of what was written just before | [`read_delay`](Switches::read_delay) |
//! | reads of lists that are deprecated | [`deprecated_reads`](Switches::deprecated_reads) |
//! | downloads of an export for ever | [`exports_kept`](Switches::exports_kept) |
//!
//! For these there is no switch, as no error of theirs is known:
//!
//! * a custom field as the key, although it has no index;
//! * any character in the name of a list but control characters, which are refused with 3004;
//! * characters of four bytes in system fields, which Emarsys is said to damage: they are kept;
//! * a body whatever its `Content-Type` says;
//! * an unsubscription from an e-mail that nobody sent;
//! * every call, as if the API user had all permissions: [`Fault::status`] with 403 is one that is missing.

mod account;
mod auth;
mod builder;
mod campaigns;
mod catalog;
mod contacts;
mod context;
mod endpoint;
mod events;
mod exchange;
mod exports;
mod faults;
mod fields;
mod in_process;
mod journal;
mod key;
mod limits;
mod lists;
mod named;
mod relational;
mod reply;
mod segments;
mod server;
mod settings;
mod snapshot;
mod sources;
mod store;
mod switches;
#[cfg(test)]
mod tests;
mod value;
mod vienna;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::Value;

use self::{account::Account, server::Server, value::Stored};
use super::ids::{ContactId, FieldId, ListId, SegmentId};
use crate::{Result, host::Host};

pub use self::{
    builder::SandboxBuilder,
    campaigns::{StoredMailing, StoredUnsubscription},
    catalog::StoredField,
    endpoint::Endpoint,
    events::StoredTrigger,
    exchange::{Answer, Reaction, Request, Response},
    faults::Fault,
    in_process::Network,
    journal::WriteRequest,
    relational::StoredTable,
    snapshot::Snapshot,
    sources::StoredSource,
    store::{StoredContact, StoredList},
    switches::{Duplicates, EmailMatch, ErrorBody, RelationalBody, Scope, Switches},
};

pub(crate) use self::in_process::InProcess;

/// An Emarsys account on this machine, and the server in front of it.
///
/// Clones are the same sandbox; the server stops when the last one is dropped. Every method can be called from any
/// thread, at any time.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
    server: Option<Arc<Server>>,
}

/// What the server and the handles share.
struct Shared {
    host: Arc<dyn Host>,
    account: Mutex<Account>,
}

impl Shared {
    fn handle(&self, request: &Request) -> Reaction {
        let now = self.host.wall();
        self.lock().handle(now, request)
    }

    /// The account as it is now, with everything late that is due by now.
    fn now<T>(&self, look: impl FnOnce(&mut Account, SystemTime) -> T) -> T {
        let now = self.host.wall();
        let mut account = self.lock();
        account.settle(now);
        look(&mut account, now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        // A test that panicked elsewhere should not hide its own message behind this one.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// Starts an empty account on any free port.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if no port can be had, [`ErrorKind::Config`](crate::ErrorKind::Config)
    /// outside a tokio runtime.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// A sandbox that is not like the others: its port, limits, clock and switches.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }

    /// Answers a request without a server; `wall` of the host is the time.
    ///
    /// The caller is the network: it has to wait for the [delay](Reaction::delay), and to lose what is lost.
    pub fn handle(&self, request: &Request) -> Reaction {
        self.shared.handle(request)
    }

    /// The address below which both APIs and `/oauth2/token` are, such as `http://127.0.0.1:41234`. Without a server
    /// it is `http://sandbox.invalid`.
    pub fn url(&self) -> &str {
        self.server.as_ref().map_or("http://sandbox.invalid", |server| &server.url)
    }

    /// The client id that is accepted on v3. The credentials are the same for every sandbox and no secrets.
    pub fn client_id(&self) -> &str {
        auth::CLIENT_ID
    }

    /// The client secret that is accepted on v3.
    pub fn client_secret(&self) -> &str {
        auth::CLIENT_SECRET
    }

    /// The user name that is accepted on v2.
    pub fn username(&self) -> &str {
        auth::USERNAME
    }

    /// The secret that is accepted on v2.
    pub fn wsse_secret(&self) -> &str {
        auth::WSSE_SECRET
    }
}

/// The account behind the client's back: what other people do. Nothing is checked, counted or delayed.
impl Sandbox {
    /// Adds a contact and returns its id, also if its e-mail exists already.
    pub fn add_contact(&self, values: impl IntoIterator<Item = (FieldId, Value)>) -> ContactId {
        let values: Vec<_> = values
            .into_iter()
            .filter_map(|(field, value)| Some((field.get(), Stored::unchecked(&value)?)))
            .collect();
        let add = |account: &mut Account, _| account.store.add_contact(SystemTime::UNIX_EPOCH, values);
        ContactId::new(self.shared.now(add))
    }

    /// Deletes a contact; whether there was one.
    pub fn delete_contact(&self, contact: ContactId) -> bool {
        self.shared.now(|account, _| account.store.delete_contact(contact.get()))
    }

    /// Changes a value of a contact, null clears it; whether there is such a contact.
    pub fn set_value(&self, contact: ContactId, field: FieldId, value: &Value) -> bool {
        let value = Stored::unchecked(value);
        self.shared.now(|account, _| account.store.set(contact.get(), field.get(), value))
    }

    /// Adds a field of any type, such as `shorttext` or `multichoice`, and returns its id.
    pub fn add_field(&self, name: &str, application_type: &str) -> FieldId {
        FieldId::new(self.shared.now(|account, _| account.store.catalog.add(name, application_type, None)))
    }

    /// Adds a choice to a field, or gives one another label.
    pub fn add_choice(&self, field: FieldId, choice: u64, label: &str) {
        self.shared.now(|account, _| account.store.catalog.add_choice(field.get(), choice, label));
    }

    /// Gives a field an index, so that `contact/query` can filter by it. The e-mail has one.
    pub fn add_index(&self, field: FieldId) {
        self.shared.now(|account, _| account.store.add_index(field.get()));
    }

    /// Deletes a field with all its values; whether there was one.
    pub fn delete_field(&self, field: FieldId) -> bool {
        self.shared.now(|account, _| account.store.delete_field(field.get()))
    }

    /// Adds a contact list and returns its id, also if its name exists already.
    pub fn add_list(&self, name: &str) -> ListId {
        ListId::new(self.shared.now(|account, _| account.store.add_list(SystemTime::UNIX_EPOCH, name)))
    }

    /// Deletes a contact list; whether there was one. Its contacts stay.
    pub fn delete_list(&self, list: ListId) -> bool {
        self.shared.now(|account, _| account.store.delete_list(list.get()))
    }

    /// Puts a contact into a list; whether it was not in it before.
    pub fn add_to_list(&self, list: ListId, contact: ContactId) -> bool {
        self.shared.now(|account, _| account.store.join(list.get(), contact.get(), SystemTime::UNIX_EPOCH))
    }

    /// Adds a segment and returns its id, also if its name exists already. `criteria` is a tree of contact criteria as
    /// requests send it; one that a request could not send is met by nobody.
    pub fn add_segment(&self, name: &str, criteria: &Value) -> SegmentId {
        SegmentId::new(self.shared.now(|account, _| segments::add(&mut account.store, name, criteria)))
    }

    /// Takes a contact out of a list; whether it was in it.
    pub fn remove_from_list(&self, list: ListId, contact: ContactId) -> bool {
        self.shared.now(|account, _| account.store.leave(list.get(), contact.get()))
    }
}

/// What the account holds.
impl Sandbox {
    /// All contacts, by id.
    pub fn contacts(&self) -> Vec<StoredContact> {
        self.shared.now(|account, _| account.store.contact_snapshots())
    }

    /// One contact.
    pub fn contact(&self, id: ContactId) -> Option<StoredContact> {
        self.shared.now(|account, _| account.store.snapshot(id.get()))
    }

    /// The contacts with a value in a field, compared as the API does.
    pub fn contacts_with(&self, field: FieldId, value: &str) -> Vec<StoredContact> {
        self.shared.now(|account, _| {
            let found = account.store.find(key::Key::Field(field.get()), value, store::Horizon::NONE);
            found.into_iter().filter_map(|id| account.store.snapshot(id)).collect()
        })
    }

    /// All contact lists, by id.
    pub fn lists(&self) -> Vec<StoredList> {
        self.shared.now(|account, _| account.store.list_snapshots())
    }

    /// All fields, in the order in which the API lists them.
    pub fn fields(&self) -> Vec<StoredField> {
        self.shared.now(|account, _| account.store.catalog.fields().to_vec())
    }

    /// The field with this name or string id.
    pub fn field(&self, name: &str) -> Option<StoredField> {
        self.shared.now(|account, _| account.store.catalog.named(name).cloned())
    }
}

/// What came in.
impl Sandbox {
    /// How many requests came in, by endpoint: also those that were refused or lost.
    pub fn requests(&self) -> BTreeMap<Endpoint, u64> {
        self.shared.now(|account, _| account.journal.counts().clone())
    }

    /// How many requests of one endpoint came in.
    pub fn requests_to(&self, endpoint: Endpoint) -> u64 {
        self.shared.now(|account, _| account.journal.counts().get(&endpoint).copied().unwrap_or_default())
    }

    /// How many requests came in that are there to [write](Endpoint::is_write), with those `checkids` that name a list
    /// to put contacts into.
    pub fn write_requests(&self) -> u64 {
        self.shared.now(|account, _| account.journal.write_count())
    }

    /// The write requests in the order in which they came in, with their bodies.
    pub fn journal(&self) -> Vec<WriteRequest> {
        self.shared.now(|account, _| account.journal.writes().to_vec())
    }

    /// Forgets the requests counted and kept so far.
    pub fn clear_requests(&self) {
        self.shared.now(|account, _| account.journal.clear());
    }
}

/// What goes wrong.
impl Sandbox {
    /// Tells the sandbox to fail.
    pub fn fail(&self, fault: Fault) {
        self.shared.now(|account, _| account.faults.push(fault));
    }

    /// Takes back every fault that has not happened. What is lost and still to take effect stays so.
    pub fn clear_faults(&self) {
        self.shared.now(|account, _| account.faults.clear());
    }

    /// Ends the life of every token given out so far.
    pub fn expire_tokens(&self) {
        self.shared.now(|account, _| account.auth.expire_tokens());
    }

    /// Uses up what is left of the request limit of both API users.
    pub fn exhaust_limit(&self) {
        self.shared.now(Account::exhaust_limits);
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("url", &self.url()).finish_non_exhaustive()
    }
}
