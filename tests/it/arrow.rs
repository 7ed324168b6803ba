//! Record batches of Arrow say the same as records with the same values.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Date64Array, Decimal32Array, Decimal64Array, Decimal128Array,
    Decimal256Array, DictionaryArray, FixedSizeListArray, Float16Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, LargeListArray, LargeStringArray, ListArray, NullArray,
    RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    types::{ArrowPrimitiveType, Decimal256Type, Float16Type, Int8Type, Int32Type, UInt16Type},
};
use chrono::NaiveDate;
use futures::{executor::block_on, stream};
use proptest::{collection::vec, option, prelude::*};
use reverse_etl::{
    Column, FieldKind, Limits, Mapping, MemoryStore, NullPolicy, PlanOptions, Record, Secret, Source, Target,
    Value, plan,
};

use crate::threads::{deliver, told};

type Half = <Float16Type as ArrowPrimitiveType>::Native;
type Wide = <Decimal256Type as ArrowPrimitiveType>::Native;

fn null<T>() -> Option<T> {
    None
}

fn text(text: &str) -> Value {
    text.into()
}

/// The name of a type, an array of it, and the three values in it, the second of which is null.
type Typed = (&'static str, ArrayRef, [Value; 3]);

fn columns() -> Vec<Typed> {
    [texts(), integers(), other_numbers(), times(), nested()].concat()
}

fn times() -> Vec<Typed> {
    let day = Value::Date(NaiveDate::from_ymd_opt(2024, 2, 29).unwrap());
    let seconds = 1_709_199_000_i64;
    vec![
        (
            "Date32",
            Arc::new(Date32Array::from(vec![Some(19_782), None, Some(19_782)])),
            [day.clone(), Value::Null, day.clone()],
        ),
        (
            "Date64",
            Arc::new(Date64Array::from(vec![Some(19_782 * 86_400_000), None, Some(19_782 * 86_400_000)])),
            [day.clone(), Value::Null, day],
        ),
        (
            "Timestamp(Second)",
            Arc::new(TimestampSecondArray::from(vec![Some(seconds), None, Some(0)])),
            [text("2024-02-29T09:30:00"), Value::Null, text("1970-01-01T00:00:00")],
        ),
        (
            "Timestamp(Millisecond, zone)",
            Arc::new(
                TimestampMillisecondArray::from(vec![Some(seconds * 1_000 + 5), None, Some(0)])
                    .with_timezone("+02:00"),
            ),
            [text("2024-02-29T09:30:00.005Z"), Value::Null, text("1970-01-01T00:00:00Z")],
        ),
        (
            "Timestamp(Microsecond)",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(seconds * 1_000_000), None, Some(1)])),
            [text("2024-02-29T09:30:00"), Value::Null, text("1970-01-01T00:00:00.000001")],
        ),
        (
            "Timestamp(Nanosecond, zone)",
            Arc::new(
                TimestampNanosecondArray::from(vec![Some(seconds * 1_000_000_000), None, Some(1)])
                    .with_timezone_utc(),
            ),
            [text("2024-02-29T09:30:00Z"), Value::Null, text("1970-01-01T00:00:00.000000001Z")],
        ),
    ]
}

fn texts() -> Vec<Typed> {
    vec![
        (
            "Utf8",
            Arc::new(StringArray::from(vec![Some("Zoë"), None, Some("")])),
            [text("Zoë"), Value::Null, text("")],
        ),
        (
            "LargeUtf8",
            Arc::new(LargeStringArray::from(vec![Some("a"), None, Some("b")])),
            [text("a"), Value::Null, text("b")],
        ),
        (
            "Utf8View",
            Arc::new(StringViewArray::from(vec![Some("a text of more than twelve"), None, Some("b")])),
            [text("a text of more than twelve"), Value::Null, text("b")],
        ),
        (
            "Boolean",
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            [true.into(), Value::Null, false.into()],
        ),
    ]
}

fn integers() -> Vec<Typed> {
    vec![
        (
            "Int8",
            Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(7)])),
            [(-128).into(), Value::Null, 7.into()],
        ),
        (
            "Int16",
            Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(7)])),
            [(-32_768).into(), Value::Null, 7.into()],
        ),
        (
            "Int32",
            Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(7)])),
            [i32::MIN.into(), Value::Null, 7.into()],
        ),
        (
            "Int64",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(7)])),
            [i64::MIN.into(), Value::Null, 7.into()],
        ),
        (
            "UInt8",
            Arc::new(UInt8Array::from(vec![Some(u8::MAX), None, Some(7)])),
            [255.into(), Value::Null, 7.into()],
        ),
        (
            "UInt16",
            Arc::new(UInt16Array::from(vec![Some(u16::MAX), None, Some(7)])),
            [65_535.into(), Value::Null, 7.into()],
        ),
        (
            "UInt32",
            Arc::new(UInt32Array::from(vec![Some(u32::MAX), None, Some(7)])),
            [u32::MAX.into(), Value::Null, 7.into()],
        ),
        (
            "UInt64",
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(7)])),
            [u64::MAX.into(), Value::Null, 7.into()],
        ),
    ]
}

fn other_numbers() -> Vec<Typed> {
    vec![
        (
            "Float32",
            Arc::new(Float32Array::from(vec![Some(0.1), None, Some(2.5)])),
            [0.1.into(), Value::Null, 2.5.into()],
        ),
        (
            "Float64",
            Arc::new(Float64Array::from(vec![Some(0.1), None, Some(2.5)])),
            [0.1.into(), Value::Null, 2.5.into()],
        ),
        (
            "Float16",
            Arc::new(Float16Array::from(vec![Some(Half::from_f32(0.5)), None, Some(Half::from_f32(-2.0))])),
            [0.5.into(), Value::Null, (-2.0).into()],
        ),
        (
            "Decimal32",
            Arc::new(
                Decimal32Array::from(vec![Some(12_345), None, Some(-5)])
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
            [text("123.45"), Value::Null, text("-0.05")],
        ),
        (
            "Decimal64",
            Arc::new(
                Decimal64Array::from(vec![Some(12_345), None, Some(-5)])
                    .with_precision_and_scale(10, 0)
                    .unwrap(),
            ),
            [text("12345"), Value::Null, text("-5")],
        ),
        (
            "Decimal256",
            Arc::new(
                Decimal256Array::from(vec![Some(Wide::from_i128(12_345)), None, Some(Wide::from_i128(-5))])
                    .with_precision_and_scale(60, 3)
                    .unwrap(),
            ),
            [text("12.345"), Value::Null, text("-0.005")],
        ),
        (
            "Decimal128",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345), None, Some(-5)])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            [text("123.45"), Value::Null, text("-0.05")],
        ),
    ]
}

fn nested() -> Vec<Typed> {
    let list = |items: [i64; 2]| Value::from(items.to_vec());
    let lists = || vec![Some(vec![Some(1), Some(2)]), None, Some(vec![Some(3), Some(4)])];
    vec![
        (
            "Dictionary",
            Arc::new(vec![Some("a"), None, Some("a")].into_iter().collect::<DictionaryArray<UInt16Type>>()),
            [text("a"), Value::Null, text("a")],
        ),
        (
            "Dictionary with a small key",
            Arc::new(vec![Some("b"), None, Some("a")].into_iter().collect::<DictionaryArray<Int8Type>>()),
            [text("b"), Value::Null, text("a")],
        ),
        (
            "List",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists())),
            [list([1, 2]), Value::Null, list([3, 4])],
        ),
        (
            "LargeList",
            Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>(lists())),
            [list([1, 2]), Value::Null, list([3, 4])],
        ),
        (
            "FixedSizeList",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(lists(), 2)),
            [list([1, 2]), Value::Null, list([3, 4])],
        ),
        ("Null", Arc::new(NullArray::new(3)), [null::<i64>().into(), Value::Null, Value::Null]),
    ]
}

/// With a secret of its own each plan would have an order of its own.
fn options() -> PlanOptions {
    PlanOptions::default().secret(Secret::new([7; 32]))
}

#[test]
fn value_of_each_type_of_arrow_is_the_same_as_in_a_record() {
    for (name, array, values) in columns() {
        // Rows of a part of an array lie elsewhere than its first.
        for start in 0..3 {
            let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
            let batch = RecordBatch::try_from_iter_with_nullable([
                ("id", keys, false),
                ("value", Arc::clone(&array), true),
            ]);
            let batch = batch.unwrap().slice(start, 3 - start);
            let records = ["a", "b", "c"].into_iter().zip(values.clone()).skip(start);
            let records: Vec<Record> =
                records.map(|(key, value)| Record::new().with("id", key).with("value", value)).collect();
            let mapping = Mapping::new("id").map("value", "value");
            let store = MemoryStore::default();
            let planned = |source: Source<'_>| block_on(plan(source, &mapping, &store, &options())).unwrap();
            let (from_batch, from_records) = (planned((&batch).into()), planned((&records).into()));
            assert_eq!(told(&from_batch).unwrap(), told(&from_records).unwrap(), "{name} from {start}");
            assert_eq!(from_batch.counts().added, 3 - start as u64, "{name} from {start}");
            deliver(&records, &mapping, &store, &options());
            let counts = planned((&batch).into()).counts().clone();
            assert_eq!(counts.unchanged, 3 - start as u64, "{name} from {start}: {counts:?}");
        }
    }
}

/// Fields that take texts as they are, fields that convert them, and fields that refuse some.
fn bound() -> Mapping {
    let mapping = Mapping::new("email")
        .map("a", "any")
        .map("a", "short")
        .map("b", "basic")
        .map("b", "number")
        .column(Column::new("c", "left alone").null(NullPolicy::Skip))
        .column(Column::new("c", "blank").null(NullPolicy::SkipBlank))
        .column(Column::new("d", "converted").convert(|value| match value {
            Value::Text(text) => Ok(text.to_uppercase().into()),
            other => Ok(other),
        }))
        .map("d", "last")
        .column(Column::new("n", "new ones").on_create());
    let kinds = [
        FieldKind::Any,
        FieldKind::Text { chars_max: 40 },
        FieldKind::BasicText { chars_max: 60 },
        FieldKind::Number { digits_max: 4 },
        FieldKind::Any,
        FieldKind::Any,
        FieldKind::Any,
        FieldKind::Any,
        FieldKind::Any,
    ];
    let target = Target::new("test", FieldKind::Email, Limits::rows(100));
    let target = mapping
        .fields()
        .iter()
        .zip(kinds)
        .fold(target, |target, (field, kind)| target.field(field, kind, None));
    mapping.bind(&target).unwrap()
}

/// An e-mail by its number, three texts or nulls, and a number.
type Row = (u16, [Option<String>; 4], Option<i64>);

fn text_of(kind: &'static str) -> impl Strategy<Value = Option<String>> {
    option::weighted(0.9, kind)
}

fn a_row() -> impl Strategy<Value = Row> {
    let long = prop_oneof![text_of("[a-zé]{0,12}"), text_of("[a-z]{28,44}")];
    let number = prop_oneof![text_of("[0-9]{1,4}"), text_of("[0-9 .x]{0,6}")];
    let blank = text_of("[ a]{0,3}");
    (
        0..3_000_u16,
        [long.boxed(), number.boxed(), blank.boxed(), text_of(".{0,40}").boxed()],
        any::<Option<i64>>(),
    )
}

fn email(row: &Row) -> String {
    // Some keys are not in canonical form, and some are none.
    match row.0 % 50 {
        0 => format!("  Row{}@Shop.test ", row.0),
        1 => "nobody".to_owned(),
        _ => format!("row{}@shop.test", row.0),
    }
}

const TEXTS: [&str; 4] = ["a", "b", "c", "d"];

fn record(row: &Row) -> Record {
    let record = Record::new().with("email", email(row)).with("n", row.2);
    TEXTS.iter().zip(&row.1).fold(record, |record, (name, text)| record.with(*name, text.clone()))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(rows.iter().map(|row| Some(email(row))).collect::<StringArray>());
    let numbers: ArrayRef = Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>());
    let texts = (0..).zip(TEXTS).map(|(column, name): (usize, _)| {
        let texts = rows.iter().map(|row| row.1[column].as_deref());
        (name, Arc::new(texts.collect::<StringArray>()) as ArrayRef, true)
    });
    let columns = [("n", numbers, true), ("email", keys, true)].into_iter().chain(texts);
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn plan_of_record_batches_is_that_of_the_same_records_however_they_are_cut(
        prior in vec(a_row(), 0..1_500),
        rows in vec(a_row(), 0..3_000),
        stay in 0..1_500_usize,
        sizes in vec(1..2_500_usize, 1..5),
    ) {
        let rows: Vec<Row> = prior.iter().take(stay).cloned().chain(rows).collect();
        let (mapping, store) = (bound(), MemoryStore::default());
        deliver(&prior.iter().map(record).collect(), &mapping, &store, &options());
        let planned = |source: Source<'_>, threads: usize| {
            block_on(plan(source, &mapping, &store, &options().threads(threads))).unwrap()
        };
        let records: Vec<Record> = rows.iter().map(record).collect();
        let expected = told(&planned((&records).into(), 1)).unwrap();
        let whole = batch(&rows);
        prop_assert!(told(&planned((&whole).into(), 2)).unwrap() == expected, "in place");
        let (mut chunks, mut start, mut sizes) = (Vec::new(), 0, sizes.iter().cycle());
        while start < rows.len() {
            let size = (*sizes.next().unwrap()).min(rows.len() - start);
            chunks.push(Ok::<_, std::io::Error>(whole.slice(start, size)));
            start += size;
        }
        prop_assert!(told(&planned(Source::chunks(stream::iter(chunks)), 2)).unwrap() == expected, "in chunks");
    }
}
