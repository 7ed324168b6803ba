//! The planner: one pass over the source, one look at the state for each row.

use std::{sync::Arc, time::SystemTime};

use futures::TryStreamExt;
use hashbrown::HashMap;

use crate::{
    Error, ErrorKind, Result,
    change::{ChangeKind, Entry, Rules, Step, Verdict, diff},
    destination::Operation,
    event::{Event, Problem, ProblemKind},
    fingerprint::{Fingerprinter, KeyHash, RowFingerprint, Secret, Slot},
    mapping::{Invalid, Mapped, Mapper, Mapping},
    plan::{
        Counts, DuplicatePolicy, FORMAT, Head, MissingPolicy, PROBLEMS_KEPT, Plan, PlanOptions, index::Index,
        spool::Spooler,
    },
    record::Key,
    rows::{Rows, Source},
    seal::Sealer,
    state::{
        Header, PriorState,
        header::Bytes,
        record::{Doubt, Mark, Rejection, RowRecord},
    },
};

/// Rows that are looked up one by one before the whole state is read instead.
const LOADED_MAX: u64 = 20_000;

/// Rows that are compared with the state at once.
const AT_ONCE: usize = 1024;

/// Compares a source with what the destination has acknowledged, and plans what to send.
///
/// A mapping that is [bound](Mapping::bind) to a target has values checked and converted, and keys in one form; an
/// [`Activation`](crate::Activation) binds it. One that is not bound takes everything as it is, and a state belongs to
/// the name of the sync alone: give syncs to different tools different names ([`PlanOptions::sync`]).
///
/// A source that is a full model and one that is an incremental model are planned alike: rows that are absent are left
/// alone, unless [`PlanOptions::remove_absent`] says that the source is complete.
///
/// ```
/// # futures::executor::block_on(async {
/// use reverse_etl::{Mapping, MemoryStore, PlanOptions, Record, plan};
///
/// let people = vec![Record::new().with("id", 1).with("name", "Ada"), Record::new().with("id", 2).with("name", "Bob")];
/// let mapping = Mapping::new("id").map("name", "full_name");
/// let plan = plan(&people, &mapping, &MemoryStore::default(), &PlanOptions::default()).await?;
/// assert_eq!(plan.counts().added, 2);
/// # Ok::<(), reverse_etl::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// * [`ErrorKind::Source`] if the source could not be read to its end;
/// * [`ErrorKind::Config`] if the mapping names a column that the source does not have. Records need not be alike: of
///   those only a key column that no row has is an error, another such column is a [`Problem`];
/// * [`ErrorKind::StateDamaged`] if the state is damaged, or belongs to another sync or secret;
/// * [`ErrorKind::StateMoved`] if another run wrote to the state meanwhile.
pub async fn plan<'a>(
    source: impl Into<Source<'a>> + Send,
    mapping: &Mapping,
    prior: &dyn PriorState,
    options: &PlanOptions,
) -> Result<Plan> {
    let mut chunks = source.into().into_chunks();
    let is_big = chunks.len().is_some_and(|rows| rows as u64 > LOADED_MAX);
    let mut planner = Planner::new(mapping, prior, options, is_big).await?;
    while let Some(chunk) = chunks.next().await {
        planner.take(chunk?.rows()).await?;
    }
    planner.finish().await
}

struct Planner<'p> {
    prior: &'p dyn PriorState,
    options: &'p PlanOptions,
    header: Option<Header>,
    mapper: Mapper,
    sealer: Sealer,
    head: Head,
    secret: Option<Secret>,
    /// The state's secret, whoever keeps it: with it a plan's file is sealed.
    sealing: Secret,
    lookup: Lookup,
    /// Rows of which more is to be remembered than that they were unchanged.
    met: HashMap<KeyHash, Met>,
    spooler: Spooler,
    now: SystemTime,
    scratch: Vec<u8>,
    /// Which of the mapper's columns no row has had so far.
    unseen: Vec<bool>,
}

/// How the state is asked; never what it means.
enum Lookup {
    /// There is no state.
    Nothing,
    /// Row by row.
    Load,
    /// From an index of all rows.
    Index(Index),
}

/// A row of the source that was met.
#[derive(Clone, Copy)]
struct Met {
    row: u64,
    /// `None` for an invalid row.
    print: Option<RowFingerprint>,
    counted: Counted,
    /// How many of its fields were counted as to be sent, and of those as to be cleared.
    fields: u64,
    cleared: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Unchanged,
    Held,
    Added,
    Changed,
    /// Yet to be compared.
    Pending,
    Invalid,
    /// Withheld because its key came twice.
    Duplicate,
}

impl Met {
    fn new(row: u64, print: Option<RowFingerprint>, counted: Counted) -> Self {
        Self { row, print, counted, fields: 0, cleared: 0 }
    }

    fn is_valid(&self) -> bool {
        self.counted != Counted::Invalid
    }
}

impl From<ChangeKind> for Counted {
    fn from(kind: ChangeKind) -> Self {
        if kind == ChangeKind::Added { Self::Added } else { Self::Changed }
    }
}

/// A row as it passes by.
struct Digest {
    at: usize,
    row: u64,
    hash: KeyHash,
    key: Key,
    print: RowFingerprint,
}

impl<'p> Planner<'p> {
    async fn new(
        mapping: &Mapping,
        prior: &'p dyn PriorState,
        options: &'p PlanOptions,
        is_big: bool,
    ) -> Result<Self> {
        let target = mapping.target();
        // Of a described destination the key is a field of its own, whatever the column is called.
        let identity = match target {
            Some(target) => format!("{}, sync {}", target.name, options.sync),
            None => format!("unbound, key {}, sync {}", mapping.key_column(), options.sync),
        };
        let operations = mapping.operations();
        if ![Operation::Update, Operation::Upsert].iter().any(|operation| operations.contains(operation)) {
            return Err(Error::config(
                "this destination offers neither update nor upsert, so nothing can be synced to it",
            ));
        }
        if options.remove_absent && !operations.contains(&Operation::Remove) {
            return Err(Error::config(
                "this destination does not offer removal: leave out `remove_absent`, or send to one that does",
            ));
        }
        let header = prior.header().await?;
        let (secret, is_generated) = match &header {
            Some(header) => {
                header.belongs_to(&identity)?;
                (header.secret(options.secret.as_ref())?, false)
            }
            None => match &options.secret {
                Some(secret) => (secret.clone(), false),
                None => (Secret::generate(&*options.host)?, true),
            },
        };
        let known = header.as_ref().map(|header| header.slots.clone()).unwrap_or_default();
        let (slots, assigned) = known.assigned(&mapping.synced())?;
        let mapper = Mapper::new(mapping, &assigned, Fingerprinter::new(&secret)?)?;
        let sealed_before = header.as_ref().is_some_and(|header| header.seals);
        let seals = sealed_before || options.remove_absent;
        let head = Head {
            format: FORMAT,
            identity,
            target: target.map(|target| target.name.clone()),
            version: header.as_ref().map_or(0, Header::version),
            writer: header.as_ref().and_then(|header| header.last_writer),
            slots,
            creation: mapping.creation_fields(),
            operations,
            place: target.and_then(|target| target.place.clone()),
            counts: Counts::default(),
            creates: target.map(crate::destination::Target::to_create).unwrap_or_default(),
            missing: target
                .map(|target| target.missing().iter().map(|spec| spec.name().clone()).collect())
                .unwrap_or_default(),
            refusals: Vec::new(),
            seals,
            seals_anew: header.is_some() && seals && !sealed_before,
            guards: options.guards.clone(),
            known: header.as_ref().map_or(0, |header| header.rows),
            waived: false,
            rejected: options.rejected,
            leave_late: options.leave_late,
            check: Bytes(secret.check_value()?),
            secret: is_generated.then(|| Bytes(secret.to_bytes())),
            problems: Vec::new(),
            asks: 0,
        };
        let mut planner = Self {
            prior,
            options,
            mapper,
            sealer: Sealer::new(&secret)?,
            sealing: secret.clone(),
            head,
            secret: (!is_generated).then_some(secret).filter(|_| options.secret.is_some()),
            lookup: if header.is_some() { Lookup::Load } else { Lookup::Nothing },
            met: HashMap::new(),
            spooler: Spooler::new(options.memory_max),
            now: options.host.wall(),
            scratch: Vec::new(),
            unseen: Vec::new(),
            header,
        };
        let is_in_doubt = planner.header.as_ref().is_some_and(|header| header.in_doubt > 0);
        let resolves = planner.resolves() && is_in_doubt;
        if planner.header.is_some() && (is_big || options.remove_absent || resolves) {
            planner.scan().await?;
        }
        Ok(planner)
    }

    async fn scan(&mut self) -> Result<()> {
        let mut rows = Vec::new();
        let mut chunks = self.prior.scan();
        while let Some(chunk) = chunks.try_next().await? {
            rows.extend(chunk);
        }
        self.lookup = Lookup::Index(Index::new(rows));
        Ok(())
    }

    /// Plans the rows of a chunk.
    async fn take(&mut self, rows: &dyn Rows) -> Result<()> {
        for start in (0..rows.len()).step_by(AT_ONCE) {
            let range = start..rows.len().min(start + AT_ONCE);
            let digests = self.digest(rows, range)?;
            if matches!(self.lookup, Lookup::Load) && self.head.counts.rows > LOADED_MAX {
                self.scan().await?;
            }
            self.compare(rows, digests).await?;
            // Hashing a big source takes long; others on this thread have their turn in between.
            crate::host::yield_once().await;
        }
        Ok(())
    }

    /// Keys and fingerprints of the rows whose keys are usable and whose values fit.
    fn digest(&mut self, rows: &dyn Rows, range: std::ops::Range<usize>) -> Result<Vec<Digest>> {
        let mut digests = Vec::with_capacity(range.len());
        let mut invalid = Vec::new();
        let mut at = range.start;
        let mut row = self.head.counts.rows;
        let (mapper, scratch) = (&self.mapper, &mut self.scratch);
        self.unseen.resize(mapper.columns().len(), true);
        let (unseen, mut are_all_seen) = (&mut self.unseen, false);
        rows.visit(mapper.columns(), range, &mut |values| {
            row += 1;
            if !are_all_seen {
                unseen.iter_mut().zip(values).for_each(|(unseen, value)| *unseen &= value.is_none());
                are_all_seen = !unseen.contains(&true);
            }
            match mapper.key(values) {
                Err(reason) => invalid.push((row, None, reason)),
                Ok(key) => {
                    let hash = mapper.prints().key(&key);
                    match mapper.row(values, scratch) {
                        Ok(print) => digests.push(Digest { at, row, hash, key, print }),
                        Err(reason) => invalid.push((row, Some((hash, key)), reason)),
                    }
                }
            }
            at += 1;
            Ok(())
        })?;
        self.head.counts.rows = row;
        for (row, key, reason) in invalid {
            self.invalid(row, key, reason)?;
        }
        Ok(digests)
    }

    /// A row of which a value does not fit, or whose key is unusable.
    fn invalid(&mut self, row: u64, key: Option<(KeyHash, Key)>, reason: Invalid) -> Result<()> {
        self.head.counts.invalid += 1;
        match key {
            None => self.head.counts.keyless += 1,
            Some((hash, key)) => {
                let seen = self.see(hash);
                let seen_before = seen.is_some_and(|(_, before)| before);
                let is_unsettled = seen.is_some_and(|(hot, _)| hot == RowFingerprint::LOAD);
                let first = self.met.get(&hash).copied();
                match first.or_else(|| seen_before.then_some(Met::new(0, None, Counted::Unchanged))) {
                    None => {
                        self.met.insert(hash, Met::new(row, None, Counted::Invalid));
                        self.seal(hash, key, is_unsettled)?;
                    }
                    Some(first) => match self.options.duplicates {
                        // Both are named as invalid, which says it all.
                        DuplicatePolicy::Withhold if !first.is_valid() => {}
                        DuplicatePolicy::Withhold => self.clash(hash, key, first, row)?,
                        DuplicatePolicy::First => {}
                        // It is the last one so far, and the earlier ones are out of date.
                        DuplicatePolicy::Last => {
                            self.withdraw(first);
                            self.met.insert(hash, Met::new(row, None, Counted::Invalid));
                            self.seal(hash, key, is_unsettled)?;
                        }
                    },
                }
            }
        }
        self.invalid_problem(row, reason);
        Ok(())
    }

    /// Has the key of a row that is not sent sealed as well, if it may lack that.
    fn seal(&mut self, hash: KeyHash, key: Key, may_lack: bool) -> Result<()> {
        if self.head.seals_anew || (self.head.seals && may_lack) {
            self.spooler.push(Entry::new(Step::Seal, ChangeKind::Changed, hash, key, 0))?;
        }
        Ok(())
    }

    fn invalid_problem(&mut self, row: u64, reason: Invalid) {
        self.problem(Problem {
            row: Some(row),
            kind: ProblemKind::Invalid,
            code: None,
            column: Some(reason.column),
            field: reason.field,
            text: reason.reason,
        });
    }

    fn see(&mut self, hash: KeyHash) -> Option<(RowFingerprint, bool)> {
        match &mut self.lookup {
            Lookup::Index(index) => index.see(hash),
            Lookup::Nothing | Lookup::Load => None,
        }
    }

    /// Compares digests with the state, and plans the rows that differ.
    async fn compare(&mut self, rows: &dyn Rows, digests: Vec<Digest>) -> Result<()> {
        let mut differing = Vec::new();
        let hashes: Vec<KeyHash> = digests.iter().map(|digest| digest.hash).collect();
        let mut loaded = match &self.lookup {
            Lookup::Load => self.prior.load(&hashes).await?.into_iter().map(Some).collect(),
            Lookup::Nothing | Lookup::Index(_) => vec![None; digests.len()],
        };
        for (digest, loaded) in digests.into_iter().zip(&mut loaded) {
            let (hot, seen) = match (self.see(digest.hash), loaded.as_ref()) {
                (Some((hot, seen)), _) => (Some(hot), seen),
                (None, Some(row)) => (row.as_ref().map(crate::state::RowState::fingerprint), false),
                (None, None) => (None, false),
            };
            let first = self.met.get(&digest.hash).copied();
            let first = first.or_else(|| {
                // An unchanged row is remembered by its bit alone, and it had the state's fingerprint.
                seen.then_some(Met::new(0, hot, Counted::Unchanged))
            });
            if let Some(first) = first
                && !self.is_to_be_planned_again(&digest, first)?
            {
                continue;
            }
            let unchanged = hot == Some(digest.print) && !self.head.seals_anew;
            if unchanged {
                self.head.counts.unchanged += 1;
                if matches!(self.lookup, Lookup::Load) || first.is_some() {
                    let met = Met::new(digest.row, Some(digest.print), Counted::Unchanged);
                    self.met.insert(digest.hash, met);
                }
            } else {
                let met = Met::new(digest.row, Some(digest.print), Counted::Pending);
                self.met.insert(digest.hash, met);
                differing.push((digest, loaded.take().flatten()));
            }
        }
        self.load_records(&mut differing).await?;
        for (digest, state) in differing {
            // A later row of the same chunk may have clashed with it, or taken its place.
            let is_pending = |met: &Met| met.row == digest.row && met.counted == Counted::Pending;
            if !self.met.get(&digest.hash).is_some_and(is_pending) {
                continue;
            }
            let record = state.map(|state| state.record()).transpose()?;
            let mut mapped = None;
            rows.visit(self.mapper.columns(), digest.at..digest.at + 1, &mut |values| {
                mapped = Some(self.mapper.mapped(values));
                Ok(())
            })?;
            let (row, hash, print) = (digest.row, digest.hash, digest.print);
            let before = (self.head.counts.fields, self.head.counts.cleared);
            let planned = match mapped {
                Some(Ok(mapped)) => self.plan_row(digest, mapped, record.as_ref())?,
                Some(Err(reason)) => Err(reason),
                None => continue,
            };
            let counted = planned.unwrap_or_else(|reason| {
                self.invalid_problem(row, reason);
                Counted::Invalid
            });
            let print = (counted != Counted::Invalid).then_some(print);
            let fields = self.head.counts.fields - before.0;
            let cleared = self.head.counts.cleared - before.1;
            self.met.insert(hash, Met { row, print, counted, fields, cleared });
            let counts = &mut self.head.counts;
            match counted {
                Counted::Unchanged => counts.unchanged += 1,
                Counted::Held => counts.held += 1,
                Counted::Added => counts.added += 1,
                Counted::Changed => counts.changed += 1,
                Counted::Invalid => counts.invalid += 1,
                Counted::Duplicate | Counted::Pending => {}
            }
        }
        Ok(())
    }

    /// Loads the records of rows of which an index gave only the fingerprints.
    async fn load_records(&self, differing: &mut [(Digest, Option<crate::state::RowState>)]) -> Result<()> {
        if !matches!(self.lookup, Lookup::Index(_)) {
            return Ok(());
        }
        let hashes: Vec<KeyHash> = differing.iter().map(|(digest, _)| digest.hash).collect();
        let states = self.prior.load(&hashes).await?;
        for ((_, state), loaded) in differing.iter_mut().zip(states) {
            *state = loaded;
        }
        Ok(())
    }

    /// A key came twice. Counts the row, and says whether it takes the place of the first one.
    fn is_to_be_planned_again(&mut self, digest: &Digest, first: Met) -> Result<bool> {
        if first.print == Some(digest.print) && first.counted != Counted::Duplicate {
            self.head.counts.duplicate += 1;
            return Ok(false);
        }
        Ok(match self.options.duplicates {
            DuplicatePolicy::Withhold => {
                self.head.counts.duplicate += 1;
                self.head.counts.withheld += 1;
                self.clash(digest.hash, digest.key.clone(), first, digest.row)?;
                false
            }
            // Invalid rows are met ahead of the others of their chunk.
            DuplicatePolicy::First if first.is_valid() => {
                self.head.counts.duplicate += 1;
                false
            }
            DuplicatePolicy::Last if first.row > digest.row => {
                self.head.counts.duplicate += 1;
                false
            }
            DuplicatePolicy::First | DuplicatePolicy::Last => {
                self.withdraw(first);
                self.met.remove(&digest.hash);
                true
            }
        })
    }

    /// Two rows of one key differ: the first one is withheld as well.
    fn clash(&mut self, hash: KeyHash, key: Key, first: Met, row: u64) -> Result<()> {
        if first.is_valid() && first.counted != Counted::Duplicate {
            self.seal(hash, key, true)?;
        }
        let before = self.head.counts.duplicate;
        self.withdraw(first);
        self.head.counts.withheld += self.head.counts.duplicate - before;
        let counted = if first.counted == Counted::Invalid { Counted::Invalid } else { Counted::Duplicate };
        self.met.insert(hash, Met { counted, print: None, ..first });
        let earlier = match first.row {
            0 => "an earlier row".to_owned(),
            earlier => format!("row {earlier}"),
        };
        self.problem(Problem {
            row: Some(row),
            kind: ProblemKind::Duplicate,
            code: None,
            column: None,
            field: None,
            text: format!("has the key of {earlier} and other values: neither is sent; keep one of the two"),
        });
        Ok(())
    }

    /// Takes a row out of its count, which becomes `duplicate`; an invalid one stays what it is.
    fn withdraw(&mut self, met: Met) {
        let counts = &mut self.head.counts;
        match met.counted {
            Counted::Invalid | Counted::Duplicate => return,
            Counted::Pending => {}
            Counted::Unchanged => counts.unchanged -= 1,
            Counted::Held => counts.held -= 1,
            Counted::Added => counts.added -= 1,
            Counted::Changed => counts.changed -= 1,
        }
        counts.duplicate += 1;
        counts.fields -= met.fields;
        counts.cleared -= met.cleared;
        if met.row > 0 {
            self.spooler.withdraw(met.row);
        }
    }

    /// Plans a row that is not what the state says, and says how it counts.
    fn plan_row(
        &mut self,
        digest: Digest,
        mut mapped: Mapped,
        record: Option<&RowRecord>,
    ) -> Result<std::result::Result<Counted, Invalid>> {
        let creates = [Operation::Insert, Operation::Upsert];
        if !creates.iter().any(|operation| self.head.operations.contains(operation)) {
            // Values for creation matter to nobody where nothing is created.
            mapped.on_create = Ok(Vec::new());
        }
        let prints = self.mapper.prints();
        let creation = &self.head.creation;
        let on_create = || {
            mapped
                .on_create
                .iter()
                .flatten()
                .filter_map(|(place, value)| Some((creation.get(usize::from(*place))?.0.as_str(), value)))
        };
        let sent = |fields: &[(Slot, u64)], known: bool| {
            if known { prints.sent(fields, std::iter::empty()) } else { prints.sent(fields, on_create()) }
        };
        let (options, now) = (self.options, self.now);
        let verdict = diff(
            &mapped.prints,
            record,
            &Rules {
                now,
                creates: self.creates_missing(),
                holds_back: &|rejection, sent| options.rejected.holds_back(rejection, sent, false, now),
                sent: &sent,
            },
        );
        let may_lack = record.is_some_and(|record| record.sealed_key().is_none());
        let mut entry = Entry::new(Step::Send, ChangeKind::Added, digest.hash, digest.key, digest.row);
        entry.print = digest.print.to_u64();
        Ok(Ok(match verdict {
            Verdict::Unchanged { settle } => {
                if settle || self.head.seals_anew {
                    entry.step = if settle { Step::Settle } else { Step::Seal };
                    entry.wanted = mapped.prints;
                    self.spooler.push(entry)?;
                }
                Counted::Unchanged
            }
            Verdict::Held => {
                self.seal(entry.hash(), entry.key, may_lack)?;
                Counted::Held
            }
            Verdict::Resolve { .. } if !self.resolves() => {
                self.seal(entry.hash(), entry.key, may_lack)?;
                Counted::Held
            }
            Verdict::Resolve { kind, known, place } => {
                entry.kind = kind;
                entry.known = known;
                entry.key_only = true;
                entry.place = place;
                entry.sent = record.and_then(RowRecord::rejection).map_or(0, Rejection::sent);
                entry.wanted = mapped.prints;
                self.spooler.push(entry)?;
                kind.into()
            }
            Verdict::Ask => {
                if self.options.missing == MissingPolicy::Ask {
                    entry.step = Step::Ask;
                    entry.sent = sent(&mapped.prints, false);
                    entry.on_create = match mapped.on_create {
                        Ok(values) => values,
                        Err(reason) => return Ok(Err(reason)),
                    };
                    entry.values = mapped.values;
                    entry.wanted = mapped.prints;
                    self.head.asks += 1;
                    self.spooler.push(entry)?;
                } else {
                    self.seal(entry.hash(), entry.key, may_lack)?;
                }
                Counted::Held
            }
            Verdict::Send { kind, known, place, slots } => {
                let is_sent = |slot: &Slot| slots.binary_search(slot).is_ok();
                let fields: Vec<_> =
                    mapped.prints.iter().copied().filter(|(slot, _)| is_sent(slot)).collect();
                entry.kind = kind;
                entry.known = known;
                entry.place = place;
                entry.sent = sent(&fields, known);
                if !known {
                    entry.on_create = match mapped.on_create {
                        Ok(values) => values,
                        Err(reason) => return Ok(Err(reason)),
                    };
                }
                entry.values = mapped.values.into_iter().filter(|(slot, _)| is_sent(slot)).collect();
                entry.wanted = mapped.prints;
                self.head.counts.fields += entry.values.len() as u64;
                self.head.counts.cleared += entry.cleared();
                self.spooler.push(entry)?;
                kind.into()
            }
        }))
    }

    /// Whether rows in doubt are resolved by their keys alone. An upsert might create an empty record, and needs no such
    /// thing: it is the same for a row that exists and for one that does not.
    fn resolves(&self) -> bool {
        let operations = &self.head.operations;
        operations.contains(&Operation::Update) && !operations.contains(&Operation::Upsert)
    }

    fn creates_missing(&self) -> bool {
        match self.options.missing {
            MissingPolicy::Ask => self.head.operations.contains(&Operation::Insert),
            MissingPolicy::Send => true,
            MissingPolicy::Leave => false,
        }
    }

    /// Rows that the source does not have: removed if it is complete, resolved if they are in doubt.
    async fn plan_absent(&mut self) -> Result<()> {
        let Lookup::Index(index) = &self.lookup else { return Ok(()) };
        let resolves = self.resolves();
        let removes = self.options.remove_absent;
        let unplanned = |met: &Met| matches!(met.counted, Counted::Invalid | Counted::Duplicate);
        let gone = index.unseen().filter(|(hash, hot)| {
            !self.met.contains_key(hash) && (removes || (resolves && *hot == RowFingerprint::LOAD))
        });
        let mut absent: Vec<(KeyHash, bool)> = gone.map(|(hash, _)| (hash, true)).collect();
        if resolves {
            absent.extend(self.met.iter().filter(|(_, met)| unplanned(met)).map(|(hash, _)| (*hash, false)));
            absent.sort_unstable();
        }
        for part in absent.chunks(AT_ONCE) {
            let hashes: Vec<KeyHash> = part.iter().map(|(hash, _)| *hash).collect();
            let states = self.prior.load(&hashes).await?;
            for ((hash, is_gone), state) in part.iter().zip(states) {
                if let Some(state) = state {
                    self.plan_gone(*hash, &state.record()?, removes && *is_gone)?;
                }
            }
        }
        Ok(())
    }

    fn plan_gone(&mut self, hash: KeyHash, record: &RowRecord, removes: bool) -> Result<()> {
        let unsealed = |sealed: &[u8]| self.sealer.open(hash, sealed);
        if removes {
            if !record.is_ours() && !record.is_in_doubt() {
                let expired = record.mark().is_none_or(|mark| mark.until() < self.now);
                if expired && record.held().is_none() {
                    let entry = Entry::new(Step::Drop, ChangeKind::Removed, hash, Key::new(""), 0);
                    self.spooler.push(entry)?;
                }
                return Ok(());
            }
            let rejection = record.rejection();
            let rejected = self.options.rejected;
            if rejection.is_some_and(|rejection| rejected.holds_back(rejection, 0, true, self.now)) {
                return Ok(());
            }
            let Some(key) = record.sealed_key().map(unsealed).transpose()? else {
                self.head.counts.unremovable += 1;
                if record.row().is_some() {
                    // Should it come back, planning has to look at its record, and sees to its key.
                    let entry = Entry::new(Step::Unsettle, ChangeKind::Changed, hash, Key::new(""), 0);
                    self.spooler.push(entry)?;
                }
                return Ok(());
            };
            self.head.counts.removed += 1;
            let mut entry = Entry::new(Step::Send, ChangeKind::Removed, hash, key, 0);
            entry.known = record.is_known();
            return self.spooler.push(entry);
        }
        let Some(Doubt::Exists { place: Some(place) }) = record.mark().map(Mark::doubt) else {
            return Ok(());
        };
        if record.rejection().is_some_and(|rejection| rejection.holds_back_key(self.now)) {
            return Ok(());
        }
        let Some(key) = record.sealed_key().map(unsealed).transpose()? else { return Ok(()) };
        self.head.counts.resolved += 1;
        let mut entry = Entry::new(Step::Resolve, ChangeKind::Changed, hash, key, 0);
        entry.known = true;
        entry.place = Some(place.clone());
        entry.sent = record.rejection().map_or(0, Rejection::sent);
        entry.key_only = true;
        self.spooler.push(entry)
    }

    fn problem(&mut self, problem: Problem) {
        if let Some(observer) = &self.options.observer {
            observer(&Event::Problem(&problem));
        }
        if self.head.problems.len() < PROBLEMS_KEPT {
            self.head.problems.push(problem);
        }
    }

    /// A column that no row has is most likely misspelt; a source of text would have said so at once.
    fn check_columns(&mut self) -> Result<()> {
        if self.head.counts.rows == 0 {
            return Ok(());
        }
        let columns = self.mapper.columns().iter().zip(&self.unseen);
        let unseen: Vec<_> =
            columns.filter(|(_, unseen)| **unseen).map(|(column, _)| column.clone()).collect();
        for column in unseen {
            if Some(&column) == self.mapper.columns().first() {
                return Err(Error::config(format!(
                    "no row of the source has the column `{column}`, which is the key: check its name in the mapping"
                )));
            }
            self.problem(Problem {
                row: None,
                kind: ProblemKind::Note,
                code: None,
                column: Some(column),
                field: None,
                text: "is a column that no row of the source has: check its name in the mapping".to_owned(),
            });
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Plan> {
        self.check_columns()?;
        self.plan_absent().await?;
        if !self.head.is_of(self.prior.header().await?.as_ref()) {
            return Err(Error::new(
                ErrorKind::StateMoved,
                "another run wrote to the state while this plan was being made: plan again",
            ));
        }
        self.head.guard();
        tracing::debug!(sync = self.head.identity, counts = ?self.head.counts, "planned");
        Ok(Plan {
            head: self.head,
            spool: self.spooler.finish(),
            secret: self.secret,
            sealing: Some(self.sealing),
            written: None,
            observer: self.options.observer.clone(),
            host: Arc::clone(&self.options.host),
            memory_max: self.options.memory_max,
        })
    }
}
