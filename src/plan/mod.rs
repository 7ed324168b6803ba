//! Plan: every change, counted and guarded before the first write.
//!
//! Planning is given a [`PriorState`](crate::PriorState) and cannot write. A plan is data: it can be looked at, written to a file, read back
//! in another process, and carried out at most once.

mod digest;
mod guard;
mod index;
mod lines;
mod met;
mod options;
mod planner;
mod read;
mod spool;

use std::{collections::HashSet, fmt, io, mem, sync::Arc};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Error, ErrorKind, Result,
    change::{Change, Entry, Field, Fields, Phase, Step},
    destination::{Destination, FieldSpec, Limits, Operation, Target, TargetField},
    event::{Event, Observer, Problem},
    fingerprint::{Secret, Slot},
    host::{Host, SystemHost},
    record::{FieldName, Key, Value},
    run::Run,
    state::{
        Header, StateStore,
        header::{Bytes, RunId, Slots},
    },
};

pub use guard::{Guards, Share};
pub use options::{DuplicatePolicy, MissingPolicy, PlanOptions, RejectedPolicy};
pub use planner::plan;
pub(crate) use spool::Entries;
use spool::Spool;

/// Problems that a plan or a report keeps; an observer is told all of them.
pub(crate) const PROBLEMS_KEPT: usize = 100;

/// How many rows a plan found to be what. Every row of the source is in exactly one count.
///
/// `rows` = `unchanged` + `held` + `added` + `changed` + `invalid` + `duplicate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Rows of the source.
    pub rows: u64,
    /// Rows of which the destination has acknowledged everything.
    pub unchanged: u64,
    /// Rows that differ and are left alone for now: rejected, or missing at the destination.
    pub held: u64,
    /// Rows that the state does not know to exist at the destination.
    pub added: u64,
    /// Rows of which some fields differ.
    pub changed: u64,
    /// Rows with a value that does not fit, or with an unusable key.
    pub invalid: u64,
    /// Rows whose key another row has as well.
    pub duplicate: u64,
    /// Rows among the duplicates that were not sent because another row has their key and other values.
    pub withheld: u64,
    /// Rows that left the source and are to be removed; not among `rows`.
    pub removed: u64,
    /// Rows in doubt that left the source or became invalid, and are to be resolved; not among `rows`.
    pub resolved: u64,
    /// Rows among the invalid ones whose key is unusable.
    pub keyless: u64,
    /// Rows that left the source and cannot be removed, because their keys were not kept: this sync did not remove absent
    /// rows when it sent them.
    pub unremovable: u64,
    /// Added rows that exist at the destination, once that was asked.
    pub existing: Option<u64>,
    /// Fields that are to be sent, values for creation not counted.
    pub fields: u64,
    /// Fields among them that get a null or an empty text, which clears most of them.
    pub cleared: u64,
}

impl Counts {
    /// Rows that are to be sent: added, changed and removed.
    pub fn planned(&self) -> u64 {
        self.added + self.changed + self.removed
    }
}

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

const FORMAT: u32 = 1;

/// A line of a plan's file, after the first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Entry(Box<Entry>),
    /// There is nothing more: a file that was cut lacks it.
    End(End),
}

#[derive(Serialize, Deserialize)]
struct End {
    entries: u64,
    /// Over all lines before, keyed with the state's secret.
    seal: Bytes<16>,
}

/// A plan as it was read from a file: a digest of its lines, and the seal that they should have.
pub(crate) struct Written {
    digest: String,
    seal: Bytes<16>,
}

impl Written {
    fn seal(digest: &str, secret: &Secret) -> Result<Bytes<16>> {
        secret.derive(&format!("plan/{digest}")).map(Bytes)
    }

    /// Refuses a file that is not as it was written: other values than those that were planned would be remembered as
    /// those that were.
    pub(crate) fn check(&self, secret: &Secret) -> Result<()> {
        if Self::seal(&self.digest, secret)? == self.seal {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Source, "the plan's file was altered after it was written: plan again"))
    }
}

/// Every change that a sync would make.
///
/// What it holds is personal data, and for a new state also the secret that was generated for it: a file that it is
/// written to should be readable by its owner alone.
#[must_use]
pub struct Plan {
    pub(crate) head: Head,
    pub(crate) spool: Spool,
    /// The secret that the caller supplied.
    pub(crate) secret: Option<Secret>,
    /// The state's secret, as far as it is known.
    sealing: Option<Secret>,
    pub(crate) written: Option<Written>,
    pub(crate) observer: Option<Observer>,
    pub(crate) host: Arc<dyn Host>,
    memory_max: usize,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("counts", &self.head.counts)
            .field("refusals", &self.head.refusals)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// How many rows are what.
    pub fn counts(&self) -> &Counts {
        &self.head.counts
    }

    /// What the destination lacks and would create first.
    pub fn creates(&self) -> &[String] {
        &self.head.creates
    }

    /// Why the guards refuse the plan; empty if they do not.
    pub fn refusals(&self) -> &[String] {
        &self.head.refusals
    }

    /// The first problems that were met; an observer was told all of them.
    pub fn problems(&self) -> &[Problem] {
        &self.head.problems
    }

    /// The same plan, whatever the guards say.
    pub fn waive_guards(mut self) -> Self {
        self.head.waived = true;
        self.head.guard();
        self
    }

    /// Whether carrying it out would send nothing.
    pub fn is_empty(&self) -> bool {
        self.head.counts.planned() == 0 && self.head.counts.resolved == 0
    }

    /// The changes, in the order of their key hashes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the temporary file cannot be read back.
    pub fn changes(&self) -> impl Iterator<Item = Result<Change>> + Send + '_ {
        let table = Arc::new(self.head.table());
        self.spool.entries().filter_map(move |entry| match entry {
            Ok(entry) => matches!(entry.step, Step::Send | Step::Resolve).then(|| Ok(table.change(entry))),
            Err(error) => Some(Err(error)),
        })
    }

    /// Asks the destination which of the added rows exist, and which of the missing ones exist by now. Only reads.
    ///
    /// A missing row that exists is added to the plan.
    ///
    /// # Errors
    /// What the destination's [`find`](Destination::find) fails with.
    pub async fn resolve(self, destination: &dyn Destination) -> Result<Self> {
        self.resolved(destination, true).await
    }

    /// Asks about the missing rows alone.
    pub(crate) async fn resolve_missing(self, destination: &dyn Destination) -> Result<Self> {
        self.resolved(destination, false).await
    }

    async fn resolved(mut self, destination: &dyn Destination, added: bool) -> Result<Self> {
        const ASKED_AT_ONCE: usize = 1000;
        if !added && self.head.asks == 0 {
            return Ok(self);
        }
        let mut found = HashSet::new();
        let mut existing = 0;
        let mut entries = self.spool.entries();
        loop {
            let mut asked: Vec<(bool, u64)> = Vec::new();
            let mut keys: Vec<Key> = Vec::new();
            for entry in entries.by_ref() {
                let entry = entry?;
                let is_missing = entry.step == Step::Ask;
                if is_missing || (added && entry.is_new()) {
                    asked.push((is_missing, entry.row));
                    keys.push(entry.key);
                    if keys.len() == ASKED_AT_ONCE {
                        break;
                    }
                }
            }
            if keys.is_empty() {
                break;
            }
            let answers = destination.find(&keys, &[]).await?;
            if answers.len() != keys.len() {
                let (given, asked) = (answers.len(), keys.len());
                return Err(Error::new(
                    ErrorKind::Undecodable,
                    format!(
                        "the destination gave {given} answers where it was asked for {asked} rows: mend its `find`"
                    ),
                ));
            }
            for (answer, (is_missing, row)) in answers.iter().zip(asked) {
                if answer.is_some() {
                    existing += u64::from(!is_missing);
                    if is_missing {
                        found.insert(row);
                    }
                }
            }
        }
        if added {
            self.head.counts.existing = Some(existing + found.len() as u64);
        }
        if found.is_empty() {
            return Ok(self);
        }
        let (mut rows, mut fields, mut cleared) = (0, 0, 0);
        self.spool = self.spool.rewritten(self.memory_max, |mut entry| {
            if entry.step == Step::Ask && found.contains(&entry.row) {
                entry.step = Step::Send;
                rows += 1;
                fields += entry.values.len() as u64;
                cleared += entry.cleared();
            }
            Some(entry)
        })?;
        self.head.asks = self.head.asks.saturating_sub(rows);
        let counts = &mut self.head.counts;
        counts.held = counts.held.saturating_sub(rows);
        counts.added += rows;
        counts.fields += fields;
        counts.cleared += cleared;
        self.head.guard();
        Ok(self)
    }

    /// Writes the plan as JSON Lines: a first line about the plan, then an entry a line, and a last line that seals them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if `out` cannot be written to; [`ErrorKind::Config`] if the plan was read from a file and
    /// changed, and its state's secret is not known.
    pub fn write_to(&self, out: impl io::Write) -> Result<()> {
        let mut out = HashingWriter { out: io::BufWriter::new(out), digest: Sha256::new() };
        lines::write_line(&mut out, &self.head)?;
        let mut entries = 0;
        for entry in self.spool.entries() {
            lines::write_line(&mut out, &Line::Entry(Box::new(entry?)))?;
            entries += 1;
        }
        let digest = hex::encode(out.digest.finalize());
        let seal = match &self.written {
            Some(written) if written.digest == digest => written.seal,
            _ => Written::seal(&digest, &self.known_secret()?)?,
        };
        lines::write_line(&mut out.out, &Line::End(End { entries, seal }))?;
        io::Write::flush(&mut out.out)
            .map_err(|error| Error::new(ErrorKind::Io, "the plan could not be written").with_source(error))
    }

    fn known_secret(&self) -> Result<Secret> {
        let generated = self.head.secret.map(|secret| Secret::new(secret.0));
        self.sealing.clone().or_else(|| self.secret.clone()).or(generated).ok_or_else(|| {
            Error::config(
                "a plan that was read from a file and changed cannot be written without `Plan::secret`",
            )
        })
    }

    /// Reads a plan that [`write_to`](Self::write_to) wrote.
    ///
    /// That it was not altered shows when it is [started](Self::start), since it is sealed with the state's secret.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] if it is not a plan, or was cut.
    pub fn read_from(input: impl io::Read) -> Result<Self> {
        let damaged = || Error::new(ErrorKind::Source, "this is not a plan of this version: plan again");
        let cut = || Error::new(ErrorKind::Source, "the plan was cut: entries are missing; plan again");
        let mut lines = io::BufReader::new(input);
        let mut digest = Sha256::new();
        let first = lines::next_line(&mut lines)?.ok_or_else(damaged)?;
        digest.update(&first);
        let head: Head = lines::parse(&first)?;
        let sums = [head.counts.added, head.counts.changed, head.counts.removed];
        let planned_by_head = sums.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
        if head.format != FORMAT {
            return Err(damaged());
        }
        let options = PlanOptions::default();
        let mut spooler = spool::Spooler::new(options.memory_max);
        let (mut planned, mut entries) = (0, 0_u64);
        let end = loop {
            let line = lines::next_line(&mut lines)?.ok_or_else(cut)?;
            match lines::parse(&line)? {
                Line::Entry(entry) => {
                    digest.update(&line);
                    planned += u64::from(entry.step == Step::Send);
                    entries += 1;
                    spooler.push(&entry)?;
                }
                Line::End(end) => break end,
            }
        };
        if end.entries != entries
            || Some(planned) != planned_by_head
            || lines::next_line(&mut lines)?.is_some()
        {
            return Err(cut());
        }
        Ok(Self {
            head,
            spool: spooler.finish(),
            secret: None,
            sealing: None,
            written: Some(Written { digest: hex::encode(digest.finalize()), seal: end.seal }),
            observer: None,
            host: SystemHost::shared(),
            memory_max: options.memory_max,
        })
    }

    /// The secret of the state, for a plan read from a file whose state does not store it.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Who is told what happens while the plan is carried out.
    pub fn observe(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Where time and randomness come from. An [`Activation`](crate::Activation) brings its own.
    pub fn host(mut self, host: Arc<dyn Host>) -> Self {
        self.host = host;
        self
    }

    /// Takes the plan up: the state is held from here on, until the run ends.
    ///
    /// # Errors
    /// * [`ErrorKind::Guard`] if a guard refuses the plan;
    /// * [`ErrorKind::StateMoved`] if the state has changed since it was made, as it has when the plan was applied before;
    /// * [`ErrorKind::Busy`] if another run holds the state;
    /// * [`ErrorKind::StateDamaged`] if it belongs to another sync, or is damaged.
    pub async fn start(self, store: &dyn StateStore, limits: Limits) -> Result<Run<'_>> {
        self.allowed()?;
        Run::start(self, store, limits).await
    }

    /// Refuses what the guards refuse.
    pub(crate) fn allowed(&self) -> Result<()> {
        if self.head.refusals.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Guard, format!("nothing was written: {}", self.head.refusals.join("; "))))
    }

    /// Refuses, without writing anything, what [`start`](Self::start) would refuse; else gives the state's header.
    pub(crate) async fn check_startable(&self, store: &dyn StateStore) -> Result<Option<Header>> {
        self.allowed()?;
        let header = store.header().await?;
        if let Some(header) = &header {
            header.belongs_to(&self.head.identity)?;
        }
        self.head.check_of(header.as_ref())?;
        Ok(header)
    }

    /// What a plan read from a file lacks, from the options of whoever applies it.
    pub(crate) fn with_defaults(mut self, options: &PlanOptions) -> Self {
        self.secret = self.secret.or_else(|| options.secret.clone());
        self.observer = self.observer.or_else(|| options.observer.clone());
        self.host = Arc::clone(&options.host);
        self
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
        let head = &self.head;
        if head.target.as_ref() != Some(&target.name) {
            return Err(moved(&format!("the plan was not made for the destination `{}`", target.name)));
        }
        if head.operations != target.operations || head.place != target.place {
            return Err(moved("the destination is set up in another way than when the plan was made"));
        }
        let is_mapped = |name: &FieldName| specs.iter().any(|spec| spec.name() == name);
        if let Some(slot) = head.slots.fields().find(|slot| !is_mapped(&slot.field)) {
            return Err(Error::config(format!(
                "the plan was made with another mapping, which had the field `{}`: apply it with that one, or plan again",
                slot.field
            )));
        }
        // The run's first commit drops the slots of other fields, so that a field which was deleted or made anew is
        // noticed before it.
        let found = |name: &FieldName| target.fields.iter().find(|field| field.name == *name);
        let synced = head.slots.fields().map(|slot| (&slot.field, &slot.id));
        let creation = head.creation.iter().map(|(name, id)| (name, id));
        for (name, id) in synced.chain(creation).filter(|(_, id)| id.is_some()) {
            same_field(target, name, id.as_ref(), found(name))?;
        }
        // A field that was to be created may have been made by somebody else, to take something else.
        for missing in &head.missing {
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
}

/// Writes on, and takes a digest of what it writes.
struct HashingWriter<W> {
    out: W,
    digest: Sha256,
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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

impl Head {
    /// Whether the plan was made against the state with this header.
    fn is_of(&self, header: Option<&Header>) -> bool {
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

    /// What is done with a row, in words.
    fn mode(&self) -> String {
        let does = |operation| self.operations.contains(&operation);
        let place = self.place.as_ref().map(|place| format!(" into {place}")).unwrap_or_default();
        let known = if does(Operation::Upsert) { "update or create" } else { "update" };
        let unknown =
            if does(Operation::Insert) { format!(", create what is missing{place}") } else { String::new() };
        format!("{known}{unknown}")
    }

    /// Lets the guards look at the counts as they are now.
    fn guard(&mut self) {
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

    pub(crate) fn table(&self) -> Table {
        let named = |name: &FieldName, id: &Option<String>| Named {
            name: name.clone(),
            id: id.as_deref().map(Arc::from),
        };
        Table {
            slots: self.slots.fields().map(|slot| (slot.slot, named(&slot.field, &slot.id))).collect(),
            creation: self.creation.iter().map(|(name, id)| named(name, id)).collect(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        writeln!(f, "plan for {}", self.head.identity)?;
        writeln!(f, "  mode          {}", self.head.mode())?;
        crate::report::write_counts(f, counts)?;
        for what in self.creates() {
            writeln!(f, "  to create     {what}")?;
        }
        crate::report::write_problems(f, self.problems())?;
        for refusal in self.refusals() {
            writeln!(f, "  REFUSED       {refusal}")?;
        }
        Ok(())
    }
}

/// Names and ids of the fields, to make changes of entries.
pub(crate) struct Table {
    slots: HashMap<Slot, Named>,
    creation: Vec<Named>,
}

struct Named {
    name: FieldName,
    id: Option<Arc<str>>,
}

impl Named {
    fn with(&self, value: Value) -> Field {
        Field { name: self.name.clone(), id: self.id.clone(), value }
    }
}

impl Table {
    pub(crate) fn change(&self, mut entry: Entry) -> Change {
        let values = std::mem::take(&mut entry.values);
        let slots = values.iter().map(|(slot, _)| *slot).collect();
        let mut fields = Vec::with_capacity(values.len());
        fields
            .extend(values.into_iter().filter_map(|(slot, value)| Some(self.slots.get(&slot)?.with(value))));
        let on_create = std::mem::take(&mut entry.on_create).into_iter();
        let on_create = on_create
            .filter_map(|(place, value)| Some(self.creation.get(usize::from(place))?.with(value)))
            .collect();
        Change {
            entry,
            slots,
            fields: Fields(fields),
            on_create: Fields(on_create),
            phase: Phase::First,
            handed_out: 0,
        }
    }
}
