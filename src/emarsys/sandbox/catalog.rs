//! Fields: those that every account has, those that were added, and the choices of both.

use std::collections::{BTreeMap, HashMap};

use crate::emarsys::{
    ids::FieldId,
    system::{self, SystemField},
};

/// The field that holds the e-mail.
pub(super) const EMAIL: u32 = 3;
/// The field that holds the consent to newsletters: 1 yes, 2 no, empty unknown.
pub(super) const OPT_IN: u32 = 31;

/// The id of the first field that is created.
const FIRST_CUSTOM_ID: u32 = 10_601;

/// A contact field of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredField {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) application_type: String,
    pub(super) string_id: String,
    pub(super) read_only: bool,
    pub(super) custom: bool,
}

impl StoredField {
    /// The numeric id, which is the name of the member in a contact.
    pub fn id(&self) -> FieldId {
        FieldId::new(self.id)
    }

    /// The name shown in the user interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type, such as `shorttext` or `singlechoice`.
    pub fn application_type(&self) -> &str {
        &self.application_type
    }

    /// The string id; empty for some fields.
    pub fn string_id(&self) -> &str {
        &self.string_id
    }

    /// Whether requests cannot change its values.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether a contact may have several of its choices.
    pub(super) fn holds_several(&self) -> bool {
        matches!(self.application_type.as_str(), "multichoice" | "interests")
    }

    /// Whether it was added to the account, by a request or by the test.
    pub fn is_custom(&self) -> bool {
        self.custom
    }
}

/// All fields of the account, in the order in which they are listed.
#[derive(Debug)]
pub(super) struct Catalog {
    fields: Vec<StoredField>,
    choices: HashMap<u32, BTreeMap<u64, String>>,
    next_id: u32,
}

impl Catalog {
    pub(super) fn new() -> Self {
        let mut choices: HashMap<u32, BTreeMap<u64, String>> = HashMap::new();
        for field in SystemField::all() {
            for (choice, label) in field.id.system_choices() {
                choices.entry(field.id.get()).or_default().insert(choice.into(), label.to_owned());
            }
        }
        let fields = system::typical_fields().map(StoredField::from).collect();
        Self { fields, choices, next_id: FIRST_CUSTOM_ID }
    }

    pub(super) fn fields(&self) -> &[StoredField] {
        &self.fields
    }

    pub(super) fn field(&self, id: u32) -> Option<&StoredField> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// The field with this string id or name.
    pub(super) fn named(&self, name: &str) -> Option<&StoredField> {
        self.fields.iter().find(|field| field.string_id == name || same_name(&field.name, name))
    }

    pub(super) fn choices(&self, field: u32) -> Option<&BTreeMap<u64, String>> {
        self.choices.get(&field)
    }

    pub(super) fn has_choice(&self, field: u32, choice: u64) -> bool {
        self.choices(field).is_some_and(|choices| choices.contains_key(&choice))
    }

    /// Adds a field. Without a string id it gets one made from its name.
    pub(super) fn add(&mut self, name: &str, application_type: &str, string_id: Option<&str>) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        let string_id = string_id.map_or_else(|| self.free_string_id(name), str::to_owned);
        self.fields.push(StoredField {
            id,
            name: name.to_owned(),
            application_type: application_type.to_owned(),
            string_id,
            read_only: application_type == "voucher",
            custom: true,
        });
        id
    }

    pub(super) fn add_choice(&mut self, field: u32, choice: u64, label: &str) {
        self.choices.entry(field).or_default().insert(choice, label.to_owned());
    }

    pub(super) fn remove(&mut self, id: u32) -> bool {
        let before = self.fields.len();
        self.fields.retain(|field| field.id != id);
        self.choices.remove(&id);
        self.fields.len() < before
    }

    fn free_string_id(&self, name: &str) -> String {
        let taken = |id: &str| self.fields.iter().any(|field| field.string_id == id);
        let base: String = name
            .trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(STRING_ID_MAX)
            .collect();
        if !taken(&base) {
            return base;
        }
        (2..u32::MAX)
            .map(|number| {
                let suffix = format!("_{number}");
                let kept = base.len().min(STRING_ID_MAX - suffix.len());
                format!("{}{suffix}", &base[..kept])
            })
            .find(|id| !taken(id))
            .unwrap_or(base)
    }
}

/// Where string ids are cut.
pub(super) const STRING_ID_MAX: usize = 32;

/// Names of fields and lists are the same if they differ in case and outer blanks at most.
pub(super) fn same_name(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

impl From<SystemField> for StoredField {
    fn from(field: SystemField) -> Self {
        Self {
            id: field.id.get(),
            name: field.name.to_owned(),
            application_type: field.application_type.as_str().to_owned(),
            string_id: field.string_id.to_owned(),
            read_only: field.read_only,
            custom: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_field_is_there_and_every_choice_field_has_choices() {
        let catalog = Catalog::new();
        let mut ids: Vec<u32> = catalog.fields().iter().map(|field| field.id).collect();
        assert!(!ids.is_sorted(), "the real list is not sorted by id either");
        ids.sort_unstable();
        assert!(ids.iter().copied().take_while(|id| *id <= 48).eq(0..=48));
        for field in catalog.fields().iter().filter(|field| field.application_type == "singlechoice") {
            assert!(catalog.choices(field.id).is_some_and(|choices| choices.len() > 1), "{}", field.name);
        }
        assert_eq!(catalog.choices(7).unwrap()[&5], "> 3");
        assert_eq!(catalog.choices(20).unwrap()[&14], "Retail/Wholesale/E-Commerce");
        assert_eq!(catalog.choices(14).unwrap()[&41], "Congo, Democratic Republic of the");
        assert!(catalog.has_choice(45, 206) && !catalog.has_choice(45, 257) && catalog.has_choice(14, 300));
    }

    #[test]
    fn string_id_is_made_from_the_name_and_stays_unique() {
        let mut catalog = Catalog::new();
        for (name, expected) in [
            ("Loyalty level", "loyalty_level"),
            ("Loyalty-level", "loyalty_level_2"),
            ("A name that is far too long for it", "a_name_that_is_far_too_long_for_"),
            ("A name that is far too long for IT too", "a_name_that_is_far_too_long_fo_2"),
        ] {
            let id = catalog.add(name, "shorttext", None);
            assert_eq!(catalog.field(id).unwrap().string_id(), expected);
        }
    }
}
