//! Who is in a segment.

use super::{
    super::store::{Horizon, Store},
    book::{Definition, EVERYBODY, Kind, Part, Standard},
};

/// The contacts of a segment, ascending. Nobody is in a segment that does not exist.
pub(in super::super) fn contacts(store: &Store, segment: u64, horizon: Horizon) -> Vec<u64> {
    store.contacts(horizon).filter(|contact| is_in(store, segment, *contact)).collect()
}

pub(super) fn is_in(store: &Store, segment: u64, contact: u64) -> bool {
    if segment == EVERYBODY {
        return store.created(contact).is_some();
    }
    match store.segments.get(segment).map(|segment| &segment.kind) {
        None => false,
        Some(Kind::Standard(Standard { base_list, contact: tree, .. })) => {
            let in_base =
                *base_list == 0 || store.list(*base_list).is_some_and(|list| list.has_member(contact));
            in_base && tree.as_ref().is_none_or(|tree| tree.criteria.are_met(store, contact))
        }
        Some(Kind::Combined(Definition { include, exclude })) => {
            let excluded = || exclude.as_ref().is_some_and(|part| is_in_part(store, part, contact));
            is_in_part(store, include, contact) && !excluded()
        }
    }
}

fn is_in_part(store: &Store, part: &Part, contact: u64) -> bool {
    let mut segments = part.segments.iter();
    if part.segments.is_empty() {
        false
    } else if part.all {
        segments.all(|segment| is_in(store, *segment, contact))
    } else {
        segments.any(|segment| is_in(store, *segment, contact))
    }
}

/// Whether a combined segment is made of one that asks the members of this list.
pub(in super::super) fn uses_list(store: &Store, list: u64) -> bool {
    let based = |segment: u64| match store.segments.get(segment).map(|segment| &segment.kind) {
        Some(Kind::Standard(standard)) => standard.base_list == list,
        _ => false,
    };
    store.segments.combined().any(|(_, _, definition)| definition.segments().any(based))
}

/// The names of the segments whose criteria ask for a field.
pub(in super::super) fn with_field(store: &Store, field: u32) -> Vec<String> {
    let asks = |kind: &Kind| match kind {
        Kind::Standard(standard) => {
            standard.contact.as_ref().is_some_and(|tree| tree.criteria.use_field(field))
        }
        Kind::Combined(_) => false,
    };
    let found = store.segments.iter().filter(|(_, segment)| asks(&segment.kind));
    found.map(|(_, segment)| segment.name.clone()).collect()
}
