//! The record of a row, and what each event of a run does to it.
//!
//! The rule that everything else follows from: **forget, send, remember.** Before a batch is sent, the fingerprints of
//! the fields in it are forgotten for good; after the acknowledgement the new ones are remembered. So a lost answer
//! costs one more request, never a difference that nobody notices.
//!
//! Everything here is pure: no clock, no I/O, no random number. A method is one event, and takes the times it needs.
//!
//! | Event | Effect |
//! |---|---|
//! | announced | the row fingerprint and those of the fields sent are gone (for a removal: all); the row is marked |
//! | applied | the fingerprints sent are set; mark and hold are cleared; the row is known, and ours |
//! | rejected | the fields stay forgotten; the row is held until its back-off ends; a doubt of before stays |
//! | not_found | all fingerprints are forgotten; the row is held as missing; an earlier rejection is kept |
//! | unknown | nothing: the mark stays |
//! | not_attempted | the mark is what it was before the batch; the fields stay forgotten |
//! | removed | the record is deleted |
//! | adopted | the fingerprints are those of what was read; the row is known, not ours |

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorKind, Result,
    destination::Operation,
    fingerprint::{FieldFingerprints, RowFingerprint, Slot},
    host::later,
};

/// What the state knows of one row.
///
/// The row fingerprint is present if and only if there is no mark, nothing is held, and every mapped field that the
/// row has is acknowledged. (Of a row that left the source it may be absent all the same: should the row come back, its
/// record is looked at.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowRecord {
    row: Option<RowFingerprint>,
    fields: FieldFingerprints,
    known: bool,
    ours: bool,
    mark: Option<Mark>,
    held: Option<Held>,
    rejection: Option<Rejection>,
    sealed_key: Option<Vec<u8>>,
}

/// Something was sent for the row, and its end is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    doubt: Doubt,
    until: SystemTime,
}

/// What is unknown about a marked row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// Which of the fields sent took effect.
    Sent,
    /// Whether the row exists at the destination at all.
    Exists {
        /// Where the insert that raised the doubt would have put it.
        place: Option<String>,
    },
}

/// Why a row is held back although it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Held {
    /// The destination does not know it.
    Missing,
    /// The destination refused it.
    Rejected,
}

/// What the destination refused, and when it is worth another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    code: String,
    sent: u64,
    removal: bool,
    attempts: u32,
    next_try: SystemTime,
    /// The row was asked for by its key alone, and even that was refused.
    by_key: bool,
}

/// How long a rejected row is left alone when nothing about it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    first: Duration,
    max: Duration,
}

impl Default for Backoff {
    /// One hour, doubled at each rejection up to seven days.
    fn default() -> Self {
        Self { first: Duration::from_secs(3_600), max: Duration::from_secs(7 * 24 * 3_600) }
    }
}

impl Backoff {
    /// `first` after the first rejection, doubled at each further one up to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    fn pause(self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

/// What is sent for one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    /// The operation of the batch.
    pub(crate) operation: Operation,
    /// The fields sent, in ascending order of slots.
    pub(crate) fields: &'a [(Slot, u64)],
    /// All fields that the row has in the source, in ascending order of slots.
    pub(crate) wanted: &'a [(Slot, u64)],
    /// The row's fingerprint in the source.
    pub(crate) row: RowFingerprint,
    /// The fingerprint of what is sent, values for creation included.
    pub(crate) sent: u64,
}

impl Mark {
    /// Nothing is sent for the row before this moment has passed: something sent earlier may still take effect.
    pub fn until(&self) -> SystemTime {
        self.until
    }

    /// What is unknown.
    pub fn doubt(&self) -> &Doubt {
        &self.doubt
    }

    fn is_in_doubt(&self) -> bool {
        matches!(self.doubt, Doubt::Exists { .. })
    }
}

impl Rejection {
    /// The destination's code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The fingerprint of what was refused.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How often it was refused without a change.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the same thing is not worth sending yet.
    pub fn holds_back(&self, sent: u64, removal: bool, now: SystemTime) -> bool {
        self.is_of(sent, removal) && now < self.next_try
    }

    /// Whether not even the key alone is worth sending yet.
    pub fn holds_back_key(&self, now: SystemTime) -> bool {
        self.by_key && now < self.next_try
    }

    /// Whether it is this that was refused.
    pub fn is_of(&self, sent: u64, removal: bool) -> bool {
        self.removal == removal && (removal || self.sent == sent)
    }
}

impl RowRecord {
    /// The fingerprint of the settled row.
    pub fn row(&self) -> Option<RowFingerprint> {
        self.row
    }

    /// The acknowledged fingerprint of a field.
    pub fn field(&self, slot: Slot) -> Option<u64> {
        self.fields.binary_search_by_key(&slot, |(slot, _)| *slot).ok().map(|index| self.fields[index].1)
    }

    /// Whether the row exists at the destination, acknowledged or read.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether a write of ours was acknowledged.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// What was sent and has no known end.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Whether it is unknown that the row exists at the destination.
    pub fn is_in_doubt(&self) -> bool {
        self.mark.as_ref().is_some_and(Mark::is_in_doubt)
    }

    /// Why the row is held back.
    pub fn held(&self) -> Option<Held> {
        self.held
    }

    /// The last rejection that still matters.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.rejection.as_ref()
    }

    /// The match key, sealed with the state's secret.
    pub fn sealed_key(&self) -> Option<&[u8]> {
        self.sealed_key.as_deref()
    }

    /// Keeps the sealed match key, or drops it.
    pub(crate) fn set_sealed_key(&mut self, sealed_key: Option<Vec<u8>>) {
        self.sealed_key = sealed_key;
    }

    /// Keeps the fingerprints of the fields whose slots are in use; others are worth nothing.
    pub(crate) fn retain_fields(&mut self, is_in_use: impl Fn(Slot) -> bool) {
        self.fields.retain(|(slot, _)| is_in_use(*slot));
    }

    /// The row's batch is about to be sent; `until` is when the last effect of it is over, `place` where an insert
    /// goes. Gives back the mark of before, which [`not_attempted`](Self::not_attempted) and
    /// [`rejected`](Self::rejected) want.
    pub(crate) fn announced(
        &mut self,
        sending: &Sending<'_>,
        until: SystemTime,
        place: Option<&str>,
    ) -> Option<Mark> {
        self.row = None;
        if sending.operation == Operation::Remove {
            self.fields.clear();
        } else {
            self.fields
                .retain(|(slot, _)| sending.fields.binary_search_by_key(slot, |(slot, _)| *slot).is_err());
        }
        let prior = self.mark.take();
        let earlier = prior.as_ref().map(|mark| mark.doubt.clone());
        let doubt = match (sending.operation, earlier) {
            (Operation::Insert, _) => Doubt::Exists { place: place.map(str::to_owned) },
            // A doubt ends with an outcome, not with another attempt, and its place is where the row may be by now.
            (_, Some(doubt @ Doubt::Exists { .. })) => doubt,
            (Operation::Remove, _) => Doubt::Exists { place: None },
            (Operation::Upsert, _) if !self.known => Doubt::Exists { place: None },
            (Operation::Update | Operation::Upsert, _) => Doubt::Sent,
        };
        let until = prior.as_ref().map_or(until, |mark| mark.until.max(until));
        self.mark = Some(Mark { doubt, until });
        prior
    }

    /// The destination acknowledged what was sent.
    ///
    /// A row that was resolved by its key alone, while it is in back-off, stays rejected: nothing that the
    /// destination refused was sent again.
    pub(crate) fn applied(&mut self, sending: &Sending<'_>) {
        if self.fields.is_empty() {
            // All of a row's fields, as of a new one.
            self.fields = sending.fields.to_vec();
        } else {
            for &(slot, fingerprint) in sending.fields {
                match self.fields.binary_search_by_key(&slot, |(slot, _)| *slot) {
                    Ok(index) => self.fields[index].1 = fingerprint,
                    Err(index) => self.fields.insert(index, (slot, fingerprint)),
                }
            }
        }
        self.mark = None;
        self.known = true;
        self.ours = true;
        if sending.fields.is_empty() && self.rejection.is_some() {
            self.held = Some(Held::Rejected);
        } else {
            self.held = None;
            self.rejection = None;
        }
        self.settle_row(sending.wanted, sending.row);
    }

    /// The destination refused the row. `prior` is the mark of before the batch.
    pub(crate) fn rejected(
        &mut self,
        sending: &Sending<'_>,
        code: &str,
        prior: Option<Mark>,
        now: SystemTime,
        backoff: Backoff,
    ) {
        let removal = sending.operation == Operation::Remove;
        let attempts = match &self.rejection {
            Some(last) if last.is_of(sending.sent, removal) => last.attempts.saturating_add(1),
            _ => 1,
        };
        self.held = Some(Held::Rejected);
        self.rejection = Some(Rejection {
            code: code.to_owned(),
            sent: sending.sent,
            removal,
            attempts,
            next_try: later(now, backoff.pause(attempts)),
            by_key: !removal && sending.fields.is_empty(),
        });
        // The answer is there, so nothing of this batch is still to come: only the doubt of before outlives it.
        self.mark = match prior {
            Some(mark) if mark.is_in_doubt() => Some(mark),
            _ if removal => Some(Mark { doubt: Doubt::Exists { place: None }, until: now }),
            _ => None,
        };
    }

    /// The destination does not know the row (no match), or knows a row that was to be created (already exists): what
    /// was remembered of it is worth nothing.
    pub(crate) fn not_found(&mut self) {
        self.row = None;
        self.fields.clear();
        self.known = false;
        self.ours = false;
        self.mark = None;
        self.held = Some(Held::Missing);
    }

    /// Nothing of the batch was ever sent. `prior` is the mark of before the batch.
    pub(crate) fn not_attempted(&mut self, prior: Option<Mark>) {
        self.mark = prior;
    }

    /// The row was read at the destination: `read` are the fingerprints of the mapped fields that have a value there,
    /// `wanted` those of the source's row. Does nothing to a marked row.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for a state that is made of what the destination holds")
    )]
    pub(crate) fn adopted(&mut self, read: FieldFingerprints, wanted: &[(Slot, u64)], row: RowFingerprint) {
        if self.mark.is_some() {
            return;
        }
        self.fields = read;
        self.known = true;
        self.held = self.rejection.is_some().then_some(Held::Rejected);
        self.settle_row(wanted, row);
    }

    /// The row needs no request: it is settled as it stands, whatever mark or rejection was left.
    pub(crate) fn settled(&mut self, wanted: &[(Slot, u64)], row: RowFingerprint) {
        self.mark = None;
        self.held = None;
        self.rejection = None;
        self.settle_row(wanted, row);
    }

    /// The row is to be compared field by field, should it be met again.
    pub(crate) fn unsettled(&mut self) {
        self.row = None;
    }

    fn settle_row(&mut self, wanted: &[(Slot, u64)], row: RowFingerprint) {
        let complete = *self.fields == *wanted
            || wanted.iter().all(|&(slot, fingerprint)| self.field(slot) == Some(fingerprint));
        let settled = complete && self.mark.is_none() && self.held.is_none();
        self.row = Some(row).filter(|row| settled && row.is_settled());
    }

    /// What stands in the store's hot table.
    pub fn hot(&self) -> RowFingerprint {
        match self.row {
            Some(row) => row,
            None if self.held == Some(Held::Missing) && self.mark.is_none() && self.rejection.is_none() => {
                RowFingerprint::MISSING
            }
            None => RowFingerprint::LOAD,
        }
    }
}

const FORMAT: u8 = 1;

mod flag {
    pub(super) const KNOWN: u16 = 1;
    pub(super) const OURS: u16 = 1 << 1;
    pub(super) const MARK: u16 = 1 << 2;
    pub(super) const IN_DOUBT: u16 = 1 << 3;
    pub(super) const PLACE: u16 = 1 << 4;
    pub(super) const MISSING: u16 = 1 << 5;
    pub(super) const REJECTED: u16 = 1 << 6;
    pub(super) const REJECTION: u16 = 1 << 7;
    pub(super) const REMOVAL: u16 = 1 << 8;
    pub(super) const KEY: u16 = 1 << 9;
    pub(super) const BY_KEY: u16 = 1 << 10;
    /// The slots follow each other without a gap, as they do until a field is given up.
    pub(super) const DENSE: u16 = 1 << 11;
    /// All that this version writes; the others are room for an identity column and its rekeys.
    pub(super) const ALL: u16 = (1 << 12) - 1;
}

/// The record as a store keeps it: a format byte, two bytes of flags, then what the flags announce.
impl RowRecord {
    /// The bytes of the cold table; the row fingerprint stands in the hot one.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut flags = 0;
        let mut set = |flag: u16, on: bool| flags |= if on { flag } else { 0 };
        set(flag::KNOWN, self.known);
        set(flag::OURS, self.ours);
        set(flag::MARK, self.mark.is_some());
        set(flag::IN_DOUBT, self.is_in_doubt());
        let place = match self.mark.as_ref().map(Mark::doubt) {
            Some(Doubt::Exists { place }) => place.as_deref(),
            Some(Doubt::Sent) | None => None,
        };
        set(flag::PLACE, place.is_some());
        set(flag::MISSING, self.held == Some(Held::Missing));
        set(flag::REJECTED, self.held == Some(Held::Rejected));
        set(flag::REJECTION, self.rejection.is_some());
        set(flag::REMOVAL, self.rejection.as_ref().is_some_and(|rejection| rejection.removal));
        set(flag::KEY, self.sealed_key.is_some());
        set(flag::BY_KEY, self.rejection.as_ref().is_some_and(|rejection| rejection.by_key));

        let first = self.fields.first().map(|(slot, _)| *slot);
        let is_next =
            |(before, _): &(Slot, u64), (slot, _): &(Slot, u64)| before.checked_add(1) == Some(*slot);
        let dense = first.filter(|_| self.fields.is_sorted_by(is_next));
        set(flag::DENSE, dense.is_some());

        let mut bytes = Vec::with_capacity(16 + self.fields.len() * 10);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&flags.to_le_bytes());
        write_length(&mut bytes, self.fields.len());
        bytes.extend(dense.iter().flat_map(|first| first.to_le_bytes()));
        for (slot, fingerprint) in &self.fields {
            if dense.is_none() {
                bytes.extend_from_slice(&slot.to_le_bytes());
            }
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
        }
        if let Some(mark) = &self.mark {
            write_time(&mut bytes, mark.until);
        }
        if let Some(place) = place {
            write_block(&mut bytes, place.as_bytes());
        }
        if let Some(rejection) = &self.rejection {
            write_block(&mut bytes, rejection.code.as_bytes());
            bytes.extend_from_slice(&rejection.sent.to_le_bytes());
            bytes.extend_from_slice(&rejection.attempts.to_le_bytes());
            write_time(&mut bytes, rejection.next_try);
        }
        if let Some(key) = &self.sealed_key {
            write_block(&mut bytes, key);
        }
        bytes
    }

    /// The record from its hot value and the bytes that [`RowState::as_bytes`](crate::RowState::as_bytes) gave.
    ///
    /// # Errors
    /// [`ErrorKind::StateDamaged`] if they are not a record of a format that this version knows.
    pub fn from_bytes(hot: RowFingerprint, bytes: &[u8]) -> Result<Self> {
        Reader { rest: bytes }.record(hot).ok_or_else(|| {
            Error::new(
                ErrorKind::StateDamaged,
                "a row's record in the state cannot be read: the state was cut, altered, or written by a newer version; \
                 start a new state, whose first run sends every row",
            )
        })
    }
}

fn write_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn write_block(bytes: &mut Vec<u8>, block: &[u8]) {
    write_length(bytes, block.len());
    bytes.extend_from_slice(block);
}

/// Times are kept in milliseconds, rounded up, since none of them may come too early.
fn write_time(bytes: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    bytes.extend_from_slice(&millis.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn record(mut self, hot: RowFingerprint) -> Option<RowRecord> {
        let [format] = self.array()?;
        let flags = u16::from_le_bytes(self.array()?);
        if format != FORMAT || flags & !flag::ALL != 0 {
            return None;
        }
        let has = |flag: u16| flags & flag != 0;
        let count = self.length()?;
        // No field takes less, so that a count that is wrong makes no room for itself.
        let mut fields = FieldFingerprints::with_capacity(count.min(self.rest.len() / size_of::<u64>()));
        if has(flag::DENSE) {
            let first = u64::from(Slot::from_le_bytes(self.array()?));
            for slot in (first..).take(count) {
                fields.push((Slot::try_from(slot).ok()?, u64::from_le_bytes(self.array()?)));
            }
        } else {
            for _ in 0..count {
                fields.push(self.field()?);
            }
        }
        let until = if has(flag::MARK) { Some(self.time()?) } else { None };
        let place = if has(flag::PLACE) { Some(self.text()?) } else { None };
        let doubt = if has(flag::IN_DOUBT) { Doubt::Exists { place } } else { Doubt::Sent };
        let rejection = if has(flag::REJECTION) {
            let code = self.text()?;
            let sent = u64::from_le_bytes(self.array()?);
            let attempts = u32::from_le_bytes(self.array()?);
            let next_try = self.time()?;
            let (removal, by_key) = (has(flag::REMOVAL), has(flag::BY_KEY));
            Some(Rejection { code, sent, removal, attempts, next_try, by_key })
        } else {
            None
        };
        let sealed_key = if has(flag::KEY) { Some(self.block()?.to_vec()) } else { None };
        let sorted = fields.is_sorted_by(|(before, _), (after, _)| before < after);
        (self.rest.is_empty() && sorted).then_some(RowRecord {
            row: hot.is_settled().then_some(hot),
            fields,
            known: has(flag::KNOWN),
            ours: has(flag::OURS),
            mark: until.map(|until| Mark { doubt, until }),
            held: match (has(flag::MISSING), has(flag::REJECTED)) {
                (true, _) => Some(Held::Missing),
                (false, true) => Some(Held::Rejected),
                (false, false) => None,
            },
            rejection,
            sealed_key,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn block(&mut self) -> Option<&[u8]> {
        let length = self.length()?;
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.block()?.to_vec()).ok()
    }

    fn field(&mut self) -> Option<(Slot, u64)> {
        Some((Slot::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?)))
    }

    fn time(&mut self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_le_bytes(self.array()?)))
    }
}

#[cfg(test)]
mod tests;
