//! The head of a plan: all that it says beside its entries, and whether that still holds.

use std::{mem, sync::Arc};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorKind, Result,
    change::{Named, Names},
    destination::{FieldSpec, Operation, Target, TargetField},
    event::Problem,
    plan::{Counts, Guards, RejectedPolicy},
    record::FieldName,
    state::{
        Header,
        header::{Bytes, RunId, Slots},
    },
};

/// All that a plan says beside its entries: the first line of its file.
#[derive(Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent property of a plan")]
pub(crate) struct Head {
    pub(crate) format: u32,
    pub(crate) identity: String,
    /// The target that the mapping was bound to.
    pub(crate) target: Option<String>,
    /// The version of the state that it was made against.
    pub(crate) version: u64,
    pub(crate) slots: Slots,
    /// The last run that had written to it. A version alone may come twice, where a state was restored from a copy.
    pub(crate) writer: Option<RunId>,
    pub(crate) creation: Vec<(FieldName, Option<String>)>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) place: Option<String>,
    pub(crate) counts: Counts,
    pub(crate) creates: Vec<String>,
    /// The fields among what is to be created.
    pub(crate) missing: Vec<FieldName>,
    pub(crate) refusals: Vec<String>,
    /// Every record keeps its sealed key.
    pub(crate) seals: bool,
    /// The state is new to that, so the keys of rows that need nothing else are to be sealed as well.
    pub(crate) seals_anew: bool,
    pub(crate) guards: Guards,
    /// Rows that the state knew.
    pub(crate) known: u64,
    /// Whether the guards were waived.
    pub(crate) waived: bool,
    /// Entries of missing rows, of which only the destination knows whether they still are.
    pub(crate) asks: u64,
    pub(crate) rejected: RejectedPolicy,
    pub(crate) leave_late: bool,
    pub(crate) check: Bytes<16>,
    /// The secret that was generated for a new state.
    pub(crate) secret: Option<Bytes<32>>,
    pub(crate) problems: Vec<Problem>,
}

impl Head {
    /// Whether the plan was made against the state with this header.
    pub(super) fn is_of(&self, header: Option<&Header>) -> bool {
        let version = header.map_or(0, Header::version);
        (version, header.and_then(|header| header.last_writer)) == (self.version, self.writer)
    }

    /// Refuses a state that has changed since the plan was made.
    pub(crate) fn check_of(&self, header: Option<&Header>) -> Result<()> {
        if self.is_of(header) {
            return Ok(());
        }
        Err(moved("the state has changed since this plan was made, so the plan no longer holds"))
    }

    /// Refuses a plan that was not made for `target`, whether or not everything exists there by now. `header` is that of
    /// the state.
    ///
    /// # Errors
    /// [`ErrorKind::StateMoved`] naming what is different.
    pub(crate) fn check_made_for(
        &self,
        target: &Target,
        specs: &[FieldSpec],
        header: Option<&Header>,
    ) -> Result<()> {
        if self.target.as_ref() != Some(&target.name) {
            return Err(moved(&format!("the plan was not made for the destination `{}`", target.name)));
        }
        if self.operations != target.operations || self.place != target.place {
            return Err(moved("the destination is set up in another way than when the plan was made"));
        }
        let is_mapped = |name: &FieldName| specs.iter().any(|spec| spec.name() == name);
        if let Some(slot) = self.slots.fields().find(|slot| !is_mapped(&slot.field)) {
            return Err(Error::config(format!(
                "the plan was made with another mapping, which had the field `{}`: apply it with that one, or plan again",
                slot.field
            )));
        }
        // The run's first commit drops the slots of other fields, so that a field which was deleted or made anew is
        // noticed before it.
        let found = |name: &FieldName| target.fields.iter().find(|field| field.name == *name);
        let synced = self.slots.fields().map(|slot| (&slot.field, &slot.id));
        let creation = self.creation.iter().map(|(name, id)| (name, id));
        for (name, id) in synced.chain(creation).filter(|(_, id)| id.is_some()) {
            same_field(target, name, id.as_ref(), found(name))?;
        }
        // A field that was to be created may have been made by somebody else, to take something else.
        for missing in &self.missing {
            let wanted = specs.iter().find(|spec| spec.name() == missing).and_then(FieldSpec::create);
            let Some(found) = found(missing) else { continue };
            if wanted.is_some_and(|wanted| mem::discriminant(wanted) != mem::discriminant(&found.kind)) {
                return Err(moved(&format!(
                    "the field `{missing}` was created meanwhile, with another type"
                )));
            }
            // Another run created it after this plan asked for the fields, and before it looked at the state. Taken for
            // a new field, it would be sent once more for every row.
            let mut remembered = header.iter().flat_map(|header| header.slots.fields());
            if found.id.is_some() && remembered.any(|slot| slot.id == found.id) {
                return Err(moved(&format!("another run has created the field `{missing}` meanwhile")));
            }
        }
        Ok(())
    }

    /// What is done with a row, in words.
    pub(super) fn mode(&self) -> String {
        let does = |operation| self.operations.contains(&operation);
        let place = self.place.as_ref().map(|place| format!(" into {place}")).unwrap_or_default();
        let known = if does(Operation::Upsert) { "update or create" } else { "update" };
        let unknown =
            if does(Operation::Insert) { format!(", create what is missing{place}") } else { String::new() };
        format!("{known}{unknown}")
    }

    /// Lets the guards look at the counts as they are now.
    pub(super) fn guard(&mut self) {
        self.refusals = if self.waived { Vec::new() } else { self.guards.refusals(&self.counts, self.known) };
    }

    /// Takes over the ids of fields and the place that `target` has by now.
    ///
    /// # Errors
    /// [`ErrorKind::StateMoved`] if the target lacks a field, or has another one of that name.
    pub(crate) fn bind(&mut self, target: &Target) -> Result<()> {
        self.place.clone_from(&target.place);
        let fields: HashMap<_, _> = target.fields.iter().map(|field| (&field.name, field)).collect();
        let slots = self.slots.fields_mut().map(|slot| (&slot.field, &mut slot.id));
        let creation = self.creation.iter_mut().map(|(name, id)| (&*name, id));
        for (name, id) in slots.chain(creation) {
            let now = fields.get(name).copied();
            same_field(target, name, id.as_ref(), now)?;
            if let Some(now) = now {
                id.clone_from(&now.id);
            }
        }
        Ok(())
    }

    pub(crate) fn names(&self) -> Names {
        let named = |name: &FieldName, id: &Option<String>| Named {
            name: name.clone(),
            id: id.as_deref().map(Arc::from),
        };
        let slots = self.slots.fields().map(|slot| (slot.slot, named(&slot.field, &slot.id)));
        Names::new(slots, self.creation.iter().map(|(name, id)| named(name, id)))
    }
}

fn moved(what: &str) -> Error {
    Error::new(ErrorKind::StateMoved, format!("{what}: plan again"))
}

/// Refuses a field that is no longer there, or another one than that of the plan, if it existed then.
fn same_field(
    target: &Target,
    name: &FieldName,
    planned: Option<&String>,
    now: Option<&TargetField>,
) -> Result<()> {
    match now {
        None if target.any_field => Ok(()),
        None => Err(moved(&format!("the destination no longer has the field `{name}`"))),
        Some(now) if planned.is_some() && now.id.as_ref() != planned => {
            Err(moved(&format!("the field `{name}` is another one than when the plan was made")))
        }
        Some(_) => Ok(()),
    }
}
