//! Mapping: which source column goes into which field, and in which form.
//!
//! A mapping is bound to a destination before it is used: then each field has a kind, and each value is converted to
//! its canonical form, or its row is invalid. A mapping that is not bound takes every value as it is.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{
    Error, Result,
    destination::{FieldSpec, Operation, Target},
    field::{FieldKind, Mismatch},
    fingerprint::{FieldFingerprints, Fingerprinter, Pairs, RowFingerprint, Slot},
    record::{FieldName, Value, ValueRef},
};

/// What a null of the source does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NullPolicy {
    /// It clears the field.
    #[default]
    Clear,
    /// It is taken for an absent value, which leaves the field alone.
    Skip,
    /// So is an empty or blank text, as an empty cell of a CSV file.
    SkipBlank,
}

type Convert = Arc<dyn Fn(Value) -> std::result::Result<Value, Mismatch> + Send + Sync>;

/// One source column on its way into one field.
///
/// ```
/// use reverse_etl::{Column, FieldKind, Mapping, NullPolicy};
///
/// let points = Column::new("Points", "Loyalty points")
///     .create(FieldKind::Number { digits_max: 24 })
///     .null(NullPolicy::Skip);
/// let mapping = Mapping::new("E-mail").column(points);
/// # let _ = mapping;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Column {
    source: FieldName,
    field: FieldName,
    create: Option<FieldKind>,
    null: NullPolicy,
    on_create: bool,
    convert: Option<Convert>,
}

impl Column {
    /// The column `source` into the existing field `field`.
    pub fn new(source: impl Into<FieldName>, field: impl Into<FieldName>) -> Self {
        Self {
            source: source.into(),
            field: field.into(),
            create: None,
            null: NullPolicy::default(),
            on_create: false,
            convert: None,
        }
    }

    /// The field is created with this kind if the destination does not have it.
    pub fn create(mut self, kind: FieldKind) -> Self {
        self.create = Some(kind);
        self
    }

    /// What a null does; by default it clears the field.
    pub fn null(mut self, policy: NullPolicy) -> Self {
        self.null = policy;
        self
    }

    /// The field is written only when a record is created, and never again.
    pub fn on_create(mut self) -> Self {
        self.on_create = true;
        self
    }

    /// The value goes through this function first. What it returns should depend on the value alone.
    pub fn convert(
        mut self,
        convert: impl Fn(Value) -> std::result::Result<Value, Mismatch> + Send + Sync + 'static,
    ) -> Self {
        self.convert = Some(Arc::new(convert));
        self
    }
}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.field)
    }
}

/// Which source column goes into which field.
///
/// ```
/// use reverse_etl::Mapping;
///
/// let mapping = Mapping::new("email") // the column that links a row to a record
///     .map("first_name", "First Name") // into a field that exists
///     .custom("points"); // into a field of the same name, created if it is missing
/// assert_eq!(mapping.fields().len(), 2);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Mapping {
    key: FieldName,
    sources: Vec<Feed>,
    specs: Vec<FieldSpec>,
    target: Option<Arc<Target>>,
}

/// What feeds the field at the same place of `specs`.
#[derive(Clone)]
enum Feed {
    Column(Column),
    Constant(Value),
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => column.fmt(f),
            Self::Constant(_) => f.write_str("constant"),
        }
    }
}

impl Mapping {
    /// A mapping whose rows are linked to records by the column `key_column`.
    pub fn new(key_column: impl Into<FieldName>) -> Self {
        Self { key: key_column.into(), sources: Vec::new(), specs: Vec::new(), target: None }
    }

    /// The column `column` into the field `field`, which must exist.
    pub fn map(self, column: impl Into<FieldName>, field: impl Into<FieldName>) -> Self {
        self.column(Column::new(column, field))
    }

    /// The column `column` into a custom attribute of the same name, created as a text of 60 characters if it is missing.
    pub fn custom(self, column: impl Into<FieldName>) -> Self {
        let column = column.into();
        self.column(Column::new(column.clone(), column).create(FieldKind::Text { chars_max: 60 }))
    }

    /// A column with more to say about it.
    pub fn column(mut self, column: Column) -> Self {
        self.specs.push(FieldSpec::new(column.field.clone(), column.create.clone()));
        self.sources.push(Feed::Column(column));
        self
    }

    /// The same value for every record that is created, in the field `field`, which must exist.
    pub fn on_create(mut self, field: impl Into<FieldName>, value: impl Into<Value>) -> Self {
        self.specs.push(FieldSpec::new(field.into(), None));
        self.sources.push(Feed::Constant(value.into()));
        self
    }

    /// The column that links a row to a record.
    pub fn key_column(&self) -> &FieldName {
        &self.key
    }

    /// The fields that the mapping writes to.
    pub fn fields(&self) -> &[FieldSpec] {
        &self.specs
    }

    /// The mapping for this target: each field with its kind.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the target lacks a field that must exist, if two names are
    /// one field of it, or if a constant does not fit its field.
    pub fn bind(mut self, target: &Target) -> Result<Self> {
        self.check_names()?;
        for (index, spec) in self.specs.iter().enumerate() {
            let name = spec.name();
            let Some(field) = target.fields.iter().find(|field| field.name == *name) else {
                if target.any_field || target.missing().iter().any(|missing| missing.name() == name) {
                    continue;
                }
                return Err(Error::config(format!(
                    "the destination has no field `{name}`: check its name or id"
                )));
            };
            let twin = target
                .fields
                .iter()
                .find(|other| other.name != *name && other.id.is_some() && other.id == field.id);
            if let Some(twin) = twin.filter(|twin| self.specs.iter().any(|spec| *spec.name() == twin.name)) {
                return Err(Error::config(format!(
                    "`{name}` and `{}` are one field of the destination, mapped twice: remove one of the two",
                    twin.name
                )));
            }
            if let Feed::Constant(value) = &self.sources[index] {
                field.kind.convert(value.as_ref()).map_err(|reason| {
                    Error::config(format!("the value for new records in `{name}` {reason}: change it"))
                })?;
            }
        }
        self.target = Some(Arc::new(target.clone()));
        Ok(self)
    }

    /// Refuses a field that is mapped twice under one name.
    fn check_names(&self) -> Result<()> {
        let mut names: Vec<_> = self.specs.iter().map(FieldSpec::name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                let name = pair[0];
                Err(Error::config(format!("the field `{name}` is mapped twice: remove one of the two")))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn target(&self) -> Option<&Target> {
        self.target.as_deref()
    }

    /// The operations that the destination offers; one that nobody described takes upserts and removals.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.target()
            .map_or_else(|| vec![Operation::Upsert, Operation::Remove], |target| target.operations.clone())
    }

    fn bound(&self, spec: &FieldSpec) -> (FieldKind, Option<String>) {
        let field =
            self.target().and_then(|target| target.fields.iter().find(|field| field.name == *spec.name()));
        match (field, spec.create()) {
            (Some(field), _) => (field.kind.clone(), field.id.clone()),
            (None, Some(kind)) if self.target.is_some() => (kind.clone(), None),
            (None, _) => (FieldKind::Any, None),
        }
    }

    /// Names and ids of the fields that are kept in step: what slots are assigned to.
    pub(crate) fn synced(&self) -> Vec<(FieldName, Option<String>)> {
        let synced = self.sources.iter().zip(&self.specs).filter(|(feed, _)| !feed.is_on_create());
        synced.map(|(_, spec)| (spec.name().clone(), self.bound(spec).1)).collect()
    }
}

impl Feed {
    fn is_on_create(&self) -> bool {
        match self {
            Self::Column(column) => column.on_create,
            Self::Constant(_) => true,
        }
    }
}

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
    pub(crate) values: Vec<(Slot, Value)>,
    pub(crate) prints: FieldFingerprints,
    /// Values for creation only, by their place among such fields. One that does not fit matters to new records alone.
    pub(crate) on_create: std::result::Result<Vec<(u16, Value)>, Invalid>,
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
struct Taken {
    field: FieldName,
    position: usize,
    kind: FieldKind,
    null: NullPolicy,
    column: Column,
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
                    let taken = Taken { field, position, kind, null: column.null, column: column.clone() };
                    if column.on_create {
                        on_create.push(OnCreate::Taken(taken));
                    } else if let Some(slot) = slots.next() {
                        synced.push((*slot, taken));
                    }
                }
            }
        }
        synced.sort_by_key(|(slot, _)| *slot);
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

    /// The key of a row, in canonical form.
    pub(crate) fn key<'v>(
        &'v self,
        values: &'v [Option<ValueRef<'_>>],
    ) -> std::result::Result<Cow<'v, str>, Invalid> {
        if let Some(Some(ValueRef::Text(text))) = values.first()
            && self.key_kind.takes_as_it_is(text)
            && is_without_blanks(text)
        {
            return Ok(Cow::Borrowed(text));
        }
        let invalid = |reason: String| Invalid { column: self.key_name.clone(), field: None, reason };
        let value = values.first().and_then(Option::as_ref).map(ValueRef::borrowed);
        let key = self.key_kind.key_text(value.unwrap_or(ValueRef::Null));
        key.map_err(|reason| invalid(reason.to_string()))?
            .ok_or_else(|| invalid("is empty, and it is the key".into()))
    }

    /// The row's fingerprint, put together in `scratch`.
    pub(crate) fn row(
        &self,
        values: &[Option<ValueRef<'_>>],
        scratch: &mut Pairs,
    ) -> std::result::Result<RowFingerprint, Invalid> {
        scratch.clear();
        for (slot, taken) in &self.synced {
            let Some(Some(value)) = values.get(taken.position) else { continue };
            if taken.is_canonical(value) {
                scratch.push(*slot, value);
            } else if let Some(value) = taken.value(values)? {
                scratch.push(*slot, &value);
            }
        }
        Ok(self.prints.row(scratch))
    }

    /// The row's values and their fingerprints.
    pub(crate) fn mapped(&self, values: &[Option<ValueRef<'_>>]) -> std::result::Result<Mapped, Invalid> {
        let mut mapped =
            Mapped { values: Vec::new(), prints: Vec::new(), on_create: self.creation_values(values) };
        let mut pair = Pairs::new();
        for (slot, taken) in &self.synced {
            if let Some(value) = taken.value(values)? {
                pair.clear();
                pair.push(*slot, &value);
                mapped.prints.push((*slot, self.prints.field(&pair)));
                mapped.values.push((*slot, value.into_owned()));
            }
        }
        Ok(mapped)
    }

    fn creation_values(
        &self,
        values: &[Option<ValueRef<'_>>],
    ) -> std::result::Result<Vec<(u16, Value)>, Invalid> {
        let mut creation = Vec::with_capacity(self.on_create.len());
        for (place, on_create) in (0..).zip(&self.on_create) {
            let value = match on_create {
                OnCreate::Constant(value) => Some(value.clone()),
                OnCreate::Taken(taken) => taken.value(values)?.map(ValueRef::into_owned),
            };
            creation.extend(value.map(|value| (place, value)));
        }
        Ok(creation)
    }
}

/// Whether a text is sure to have content and no blanks around it.
fn is_without_blanks(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_graphic) && bytes.last().is_some_and(u8::is_ascii_graphic)
}

impl Taken {
    /// Whether the value is sure to be in canonical form: most are, and then there is nothing to be done to it.
    #[inline]
    fn is_canonical(&self, value: &ValueRef<'_>) -> bool {
        match value {
            ValueRef::Text(text) => {
                self.column.convert.is_none()
                    && self.null != NullPolicy::SkipBlank
                    && self.kind.takes_as_it_is(text)
            }
            ValueRef::Null => self.column.convert.is_none() && self.null == NullPolicy::Clear,
            _ => false,
        }
    }

    /// The value in canonical form; `None` if the field is to be left alone.
    fn value<'v>(
        &'v self,
        values: &'v [Option<ValueRef<'_>>],
    ) -> std::result::Result<Option<ValueRef<'v>>, Invalid> {
        let Some(Some(value)) = values.get(self.position) else { return Ok(None) };
        let value = value.borrowed();
        let value = match &self.column.convert {
            Some(convert) => convert(value.into_owned()).map(Value::into_ref),
            None => Ok(value),
        };
        let converted = value.and_then(|value| match (&value, self.null) {
            (ValueRef::Text(text), NullPolicy::SkipBlank) if text.trim().is_empty() => Ok(ValueRef::Null),
            _ => self.kind.convert(value),
        });
        match converted {
            Ok(ValueRef::Null) if self.null != NullPolicy::Clear => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(reason) => Err(Invalid {
                column: self.column.source.clone(),
                field: Some(self.field.clone()),
                reason: reason.to_string(),
            }),
        }
    }
}

impl Mapping {
    /// Names and ids of the fields that only new records get, in the order of [`Mapped::on_create`].
    pub(crate) fn creation_fields(&self) -> Vec<(FieldName, Option<String>)> {
        let fields = self.sources.iter().zip(&self.specs).filter(|(feed, _)| feed.is_on_create());
        fields.map(|(_, spec)| (spec.name().clone(), self.bound(spec).1)).collect()
    }
}
