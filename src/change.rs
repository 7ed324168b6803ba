//! Diff: a row and what the state knows of it give a change, or nothing.

mod fields;

use std::{borrow::Cow, collections::HashSet, fmt, io, mem, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize, Serializer};

pub use self::fields::{Field, Fields};
pub(crate) use self::fields::{Named, Names};

use crate::{
    destination::Operation,
    fingerprint::{FieldFingerprints, Fingerprinter, KeyHash, Pairs, RowFingerprint, Slot},
    mapping::PackedValues,
    record::{FieldName, Key, ValueRef},
    state::{
        header::Bytes,
        record::{Doubt, Held, Mark, Rejection, RowRecord, Sending},
    },
};

/// What a row is to the state. Added is not created: the record may well exist at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChangeKind {
    /// The state does not know that the row exists at the destination.
    Added,
    /// Fields of the row differ from what the destination acknowledged.
    Changed,
    /// The row left the source.
    Removed,
}

/// A row to be sent: its key, and the fields that differ.
#[derive(Clone)]
pub struct Change {
    pub(crate) entry: Entry,
    names: Arc<Names>,
    /// How often the row was sent in this run before.
    pub(crate) phase: Phase,
    /// How often it was handed out in this phase: more than once only if it came too late to be sent.
    pub(crate) handed_out: u32,
}

/// Where a row stands in a run that sends it more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    First,
    /// An update found nobody.
    Insert,
    /// The insert that followed found somebody.
    UpdateAgain,
}

impl Change {
    /// Fields that `names` does not know are left out.
    pub(crate) fn new(mut entry: Entry, names: &Arc<Names>) -> Self {
        entry.values = names.known(mem::take(&mut entry.values));
        entry.on_create = names.known_on_create(mem::take(&mut entry.on_create));
        Self { entry, names: Arc::clone(names), phase: Phase::First, handed_out: 0 }
    }

    /// The key, for the destination only.
    pub fn key(&self) -> &Key {
        &self.entry.key
    }

    /// What the row is to the state.
    pub fn kind(&self) -> ChangeKind {
        self.entry.kind
    }

    /// The number of the row in the source, from 1; `None` for a row that is no longer there.
    pub fn row(&self) -> Option<u64> {
        (self.entry.row > 0).then_some(self.entry.row)
    }

    /// The fields to write: all of them for a row that may not exist, else those that differ.
    pub fn fields(&self) -> Fields<'_> {
        self.names.fields(&self.entry.values)
    }

    /// Values for a record that is created, and only then.
    pub fn on_create(&self) -> Fields<'_> {
        self.names.on_create(&self.entry.on_create)
    }

    /// Where an earlier insert whose answer was lost may have put the record, if it may exist because of one. Once the
    /// change is applied, the record has to be put there.
    pub fn in_doubt(&self) -> Option<&str> {
        self.entry.place.as_deref()
    }

    pub(crate) fn hash(&self) -> KeyHash {
        self.entry.hash()
    }

    /// The length of the row as JSON, as far as a destination that is not known yet lets it be known.
    pub(crate) fn json_bytes(&self) -> usize {
        let mut bytes = ByteCount(0);
        // Neither text nor a map of values can fail to be written.
        let _ = serde_json::to_writer(&mut bytes, &(self.key(), self.fields(), self.on_create()));
        bytes.0
    }

    /// The fingerprints of the fields that are sent.
    pub(crate) fn prints(&self) -> Cow<'_, [(Slot, u64)]> {
        let Entry { values, wanted, .. } = &self.entry;
        if values.len() == wanted.len() {
            // What is sent is among what the row has, so these are all of it.
            debug_assert!(wanted.iter().all(|(slot, _)| values.has(*slot)));
            return Cow::Borrowed(wanted);
        }
        Cow::Owned(wanted.iter().copied().filter(|(slot, _)| values.has(*slot)).collect())
    }

    /// What the record of the row wants to know; `prints` are [`prints`](Self::prints).
    pub(crate) fn sending<'c>(&'c self, operation: Operation, prints: &'c [(Slot, u64)]) -> Sending<'c> {
        Sending {
            operation,
            fields: prints,
            wanted: &self.entry.wanted,
            row: RowFingerprint::from_u64(self.entry.print),
            sent: self.entry.sent,
        }
    }

    /// The text without the row's key and values, and without the keys of the rows that were sent with it.
    pub(crate) fn blacked_out(&self, text: &str, batch: &Keys) -> String {
        let text = &batch.blacked_out(text);
        let mut secrets = vec![self.key().as_str().to_owned()];
        for field in self.fields().iter().chain(self.on_create().iter()) {
            collect_texts(&field.value(), &mut secrets);
        }
        black_out(text, &secrets)
    }
}

/// The keys of a batch: a destination may speak of one row in what it says of another.
pub(crate) struct Keys {
    folded: HashSet<Vec<char>>,
}

impl Keys {
    pub(crate) fn new(changes: &[Change]) -> Self {
        Self { folded: changes.iter().map(|change| folded(change.key().as_str())).collect() }
    }

    /// The text without these keys, wherever one stands between blanks, quotes or other characters that no e-mail has, or as
    /// a part of an address of the web.
    pub(crate) fn blacked_out(&self, text: &str) -> String {
        self.words_blacked_out(text, is_in_email, |word| {
            // Of these, most of which an e-mail may have and few do, an address is put together.
            let is_in_part = |char: char| is_in_email(char) && !"/?&=#%".contains(char);
            self.words_blacked_out(word, is_in_part, str::to_owned)
        })
    }

    /// The text without keys among the words that are made of such characters; others are as `other` makes them.
    fn words_blacked_out(
        &self,
        text: &str,
        is_in_word: impl Fn(char) -> bool,
        other: impl Fn(&str) -> String,
    ) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let is_word = rest.starts_with(&is_in_word);
            let end = rest.find(|char| is_in_word(char) != is_word).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let bare = word.trim_matches(|char: char| !char.is_alphanumeric());
            if is_word && bare.chars().count() >= LONG && self.folded.contains(&folded(bare)) {
                shown.push_str(&word.replacen(bare, "…", 1));
            } else if is_word {
                shown.push_str(&other(word));
            } else {
                shown.push_str(word);
            }
            rest = after;
        }
        shown
    }
}

fn is_in_email(char: char) -> bool {
    char.is_alphanumeric() || "@.!#$%&*+/=?^_{|}~-".contains(char)
}

/// A text that is blacked out wherever it stands has at least so many characters.
const LONG: usize = 4;

/// Counts what is written.
struct ByteCount(usize);

impl io::Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn collect_texts(value: &ValueRef<'_>, texts: &mut Vec<String>) {
    match value {
        ValueRef::Null => {}
        ValueRef::List(values) => values.iter().for_each(|value| collect_texts(&value.as_ref(), texts)),
        ValueRef::Text(text) => texts.push(text.trim().to_owned()),
        ValueRef::Date(day) => texts.push(day.to_string()),
        other => texts.push(serde_json::to_string(other).unwrap_or_default()),
    }
}

/// Replaces each of `secrets`, whatever its case: anywhere if it is long, as a word of its own if it is short, since a
/// single letter stands in every text.
fn black_out(text: &str, secrets: &[String]) -> String {
    let mut folded_secrets: Vec<Vec<char>> = secrets.iter().map(|secret| folded(secret)).collect();
    folded_secrets.retain(|secret| !secret.is_empty());
    folded_secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let (chars, lower): (Vec<char>, Vec<char>) =
        text.chars().map(|char| (char, char.to_lowercase().next().unwrap_or(char))).unzip();
    let is_word =
        |index: Option<usize>| index.and_then(|index| chars.get(index)).is_some_and(|c| c.is_alphanumeric());
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let found = folded_secrets.iter().find(|secret| {
            let end = at + secret.len();
            let alone = !is_word(at.checked_sub(1)) && !is_word(Some(end));
            lower[at..].starts_with(secret) && (secret.len() >= LONG || alone)
        });
        shown.push(if found.is_some() { '…' } else { chars[at] });
        at += found.map_or(1, Vec::len);
    }
    shown
}

fn folded(text: &str) -> Vec<char> {
    text.chars().map(|char| char.to_lowercase().next().unwrap_or(char)).collect()
}

/// Shows the row's number and the names of its fields, never its key or values.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("kind", &self.kind())
            .field("row", &self.row())
            .field("fields", &self.fields())
            .finish_non_exhaustive()
    }
}

/// What is to be done with a row: an entry of a plan, as it is written to a file.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    // The spool reads these two before the others.
    pub(crate) step: Step,
    hash: Bytes<16>,
    pub(crate) kind: ChangeKind,
    pub(crate) row: u64,
    pub(crate) key: Key,
    pub(crate) known: bool,
    /// It is sent to find out whether it exists, and nothing else: what it differs in was rejected.
    pub(crate) key_only: bool,
    pub(crate) place: Option<String>,
    pub(crate) values: PackedValues,
    pub(crate) on_create: PackedValues,
    /// Slot and fingerprint of every mapped field that the row has; of a row that is new to the state they follow from its
    /// values, and are [computed](Self::fingerprint) when it is delivered.
    #[serde(with = "prints")]
    pub(crate) wanted: FieldFingerprints,
    pub(crate) print: u64,
    /// Fingerprint of what is sent, for which the same holds.
    pub(crate) sent: u64,
    /// What the state has of the row. It still has that when the plan is carried out: once it has moved, it refuses the plan.
    #[serde(with = "stored")]
    pub(crate) before: Option<Box<RowRecord>>,
}

/// Bytes that a format of bytes takes as a whole.
struct Whole<'b>(&'b [u8]);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

/// Fingerprints of fields: pairs of numbers for people, and as bytes of one width each where there may be many millions.
mod prints {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Whole;
    use crate::fingerprint::{FieldFingerprints, Slot};

    const SLOT: usize = size_of::<Slot>();
    const WIDTH: usize = SLOT + size_of::<u64>();

    pub(super) fn serialize<S: Serializer>(prints: &FieldFingerprints, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return prints.serialize(to);
        }
        let mut bytes = Vec::with_capacity(prints.len() * WIDTH);
        for (slot, print) in prints {
            bytes.extend_from_slice(&slot.to_le_bytes());
            bytes.extend_from_slice(&print.to_le_bytes());
        }
        Whole(&bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FieldFingerprints, D::Error> {
        if from.is_human_readable() {
            return FieldFingerprints::deserialize(from);
        }
        let bytes = <&[u8]>::deserialize(from)?;
        let (pairs, []) = bytes.as_chunks::<WIDTH>() else {
            return Err(D::Error::custom("half a fingerprint"));
        };
        let pair =
            |[a, b, print @ ..]: &[u8; WIDTH]| (Slot::from_le_bytes([*a, *b]), u64::from_le_bytes(*print));
        Ok(pairs.iter().map(pair).collect())
    }
}

/// A record as a plan's file keeps it: its hot value and its bytes.
mod stored {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Whole;
    use crate::{fingerprint::RowFingerprint, state::record::RowRecord};

    type Record = Option<Box<RowRecord>>;

    pub(super) fn serialize<S: Serializer>(record: &Record, to: S) -> Result<S::Ok, S::Error> {
        let parts = record.as_ref().map(|record| (record.hot().to_u64(), record.to_bytes()));
        if to.is_human_readable() {
            return parts.map(|(hot, bytes)| (hot, hex::encode(bytes))).serialize(to);
        }
        parts.as_ref().map(|(hot, bytes)| (hot, Whole(bytes))).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Record, D::Error> {
        let read = |hot, bytes: &[u8]| {
            let record = RowRecord::from_bytes(RowFingerprint::from_u64(hot), bytes);
            record.map(Box::new).map_err(|_| D::Error::custom("a record that is none"))
        };
        if from.is_human_readable() {
            let parts: Option<(u64, String)> = Option::deserialize(from)?;
            let decoded = |(hot, text)| read(hot, &hex::decode::<String>(text).map_err(D::Error::custom)?);
            return parts.map(decoded).transpose();
        }
        Option::<(u64, &[u8])>::deserialize(from)?.map(|(hot, bytes)| read(hot, bytes)).transpose()
    }
}

/// The sort of a plan's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// To be sent.
    Send,
    /// In doubt and no longer in the source: to be found out about by its key alone.
    Resolve,
    /// Missing: to be sent if the destination knows it by now.
    Ask,
    /// In order; only its record is to be set right.
    Settle,
    /// In order; only its key is to be sealed.
    Seal,
    /// Gone, and cannot be removed for want of its key: only to be looked at should it come back.
    Unsettle,
    /// Gone, and never was at the destination; only its record is to be deleted.
    Drop,
}

impl Entry {
    pub(crate) fn new(step: Step, kind: ChangeKind, hash: KeyHash, key: Key, row: u64) -> Self {
        Self {
            step,
            hash: Bytes(hash.to_bytes()),
            kind,
            row,
            key,
            known: false,
            key_only: false,
            place: None,
            values: PackedValues::default(),
            on_create: PackedValues::default(),
            wanted: Vec::new(),
            print: 0,
            sent: 0,
            before: None,
        }
    }

    /// The same, of a row of which the state has this.
    pub(crate) fn of(self, record: RowRecord) -> Self {
        Self { before: Some(Box::new(record)), ..self }
    }

    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash::from_bytes(self.hash.0)
    }

    /// Computes the fingerprints that planning leaves out. `creation` are the fields for creation only.
    pub(crate) fn fingerprint(
        &mut self,
        prints: &Fingerprinter,
        creation: &[FieldName],
        scratch: &mut Pairs,
    ) {
        if self.before.is_some() {
            return;
        }
        let mut print = |slot: Slot, value: &ValueRef<'_>| {
            scratch.clear();
            scratch.push(slot, value);
            (slot, prints.field(scratch))
        };
        self.wanted = Vec::with_capacity(self.values.len());
        self.wanted.extend(self.values.iter().map(|(slot, value)| print(slot, &value)));
        let named = |(place, value)| Some((creation.get(usize::from(place))?.as_str(), value));
        self.sent = prints.sent(&self.wanted, self.on_create.iter().filter_map(named));
    }

    /// Whether it is a row of the source that is to be sent and is not known to exist.
    pub(crate) fn is_new(&self) -> bool {
        self.step == Step::Send && self.kind == ChangeKind::Added
    }
}

/// What the diff says about a row of the source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In order. `settle`: its record is not, and can be set right without a request.
    Unchanged { settle: bool },
    /// It differs, and is left alone for now.
    Held,
    /// It was missing: only the destination knows whether it still is.
    Ask,
    /// To be sent, with the fields whose slots are in the list.
    Send { kind: ChangeKind, known: bool, place: Option<String>, fields: FieldFingerprints },
    /// Like a row to be sent, but by its key alone.
    Resolve { kind: ChangeKind, known: bool, place: Option<String> },
}

/// What the diff needs to know beside the row and its record.
pub(crate) struct Rules<'r> {
    pub(crate) now: SystemTime,
    /// Missing rows are sent at once: whoever still does not exist is created.
    pub(crate) creates: bool,
    /// Rejected rows are left alone until their back-off ends.
    pub(crate) holds_back: &'r (dyn Fn(&Rejection, u64) -> bool + Sync),
    /// What would be sent: its fields, and values for creation if the row is not known to exist.
    pub(crate) sent: &'r SentPrint<'r>,
}

/// The fingerprint of what would be sent: fields, and whether the row is known to exist.
type SentPrint<'r> = dyn Fn(&[(Slot, u64)], bool) -> u64 + Sync + 'r;

/// Compares a row (the fingerprints of its fields) with its record.
pub(crate) fn diff(wanted: &[(Slot, u64)], record: &RowRecord, rules: &Rules<'_>) -> Verdict {
    let known = record.is_known();
    let kind = if known { ChangeKind::Changed } else { ChangeKind::Added };
    let doubt = record.is_in_doubt();
    let place = match record.mark().map(Mark::doubt) {
        Some(Doubt::Exists { place }) => place.clone(),
        Some(Doubt::Sent) | None => None,
    };
    let held_back = |fields: &[(Slot, u64)], known: bool| {
        record.rejection().is_some_and(|rejection| (rules.holds_back)(rejection, (rules.sent)(fields, known)))
    };
    if record.held() == Some(Held::Missing) && !doubt {
        return if held_back(wanted, false) {
            Verdict::Held
        } else if rules.creates {
            Verdict::Send { kind: ChangeKind::Added, known: false, place: None, fields: wanted.to_vec() }
        } else {
            Verdict::Ask
        };
    }
    let differs = |slot: Slot, print: u64| record.field(slot) != Some(print);
    let changed: FieldFingerprints =
        wanted.iter().copied().filter(|&(slot, print)| differs(slot, print)).collect();
    if changed.is_empty() && known && !doubt {
        let settle = record.mark().is_none_or(|mark| mark.until() < rules.now);
        return Verdict::Unchanged { settle };
    }
    if held_back(&changed, known) {
        let is_key_held = record.rejection().is_some_and(|rejection| rejection.holds_back_key(rules.now));
        let is_resolved = doubt && !is_key_held;
        return if is_resolved { Verdict::Resolve { kind, known, place } } else { Verdict::Held };
    }
    Verdict::Send { kind, known, place, fields: changed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_blacked_out_in_words_and_in_addresses_of_the_web() {
        let keys = Keys { folded: ["ada@shop.test", "a/b@shop.test", "4711"].map(folded).into() };
        for (text, expected) in [
            ("no contact <ADA@shop.test>.", "no contact <…>."),
            ("POST /people/ada@shop.test?name=x", "POST /people/…?name=x"),
            ("GET /people?email=ada@shop.test&id=4711#top", "GET /people?email=…&id=…#top"),
            ("a/b@shop.test is refused, /a/b@shop.test not", "… is refused, /… not"),
            ("ada@shop.tests, 47110 and 50% of 4,711", "ada@shop.tests, 47110 and 50% of 4,711"),
        ] {
            assert_eq!(keys.blacked_out(text), expected);
        }
    }

    #[test]
    fn prints_are_those_of_the_fields_that_are_sent() {
        let field = |slot: Slot| (slot, Named { name: format!("field {slot}").as_str().into(), id: None });
        let names = Arc::new(Names::new([1, 2, 5].into_iter().map(field), std::iter::empty()));
        // A field without a name is not sent.
        for (sent, expected) in [
            (&[][..], &[][..]),
            (&[2], &[(2, 12)]),
            (&[1, 5], &[(1, 11), (5, 15)]),
            (&[1, 2, 5], &[(1, 11), (2, 12), (5, 15)]),
            (&[1, 2, 4, 5], &[(1, 11), (2, 12), (5, 15)]),
        ] {
            let hash = KeyHash::from_u128(1);
            let mut entry = Entry::new(Step::Send, ChangeKind::Changed, hash, Key::new("k"), 1);
            let has: &[Slot] = if sent.contains(&4) { &[1, 2, 4, 5] } else { &[1, 2, 5] };
            entry.wanted = has.iter().map(|slot| (*slot, 10 + u64::from(*slot))).collect();
            for slot in sent {
                entry.values.push(*slot, ValueRef::Null);
            }
            let change = Change::new(entry, &names);
            assert_eq!(*change.prints(), *expected);
            assert_eq!(change.fields().len(), expected.len());
        }
    }

    #[test]
    fn keys_and_values_are_blacked_out_whatever_their_case() {
        let secrets = ["ada@shop.test".to_owned(), "Ada".to_owned(), "5".to_owned()];
        assert_eq!(
            black_out("No contact found: 3 - ADA@Shop.test (Ada, 5, 15, Adam)", &secrets),
            "No contact found: 3 - … (…, …, 15, Adam)"
        );
    }
}
