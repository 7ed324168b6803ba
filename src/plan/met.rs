//! The rows of a source that were met, as far as more is to be remembered than that they were unchanged.

use hashbrown::HashTable;

use crate::{
    Error, Result,
    change::ChangeKind,
    fingerprint::{KeyHash, RowFingerprint},
};

/// A row of the source that was met.
#[derive(Clone, Copy)]
pub(super) struct Met {
    /// Its number; 0 if it is not remembered.
    pub(super) row: u64,
    /// `None` for a row whose values do not matter: an invalid one, or one of several that are withheld.
    pub(super) print: Option<RowFingerprint>,
    pub(super) counted: Counted,
    /// How many of its fields were counted as to be sent, and of those as to be cleared.
    pub(super) fields: u16,
    pub(super) cleared: u16,
}

/// What a row was counted as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Unchanged,
    Held,
    Added,
    Changed,
    Invalid,
    /// Withheld because its key came twice.
    Duplicate,
}

impl Met {
    pub(super) fn new(row: u64, print: Option<RowFingerprint>, counted: Counted) -> Self {
        Self { row, print, counted, fields: 0, cleared: 0 }
    }

    /// How many fields of a row, which has no more of them than there are slots.
    pub(super) fn count(fields: u64) -> u16 {
        u16::try_from(fields).unwrap_or(u16::MAX)
    }

    pub(super) fn is_valid(&self) -> bool {
        self.counted != Counted::Invalid
    }
}

impl From<ChangeKind> for Counted {
    fn from(kind: ChangeKind) -> Self {
        if kind == ChangeKind::Added { Self::Added } else { Self::Changed }
    }
}

/// Parts that each grow on their own: to make room moves few rows, and those within the processor's caches.
const PARTS: usize = 256;

/// Rows by the hash of their key, in about 45 bytes each: where everything is new, all of a source is in here.
#[derive(Default)]
pub(super) struct MetRows {
    /// By the first byte of the hash; none while there are no rows.
    parts: Vec<Part>,
}

/// Rows of a part in one piece of memory. Where there are more, none of them is moved to make room.
const STRETCH: usize = 512;

#[derive(Default)]
struct Part {
    /// All but the last one are full.
    stretches: Vec<Vec<Packed>>,
    /// Places of rows. Key hashes are as good as random, so half of one is its own hash.
    places: HashTable<u32>,
}

/// A row without the gap that an `Option` would leave.
struct Packed {
    hash: KeyHash,
    row: u64,
    print: u64,
    fields: u16,
    cleared: u16,
    counted: Counted,
}

impl Packed {
    fn new(hash: KeyHash, met: Met) -> Self {
        let Met { row, print, counted, fields, cleared } = met;
        let print = print.unwrap_or(RowFingerprint::LOAD).to_u64();
        Self { hash, row, print, fields, cleared, counted }
    }

    fn met(&self) -> Met {
        let print = Some(RowFingerprint::from_u64(self.print)).filter(|print| print.is_settled());
        Met { row: self.row, print, counted: self.counted, fields: self.fields, cleared: self.cleared }
    }
}

impl MetRows {
    pub(super) fn get(&self, hash: KeyHash) -> Option<Met> {
        let Part { stretches, places } = self.parts.get(part(hash))?;
        let place = places.find(hash.lower(), |place| row(stretches, *place).hash == hash)?;
        Some(row(stretches, *place).met())
    }

    /// Asks for the memory in which rows would be found, so that to look for them does not wait for one after the other.
    pub(super) fn touch(&self, hashes: impl Iterator<Item = KeyHash>) {
        let is_met = |hash: KeyHash| {
            let Part { places, .. } = self.parts.get(part(hash))?;
            places.find(hash.lower(), |_| true).copied()
        };
        std::hint::black_box(hashes.filter_map(is_met).fold(0, |touched, place| touched ^ place));
    }

    /// Remembers a row, in place of another one with its key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there are too many.
    pub(super) fn insert(&mut self, hash: KeyHash, met: Met) -> Result<()> {
        self.parts.resize_with(PARTS, Part::default);
        let Part { stretches, places } = &mut self.parts[part(hash)];
        if let Some(place) = places.find(hash.lower(), |place| row(stretches, *place).hash == hash) {
            stretches[*place as usize / STRETCH][*place as usize % STRETCH] = Packed::new(hash, met);
            return Ok(());
        }
        let place = u32::try_from(places.len()).map_err(|_| {
            Error::config("about a trillion rows differ, which is more than a plan can hold: split the sync")
        })?;
        if stretches.last().is_none_or(|last| last.len() == STRETCH) {
            // Most plans have few rows in a part.
            stretches.push(Vec::with_capacity(if stretches.is_empty() { 1 } else { STRETCH }));
        }
        if let Some(last) = stretches.last_mut() {
            last.push(Packed::new(hash, met));
        }
        places.insert_unique(hash.lower(), place, |place| row(stretches, *place).hash.lower());
        Ok(())
    }

    /// The rows, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (KeyHash, Met)> + '_ {
        self.parts
            .iter()
            .flat_map(|part| part.stretches.iter().flatten())
            .map(|packed| (packed.hash, packed.met()))
    }
}

fn row(stretches: &[Vec<Packed>], place: u32) -> &Packed {
    &stretches[place as usize / STRETCH][place as usize % STRETCH]
}

fn part(hash: KeyHash) -> usize {
    usize::from(hash.to_bytes()[0])
}
