//! The planner: one pass over the source, one look at the state for each row.

mod absent;
mod duplicates;
mod loads;

use std::{collections::VecDeque, mem, slice, sync::Arc, time::SystemTime};

use futures::{FutureExt, StreamExt, TryStreamExt, channel::mpsc, future};

use self::loads::{answered, states, with_states};
use crate::{
    Error, ErrorKind, Result,
    change::{ChangeKind, Entry, Rules, Step, Verdict, diff},
    destination::Operation,
    event::{Event, Problem, ProblemKind},
    fingerprint::{Fingerprinter, KeyHash, RowFingerprint, Secret, Slot},
    host::yield_once,
    mapping::{Invalid, Mapped, Mapper, Mapping, PackedValues},
    plan::{
        Counts, DuplicatePolicy, FORMAT, Head, MissingPolicy, PROBLEMS_KEPT, Plan, PlanOptions,
        digest::{Differing, Digested, Digester, Keyed, New, Other},
        index::{Index, IndexBuilder, Place, Seen},
        met::{Counted, Met, MetRows},
        read::{ROWS_A_PIECE, digested},
        spool::Spooler,
    },
    record::Key,
    rows::{Piece, Pieces, Source},
    seal::Sealer,
    state::{
        Header, PriorState, RowState, ScannedRows,
        header::Bytes,
        record::{Rejection, RowRecord},
    },
};

/// To look one row up costs about as much as to read so many in a scan of the whole state: of ten million rows, 10 µs beside
/// 60 ns for each.
const SCANNED_FOR_ONE_LOADED: u64 = 256;
/// The fewest rows that are looked up one by one before the whole state is read instead.
const LOADED_MIN: u64 = 1024;

/// Of a source of unknown length so many rows, in at most so many pieces, wait before they are looked up: if many more come
/// meanwhile, these are not looked up in vain.
const ROWS_WAITING: usize = 65_536;
const PIECES_WAITING: usize = 24;

/// Rows that an index makes room for before it has seen them, whatever the state says of itself.
const ROWS_FORESEEN: usize = 1 << 26;

/// Compares a source with what the destination has acknowledged, and plans what to send.
///
/// A mapping that is [bound](Mapping::bind) to a target has values checked and converted, and keys in one form; an
/// [`Activation`](crate::Activation) binds it. One that is not bound takes everything that JSON can carry, and a state belongs to
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
    let pieces = Pieces::new(source.into(), ROWS_A_PIECE);
    let mut planner = Planner::new(mapping, prior, options, pieces.len()).await?;
    planner.read(pieces).await?;
    planner.finish().await
}

struct Planner<'p> {
    prior: &'p dyn PriorState,
    options: &'p PlanOptions,
    header: Option<Header>,
    digester: Digester,
    sealer: Sealer,
    head: Head,
    secret: Option<Secret>,
    /// The state's secret, whoever keeps it: with it a plan's file is sealed.
    sealing: Secret,
    lookup: Lookup,
    /// Rows of which more is to be remembered than that they were unchanged.
    met: MetRows,
    spooler: Spooler,
    now: SystemTime,
    /// Which of the mapper's columns no row has had so far.
    unseen: Vec<bool>,
}

/// How the state is asked; never what it means.
enum Lookup {
    /// There is no state.
    Nothing,
    /// Row by row, until there are more than this.
    Load { rows_max: u64 },
    /// In an index of all rows; of each it is known whether the source had it.
    Index(Seen),
}

/// What the state has of a row.
type Before = Option<Box<RowRecord>>;

fn recorded(state: Option<RowState>) -> Result<Before> {
    state.map(|state| state.record().map(Box::new)).transpose()
}

impl<'p> Planner<'p> {
    async fn new(
        mapping: &Mapping,
        prior: &'p dyn PriorState,
        options: &'p PlanOptions,
        rows: Option<usize>,
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
        options.guards.check()?;
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
        let seals_anew = header.is_some() && seals && !sealed_before;
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
            seals_anew,
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
        let rows_max = (head.known / SCANNED_FOR_ONE_LOADED).max(LOADED_MIN);
        let is_big = rows.is_some_and(|rows| rows as u64 > rows_max);
        let mut planner = Self {
            prior,
            options,
            digester: Digester {
                mapper: Arc::new(mapper),
                index: Arc::new(Index::of_sorted(&ScannedRows::default())?),
                all_differ: seals_anew,
            },
            sealer: Sealer::new(&secret)?,
            sealing: secret.clone(),
            head,
            secret: (!is_generated).then_some(secret).filter(|_| options.secret.is_some()),
            lookup: if header.is_some() { Lookup::Load { rows_max } } else { Lookup::Nothing },
            met: MetRows::default(),
            spooler: Spooler::new(options.memory_max),
            now: options.host.wall(),
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

    /// Reads the source to its end.
    async fn read(&mut self, mut pieces: Pieces<'_>) -> Result<()> {
        let mut waiting = VecDeque::new();
        while let Lookup::Load { rows_max } = self.lookup {
            let rows_waiting = waiting.iter().map(|piece: &Piece<'_>| piece.range.len()).sum::<usize>();
            let ahead = match pieces.ahead().await {
                Some(Ok(ahead)) => ahead,
                end => {
                    for piece in waiting {
                        self.load_and_take(&piece).await?;
                    }
                    return end.transpose().map(drop);
                }
            };
            let rows = self.head.counts.rows.saturating_add(rows_waiting as u64);
            if rows.saturating_add(ahead as u64) > rows_max {
                pieces.put_back(mem::take(&mut waiting));
                self.scan().await?;
            } else if rows_waiting < ROWS_WAITING && waiting.len() < PIECES_WAITING {
                waiting.extend(pieces.next().await.transpose()?);
                // Pieces may be there without a wait, and others on this thread have their turn in between.
                yield_once().await;
            } else if let Some(piece) = waiting.pop_front() {
                self.load_and_take(&piece).await?;
            }
        }
        let prior = self.prior;
        let pieces = digested(pieces, self.digester.clone(), self.options.threads_wanted());
        let (to_plan, mut loaded) = mpsc::channel(0);
        // It ends early only with the planning.
        let load = with_states(pieces, prior).map(Ok).forward(to_plan).map(|_| Ok(()));
        let plan = async {
            while let Some(loaded) = loaded.next().await {
                let (gathered, states) = loaded?;
                let mut states = states.into_iter();
                for digested in gathered {
                    self.take(digested, &mut states)?;
                    // Others on this thread have their turn in between, and what comes next is seen to.
                    yield_once().await;
                }
            }
            Ok(())
        };
        future::try_join(load, plan).await?;
        Ok(())
    }

    /// Reads the whole state, so that rows are looked up in memory from here on.
    async fn scan(&mut self) -> Result<()> {
        let known = usize::try_from(self.head.known).unwrap_or(usize::MAX);
        let mut builder = IndexBuilder::with_capacity(known.min(ROWS_FORESEEN));
        let mut chunks = self.prior.scan();
        while let Some(chunk) = chunks.try_next().await? {
            builder.extend(&chunk);
            yield_once().await;
        }
        let index = builder.build()?;
        let mut seen = Seen::none_of(&index);
        for place in self.met.iter().filter_map(|(hash, _)| index.find(hash)) {
            seen.mark(place);
        }
        self.digester.index = Arc::new(index);
        self.lookup = Lookup::Index(seen);
        Ok(())
    }

    /// Plans rows of which each is looked up on its own.
    async fn load_and_take(&mut self, piece: &Piece<'_>) -> Result<()> {
        let mut hashes = self.digester.hashes(piece.chunk.rows(), piece.range.clone())?;
        hashes.sort_unstable();
        hashes.dedup();
        let prints = answered(self.prior.load_fingerprints(&hashes).await?, hashes.len())?;
        let known = hashes.into_iter().zip(prints).filter_map(|(hash, print)| Some((hash, print?)));
        self.digester.index = Arc::new(Index::of_sorted(&known.collect())?);
        let digested = self.digester.digest(piece.chunk.rows(), piece.range.clone())?;
        let states = states(self.prior, slice::from_ref(&digested)).await?;
        self.take(digested, &mut states.into_iter())?;
        yield_once().await;
        Ok(())
    }

    /// Plans a piece, row by row.
    fn take(
        &mut self,
        digested: Digested,
        states: &mut impl Iterator<Item = Option<RowState>>,
    ) -> Result<()> {
        self.unseen.resize(digested.unseen.len(), true);
        self.unseen.iter_mut().zip(&digested.unseen).for_each(|(unseen, is)| *unseen &= is);
        self.met.touch(digested.others.iter().filter_map(Other::hash));
        let entries = digested.entries;
        let mut others = digested.others.into_iter().zip(states);
        let mut places = digested.unchanged.iter();
        while let Some(place) = self.next_to_look_at(&mut places) {
            if place != Place::NONE {
                self.unchanged(place)?;
            } else if let Some((other, state)) = others.next() {
                self.other(other, state, &entries)?;
            }
        }
        Ok(())
    }

    /// Counts rows that are what the state says and were not met before, which are nearly all, up to one that is more work.
    fn next_to_look_at(&mut self, places: &mut slice::Iter<'_, Place>) -> Option<Place> {
        let before = places.len();
        let next = match &mut self.lookup {
            Lookup::Index(seen) => places.find(|place| **place == Place::NONE || seen.mark(**place)),
            Lookup::Nothing | Lookup::Load { .. } => places.next(),
        };
        let taken = before - places.len();
        let unchanged = taken - usize::from(next.is_some());
        self.head.counts.rows += taken as u64;
        self.head.counts.unchanged += unchanged as u64;
        next.copied()
    }

    /// A row that is what the state says, and may be a second one.
    fn unchanged(&mut self, place: Place) -> Result<()> {
        let row = self.head.counts.rows;
        let (hash, print) = self.digester.index.row(place);
        if let Some(first) = self.first(hash, Some(print)) {
            // A row that is settled in a state that seals keys has one, so it is not asked for.
            if !self.is_to_be_planned_again(hash, print, row, first, None)? {
                return Ok(());
            }
        }
        self.head.counts.unchanged += 1;
        // An index would not remember the row's number either, and a plan does not depend on how the state is asked.
        self.met.insert(hash, Met::new(0, Some(print), Counted::Unchanged))
    }

    fn other(&mut self, other: Other, state: Option<RowState>, entries: &[u8]) -> Result<()> {
        let row = self.head.counts.rows;
        match other {
            Other::New(new) => {
                let entry = entries.get(new.entry.clone()).unwrap_or_default();
                self.new_row(&new, entry, row)
            }
            Other::Invalid(invalid) => {
                let (keyed, reason) = *invalid;
                self.head.counts.invalid += 1;
                match keyed {
                    Some(keyed) => self.invalid(keyed, recorded(state)?, row)?,
                    None => self.head.counts.keyless += 1,
                }
                self.invalid_problem(row, reason);
                Ok(())
            }
            Other::Differs(differing) => self.differing(*differing, recorded(state)?, row),
        }
    }

    /// Whether the state's row was met before, and as what.
    fn met_before(&mut self, keyed: &Keyed) -> Option<Met> {
        if let (Lookup::Index(seen), Some((place, _))) = (&mut self.lookup, keyed.known)
            && !seen.mark(place)
        {
            return None;
        }
        self.first(keyed.hash, keyed.known.map(|(_, print)| print))
    }

    /// What an earlier row of this key was. Of a row that the index marks as seen and nobody remembers, it is known that it
    /// was what the state says.
    fn first(&self, hash: KeyHash, hot: Option<RowFingerprint>) -> Option<Met> {
        let is_seen = matches!(self.lookup, Lookup::Index(_)) && hot.is_some();
        let unchanged = || is_seen.then_some(Met::new(0, hot, Counted::Unchanged));
        self.met.get(hash).or_else(unchanged)
    }

    /// A row of which a value does not fit.
    fn invalid(&mut self, keyed: Keyed, record: Before, row: u64) -> Result<()> {
        let is_unsettled = keyed.known.is_some_and(|(_, print)| print == RowFingerprint::LOAD);
        let first = self.met_before(&keyed);
        let Keyed { key, hash, .. } = keyed;
        let is_met = match (first, self.options.duplicates) {
            (None, _) => false,
            // Both are named as invalid, which says it all.
            (Some(first), DuplicatePolicy::Withhold) if !first.is_valid() => true,
            (Some(first), DuplicatePolicy::Withhold) => {
                return self.clash(hash, Some((&key, &record)), first, row);
            }
            (Some(_), DuplicatePolicy::First) => true,
            // It is the last one so far, and the earlier ones are out of date.
            (Some(first), DuplicatePolicy::Last) => {
                self.withdraw(first);
                false
            }
        };
        if is_met {
            return Ok(());
        }
        self.met.insert(hash, Met::new(row, None, Counted::Invalid))?;
        self.seal(hash, key, record, is_unsettled)
    }

    /// A row that the state does not have: all of it is sent.
    fn new_row(&mut self, new: &New, entry: &[u8], row: u64) -> Result<()> {
        let New { hash, print, fields, cleared, .. } = *new;
        if let Some(first) = self.met.get(hash)
            // A row that the state does not have needs no key there.
            && !self.is_to_be_planned_again(hash, print, row, first, None)?
        {
            return Ok(());
        }
        self.spooler.push_written(hash, row, entry)?;
        let counts = &mut self.head.counts;
        counts.added += 1;
        counts.fields += u64::from(fields);
        counts.cleared += u64::from(cleared);
        self.met.insert(hash, Met { row, print: Some(print), counted: Counted::Added, fields, cleared })
    }

    /// A row that is not what the state says.
    fn differing(&mut self, differing: Differing, record: Before, row: u64) -> Result<()> {
        let Differing { keyed, print, mapped } = differing;
        let hash = keyed.hash;
        if let Some(first) = self.met_before(&keyed)
            && !self.is_to_be_planned_again(hash, print, row, first, Some((&keyed.key, &record)))?
        {
            return Ok(());
        }
        let before = (self.head.counts.fields, self.head.counts.cleared);
        let planned = self.plan_row(keyed, print, row, mapped, record)?;
        let counted = planned.unwrap_or_else(|reason| {
            self.invalid_problem(row, reason);
            Counted::Invalid
        });
        let counts = &mut self.head.counts;
        match counted {
            Counted::Unchanged => counts.unchanged += 1,
            Counted::Held => counts.held += 1,
            Counted::Added => counts.added += 1,
            Counted::Changed => counts.changed += 1,
            Counted::Invalid => counts.invalid += 1,
            Counted::Duplicate => {}
        }
        let fields = Met::count(counts.fields - before.0);
        let cleared = Met::count(counts.cleared - before.1);
        let print = (counted != Counted::Invalid).then_some(print);
        self.met.insert(hash, Met { row, print, counted, fields, cleared })
    }

    /// Has the key of a row that is not sent sealed as well, if it may lack that.
    fn seal(&mut self, hash: KeyHash, key: Key, record: Before, may_lack: bool) -> Result<()> {
        let is_wanted = self.head.seals_anew || (self.head.seals && may_lack);
        // A row that the state does not have needs no key.
        if is_wanted && record.is_some() {
            let mut entry = Entry::new(Step::Seal, ChangeKind::Changed, hash, key, 0);
            entry.before = record;
            self.spooler.push(&entry)?;
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

    /// Plans a row that is not what the state says, and says how it counts.
    fn plan_row(
        &mut self,
        keyed: Keyed,
        print: RowFingerprint,
        row: u64,
        mapped: Mapped,
        record: Before,
    ) -> Result<std::result::Result<Counted, Invalid>> {
        let Some(record) = record else { return self.plan_new(keyed, print, row, mapped) };
        let prints = self.digester.mapper.prints();
        let creation = &self.head.creation;
        let on_create = || {
            mapped
                .on_create
                .iter()
                .flat_map(PackedValues::iter)
                .filter_map(|(place, value)| Some((creation.get(usize::from(place))?.0.as_str(), value)))
        };
        let sent = |fields: &[(Slot, u64)], known: bool| {
            if known { prints.sent(fields, std::iter::empty()) } else { prints.sent(fields, on_create()) }
        };
        let (options, now) = (self.options, self.now);
        let verdict = diff(
            &mapped.prints,
            &record,
            &Rules {
                now,
                creates: self.creates_missing(),
                holds_back: &|rejection, sent| options.rejected.holds_back(rejection, sent, false, now),
                sent: &sent,
            },
        );
        let may_lack = record.sealed_key().is_none();
        let mut entry = Entry::new(Step::Send, ChangeKind::Added, keyed.hash, keyed.key, row);
        (entry.print, entry.before) = (print.to_u64(), Some(record));
        Ok(Ok(match verdict {
            Verdict::Unchanged { settle } => {
                if settle || self.head.seals_anew {
                    entry.step = if settle { Step::Settle } else { Step::Seal };
                    entry.wanted = mapped.prints;
                    self.spooler.push(&entry)?;
                }
                Counted::Unchanged
            }
            Verdict::Held => {
                self.seal(entry.hash(), entry.key, entry.before, may_lack)?;
                Counted::Held
            }
            Verdict::Resolve { .. } if !self.resolves() => {
                self.seal(entry.hash(), entry.key, entry.before, may_lack)?;
                Counted::Held
            }
            Verdict::Resolve { kind, known, place } => {
                entry.kind = kind;
                entry.known = known;
                entry.key_only = true;
                entry.place = place;
                let rejection = entry.before.as_ref().and_then(|record| record.rejection());
                entry.sent = rejection.map_or(0, Rejection::sent);
                entry.wanted = mapped.prints;
                self.spooler.push(&entry)?;
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
                    self.spooler.push(&entry)?;
                } else {
                    self.seal(entry.hash(), entry.key, entry.before, may_lack)?;
                }
                Counted::Held
            }
            Verdict::Send { kind, known, place, fields } => {
                let is_sent = |slot| fields.binary_search_by_key(&slot, |(slot, _)| *slot).is_ok();
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
                entry.values = mapped.values.only(is_sent);
                entry.wanted = mapped.prints;
                self.push_send(&entry)?;
                kind.into()
            }
        }))
    }

    /// Plans a row that differs and of which the state has no record: one whose values for creation do not fit, or one that it
    /// had a moment ago.
    fn plan_new(
        &mut self,
        keyed: Keyed,
        print: RowFingerprint,
        row: u64,
        mapped: Mapped,
    ) -> Result<std::result::Result<Counted, Invalid>> {
        let on_create = match mapped.on_create {
            Ok(values) => values,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut entry = Entry::new(Step::Send, ChangeKind::Added, keyed.hash, keyed.key, row);
        (entry.print, entry.values, entry.on_create) = (print.to_u64(), mapped.values, on_create);
        self.push_send(&entry)?;
        Ok(Ok(Counted::Added))
    }

    fn push_send(&mut self, entry: &Entry) -> Result<()> {
        self.head.counts.fields += entry.values.len() as u64;
        self.head.counts.cleared += entry.values.cleared();
        self.spooler.push(entry)
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
        let columns = self.digester.mapper.columns().iter().zip(&self.unseen);
        let unseen: Vec<_> =
            columns.filter(|(_, unseen)| **unseen).map(|(column, _)| column.clone()).collect();
        for column in unseen {
            if Some(&column) == self.digester.mapper.columns().first() {
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
            spool: self.spooler.finish()?,
            secret: self.secret,
            sealing: Some(self.sealing),
            written: None,
            observer: self.options.observer.clone(),
            host: Arc::clone(&self.options.host),
            memory_max: self.options.memory_max,
        })
    }
}
