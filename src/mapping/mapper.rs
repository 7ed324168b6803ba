//! A mapping at work: what the values of a row come to.

use std::{borrow::Cow, io::Write, mem};

use super::{Column, Feed, Mapping, NullPolicy, packed::PackedValues};
use crate::{
    Error, Result,
    destination::Operation,
    field::FieldKind,
    fingerprint::{FieldFingerprints, Fingerprinter, Hashed, Pairs, RowFingerprint, Slot},
    record::{FieldName, Value, ValueRef},
    rows::Texts,
};

/// A row that cannot be sent, and why.
#[derive(Debug)]
pub(crate) struct Invalid {
    pub(crate) column: FieldName,
    /// The field that the column goes into; none for the key.
    pub(crate) field: Option<FieldName>,
    pub(crate) reason: String,
}

/// What a row's values come to.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) values: PackedValues,
    /// Of a row that the state may have.
    pub(crate) prints: FieldFingerprints,
    /// Values for creation only, by their place among such fields. One that does not fit matters to new records alone.
    pub(crate) on_create: std::result::Result<PackedValues, Invalid>,
}

impl Mapped {
    /// About the memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        let creation = self.on_create.as_ref().map_or(0, PackedValues::bytes);
        size_of::<Self>() + self.values.bytes() + creation + size_of_val(&*self.prints)
    }
}

/// A mapping at work on the rows of one source: columns found, slots assigned.
#[derive(Debug)]
pub(crate) struct Mapper {
    key_name: FieldName,
    key_kind: FieldKind,
    columns: Vec<FieldName>,
    /// In ascending order of slots.
    synced: Vec<(Slot, Taken)>,
    on_create: Vec<OnCreate>,
    prints: Fingerprinter,
}

#[derive(Debug)]
pub(super) struct Taken {
    field: FieldName,
    position: usize,
    kind: FieldKind,
    column: Column,
    /// Texts need no look but that of their kind.
    takes_texts: bool,
    takes_null: bool,
}

#[derive(Debug)]
enum OnCreate {
    Taken(Taken),
    Constant(Value),
}

impl Mapper {
    /// `slots` are those of [`Mapping::synced`], in its order.
    pub(crate) fn new(mapping: &Mapping, slots: &[Slot], prints: Fingerprinter) -> Result<Self> {
        mapping.check_names()?;
        let mut columns = vec![mapping.key.clone()];
        let mut synced = Vec::new();
        let mut on_create = Vec::new();
        let mut slots = slots.iter();
        for (feed, spec) in mapping.sources.iter().zip(&mapping.specs) {
            let (kind, _) = mapping.bound(spec);
            match feed {
                Feed::Constant(value) => {
                    let value = kind.convert(value.as_ref()).map_err(|reason| {
                        Error::config(format!(
                            "the value for new records in `{}` {reason}: change it",
                            spec.name()
                        ))
                    })?;
                    on_create.push(OnCreate::Constant(value.into_owned()));
                }
                Feed::Column(column) => {
                    let position =
                        columns.iter().position(|known| *known == column.source).unwrap_or_else(|| {
                            columns.push(column.source.clone());
                            columns.len() - 1
                        });
                    let field = spec.name().clone();
                    let taken = Taken::new(field, position, kind, column);
                    if column.on_create {
                        on_create.push(OnCreate::Taken(taken));
                    } else if let Some(slot) = slots.next() {
                        synced.push((*slot, taken));
                    }
                }
            }
        }
        synced.sort_by_key(|(slot, _)| *slot);
        let creates = [Operation::Insert, Operation::Upsert];
        if !mapping.operations().iter().any(|operation| creates.contains(operation)) {
            // Values for creation matter to nobody where nothing is created.
            on_create.clear();
        }
        let key_kind = mapping.target().map_or(FieldKind::Any, |target| target.key.clone());
        Ok(Self { key_name: mapping.key.clone(), key_kind, columns, synced, on_create, prints })
    }

    /// The columns whose values the other methods are given.
    pub(crate) fn columns(&self) -> &[FieldName] {
        &self.columns
    }

    pub(crate) fn prints(&self) -> &Fingerprinter {
        &self.prints
    }

    /// The fields that are kept in step, in ascending order of slots.
    pub(super) fn synced(&self) -> &[(Slot, Taken)] {
        &self.synced
    }

    /// Hashes the keys in a column of texts; there is [`Hashed::NONE`] for a key that is unusable.
    pub(super) fn hash_keys(&self, texts: &Texts<'_>, hashes: &mut Vec<Hashed>) {
        // Those in canonical form are hashed together, and until then there is nothing for them.
        let (mut keys, mut rows) = (Vec::with_capacity(texts.len()), Vec::with_capacity(texts.len()));
        texts.each_text(|text| {
            let other = match text {
                Some(text) if self.is_canonical_key(text.as_bytes()) => {
                    keys.push(text);
                    rows.push(hashes.len());
                    None
                }
                Some(text) => {
                    let value = [Some(ValueRef::Text(String::from_utf8_lossy(text.as_bytes())))];
                    self.key(&value).ok().map(|key| self.hashed_key(key.as_bytes()))
                }
                None => None,
            };
            hashes.push(other.unwrap_or(Hashed::NONE));
        });
        let mut rows = rows.into_iter();
        self.prints.keys_of(&keys, |key| {
            if let Some(hashed) = rows.next().and_then(|row| hashes.get_mut(row)) {
                *hashed = Hashed::keyed(key);
            }
        });
    }

    /// The hash of a key in canonical form, of a row whose fingerprint is not known yet.
    #[inline]
    fn hashed_key(&self, canonical: &[u8]) -> Hashed {
        Hashed::keyed(self.prints.key_of(canonical))
    }

    /// The hash of a row's key, of a row whose fingerprint is not known yet.
    pub(crate) fn hash_key(&self, values: &[Option<ValueRef<'_>>]) -> std::result::Result<Hashed, Invalid> {
        self.with_key(values, |key| self.hashed_key(key))
    }

    /// Does something with the bytes of a row's key in canonical form.
    fn with_key<T>(
        &self,
        values: &[Option<ValueRef<'_>>],
        with: impl FnOnce(&[u8]) -> T,
    ) -> std::result::Result<T, Invalid> {
        if let Some(Some(ValueRef::Int(number))) = values.first()
            && let Ok(number) = i64::try_from(*number)
        {
            // Keys that are numbers are frequent, and to make a text of each would need memory for it.
            let mut digits = [0; 20];
            let mut room = &mut digits[..];
            let is_whole = write!(room, "{number}").is_ok();
            let unused = room.len();
            let text = &digits[..digits.len() - unused];
            if is_whole && self.is_canonical_key(text) {
                return Ok(with(text));
            }
        }
        Ok(with(self.key(values)?.as_bytes()))
    }

    /// Adds the key of which the row's key hash is to be made, and the pairs for its fingerprint; those of an invalid row may
    /// not be all of them.
    pub(super) fn put(
        &self,
        values: &[Option<ValueRef<'_>>],
        keys: &mut Pairs,
        pairs: &mut Pairs,
    ) -> std::result::Result<(), Invalid> {
        self.with_key(values, |key| keys.push_bytes(key))?;
        self.push(values, pairs)
    }

    /// The same of a record, whose values are got by the place of their column.
    #[inline]
    pub(super) fn put_record<'v>(
        &self,
        value: &mut impl FnMut(usize) -> Option<&'v Value>,
        keys: &mut Pairs,
        pairs: &mut Pairs,
    ) -> std::result::Result<(), Invalid> {
        match value(0) {
            Some(Value::Text(key)) if self.is_canonical_key(key.as_bytes()) => {
                keys.push_bytes(key.as_bytes());
            }
            key => self.with_key(&[key.map(Value::as_ref)], |key| keys.push_bytes(key))?,
        }
        for (slot, taken) in &self.synced {
            match value(taken.position) {
                Some(Value::Text(text)) if taken.takes_text(text.as_bytes()) => {
                    pairs.push_text(*slot, text);
                }
                Some(Value::Null) if taken.takes_null => pairs.push_null(*slot),
                value => taken.push(*slot, Some(&value.map(Value::as_ref)), pairs)?,
            }
        }
        Ok(())
    }

    /// The row's fingerprint, put together in `scratch`.
    pub(crate) fn row(
        &self,
        values: &[Option<ValueRef<'_>>],
        scratch: &mut Pairs,
    ) -> std::result::Result<RowFingerprint, Invalid> {
        scratch.clear();
        self.push(values, scratch)?;
        Ok(self.prints.row(scratch))
    }

    #[inline]
    fn push(&self, values: &[Option<ValueRef<'_>>], pairs: &mut Pairs) -> std::result::Result<(), Invalid> {
        self.synced.iter().try_for_each(|(slot, taken)| taken.push(*slot, values.get(taken.position), pairs))
    }

    /// The key of a row, in canonical form.
    pub(crate) fn key<'v>(
        &'v self,
        values: &'v [Option<ValueRef<'_>>],
    ) -> std::result::Result<Cow<'v, str>, Invalid> {
        let value = match values.first() {
            Some(Some(ValueRef::Text(text))) if self.is_canonical_key(text.as_bytes()) => {
                return Ok(Cow::Borrowed(text));
            }
            Some(Some(other)) => other.borrowed(),
            _ => ValueRef::Null,
        };
        let invalid = |reason: String| Invalid { column: self.key_name.clone(), field: None, reason };
        let key = self.key_kind.key_text(value);
        key.map_err(|reason| invalid(reason.to_string()))?
            .ok_or_else(|| invalid("is empty, and it is the key".into()))
    }

    #[inline]
    fn is_canonical_key(&self, text: &[u8]) -> bool {
        self.key_kind.takes_as_it_is(text) && is_without_blanks(text)
    }

    /// Room for the values of a row.
    pub(crate) fn room(&self) -> Mapped {
        Mapped {
            values: PackedValues::with_capacity(self.synced.len()),
            prints: Vec::new(),
            on_create: Ok(PackedValues::with_capacity(self.on_create.len())),
        }
    }

    /// Puts the row's values in the place of those of another one.
    pub(crate) fn map(
        &self,
        values: &[Option<ValueRef<'_>>],
        mapped: &mut Mapped,
    ) -> std::result::Result<(), Invalid> {
        self.map_and(values, mapped, |_, _| {})
    }

    /// The row's values, and their fingerprints, to be compared with those of a record.
    pub(crate) fn compared(
        &self,
        values: &[Option<ValueRef<'_>>],
        scratch: &mut Pairs,
    ) -> std::result::Result<Mapped, Invalid> {
        let (mut mapped, mut prints) = (self.room(), Vec::with_capacity(self.synced.len()));
        self.map_and(values, &mut mapped, |slot, value| {
            scratch.clear();
            scratch.push(slot, value);
            prints.push((slot, self.prints.field(scratch)));
        })?;
        Ok(Mapped { prints, ..mapped })
    }

    fn map_and(
        &self,
        values: &[Option<ValueRef<'_>>],
        mapped: &mut Mapped,
        mut take: impl FnMut(Slot, &ValueRef<'_>),
    ) -> std::result::Result<(), Invalid> {
        let room = mem::replace(&mut mapped.on_create, Ok(PackedValues::default()));
        mapped.on_create = self.creation_values(values, room.unwrap_or_default());
        mapped.values.clear();
        for (slot, taken) in &self.synced {
            if let Some(value) = taken.value(values)? {
                take(*slot, &value);
                mapped.values.push(*slot, value);
            }
        }
        Ok(())
    }

    fn creation_values(
        &self,
        values: &[Option<ValueRef<'_>>],
        mut creation: PackedValues,
    ) -> std::result::Result<PackedValues, Invalid> {
        creation.clear();
        for (place, on_create) in (0..).zip(&self.on_create) {
            let value = match on_create {
                OnCreate::Constant(value) => Some(value.as_ref()),
                OnCreate::Taken(taken) => taken.value(values)?,
            };
            if let Some(value) = value {
                creation.push(place, value);
            }
        }
        Ok(creation)
    }
}

/// Whether a text is sure to have content and no blanks around it.
fn is_without_blanks(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_graphic) && bytes.last().is_some_and(u8::is_ascii_graphic)
}

impl Taken {
    fn new(field: FieldName, position: usize, kind: FieldKind, column: &Column) -> Self {
        let is_as_it_is = column.convert.is_none();
        Self {
            takes_texts: is_as_it_is && column.null != NullPolicy::SkipBlank,
            takes_null: is_as_it_is && column.null == NullPolicy::Clear,
            field,
            position,
            kind,
            column: column.clone(),
        }
    }

    /// The place of the column it is taken from.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Whether this text is sure to be in canonical form.
    #[inline]
    fn takes_text(&self, text: &[u8]) -> bool {
        self.takes_texts && self.kind.takes_as_it_is(text)
    }

    /// Whether the texts and nulls of some rows are sure to be in canonical form.
    pub(super) fn takes_texts(&self, texts: &Texts<'_>) -> bool {
        if !self.takes_texts || texts.has_nulls() && !self.takes_null {
            return false;
        }
        match &self.kind {
            FieldKind::Any => true,
            kind => {
                let mut takes_all = true;
                texts.each_text(|text| {
                    takes_all &= text.is_none_or(|text| kind.takes_as_it_is(text.as_bytes()));
                });
                takes_all
            }
        }
    }

    /// Adds the pair of a value; none if it is absent, or the field is to be left alone.
    #[inline]
    pub(super) fn push(
        &self,
        slot: Slot,
        value: Option<&Option<ValueRef<'_>>>,
        pairs: &mut Pairs,
    ) -> std::result::Result<(), Invalid> {
        match value {
            // Most values are in canonical form, and then there is nothing to be done to them.
            Some(Some(ValueRef::Text(text))) if self.takes_text(text.as_bytes()) => {
                pairs.push_text(slot, text);
            }
            Some(Some(ValueRef::Null)) if self.takes_null => pairs.push_null(slot),
            Some(Some(value)) => {
                if let Some(value) = self.converted(value.borrowed())? {
                    pairs.push(slot, &value);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The value in canonical form; `None` if the row has none, or if the field is to be left alone.
    fn value<'v>(
        &'v self,
        values: &'v [Option<ValueRef<'_>>],
    ) -> std::result::Result<Option<ValueRef<'v>>, Invalid> {
        let Some(Some(value)) = values.get(self.position) else { return Ok(None) };
        self.converted(value.borrowed())
    }

    /// The value in canonical form; `None` if the field is to be left alone.
    fn converted<'v>(&'v self, value: ValueRef<'v>) -> std::result::Result<Option<ValueRef<'v>>, Invalid> {
        let value = match &self.column.convert {
            Some(convert) => convert(value.into_owned()).map(Value::into_ref),
            None => Ok(value),
        };
        let converted = value.and_then(|value| match (&value, self.column.null) {
            (ValueRef::Text(text), NullPolicy::SkipBlank) if text.trim().is_empty() => Ok(ValueRef::Null),
            _ => self.kind.convert(value),
        });
        match converted {
            Ok(ValueRef::Null) if self.column.null != NullPolicy::Clear => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(reason) => Err(Invalid {
                column: self.column.source.clone(),
                field: Some(self.field.clone()),
                reason: reason.to_string(),
            }),
        }
    }
}
