//! Contacts: attributes of people who exist, and in insert mode the people who do not.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{future, try_join};
use serde_json::Value as Json;

use super::{
    ListRef,
    fields::{self, Catalog},
    fold, target_name,
};
use crate::{
    Batch, Change, Delivery, Destination, Error, ErrorKind, FieldKind, FieldName, FieldSpec, Key, Limits,
    Operation, Outcome, Outcomes, Record, Result, Target, Value, ValueRef,
    emarsys::{
        ApplicationType, Choice, Client, Contact, ContactData, ContactId, Field, FieldId, ListId, Lookup,
        NewField, Refusal, RowResult,
    },
};

/// The most contacts of one request (Emarsys API: Concepts).
const ROWS_MAX: usize = 1_000;
/// The most bytes of a batch: below what Emarsys takes in one request, which is 8 MB, whatever the ids of the fields are.
const BYTES_MAX: usize = 7_000_000;

/// The contacts of an Emarsys account, matched by e-mail (Emarsys API: Contacts).
///
/// It updates contacts that exist and creates none. In [insert mode](Self::insert_into) it also creates those that do not
/// exist, in one contact list.
///
/// ```no_run
/// use reverse_etl::{
///     Activation, Mapping, MemoryStore,
///     emarsys::{Client, ContactsDestination, Credentials, FieldId},
/// };
///
/// # fn main() -> reverse_etl::Result<()> {
/// let client = Client::builder(Credentials::oauth2("client id", "client secret")).build()?;
/// let contacts = ContactsDestination::new(client).insert_into("Customers");
/// let mapping = Mapping::new("email").map("first_name", FieldId::FIRST_NAME).custom("points");
/// let sync = Activation::new(mapping, contacts, MemoryStore::default());
/// # let _ = sync;
/// # Ok(())
/// # }
/// ```
///
/// # Fields
/// A mapping names a field by its id ([`FieldId`]), its name or its string id, in this order; names without regard to
/// case and surrounding blanks. A field mapped with `custom` or `create` that the account does not have is created under
/// that name; of one that exists, its own type counts. Refused are read-only fields, vouchers, and the e-mail itself,
/// which is the key.
///
/// | Type in Emarsys | Values |
/// |---|---|
/// | short text, fax | text of up to 60 characters |
/// | long text, and types that this crate does not know | text of up to 255 characters |
/// | large text, URL | text of up to 16,383 characters; Emarsys states no limit |
/// | numeric | decimal numbers of up to 24 digits |
/// | date, birth date | days |
/// | single choice, multiple choice | choices, by English label or by id |
/// | opt-in (31) | `true`, `yes`, `1` or `false`, `no`, `2`; null is unknown |
///
/// System fields (ids up to 48) lose emoji and other characters of four bytes, so values with such are refused there.
///
/// # What a contact is
/// An e-mail is trimmed and in lower case. One that several contacts have is rejected with code 2010 until they are merged
/// in Emarsys.
///
/// # Time
/// A batch has a deadline, which the client keeps: a client with a [`Host`](crate::host::Host) of its own needs plans with
/// the same one ([`PlanOptions::host`](crate::PlanOptions::host)).
#[derive(Clone, Debug)]
#[must_use]
pub struct ContactsDestination {
    client: Client,
    list: Option<ListRef>,
    limits: Limits,
}

impl ContactsDestination {
    /// Contacts that exist: none is ever created.
    pub fn new(client: Client) -> Self {
        Self { client, list: None, limits: Self::default_limits() }
    }

    /// Insert mode: contacts that do not exist are created in this list, which must exist.
    ///
    /// Contacts that exist are updated wherever they are, and never put into the list. Only one that somebody else creates
    /// in the moment between the update that found nobody and the creation may get into it: Emarsys says of a creation that
    /// it puts everybody into the list whom it can identify.
    pub fn insert_into(mut self, list: impl Into<ListRef>) -> Self {
        self.list = Some(list.into());
        self
    }

    /// How much goes into a request, how many are under way at once, and for how long one may take effect; default:
    /// [`default_limits`](Self::default_limits). Emarsys takes no more than 1,000 contacts and 8 MB in one request, so
    /// higher numbers are lowered to 1,000 rows and 7,000,000 bytes.
    pub fn limits(mut self, limits: Limits) -> Self {
        let (rows, bytes) = (limits.rows.min(ROWS_MAX), limits.bytes.min(BYTES_MAX));
        self.limits = Limits { rows, bytes, ..limits };
        self
    }

    /// 1,000 rows and 7,000,000 bytes a request, four requests at once, late by two minutes at the most.
    pub fn default_limits() -> Limits {
        Limits::rows(ROWS_MAX).bytes(BYTES_MAX).in_flight(4).late(Duration::from_secs(120))
    }

    /// The list of insert mode.
    async fn list(&self) -> Result<Option<ListId>> {
        match &self.list {
            Some(list) => list.find(&self.client.lists().list().await?).map(Some),
            None => Ok(None),
        }
    }

    /// The choices of a field, if it has some.
    async fn choices(&self, field: Option<&Field>) -> Result<Vec<Choice>> {
        match field.filter(|field| fields::has_choices(field)) {
            Some(field) => self.client.fields().choices(field.id).await,
            None => Ok(Vec::new()),
        }
    }

    /// Creates a field; if somebody else did so meanwhile, or the answer is lost, looks for it.
    async fn create_field(&self, name: &FieldName, kind: ApplicationType) -> Result<Field> {
        let new = NewField::new(name.as_str().trim(), kind.clone());
        let error = match self.client.fields().create(&new).await {
            Ok(id) => {
                return Ok(Field {
                    id,
                    name: Some(name.to_string()),
                    string_id: None,
                    application_type: kind,
                });
            }
            Err(error) => error,
        };
        let code = error.cause::<Refusal>().and_then(|refusal| refusal.code);
        if (code == Some(9002) || error.delivery() == Delivery::Unknown)
            && let Some(field) = Catalog::read(&self.client).await?.find(name.as_str())?
        {
            return Ok(field.clone());
        }
        Err(Error::new(error.kind(), format!("the field `{name}` could not be created: {error}"))
            .with_delivery(error.delivery())
            .with_source(error))
    }
}

#[async_trait]
impl Destination for ContactsDestination {
    /// Reads settings and fields, the choices of the mapped choice fields, and in insert mode the contact lists.
    async fn describe(&self, wanted: &[FieldSpec]) -> Result<Target> {
        let (settings, catalog, list) =
            try_join!(self.client.settings(), Catalog::read(&self.client), self.list())?;
        let mut target =
            Target::new(target_name(&settings, "contacts")?, FieldKind::Email, self.limits).finds();
        target = match list {
            Some(list) => {
                target.offers([Operation::Update, Operation::Insert]).inserts_into(list.to_string())
            }
            None => target.offers([Operation::Update]),
        };
        let mut created = HashSet::new();
        let mut existing = Vec::with_capacity(wanted.len());
        for spec in wanted {
            let name = spec.name().as_str();
            let field = catalog.find(name)?;
            match (field, spec.create()) {
                (Some(field), _) => fields::check_writable(name, field)?,
                (None, Some(kind)) => {
                    fields::type_to_create(name, kind)?;
                    if !created.insert(fold(name)) {
                        return Err(Error::config(format!(
                            "the field `{name}` is mapped twice: remove one of the two"
                        )));
                    }
                }
                (None, None) => return Err(catalog.unknown(name)),
            }
            existing.push(field);
        }
        let choices = future::try_join_all(existing.iter().map(|field| self.choices(*field))).await?;
        for ((spec, field), choices) in wanted.iter().zip(existing).zip(choices) {
            target = match field {
                Some(field) => target.field(spec, fields::kind(field, &choices), Some(&field.id.to_string())),
                None => target.creates(spec),
            };
        }
        Ok(target)
    }

    /// Creates the missing fields (Emarsys API: Create a field), each under its own name.
    async fn prepare(&self, mut target: Target) -> Result<Target> {
        let missing = target.missing().to_vec();
        if missing.is_empty() {
            return Ok(target);
        }
        let catalog = Catalog::read(&self.client).await?;
        for spec in missing {
            let (name, wanted) = (spec.name(), spec.create().unwrap_or(&FieldKind::Any));
            let kind = fields::type_to_create(name.as_str(), wanted)?;
            let field = match catalog.find(name.as_str())? {
                Some(field) => field.clone(),
                None => self.create_field(name, kind).await?,
            };
            fields::check_writable(name.as_str(), &field)?;
            if !fields::fits(wanted, &field) {
                return Err(Error::new(
                    ErrorKind::StateMoved,
                    format!(
                        "somebody has created the field `{name}` as {} since the plan was made: plan again",
                        field.application_type
                    ),
                ));
            }
            target = target.field(&spec, fields::kind(&field, &[]), Some(&field.id.to_string()));
        }
        Ok(target)
    }

    /// Updates the contacts, or creates them (Emarsys API: Update contacts, Create contacts); then puts those into their
    /// list that an earlier insert may have created outside of it (Emarsys API: Add contacts to a list).
    async fn apply(&self, batch: &Batch) -> Result<Outcomes> {
        // A copy that takes effect late would undo what a later run sends: a row without an answer is in doubt instead.
        let client = self.client.until(batch.deadline()).at_most_once();
        let operation = batch.operation();
        let contacts = batch.changes().iter().map(|change| contact(operation, change));
        let contacts: Vec<Contact> = contacts.collect::<Result<_>>()?;
        let results = match operation {
            Operation::Update => client.contacts().update(FieldId::EMAIL, &contacts).await,
            Operation::Insert => {
                let list = list_of(batch.place())?;
                client.contacts().create(FieldId::EMAIL, &contacts, Some(list)).await
            }
            Operation::Upsert | Operation::Remove => {
                return Err(Error::config(
                    "Emarsys contacts are updated and created, and nothing else: plan again",
                ));
            }
        };
        let results = match results {
            Ok(results) => results,
            Err(error) => return refused_as_a_whole(batch, error),
        };
        let mut outcomes = batch.outcomes(|index, change| match results.get(index) {
            Some(result) => outcome(operation, change, result),
            None => Outcome::Unknown,
        });
        let failure = results.iter().find_map(|result| match result {
            RowResult::Failed(error) => Some(shared(error)),
            RowResult::Done | RowResult::Rejected(_) => None,
        });
        if let Some(error) = failure {
            outcomes.set_error(error);
        }
        // Twice in a list is once in it, whenever it comes.
        let client = self.client.until(batch.deadline());
        for (place, rows) in batch.in_doubt(&outcomes) {
            if let Err(error) = put_into_list(&client, batch, place, &rows, &mut outcomes).await {
                outcomes.interrupt(&rows, error);
            }
        }
        Ok(outcomes)
    }

    /// Looks keys up (Emarsys API: Check contact ids), or reads fields of their contacts (Get contact data).
    ///
    /// A key that several contacts have counts as existing, without values: an update of it is then rejected with 2010,
    /// which says what to do. One that Emarsys takes for no possible key counts as missing.
    async fn find(&self, keys: &[Key], fields: &[FieldName]) -> Result<Vec<Option<Record>>> {
        let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
        let contacts = self.client.contacts();
        if fields.is_empty() {
            let found = contacts.check_ids(FieldId::EMAIL, &keys).await?;
            return found.into_iter().map(|found| looked_up(found, |_: ContactId| Record::new())).collect();
        }
        let catalog = Catalog::read(&self.client).await?;
        let wanted: Vec<(&FieldName, &Field)> = fields
            .iter()
            .map(|name| {
                Ok((name, catalog.find(name.as_str())?.ok_or_else(|| catalog.unknown(name.as_str()))?))
            })
            .collect::<Result<_>>()?;
        let ids: Vec<FieldId> = wanted.iter().map(|(_, field)| field.id).collect();
        let record = |data: ContactData| -> Record {
            let values = wanted.iter().filter_map(|(name, field)| {
                let value = data.value(field.id).and_then(|value| read_value(field, value))?;
                Some(((*name).clone(), value))
            });
            values.collect()
        };
        let found = contacts.get_data(FieldId::EMAIL, &keys, &ids).await?;
        found.into_iter().map(|found| looked_up(found, record)).collect()
    }
}

/// A change as the API takes it: the key, and what is to be written.
fn contact(operation: Operation, change: &Change) -> Result<Contact> {
    let mut contact = Contact::new(FieldId::EMAIL, change.key().as_str());
    let on_create = change.on_create().iter().filter(|_| operation == Operation::Insert);
    for field in change.fields().iter().chain(on_create) {
        let id = field.id().and_then(|id| id.parse::<FieldId>().ok()).filter(|id| *id != FieldId::EMAIL);
        let id = id.ok_or_else(|| {
            Error::config(format!(
                "the field `{}` of the plan has no id in Emarsys that can be written to: plan again",
                field.name()
            ))
        })?;
        contact = contact.with(id, json(&field.value()));
    }
    Ok(contact)
}

/// A canonical value as it is sent: texts and null as they are, a multiple choice as a list of numbers.
fn json(value: &ValueRef<'_>) -> Json {
    let choice = |value: &Value| match value {
        Value::Text(id) => id.parse::<u64>().map_or_else(|_| id.as_str().into(), Json::from),
        other => json(&other.as_ref()),
    };
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Text(text) => (&**text).into(),
        ValueRef::List(choices) => choices.iter().map(choice).collect(),
        // The kinds of Emarsys' fields make no other values.
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

/// What was read, in canonical form; `None` if it is empty.
fn read_value(field: &Field, value: &Json) -> Option<Value> {
    let text = |value: &Json| match value {
        Json::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let value = match value {
        Json::Array(choices) => {
            let mut ids: Vec<String> = choices.iter().filter_map(text).collect();
            ids.sort_unstable();
            return (!ids.is_empty()).then(|| ids.into());
        }
        scalar => Value::from(text(scalar)?),
    };
    let is_converted = matches!(field.application_type, ApplicationType::Numeric);
    let kind = fields::kind(field, &[]);
    let converted = kind.convert(value.as_ref()).ok().filter(|_| is_converted);
    Some(converted.map(ValueRef::into_owned).unwrap_or(value))
}

fn looked_up<T>(found: Lookup<T>, record: impl FnOnce(T) -> Record) -> Result<Option<Record>> {
    match found {
        Lookup::Found(contact) => Ok(Some(record(contact))),
        Lookup::Missing => Ok(None),
        Lookup::Rejected(rejection) => match rejection.code() {
            2010 => Ok(Some(Record::new())),
            2005 => Ok(None),
            _ => Err(Error::refused(format!("a contact could not be looked up: {rejection}"))
                .with_source(rejection)),
        },
        Lookup::Failed(error) => Err(shared(&error)),
    }
}

/// The list whose id a place is.
fn list_of(place: Option<&str>) -> Result<ListId> {
    place.and_then(|place| place.parse().ok()).ok_or_else(|| {
        Error::config("the plan does not say in which contact list contacts are created: plan again")
    })
}

fn outcome(operation: Operation, change: &Change, result: &RowResult) -> Outcome {
    match result {
        RowResult::Done if operation == Operation::Insert => Outcome::created(),
        RowResult::Done => Outcome::applied(),
        RowResult::Rejected(rejection) if operation == Operation::Update && rejection.is_missing() => {
            Outcome::NoMatch
        }
        RowResult::Rejected(rejection) if operation == Operation::Insert && rejection.is_existing() => {
            Outcome::AlreadyExists
        }
        RowResult::Rejected(rejection) => Outcome::Rejected {
            code: rejection.code().to_string(),
            field: rejection.field().and_then(|id| name_of(change, id)),
            message: rejection.meaning().to_owned(),
        },
        RowResult::Failed(error) => match error.delivery() {
            Delivery::NotSent | Delivery::Refused => Outcome::NotAttempted,
            Delivery::Unknown => Outcome::Unknown,
        },
    }
}

/// The name under which the mapping knows a field of the change.
fn name_of(change: &Change, id: FieldId) -> Option<FieldName> {
    let id = id.to_string();
    let mut fields = change.fields().iter().chain(change.on_create().iter());
    fields.find(|field| field.id() == Some(id.as_str())).map(|field| field.name().clone())
}

/// What a request means that was refused, if a single row may be guilty of it; else the error.
fn refused_as_a_whole(batch: &Batch, error: Error) -> Result<Outcomes> {
    // After anything else, rows may have been written, or the next request would fail alike.
    let refusal = error.cause::<Refusal>();
    let refusal =
        refusal.filter(|_| error.kind() == ErrorKind::Refused && error.delivery() == Delivery::Refused);
    let Some((status, code)) = refusal.map(|refusal| (refusal.status, refusal.code)) else {
        return Err(error);
    };
    let for_a_row = |code: String| Error::refused_for_a_row(code, error.to_string());
    let is_alone = batch.changes().len() == 1;
    let new = match (code, batch.operation()) {
        (Some(2008), Operation::Update) if is_alone => return Ok(batch.all(&Outcome::NoMatch)),
        (Some(2009), Operation::Insert) if is_alone => return Ok(batch.all(&Outcome::AlreadyExists)),
        // Smaller requests may pass.
        _ if status == 413 => for_a_row("413".to_owned()),
        (Some(code @ 2005..=2010), _) => for_a_row(code.to_string()),
        (Some(2020), Operation::Insert) => {
            let list = batch.place().unwrap_or_default();
            let text = format!(
                "the contact list {list}, in which contacts are created, no longer exists: choose another one with \
                 `insert_into`, or create it anew"
            );
            Error::config(text).with_delivery(Delivery::Refused)
        }
        _ => return Err(error),
    };
    Err(new.with_source(error))
}

/// Puts contacts into the list in which an earlier insert, whose answer was lost, would have created them.
async fn put_into_list(
    client: &Client,
    batch: &Batch,
    place: &str,
    rows: &[usize],
    outcomes: &mut Outcomes,
) -> Result<()> {
    let list = list_of(Some(place))?;
    let changes = rows.iter().filter_map(|row| batch.changes().get(*row));
    let keys: Vec<&str> = changes.map(|change| change.key().as_str()).collect();
    let results = match client.lists().add(list, FieldId::EMAIL, &keys).await {
        Ok(results) => results,
        Err(error) if names_no_list(&error) && !exists(client, list).await? => {
            for row in rows {
                outcomes.note(
                    *row,
                    format!(
                        "the contact may have been created outside of the contact list {list}, and cannot be put into it: \
                         the list no longer exists"
                    ),
                );
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for (row, result) in rows.iter().zip(results) {
        match result {
            RowResult::Done => {}
            // Gone by now, or one of several: the next run finds out.
            RowResult::Rejected(rejection) => {
                outcomes.set(*row, Outcome::Unknown);
                let reason = rejection.meaning();
                outcomes.note(
                    *row,
                    format!("the contact could not be put into the contact list {list}: {reason}"),
                );
            }
            RowResult::Failed(error) => outcomes.interrupt(&[*row], shared(&error)),
        }
    }
    Ok(())
}

/// Whether a refusal may mean that the list does not exist. The codes have other meanings, too.
fn names_no_list(error: &Error) -> bool {
    let code = error.cause::<Refusal>().and_then(|refusal| refusal.code);
    error.kind() == ErrorKind::Refused && matches!(code, Some(1 | 2020 | 3004 | 3006))
}

async fn exists(client: &Client, list: ListId) -> Result<bool> {
    Ok(client.lists().list().await?.iter().any(|known| known.id == list))
}

/// An error that rows share, for one more owner.
fn shared(error: &Arc<Error>) -> Error {
    Error::new(error.kind(), error.to_string()).with_delivery(error.delivery()).with_source(Arc::clone(error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_sent_as_text_null_and_lists_of_numbers() {
        assert_eq!(json(&ValueRef::Text("7.5".into())), json!("7.5"));
        assert_eq!(json(&ValueRef::Null), json!(null));
        assert_eq!(json(&Value::from(vec!["12", "5"]).as_ref()), json!([12, 5]));
    }

    #[test]
    fn values_are_read_in_the_form_in_which_they_are_sent() {
        let field = |application_type| Field {
            id: FieldId::new(9000),
            name: None,
            string_id: None,
            application_type,
        };
        let read = |kind, value: Json| read_value(&field(kind), &value);
        assert!(read(ApplicationType::Numeric, json!("007.50")) == Some("7.5".into()));
        assert!(read(ApplicationType::MultiChoice, json!([5, 12])) == Some(vec!["12", "5"].into()));
        assert!(read(ApplicationType::ShortText, json!("x")) == Some("x".into()));
        for empty in [json!(null), json!(""), json!([])] {
            assert!(read(ApplicationType::ShortText, empty).is_none());
        }
    }

    #[test]
    fn limits_are_lowered_to_what_a_request_takes() {
        let client = Client::builder(crate::emarsys::Credentials::wsse("acme001", "s")).build().unwrap();
        let contacts = ContactsDestination::new(client).limits(Limits::rows(5_000).in_flight(9));
        assert_eq!((contacts.limits.rows, contacts.limits.bytes), (1_000, 7_000_000));
        assert_eq!(contacts.limits.in_flight_max(), 9);
        assert!(!format!("{contacts:?}").contains("acme001"));
    }
}
