//! Mapping: which source column goes into which field, and in which form.
//!
//! A mapping is bound to a destination before it is used: then each field has a kind, and each value is converted to
//! its canonical form, or its row is invalid. A mapping that is not bound takes every value that JSON can carry.

mod hasher;
mod mapper;
mod packed;

use std::{fmt, sync::Arc};

pub(crate) use hasher::Hasher;
pub(crate) use mapper::{Invalid, Mapped, Mapper};
pub(crate) use packed::PackedValues;

use crate::{
    Error, Result,
    destination::{FieldSpec, Operation, Target},
    field::{FieldKind, Mismatch},
    record::{FieldName, Value},
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

impl Mapping {
    /// Names and ids of the fields that only new records get, in the order of [`Mapped::on_create`].
    pub(crate) fn creation_fields(&self) -> Vec<(FieldName, Option<String>)> {
        let fields = self.sources.iter().zip(&self.specs).filter(|(feed, _)| feed.is_on_create());
        fields.map(|(_, spec)| (spec.name().clone(), self.bound(spec).1)).collect()
    }
}
