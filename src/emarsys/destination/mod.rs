//! Emarsys as a destination: the only part that knows both the API and the sync.
//!
//! One file per service. What they share is here: which account it is, which list is meant, and which field.

mod contacts;
mod fields;

pub use contacts::ContactsDestination;

use super::{ContactList, ListId, Settings};
use crate::{Error, Result};

/// A contact list, by its id or by its name.
///
/// A name is compared to the letter first, and without regard to case and surrounding blanks after. Digits in a text
/// are a name: an id is a [`ListId`].
///
/// ```
/// use reverse_etl::emarsys::{ListId, ListRef};
///
/// let by_name = ListRef::from("Customers");
/// let by_id = ListRef::from(ListId::new(4711));
/// assert_ne!(by_name, by_id);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListRef {
    /// The list of this number.
    Id(ListId),
    /// The list of this name.
    Name(String),
}

impl From<ListId> for ListRef {
    fn from(id: ListId) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for ListRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for ListRef {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl ListRef {
    /// The one list that is meant.
    fn find(&self, lists: &[ContactList]) -> Result<ListId> {
        let name = match self {
            Self::Id(id) if lists.iter().any(|list| list.id == *id) => return Ok(*id),
            Self::Id(id) => {
                return Err(Error::config(format!(
                    "the account has no contact list with the id {id}: check the id, or create a list first"
                )));
            }
            Self::Name(name) => name,
        };
        let ids = |is_meant: &dyn Fn(&str) -> bool| -> Vec<ListId> {
            lists.iter().filter(|list| is_meant(&list.name)).map(|list| list.id).collect()
        };
        let exact = ids(&|known| known == name);
        let found = if exact.is_empty() { ids(&|known| fold(known) == fold(name)) } else { exact };
        match found.as_slice() {
            [] => Err(Error::config(format!(
                "the account has no contact list `{name}`: create it in Emarsys first, or check the name"
            ))),
            [id] => Ok(*id),
            several => Err(Error::config(format!(
                "several contact lists are called `{name}` (ids {}): say which one by its id",
                joined(several)
            ))),
        }
    }
}

/// What a target is called: the account, and what in it is written to.
fn target_name(settings: &Settings, object: &str) -> Result<String> {
    let account = match (settings.id, &settings.environment, &settings.name) {
        (Some(id), _, _) => id.to_string(),
        (None, Some(environment), Some(name)) => format!("{environment}/{name}"),
        (None, ..) => {
            return Err(Error::config(
                "Emarsys tells neither the id of the account nor its environment and name, so a state could not be told \
                 from one of another account: ask Emarsys support why `GET settings` leaves them out",
            ));
        }
    };
    Ok(format!("emarsys/{account}/{object}"))
}

/// How names are compared.
fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: impl Into<ListRef>) -> Result<u64, String> {
        let list_of = |id, name: &str| ContactList {
            id: ListId::new(id),
            name: name.to_owned(),
            created: None,
            list_type: None,
        };
        let lists = [
            list_of(1, "Customers"),
            list_of(2, "customers"),
            list_of(3, "Twice"),
            list_of(4, "Twice"),
            list_of(5, " Spring "),
            list_of(6, "TWIN"),
            list_of(7, "twin"),
        ];
        list.into().find(&lists).map(ListId::get).map_err(|error| error.to_string())
    }

    #[test]
    fn list_is_found_to_the_letter_first_and_leniently_after() {
        assert_eq!(found("Customers"), Ok(1));
        assert_eq!(found("customers".to_owned()), Ok(2));
        assert_eq!(found("SPRING"), Ok(5));
        assert_eq!(found(ListId::new(3)), Ok(3));
    }

    #[test]
    fn list_that_is_unknown_or_not_one_is_named() {
        for (list, expected) in [("Twice", "ids 3, 4"), ("Twin", "ids 6, 7"), ("4", "no contact list `4`")] {
            assert!(found(list).unwrap_err().contains(expected), "{:?}", found(list));
        }
        assert!(found(ListId::new(8)).unwrap_err().contains("the id 8"));
    }

    #[test]
    fn account_is_known_by_its_id_or_by_environment_and_name() {
        let mut settings = Settings { id: Some(5120), ..Settings::default() };
        assert_eq!(target_name(&settings, "contacts").unwrap(), "emarsys/5120/contacts");
        settings.id = None;
        settings.name = Some("acme".to_owned());
        assert!(target_name(&settings, "contacts").is_err());
        settings.environment = Some("suite9.emarsys.net".to_owned());
        assert_eq!(target_name(&settings, "contacts").unwrap(), "emarsys/suite9.emarsys.net/acme/contacts");
    }
}
