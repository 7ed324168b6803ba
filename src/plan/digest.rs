//! Digest: what a stretch of rows is to the state, found without it being changed, on any thread.
//!
//! A row that is what the state says leaves nothing but its place in the index. One that the state does not have leaves the
//! plan's entry, which nothing else has a say in, as bytes. One that differs leaves its mapped values.

use std::{mem, ops::Range, sync::Arc};

use crate::{
    Error, ErrorKind, Result,
    change::{ChangeKind, Entry, Step},
    fingerprint::{Hashed, KeyHash, Pairs, RowFingerprint},
    mapping::{Hasher, Invalid, Mapped, Mapper},
    plan::{
        index::{Index, Place},
        met::Met,
        spool,
    },
    record::{Key, ValueRef},
    rows::Rows,
};

/// Rows that are hashed before they are looked up: so many look-ups are under way at once.
const BLOCK: usize = 1024;

/// What every thread is given.
#[derive(Clone)]
pub(super) struct Digester {
    pub(super) mapper: Arc<Mapper>,
    pub(super) index: Arc<Index>,
    /// Every row is to be looked at, also one that is what the state says.
    pub(super) all_differ: bool,
}

/// What rows are, in their order.
pub(super) struct Digested {
    /// For each row its place if it is what the state says, else [`Place::NONE`].
    pub(super) unchanged: Vec<Place>,
    /// The other rows.
    pub(super) others: Vec<Other>,
    /// The entries of those that are new, one behind the other.
    pub(super) entries: Vec<u8>,
    /// About the memory that these take, and how many of the rows the state has.
    pub(super) bytes: usize,
    pub(super) known: usize,
    /// Which columns no row had.
    pub(super) unseen: Vec<bool>,
}

/// A row that is not what the state says.
pub(super) enum Other {
    /// The state does not have it, and all its values fit.
    New(New),
    Differs(Box<Differing>),
    /// A value does not fit, or the key is unusable.
    Invalid(Box<(Option<Keyed>, Invalid)>),
}

/// A row whose entry is written, but for its number.
pub(super) struct New {
    pub(super) hash: KeyHash,
    pub(super) print: RowFingerprint,
    /// Where its entry is among those of the piece.
    pub(super) entry: Range<usize>,
    /// How many fields are to be sent, and of those to be cleared.
    pub(super) fields: u16,
    pub(super) cleared: u16,
}

/// A row by its key.
pub(super) struct Keyed {
    pub(super) key: Key,
    pub(super) hash: KeyHash,
    /// Where the state has it, and its hot value there.
    pub(super) known: Option<(Place, RowFingerprint)>,
}

pub(super) struct Differing {
    pub(super) keyed: Keyed,
    pub(super) print: RowFingerprint,
    pub(super) mapped: Mapped,
}

impl Other {
    /// About the memory that it takes, its entry aside.
    fn bytes(&self) -> usize {
        let values = match self {
            Self::Differs(differing) => differing.mapped.bytes(),
            Self::New(_) | Self::Invalid(_) => 0,
        };
        size_of::<Self>() + values
    }

    /// A row that the state may have, by its key.
    pub(super) fn keyed(&self) -> Option<&Keyed> {
        match self {
            Self::New(_) => None,
            Self::Differs(differing) => Some(&differing.keyed),
            Self::Invalid(invalid) => invalid.0.as_ref(),
        }
    }

    /// The row as a store is asked for it, if the state has it.
    pub(super) fn known(&self) -> Option<(KeyHash, RowFingerprint)> {
        let keyed = self.keyed()?;
        Some((keyed.hash, keyed.known?.1))
    }

    /// The hash of its key, if that is usable.
    pub(super) fn hash(&self) -> Option<KeyHash> {
        match self {
            Self::New(new) => Some(new.hash),
            other => other.keyed().map(|keyed| keyed.hash),
        }
    }
}

/// Room that rows use one after the other.
struct Scratch {
    pairs: Pairs,
    mapped: Mapped,
    key: String,
}

impl Digester {
    pub(super) fn digest(&self, rows: &dyn Rows, range: Range<usize>) -> Result<Digested> {
        let mut digested = Digested {
            unchanged: Vec::with_capacity(range.len()),
            others: Vec::new(),
            entries: Vec::new(),
            bytes: 0,
            known: 0,
            unseen: vec![true; self.mapper.columns().len()],
        };
        let columns = self.mapper.columns();
        let mut hasher = Hasher::new(&self.mapper, rows);
        let mut scratch = Scratch { pairs: Pairs::new(), mapped: self.mapper.room(), key: String::new() };
        let mut others = Vec::new();
        for start in range.clone().step_by(BLOCK) {
            let block = start..range.end.min(start + BLOCK);
            let prints = hasher.hash(block.clone(), &mut digested.unseen)?;
            if prints.len() != block.len() {
                return Err(miscounted(prints.len(), block.len()));
            }
            let found = digested.unchanged.len();
            if self.all_differ {
                digested.unchanged.resize(found + prints.len(), Place::NONE);
            } else {
                self.index.unchanged(&prints, &mut digested.unchanged);
            }
            others.clear();
            let rows_and_places = block.clone().zip(&digested.unchanged[found..]);
            others.extend(rows_and_places.filter(|(_, place)| **place == Place::NONE).map(|(row, _)| row));
            self.index
                .touch(others.iter().filter_map(|row| prints.get(row - block.start)).map(|row| row.key));
            let (mut next, before) = (others.iter(), digested.others.len());
            rows.visit_some(columns, &others, &mut |values| {
                let print = next.next().and_then(|row| prints.get(row - block.start));
                let print = print.filter(|print| !print.is_none());
                let other = self.other(values, print, &mut digested.entries, &mut scratch)?;
                digested.bytes += other.bytes();
                digested.known += usize::from(other.known().is_some());
                digested.others.push(other);
                Ok(())
            })?;
            let given = digested.others.len() - before;
            if given != others.len() {
                return Err(miscounted(given, others.len()));
            }
        }
        digested.bytes += digested.entries.len();
        Ok(digested)
    }

    /// A row that is not what the state says; it has no hashes if it is invalid.
    fn other(
        &self,
        values: &[Option<ValueRef<'_>>],
        hashed: Option<&Hashed>,
        entries: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Other> {
        let invalid = |keyed, reason| Ok(Other::Invalid(Box::new((keyed, reason))));
        let key = match self.mapper.key(values) {
            Ok(key) => key,
            Err(reason) => return invalid(None, reason),
        };
        let hash = hashed.map_or_else(|| self.mapper.prints().key(&key), |hashed| hashed.key);
        let known = self.index.find(hash).map(|place| (place, self.index.print(place)));
        let print = match hashed {
            Some(hashed) => Ok(hashed.print),
            None => self.mapper.row(values, &mut scratch.pairs),
        };
        let keyed = |key| Keyed { key: Key::new(key), hash, known };
        let mapped = match print {
            Err(reason) => Err(reason),
            Ok(print) if known.is_some() => {
                let compared = self.mapper.compared(values, &mut scratch.pairs);
                compared.map(|mapped| (print, Some(mapped)))
            }
            Ok(print) => self.mapper.map(values, &mut scratch.mapped).map(|()| (print, None)),
        };
        match mapped {
            Err(reason) => invalid(Some(keyed(key)), reason),
            Ok((print, None)) if scratch.mapped.on_create.is_ok() => {
                scratch.new_row(&key, hash, print, entries).map(Other::New)
            }
            Ok((print, mapped)) => {
                let mapped = mapped.unwrap_or_else(|| mem::replace(&mut scratch.mapped, self.mapper.room()));
                Ok(Other::Differs(Box::new(Differing { keyed: keyed(key), print, mapped })))
            }
        }
    }

    /// The hashes of the usable keys.
    pub(super) fn hashes(&self, rows: &dyn Rows, range: Range<usize>) -> Result<Vec<KeyHash>> {
        let mut hashes = Vec::with_capacity(range.len());
        let key = self.mapper.columns().get(..1).unwrap_or_default();
        rows.visit(key, range, &mut |values| {
            hashes.extend(self.mapper.hash_key(values).map(|hashed| hashed.key));
            Ok(())
        })?;
        Ok(hashes)
    }
}

impl Scratch {
    /// Writes the entry of a row whose values were mapped.
    fn new_row(
        &mut self,
        key: &str,
        hash: KeyHash,
        print: RowFingerprint,
        entries: &mut Vec<u8>,
    ) -> Result<New> {
        self.key.clear();
        self.key.push_str(key);
        let key = Key::new(mem::take(&mut self.key));
        let mut entry = Entry::new(Step::Send, ChangeKind::Added, hash, key, 0);
        entry.print = print.to_u64();
        entry.values = mem::take(&mut self.mapped.values);
        if let Ok(on_create) = &mut self.mapped.on_create {
            entry.on_create = mem::take(on_create);
        }
        let fields = Met::count(entry.values.len() as u64);
        let cleared = Met::count(entry.values.cleared());
        let start = entries.len();
        spool::write(&entry, entries)?;
        self.key = entry.key.into_string();
        (self.mapped.values, self.mapped.on_create) = (entry.values, Ok(entry.on_create));
        Ok(New { hash, print, entry: start..entries.len(), fields, cleared })
    }
}

fn miscounted(given: usize, asked: usize) -> Error {
    Error::new(
        ErrorKind::Source,
        format!(
            "a chunk of the source gave {given} rows of {asked} that it was asked for: mend its `Rows::visit`"
        ),
    )
}
