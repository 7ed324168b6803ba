//! Fields of a change: names and ids, which all rows share, beside the values of one.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    fingerprint::Slot,
    mapping::PackedValues,
    record::{FieldName, ValueRef},
};

/// One field of a change: name, id at the destination and value.
#[derive(Clone)]
pub struct Field<'c> {
    named: &'c Named,
    value: ValueRef<'c>,
}

impl<'c> Field<'c> {
    /// The field's name, as the mapping spells it.
    pub fn name(&self) -> &'c FieldName {
        &self.named.name
    }

    /// The field's id, as the destination described it.
    pub fn id(&self) -> Option<&'c str> {
        self.named.id.as_deref()
    }

    /// The value in canonical form, which borrows what the change has.
    ///
    /// ```
    /// use reverse_etl::{Field, Record, ValueRef};
    ///
    /// /// A value as a tool takes it that knows texts and lists of texts.
    /// fn text(field: &Field<'_>) -> String {
    ///     match field.value() {
    ///         ValueRef::Null => String::new(),
    ///         ValueRef::Text(text) => text.into_owned(),
    ///         other => serde_json::to_string(&other).unwrap_or_default(),
    ///     }
    /// }
    /// # futures::executor::block_on(async {
    /// # use reverse_etl::{Mapping, MemoryStore, PlanOptions, plan};
    /// # let people = vec![Record::new().with("id", 1).with("tags", vec!["a", "b"])];
    /// # let plan = plan(&people, &Mapping::new("id").map("tags", "tags"), &MemoryStore::default(), &PlanOptions::default()).await?;
    /// # let change = plan.changes().next().unwrap()?;
    /// # assert_eq!(change.fields().iter().map(|field| text(&field)).collect::<Vec<_>>(), [r#"["a","b"]"#]);
    /// # Ok::<(), reverse_etl::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn value(&self) -> ValueRef<'c> {
        // A copy: what a change has is borrowed, never owned.
        self.value.clone()
    }
}

/// Shows the name and the id, never the value.
impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field").field("name", &self.name()).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Fields of a change; serialises as a map of names to values.
#[derive(Clone, Copy)]
pub struct Fields<'c> {
    names: &'c [Option<Named>],
    values: &'c PackedValues,
}

impl<'c> Fields<'c> {
    /// The fields, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'c>> + use<'c> {
        let Self { names, values } = *self;
        values.iter().filter_map(|(at, value)| {
            let named = names.get(usize::from(at))?.as_ref()?;
            Some(Field { named, value })
        })
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        // Those without a name were left out when the change was made.
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for field in self.iter() {
            map.serialize_entry(field.name(), &field.value)?;
        }
        map.end()
    }
}

/// Shows the names, never the values.
impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| field.name())).finish()
    }
}

/// Names and ids of a plan's fields.
#[derive(Default)]
pub(crate) struct Names {
    slots: Vec<Option<Named>>,
    /// Those for creation only, by their place.
    creation: Vec<Option<Named>>,
}

pub(crate) struct Named {
    pub(crate) name: FieldName,
    pub(crate) id: Option<Arc<str>>,
}

impl Names {
    pub(crate) fn new(
        slots: impl Iterator<Item = (Slot, Named)>,
        creation: impl Iterator<Item = Named>,
    ) -> Self {
        let mut by_slot = Vec::new();
        for (slot, named) in slots {
            let at = usize::from(slot);
            if by_slot.len() <= at {
                by_slot.resize_with(at + 1, || None);
            }
            by_slot[at] = Some(named);
        }
        Self { slots: by_slot, creation: creation.map(Some).collect() }
    }

    pub(super) fn known(&self, values: PackedValues) -> PackedValues {
        values.only(|slot| is_known(&self.slots, slot))
    }

    pub(super) fn known_on_create(&self, values: PackedValues) -> PackedValues {
        values.only(|place| is_known(&self.creation, place))
    }

    pub(super) fn fields<'c>(&'c self, values: &'c PackedValues) -> Fields<'c> {
        Fields { names: &self.slots, values }
    }

    pub(super) fn on_create<'c>(&'c self, values: &'c PackedValues) -> Fields<'c> {
        Fields { names: &self.creation, values }
    }
}

fn is_known(names: &[Option<Named>], at: Slot) -> bool {
    names.get(usize::from(at)).is_some_and(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_slots_and_those_without_a_name_are_left_out() {
        let field = |name: &str| Named { name: name.into(), id: Some(format!("id of {name}").into()) };
        let names =
            Names::new([(3, field("city")), (1, field("name"))].into_iter(), [field("origin")].into_iter());
        let mut values = PackedValues::default();
        for slot in 0..5 {
            values.push(slot, ValueRef::Int(slot.into()));
        }
        let shown = |fields: Fields<'_>| {
            let ids: Vec<_> = fields.iter().map(|field| field.id().map(str::to_owned)).collect();
            (serde_json::to_string(&fields).unwrap(), fields.len(), ids)
        };
        let ids = |names: &[&str]| names.iter().map(|name| Some(format!("id of {name}"))).collect::<Vec<_>>();
        let known = names.known(values.clone());
        assert_eq!(
            shown(names.fields(&known)),
            (r#"{"name":1,"city":3}"#.to_owned(), 2, ids(&["name", "city"]))
        );
        let known = names.known_on_create(values);
        assert_eq!(shown(names.on_create(&known)), (r#"{"origin":0}"#.to_owned(), 1, ids(&["origin"])));
    }
}
