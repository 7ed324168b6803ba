//! Record batches of Apache Arrow, read in place.

use std::{
    borrow::Cow,
    iter,
    ops::{Deref, Range},
};

use arrow_array::{
    Array, BooleanArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    cast::AsArray,
    temporal_conversions::as_datetime,
    types::{
        ArrowPrimitiveType, ArrowTimestampType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
        Decimal128Type, Decimal256Type, DecimalType, Float16Type, Float32Type, Float64Type, Int8Type,
        Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use chrono::SecondsFormat;

use super::{Rows, Texts, stretches};
use crate::{
    Error, ErrorKind, Result,
    record::{FieldName, Value, ValueRef, widened},
};

/// The rows of a batch, read in place.
///
/// | Type | Value |
/// |---|---|
/// | `Utf8`, `LargeUtf8`, `Utf8View` | text |
/// | `Boolean` | truth value |
/// | `Int8` … `Int64`, `UInt8` … `UInt64` | whole number |
/// | `Float16`, `Float32`, `Float64` | floating-point number, a `Float32` as the shortest decimal number that stands for it |
/// | `Decimal32` … `Decimal256` | text, with as many decimals as the type has |
/// | `Date32`, `Date64` | date |
/// | `Timestamp` without a zone | text, `2024-02-29T09:30:00`, with a fraction if it has one |
/// | `Timestamp` with a zone | text, in UTC whatever the zone: `2024-02-29T09:30:00Z` |
/// | `Dictionary` | that of its values |
/// | `List`, `LargeList`, `FixedSizeList` of these | list |
/// | `Null`, and a null of any type | null |
///
/// A column that the batch lacks, and one of another type, is an error. What becomes text or a list is made anew for each
/// row; everything else lies where it is.
impl Rows for RecordBatch {
    fn len(&self) -> usize {
        self.num_rows()
    }

    fn visit(
        &self,
        columns: &[FieldName],
        range: Range<usize>,
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        visit(self, columns, iter::once(range), row)
    }

    fn visit_some(
        &self,
        columns: &[FieldName],
        rows: &[usize],
        row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
    ) -> Result<()> {
        visit(self, columns, stretches(rows), row)
    }

    fn texts(&self, column: &FieldName) -> Option<Texts<'_>> {
        let array = self.column_by_name(column.as_str())?;
        let texts = if let Some(array) = array.as_string_opt::<i32>() {
            Texts::dense(array.value_data(), array.value_offsets())
        } else {
            let array = array.as_string_view_opt()?;
            let buffers = array.data_buffers().iter().map(Deref::deref);
            Texts::views(array.views(), array.views().inner(), buffers)
        };
        Some(match array.nulls() {
            Some(nulls) => texts.with_nulls(nulls.validity(), nulls.offset()),
            None => texts,
        })
    }
}

/// Rows whose values lie beside each other at once.
const BLOCK: usize = 32;

/// Visits stretches of a batch, column by column, as it lies in memory, for as many rows as fit into the nearest cache.
fn visit(
    batch: &RecordBatch,
    columns: &[FieldName],
    stretches: impl Iterator<Item = Range<usize>>,
    row: &mut dyn FnMut(&[Option<ValueRef<'_>>]) -> Result<()>,
) -> Result<()> {
    let cells = columns.iter().map(|name| column(batch, name)).collect::<Result<Vec<_>>>()?;
    let width = cells.len().max(1);
    let mut values = Vec::new();
    for stretch in stretches {
        let end = stretch.end.min(batch.num_rows());
        for start in (stretch.start..end).step_by(BLOCK) {
            let rows = start..end.min(start + BLOCK);
            values.clear();
            values.resize(width * rows.len(), None);
            for (column, cells) in cells.iter().enumerate() {
                let to = values.iter_mut().skip(column).step_by(width);
                cells.read(rows.clone(), to).map_err(|row| outside(batch, &columns[column], row))?;
            }
            values.chunks(width).try_for_each(&mut *row)?;
        }
    }
    Ok(())
}

fn column<'a>(batch: &'a RecordBatch, name: &FieldName) -> Result<Cells<'a>> {
    let Some(array) = batch.column_by_name(name.as_str()) else {
        let schema = batch.schema();
        let known: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let known = known.join(", ");
        return Err(Error::config(format!(
            "the source has no column `{name}`; it has: {known}. Map one of these"
        )));
    };
    Cells::of(&**array).ok_or_else(|| {
        Error::config(format!(
            "the column `{name}` of the source has the type {}, which is no value of a field: cast it in the query",
            array.data_type()
        ))
    })
}

/// The error of a value that no calendar has.
fn outside(batch: &RecordBatch, name: &FieldName, row: usize) -> Error {
    let kind = batch.column_by_name(name.as_str()).map(|column| column.data_type().to_string());
    Error::new(
        ErrorKind::Source,
        format!(
            "the column `{name}` of the source, {}, has a value outside of what a calendar has, in row {} of a batch: mend \
             it, or make it null in the query",
            kind.unwrap_or_default(),
            row + 1
        ),
    )
}

type Reader<'a> = Box<dyn Fn(usize) -> Option<ValueRef<'a>> + 'a>;

type Keys<'a> = Box<dyn Fn(usize) -> usize + 'a>;

type Ranges<'a> = Box<dyn Fn(usize) -> Range<usize> + 'a>;

/// One column, its type known.
enum Cells<'a> {
    // What most columns are goes the shortest way.
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Bool(&'a BooleanArray),
    Other { array: &'a dyn Array, read: Reader<'a> },
    Dictionary { array: &'a dyn Array, keys: Keys<'a>, values: Box<Cells<'a>> },
    List { array: &'a dyn Array, range: Ranges<'a>, items: Box<Cells<'a>> },
}

impl<'a> Cells<'a> {
    /// `None` for a type whose values are no value of a field.
    fn of(array: &'a dyn Array) -> Option<Self> {
        let other = |read: Reader<'a>| Some(Self::Other { array, read });
        match array.data_type() {
            DataType::Utf8 => Some(Self::Text(array.as_string())),
            DataType::LargeUtf8 => Some(Self::LargeText(array.as_string())),
            DataType::Utf8View => Some(Self::TextView(array.as_string_view())),
            DataType::Boolean => Some(Self::Bool(array.as_boolean())),
            DataType::Null => other(Box::new(|_| Some(ValueRef::Null))),
            DataType::Int8 => other(int::<Int8Type>(array)),
            DataType::Int16 => other(int::<Int16Type>(array)),
            DataType::Int32 => other(int::<Int32Type>(array)),
            DataType::Int64 => other(int::<Int64Type>(array)),
            DataType::UInt8 => other(int::<UInt8Type>(array)),
            DataType::UInt16 => other(int::<UInt16Type>(array)),
            DataType::UInt32 => other(int::<UInt32Type>(array)),
            DataType::UInt64 => other(int::<UInt64Type>(array)),
            DataType::Float16 => {
                other(primitive::<Float16Type>(array, |value| Some(ValueRef::Float(value.into()))))
            }
            DataType::Float32 => {
                other(primitive::<Float32Type>(array, |value| Some(ValueRef::Float(widened(value)))))
            }
            DataType::Float64 => other(primitive::<Float64Type>(array, |value| Some(ValueRef::Float(value)))),
            DataType::Decimal32(..) => other(decimal::<Decimal32Type>(array)),
            DataType::Decimal64(..) => other(decimal::<Decimal64Type>(array)),
            DataType::Decimal128(..) => other(decimal::<Decimal128Type>(array)),
            DataType::Decimal256(..) => other(decimal::<Decimal256Type>(array)),
            DataType::Date32 => {
                other(primitive::<Date32Type>(array, |days| day::<Date32Type>(i64::from(days))))
            }
            DataType::Date64 => other(primitive::<Date64Type>(array, day::<Date64Type>)),
            DataType::Timestamp(unit, zone) => other(match unit {
                TimeUnit::Second => timestamp::<TimestampSecondType>(array, zone.is_some()),
                TimeUnit::Millisecond => timestamp::<TimestampMillisecondType>(array, zone.is_some()),
                TimeUnit::Microsecond => timestamp::<TimestampMicrosecondType>(array, zone.is_some()),
                TimeUnit::Nanosecond => timestamp::<TimestampNanosecondType>(array, zone.is_some()),
            }),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let values = Box::new(Self::of(&**dictionary.values())?);
                Some(Self::Dictionary { array, keys: dictionary_keys(dictionary.keys())?, values })
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let offsets = list.value_offsets();
                Self::list(array, list.values(), move |row| whole(offsets[row])..whole(offsets[row + 1]))
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let offsets = list.value_offsets();
                Self::list(array, list.values(), move |row| whole(offsets[row])..whole(offsets[row + 1]))
            }
            DataType::FixedSizeList(_, length) => {
                let length = whole(*length);
                Self::list(array, array.as_fixed_size_list().values(), move |row| {
                    row * length..(row + 1) * length
                })
            }
            _ => None,
        }
    }

    fn list(
        array: &'a dyn Array,
        items: &'a dyn Array,
        range: impl Fn(usize) -> Range<usize> + 'a,
    ) -> Option<Self> {
        let items = Self::of(items).filter(|items| !matches!(items, Self::List { .. }))?;
        Some(Self::List { array, range: Box::new(range), items: Box::new(items) })
    }

    /// Reads the values of `rows` into `to`. The error is the first row whose value is outside of the calendar.
    fn read<'t>(
        &self,
        rows: Range<usize>,
        to: impl Iterator<Item = &'t mut Option<ValueRef<'a>>>,
    ) -> Result<(), usize>
    where
        'a: 't,
    {
        let cells = rows.zip(to);
        match self {
            Self::Text(array) => each(*array, cells, |row| text(array.value(row))),
            Self::LargeText(array) => each(*array, cells, |row| text(array.value(row))),
            Self::TextView(array) => each(*array, cells, |row| text(array.value(row))),
            Self::Bool(array) => each(*array, cells, |row| ValueRef::Bool(array.value(row))),
            _ => {
                for (row, to) in cells {
                    *to = Some(self.value(row).ok_or(row)?);
                }
            }
        }
        Ok(())
    }

    /// One value; `None` if it is outside of the calendar.
    fn value(&self, row: usize) -> Option<ValueRef<'a>> {
        Some(match self {
            Self::Text(array) if array.is_valid(row) => text(array.value(row)),
            Self::LargeText(array) if array.is_valid(row) => text(array.value(row)),
            Self::TextView(array) if array.is_valid(row) => text(array.value(row)),
            Self::Bool(array) if array.is_valid(row) => ValueRef::Bool(array.value(row)),
            Self::Other { array, read } if array.is_valid(row) => return read(row),
            Self::Dictionary { array, keys, values } if array.is_valid(row) => {
                return values.value(keys(row));
            }
            Self::List { array, range, items } if array.is_valid(row) => {
                let items: Option<Vec<Value>> =
                    range(row).map(|item| Some(items.value(item)?.into_owned())).collect();
                ValueRef::List(Cow::Owned(items?))
            }
            _ => ValueRef::Null,
        })
    }
}

fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(Cow::Borrowed(text))
}

/// Reads one value after the other where nothing has to be asked for each but whether it is null.
fn each<'a: 't, 't>(
    array: &'a impl Array,
    cells: impl Iterator<Item = (usize, &'t mut Option<ValueRef<'a>>)>,
    value: impl Fn(usize) -> ValueRef<'a>,
) {
    match array.nulls() {
        Some(nulls) => cells.for_each(|(row, to)| {
            *to = Some(if nulls.is_valid(row) { value(row) } else { ValueRef::Null });
        }),
        None => cells.for_each(|(row, to)| *to = Some(value(row))),
    }
}

fn primitive<'a, T: ArrowPrimitiveType>(
    array: &'a dyn Array,
    value: impl Fn(T::Native) -> Option<ValueRef<'a>> + 'a,
) -> Reader<'a> {
    let array = array.as_primitive::<T>();
    Box::new(move |row| value(array.value(row)))
}

fn int<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &dyn Array) -> Reader<'_> {
    primitive::<T>(array, |value| Some(ValueRef::Int(value.into())))
}

fn decimal<T: DecimalType + ArrowPrimitiveType>(array: &dyn Array) -> Reader<'_> {
    let array = array.as_primitive::<T>();
    Box::new(move |row| Some(ValueRef::Text(Cow::Owned(array.value_as_string(row)))))
}

fn day<'a, T: ArrowPrimitiveType>(value: i64) -> Option<ValueRef<'a>> {
    as_datetime::<T>(value).map(|time| ValueRef::Date(time.date()))
}

fn timestamp<T: ArrowTimestampType>(array: &dyn Array, is_instant: bool) -> Reader<'_> {
    primitive::<T>(array, move |value| {
        let text = as_datetime::<T>(value)?.and_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let text = if is_instant { text } else { text.trim_end_matches('Z').to_owned() };
        Some(ValueRef::Text(text.into()))
    })
}

fn dictionary_keys(keys: &dyn Array) -> Option<Keys<'_>> {
    fn of<T: ArrowPrimitiveType<Native: TryInto<usize>>>(keys: &dyn Array) -> Keys<'_> {
        let keys = keys.as_primitive::<T>();
        Box::new(move |row| whole(keys.value(row)))
    }
    Some(match keys.data_type() {
        DataType::Int8 => of::<Int8Type>(keys),
        DataType::Int16 => of::<Int16Type>(keys),
        DataType::Int32 => of::<Int32Type>(keys),
        DataType::Int64 => of::<Int64Type>(keys),
        DataType::UInt8 => of::<UInt8Type>(keys),
        DataType::UInt16 => of::<UInt16Type>(keys),
        DataType::UInt32 => of::<UInt32Type>(keys),
        DataType::UInt64 => of::<UInt64Type>(keys),
        _ => return None,
    })
}

/// Offsets and keys of a valid array are not negative.
fn whole(offset: impl TryInto<usize>) -> usize {
    offset.try_into().unwrap_or(0)
}
