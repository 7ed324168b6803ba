//! Fingerprints: what the state keeps instead of keys and values.
//!
//! # Specification
//!
//! It is part of the state's format, the same on every platform and in every version of the crate.
//!
//! * A state has a **secret** of 32 bytes. From it HKDF-SHA-256 (no salt) derives a 16-byte key for each use, with
//!   these labels as `info`: `reverse-etl/1/key`, `reverse-etl/1/row`, `reverse-etl/1/field`, `reverse-etl/1/sent`;
//!   and 16 bytes with `reverse-etl/1/check`, which the state keeps to recognise its secret.
//! * A **value** is written as one tag byte, its length as 4 bytes, and its bytes. All numbers are little-endian.
//!   Tags: 0 null (no bytes), 1 truth value (one byte), 2 whole number (16 bytes, two's complement), 3 floating-point
//!   number (8 bytes, IEEE 754), 4 text (UTF-8), 5 date (its text `YYYY-MM-DD`), 6 list (its items, written one after
//!   the other).
//! * The **key hash** is SipHash-1-3 with 128 bits of output over the UTF-8 bytes of the key in canonical form.
//! * A **field fingerprint** is SipHash-1-3 with 64 bits of output over the field's slot (2 bytes) and its value.
//! * A **row fingerprint** is the same, under its own key, over slot and value of every mapped field that is present,
//!   in ascending order of slots. The results 0 and 1 are reserved, so a result below 2 has its top bit set.
//! * **What a rejected change sent** is known again by SipHash-1-3 with 64 bits of output, under the key `sent`, over slot
//!   (2 bytes) and fingerprint (8 bytes) of each of its fields, in ascending order of slots, and for each of its values for
//!   creation the field's name, written as a text, and the value.
//!
//! Type tags and lengths keep `1`, `1.0` and `"1"` apart, and `("ab", "c")` from `("a", "bc")`; an absent value is not
//! written, a null is, and an empty text is not a null.

mod hashed;
mod sheet;
mod sip;

use std::fmt;

use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;
use siphasher::{sip::SipHasher13, sip128::SipHasher13 as SipHasher13x128};

pub(crate) use hashed::Hashed;
pub(crate) use sheet::{PairColumn, Sheet};
pub(crate) use sip::{AT_ONCE, Beginning};

use self::sip::Sip;
use crate::{Error, ErrorKind, Result, host::Host, record::ValueRef};

/// The secret that keys the fingerprints of a state.
///
/// Supplied by the caller it is never stored, so a stolen state cannot be tested against a list of e-mails.
/// Generated, it stands in the state itself.
pub struct Secret(SecretBox<[u8; 32]>);

impl Secret {
    /// A secret of the caller's, of 32 bytes that nobody can guess.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// A new secret from the machine's random numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the machine has no randomness to give.
    pub fn generate(host: &dyn Host) -> Result<Self> {
        let mut bytes = [0; 32];
        host.random(&mut bytes)?;
        Ok(Self::new(bytes))
    }

    fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    /// The bytes, for the header of a state whose secret was generated.
    pub(crate) fn to_bytes(&self) -> [u8; 32] {
        *self.expose()
    }

    pub(crate) fn derive<const N: usize>(&self, label: &str) -> Result<[u8; N]> {
        let mut derived = [0; N];
        Hkdf::<Sha256>::new(None, self.expose())
            .expand(format!("reverse-etl/1/{label}").as_bytes(), &mut derived)
            .map_err(|_| Error::new(ErrorKind::Config, "a key of this length cannot be derived"))?;
        Ok(derived)
    }

    /// What the state keeps to tell whether it is given the secret it was made with.
    ///
    /// # Errors
    /// None in practice: the length derived is a constant that the derivation allows.
    pub fn check_value(&self) -> Result<[u8; 16]> {
        self.derive("check")
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self::new(*self.expose())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The keyed hash of a row's key: how the state names a row.
// Halves lie beside a fingerprint without the gap that a `u128` would leave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash {
    upper: u64,
    lower: u64,
}

impl KeyHash {
    /// The hash from the 16 bytes that [`to_bytes`](Self::to_bytes) gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from_u128(u128::from_be_bytes(bytes))
    }

    /// The hash as 16 bytes, whose order as bytes is the order of hashes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.to_u128().to_be_bytes()
    }

    /// The hash as a number.
    pub fn to_u128(self) -> u128 {
        u128::from(self.upper) << 64 | u128::from(self.lower)
    }

    /// The half that comes first in the order of hashes.
    #[inline]
    pub(crate) fn upper(self) -> u64 {
        self.upper
    }

    /// The other half.
    #[inline]
    pub(crate) fn lower(self) -> u64 {
        self.lower
    }

    /// The hash from the number that [`to_u128`](Self::to_u128) gave.
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken on its own")]
    pub const fn from_u128(number: u128) -> Self {
        Self { upper: (number >> 64) as u64, lower: number as u64 }
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.to_u128())
    }
}

/// The hot value of a row: the fingerprint of a settled row, or one of two reserved values.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowFingerprint(u64);

impl RowFingerprint {
    /// The row is not settled: its record says more.
    pub const LOAD: Self = Self(0);
    /// The destination did not know the row, and nothing else is to be said about it.
    pub const MISSING: Self = Self(1);

    /// The fingerprint from the number that [`to_u64`](Self::to_u64) gave.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The fingerprint as a number.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The fingerprint of a row whose pairs have this hash.
    #[inline]
    fn of_hash(hash: u64) -> Self {
        Self(if hash < 2 { hash | 1 << 63 } else { hash })
    }

    /// Whether it is the fingerprint of a settled row, and neither reserved value.
    pub fn is_settled(self) -> bool {
        self.0 > 1
    }
}

impl fmt::Debug for RowFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A small number that stands for a field in the state, and is never used for another one.
pub type Slot = u16;

/// Slot and fingerprint of each of several fields, in ascending order of slots.
pub type FieldFingerprints = Vec<(Slot, u64)>;

/// Computes the fingerprints of one state.
///
/// ```
/// use reverse_etl::{Secret, ValueRef, fingerprint::{Fingerprinter, Pairs}};
///
/// let prints = Fingerprinter::new(&Secret::new([7; 32]))?;
/// let mut pairs = Pairs::new();
/// pairs.push(0, &ValueRef::Text("Ada".into()));
/// assert_eq!(prints.row(&pairs), prints.row(&pairs));
/// # Ok::<(), reverse_etl::Error>(())
/// ```
#[derive(Clone)]
pub struct Fingerprinter {
    key: SipHasher13x128,
    keys: Sip<2>,
    row: SipHasher13,
    rows: Sip<1>,
    field: SipHasher13,
    sent: SipHasher13,
}

impl Fingerprinter {
    /// The fingerprints that a secret gives.
    ///
    /// # Errors
    /// None in practice: the lengths derived are constants that the derivation allows.
    pub fn new(secret: &Secret) -> Result<Self> {
        let (key, row) = (secret.derive("key")?, secret.derive("row")?);
        Ok(Self {
            key: SipHasher13x128::new_with_key(&key),
            keys: Sip::new(&key),
            row: SipHasher13::new_with_key(&row),
            rows: Sip::new(&row),
            field: SipHasher13::new_with_key(&secret.derive("field")?),
            sent: SipHasher13::new_with_key(&secret.derive("sent")?),
        })
    }

    /// The hash of a key, which has to be in canonical form.
    pub fn key(&self, canonical: &str) -> KeyHash {
        self.key_of(canonical.as_bytes())
    }

    /// The hash of a key of which these are the bytes.
    #[inline]
    pub(crate) fn key_of(&self, canonical: &[u8]) -> KeyHash {
        KeyHash::from_u128(self.key.hash(canonical).as_u128())
    }

    /// Calls `each` with the hash of each of these keys, which takes less time than one after the other.
    #[inline]
    pub(crate) fn keys_of(&self, canonical: &[Beginning<'_>], mut each: impl FnMut(KeyHash)) {
        self.keys.each(canonical, |[lower, upper]| each(KeyHash { upper, lower }));
    }

    /// The fingerprint of a row's pairs, pushed in ascending order of slots.
    pub fn row(&self, pairs: &Pairs) -> RowFingerprint {
        RowFingerprint::of_hash(self.row.hash(pairs.as_bytes()))
    }

    /// Calls `each` with the fingerprint of each of these rows, which takes less time than one after the other.
    #[inline]
    pub(crate) fn rows_of(&self, pairs: &[Beginning<'_>], mut each: impl FnMut(RowFingerprint)) {
        self.rows.each(pairs, |[hash]| each(RowFingerprint::of_hash(hash)));
    }

    /// The fingerprint of one pair.
    pub fn field(&self, pair: &Pairs) -> u64 {
        self.field.hash(pair.as_bytes())
    }

    /// The fingerprint of what a change sends: its fields, and its values for creation.
    pub(crate) fn sent<'a>(
        &self,
        fields: &[(Slot, u64)],
        on_create: impl Iterator<Item = (&'a str, ValueRef<'a>)>,
    ) -> u64 {
        let mut bytes = Vec::with_capacity(fields.len() * 10);
        for (slot, fingerprint) in fields {
            bytes.extend_from_slice(&slot.to_le_bytes());
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
        }
        for (name, value) in on_create {
            write_value(&mut bytes, &ValueRef::Text(name.into()));
            write_value(&mut bytes, &value);
        }
        self.sent.hash(&bytes)
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(..)")
    }
}

/// Slots and values in the form that fingerprints are computed over.
///
/// Most values are short, and of lengths that nobody can foretell: to copy each with as many instructions as it has bytes
/// costs a mispredicted jump, which is more than its share of the hash. So up to 32 bytes are copied by
/// the same few instructions, whatever their number.
#[derive(Clone, Default)]
pub struct Pairs {
    bytes: Vec<u8>,
    /// What lies behind is left from before.
    end: usize,
}

/// The longest value that is copied without asking for its length.
const SHORT: usize = 32;
/// Slot, tag and length.
const HEADER: usize = 7;
/// Tags of values.
const NULL: u8 = 0;
const TEXT: u8 = 4;
/// The most room behind several rows.
const ROOM_BEHIND_MAX: usize = 64 << 10;
/// What a short value may write to, one byte more than header and value need.
const ROOM: usize = HEADER + 1 + SHORT;

impl Pairs {
    /// No pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all pairs.
    pub fn clear(&mut self) {
        self.end = 0;
    }

    /// Appends a pair.
    #[inline]
    pub fn push(&mut self, slot: Slot, value: &ValueRef<'_>) {
        match value {
            ValueRef::Text(text) => self.push_text(slot, text),
            ValueRef::Null => self.push_null(slot),
            _ => self.push_any(slot, |bytes| write_value(bytes, value)),
        }
    }

    #[inline]
    pub(crate) fn push_text(&mut self, slot: Slot, text: &str) {
        if text.len() <= SHORT {
            self.push_short(slot, TEXT, text.as_bytes());
        } else {
            self.push_any(slot, |bytes| write_tagged(bytes, TEXT, text.as_bytes()));
        }
    }

    #[inline]
    pub(crate) fn push_null(&mut self, slot: Slot) {
        self.push_short(slot, NULL, &[]);
    }

    #[inline(never)]
    fn push_any(&mut self, slot: Slot, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(&slot.to_le_bytes());
        write(&mut self.bytes);
        self.end = self.bytes.len();
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) {
        self.bytes.resize(2 * (self.end + ROOM), 0);
    }

    #[inline]
    fn push_short(&mut self, slot: Slot, tag: u8, content: &[u8]) {
        if self.bytes.len() < self.end + ROOM {
            self.make_room();
        }
        let Some(to) = self.bytes[self.end..].first_chunk_mut::<ROOM>() else { return };
        // One store for all three; its last byte is overwritten by the content.
        let header = u64::from(slot) | u64::from(tag) << 16 | (content.len() as u64) << 24;
        to[..=HEADER].copy_from_slice(&header.to_le_bytes());
        if let Some(to) = to[HEADER..].first_chunk_mut() {
            copy_short(to, content);
        }
        self.end += HEADER + content.len();
    }

    /// Appends bytes as they are, such as those of a key.
    #[inline]
    pub(crate) fn push_bytes(&mut self, content: &[u8]) {
        if content.len() > SHORT {
            self.bytes.truncate(self.end);
            self.bytes.extend_from_slice(content);
            self.end = self.bytes.len();
            return;
        }
        if self.bytes.len() < self.end + ROOM {
            self.make_room();
        }
        if let Some(to) = self.bytes[self.end..].first_chunk_mut() {
            copy_short(to, content);
        }
        self.end += content.len();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// The bytes of as many rows as there are, up to [`AT_ONCE`]: each ends at one of these places, where the next one begins.
    /// Behind the last one stand as many bytes as the longest row has, at least, unless that is too long to be worth it.
    pub(crate) fn strings(&mut self, ends: &[usize]) -> [Beginning<'_>; AT_ONCE] {
        let longest = ends.windows(2).map(|row| row[1] - row[0]).max().unwrap_or(0);
        if longest <= ROOM_BEHIND_MAX {
            let (room, length) = (self.end + longest + HEADER, self.bytes.len());
            self.bytes.resize(room.max(length), 0);
        }
        let mut rows = [Beginning::default(); AT_ONCE];
        for (row, ends) in rows.iter_mut().zip(ends.windows(2)) {
            *row = Beginning::new(self.bytes.get(ends[0]..).unwrap_or_default(), ends[1] - ends[0]);
        }
        rows
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pairs(..)")
    }
}

/// Copies up to [`SHORT`] bytes by pieces that overlap, the last of which ends where the bytes end.
#[inline]
fn copy_short(to: &mut [u8; SHORT], from: &[u8]) {
    let length = from.len();
    let mut copy = |at: usize, width: usize| to[at..at + width].copy_from_slice(&from[at..at + width]);
    if length >= 8 {
        let last = length - 8;
        copy(0, 8);
        copy(last.min(8), 8);
        copy(last.min(16), 8);
        copy(last, 8);
    } else if length >= 4 {
        copy(0, 4);
        copy(length - 4, 4);
    } else {
        (0..length).for_each(|at| copy(at, 1));
    }
}

fn write_value(bytes: &mut Vec<u8>, value: &ValueRef<'_>) {
    match value {
        ValueRef::Null => write_tagged(bytes, NULL, &[]),
        ValueRef::Bool(value) => write_tagged(bytes, 1, &[u8::from(*value)]),
        ValueRef::Int(value) => write_tagged(bytes, 2, &value.to_le_bytes()),
        ValueRef::Float(value) => write_tagged(bytes, 3, &value.to_le_bytes()),
        ValueRef::Text(text) => write_tagged(bytes, TEXT, text.as_bytes()),
        ValueRef::Date(day) => write_tagged(bytes, 5, day.to_string().as_bytes()),
        ValueRef::List(values) => {
            let mut items = Vec::new();
            for item in values.iter() {
                write_value(&mut items, &item.as_ref());
            }
            write_tagged(bytes, 6, &items);
        }
    }
}

fn write_tagged(bytes: &mut Vec<u8>, tag: u8, content: &[u8]) {
    bytes.push(tag);
    // A value of 4 GiB does not get this far: no destination takes one, and a wrapped length still hashes its bytes.
    bytes.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;

    fn fingerprinter() -> Fingerprinter {
        Fingerprinter::new(&Secret::new([7; 32])).unwrap()
    }

    fn row(values: &[(Slot, Value)]) -> RowFingerprint {
        let mut pairs = Pairs::new();
        for (slot, value) in values {
            pairs.push(*slot, &value.as_ref());
        }
        fingerprinter().row(&pairs)
    }

    #[test]
    fn values_that_differ_only_in_type_have_different_fingerprints() {
        let values =
            [Value::Int(1), Value::Float(1.0), Value::from("1"), Value::Bool(true), Value::from(vec!["1"])];
        for (i, a) in values.iter().enumerate() {
            for b in &values[i + 1..] {
                assert!(row(&[(0, a.clone())]) != row(&[(0, b.clone())]), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn absent_null_and_empty_have_different_fingerprints() {
        let absent = row(&[]);
        let null = row(&[(0, Value::Null)]);
        let empty = row(&[(0, Value::from(""))]);
        assert!(absent != null && null != empty && absent != empty);
    }

    #[test]
    fn a_boundary_between_values_matters() {
        let one = row(&[(0, Value::from("ab")), (1, Value::from("c"))]);
        let other = row(&[(0, Value::from("a")), (1, Value::from("bc"))]);
        assert!(one != other);
    }

    #[test]
    fn a_value_of_any_length_is_written_as_the_specification_says() {
        let text: String = ('a'..='z').cycle().take(100).collect();
        for length in 0..=text.len() {
            let mut pairs = Pairs::new();
            pairs.push(7, &ValueRef::Text(text[..length].into()));
            pairs.push(8, &ValueRef::Bool(true));
            pairs.push(9, &ValueRef::Text(text[..length].into()));
            let mut expected = vec![7, 0, 4, u8::try_from(length).unwrap(), 0, 0, 0];
            expected.extend_from_slice(&text.as_bytes()[..length]);
            expected.extend_from_slice(&[8, 0, 1, 1, 0, 0, 0, 1]);
            expected.extend_from_slice(&[9, 0, 4, u8::try_from(length).unwrap(), 0, 0, 0]);
            expected.extend_from_slice(&text.as_bytes()[..length]);
            assert_eq!(pairs.as_bytes(), expected, "{length}");
        }
    }

    /// The state's format: these figures never change.
    #[test]
    fn fingerprints_are_the_same_in_every_version() {
        let prints = fingerprinter();
        let mut pair = Pairs::new();
        pair.push(3, &ValueRef::Text("Ada".into()));
        let figures = format!(
            "{:?} {:?} {:016x} {}",
            prints.key("ada@shop.test"),
            prints.row(&pair),
            prints.field(&pair),
            hex::encode(Secret::new([7; 32]).check_value().unwrap()),
        );
        assert_eq!(
            figures,
            "24d77f729575393895292a50a5dd2523 bb6634b77a983d6e dc739255eacf0898 659c56d70e967c8e7d4d0a3139b115a7"
        );
    }
}
