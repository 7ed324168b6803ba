//! Digest: what a stretch of rows is to the state, found without it being changed, on any thread.
//!
//! A row that is what the state says leaves nothing but its place in the index. One that differs leaves its mapped values.

use std::{ops::Range, sync::Arc};

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{Hashed, KeyHash, Pairs, RowFingerprint},
    mapping::{Hasher, Invalid, Mapped, Mapper},
    plan::index::{Index, Place},
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
    /// Which columns no row had.
    pub(super) unseen: Vec<bool>,
}

/// A row that is not what the state says.
pub(super) enum Other {
    Differs(Box<Differing>),
    /// A value does not fit, or the key is unusable.
    Invalid(Option<Keyed>, Invalid),
}

/// A row by its key.
pub(super) struct Keyed {
    pub(super) key: Key,
    pub(super) hash: KeyHash,
    /// Where the state has it.
    pub(super) place: Option<Place>,
}

pub(super) struct Differing {
    pub(super) keyed: Keyed,
    pub(super) print: RowFingerprint,
    pub(super) mapped: Mapped,
}

impl Other {
    pub(super) fn keyed(&self) -> Option<&Keyed> {
        match self {
            Self::Differs(differing) => Some(&differing.keyed),
            Self::Invalid(keyed, _) => keyed.as_ref(),
        }
    }
}

impl Digester {
    pub(super) fn digest(&self, rows: &dyn Rows, range: Range<usize>) -> Result<Digested> {
        let mut digested = Digested {
            unchanged: Vec::with_capacity(range.len()),
            others: Vec::new(),
            unseen: vec![true; self.mapper.columns().len()],
        };
        let columns = self.mapper.columns();
        let mut hasher = Hasher::new(&self.mapper, rows);
        let (mut pairs, mut others) = (Pairs::new(), Vec::new());
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
            let (mut next, before) = (others.iter(), digested.others.len());
            rows.visit_some(columns, &others, &mut |values| {
                let print = next.next().and_then(|row| prints.get(row - block.start));
                let other = self.other(values, print.filter(|print| !print.is_none()), &mut pairs);
                digested.others.push(other);
                Ok(())
            })?;
            let given = digested.others.len() - before;
            if given != others.len() {
                return Err(miscounted(given, others.len()));
            }
        }
        Ok(digested)
    }

    /// A row that is not what the state says; it has no hashes if it is invalid.
    fn other(&self, values: &[Option<ValueRef<'_>>], hashed: Option<&Hashed>, pairs: &mut Pairs) -> Other {
        let key = match self.mapper.key(values) {
            Ok(key) => Key::new(key),
            Err(reason) => return Other::Invalid(None, reason),
        };
        let hash = hashed.map_or_else(|| self.mapper.prints().key(key.as_str()), |hashed| hashed.key);
        let keyed = Keyed { key, hash, place: self.index.find(hash) };
        let print = hashed.map_or_else(|| self.mapper.row(values, pairs), |hashed| Ok(hashed.print));
        let mapped = |pairs| match keyed.place {
            Some(_) => self.mapper.compared(values, pairs),
            None => self.mapper.mapped(values),
        };
        match print.and_then(|print| Ok((print, mapped(pairs)?))) {
            Ok((print, mapped)) => Other::Differs(Box::new(Differing { keyed, print, mapped })),
            Err(reason) => Other::Invalid(Some(keyed), reason),
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

fn miscounted(given: usize, asked: usize) -> Error {
    Error::new(
        ErrorKind::Source,
        format!(
            "a chunk of the source gave {given} rows of {asked} that it was asked for: mend its `Rows::visit`"
        ),
    )
}
