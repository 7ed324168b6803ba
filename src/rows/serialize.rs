//! A row of any serde type, written into the columns of a chunk: each value in its own type, none through JSON.
//!
//! JSON has no number that is not finite, and writes it as null, which would clear a field. Here it stays what it is, and
//! the field refuses it.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Serialize, Serializer,
    ser::{
        self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct,
    },
};

use super::{cells::Cells, columns::Columns};
use crate::record::{Value, ValueRef, in_order, widened};

/// Why a row is no record. It never says what is in the row: serde's own messages quote values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// It is not a map of names to values.
    NoMap,
    /// Its `Serialize` failed.
    Failed,
}

impl fmt::Display for NoRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMap => "is not a map of column names to values: make it a struct or a map",
            Self::Failed => "cannot be written by serde: check its `Serialize`",
        })
    }
}

impl std::error::Error for NoRecord {}

impl ser::Error for NoRecord {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Failed
    }
}

/// Writes a row into a chunk, behind those that it has.
pub(super) fn write(row: &impl Serialize, columns: &mut Columns) -> Result<(), NoRecord> {
    row.serialize(Row(columns))?;
    columns.end_row();
    Ok(())
}

/// Takes a whole row.
struct Row<'c>(&'c mut Columns);

/// Takes the names of a row, each with its value.
struct Named<'c> {
    columns: &'c mut Columns,
    /// The column of the name whose value is next.
    column: Option<usize>,
    /// Where that of the next name is, if the row is like the last one.
    next: usize,
}

/// Takes one value, for the row of a column.
struct Cell<'c>(&'c mut Cells, usize);

/// Takes the values of a list, one after the other.
struct List<'c> {
    to: Cell<'c>,
    values: Vec<Value>,
    value: Cells,
}

/// What is neither a scalar nor a list goes as its JSON text.
fn json<T: Serialize + ?Sized>(value: &T, Cell(cells, row): Cell<'_>) -> Result<(), NoRecord> {
    let value = serde_json::to_value(value).map_err(|_| NoRecord::Failed)?;
    cells.set_shown(row, &in_order(value)).map_err(|_| NoRecord::Failed)
}

macro_rules! no_map {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<(), NoRecord> {
            Err(NoRecord::NoMap)
        })*
    };
}

impl<'c> Serializer for Row<'c> {
    type Ok = ();
    type Error = NoRecord;
    type SerializeSeq = Impossible<(), NoRecord>;
    type SerializeTuple = Impossible<(), NoRecord>;
    type SerializeTupleStruct = Impossible<(), NoRecord>;
    type SerializeTupleVariant = Impossible<(), NoRecord>;
    type SerializeMap = Named<'c>;
    type SerializeStruct = Named<'c>;
    type SerializeStructVariant = Impossible<(), NoRecord>;

    no_map! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NoRecord> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NoRecord> {
        Err(NoRecord::NoMap)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, NoRecord> {
        Err(NoRecord::NoMap)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NoRecord> {
        Err(NoRecord::NoMap)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NoRecord> {
        Err(NoRecord::NoMap)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NoRecord> {
        Err(NoRecord::NoMap)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Named<'c>, NoRecord> {
        Ok(Named { columns: self.0, column: None, next: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Named<'c>, NoRecord> {
        Ok(Named { columns: self.0, column: None, next: 0 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NoRecord> {
        Err(NoRecord::NoMap)
    }
}

impl Named<'_> {
    fn set<T: Serialize + ?Sized>(&mut self, column: usize, value: &T) -> Result<(), NoRecord> {
        self.next = column + 1;
        let (cells, row) = self.columns.next_cell(column).ok_or(NoRecord::Failed)?;
        value.serialize(Cell(cells, row))
    }
}

impl SerializeMap for Named<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoRecord> {
        key.serialize(Cell(&mut self.columns.name, 0))?;
        let name = text(&self.columns.name).ok_or(NoRecord::NoMap)?;
        self.column = self.columns.find(&name, self.next);
        if self.column.is_none() {
            let name = name.as_ref().into();
            self.column = Some(self.columns.add(name, Cells::new()));
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        let column = self.column.take().ok_or(NoRecord::Failed)?;
        self.set(column, value)
    }

    fn end(self) -> Result<(), NoRecord> {
        Ok(())
    }
}

impl SerializeStruct for Named<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        let found = self.columns.find(name, self.next);
        let column = found.unwrap_or_else(|| self.columns.add(name.into(), Cells::new()));
        self.set(column, value)
    }

    fn end(self) -> Result<(), NoRecord> {
        Ok(())
    }
}

/// A name. One that is a number is its digits, as JSON has it.
fn text(name: &Cells) -> Option<Cow<'_, str>> {
    match name.get(0)? {
        ValueRef::Text(name) => Some(name),
        ValueRef::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

macro_rules! scalars {
    ($($method:ident($type:ty) => $set:ident(|$value:ident| $made:expr);)*) => {
        $(fn $method(self, $value: $type) -> Result<(), NoRecord> {
            let Self(cells, row) = self;
            cells.$set(row, $made);
            Ok(())
        })*
    };
}

impl<'c> Serializer for Cell<'c> {
    type Ok = ();
    type Error = NoRecord;
    type SerializeSeq = List<'c>;
    type SerializeTuple = List<'c>;
    type SerializeTupleStruct = List<'c>;
    type SerializeTupleVariant = Impossible<(), NoRecord>;
    type SerializeMap = Nested<'c>;
    type SerializeStruct = Nested<'c>;
    type SerializeStructVariant = Impossible<(), NoRecord>;

    scalars! {
        serialize_i8(i8) => set_int(|value| value.into());
        serialize_i16(i16) => set_int(|value| value.into());
        serialize_i32(i32) => set_int(|value| value.into());
        serialize_i64(i64) => set_int(|value| value.into());
        serialize_i128(i128) => set_int(|value| value);
        serialize_u8(u8) => set_int(|value| value.into());
        serialize_u16(u16) => set_int(|value| value.into());
        serialize_u32(u32) => set_int(|value| value.into());
        serialize_u64(u64) => set_int(|value| value.into());
        serialize_bool(bool) => set_bool(|value| value);
        serialize_f32(f32) => set_float(|value| widened(value));
        serialize_f64(f64) => set_float(|value| value);
        serialize_char(char) => set_text(|value| value.encode_utf8(&mut [0; 4]));
        serialize_str(&str) => set_text(|value| value);
    }

    fn serialize_u128(self, value: u128) -> Result<(), NoRecord> {
        match i128::try_from(value) {
            Ok(value) => self.serialize_i128(value),
            Err(_) => self.collect_str(&value),
        }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), NoRecord> {
        value.serialize(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), NoRecord> {
        let Self(cells, row) = self;
        cells.set_shown(row, value).map_err(|_| NoRecord::Failed)
    }

    fn serialize_none(self) -> Result<(), NoRecord> {
        let Self(cells, row) = self;
        cells.set_null(row);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NoRecord> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NoRecord> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NoRecord> {
        self.serialize_none()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), NoRecord> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        json(&BTreeMap::from([(variant, value)]), self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<List<'c>, NoRecord> {
        Ok(List { to: self, values: Vec::with_capacity(length.unwrap_or(0).min(1024)), value: Cells::new() })
    }

    fn serialize_tuple(self, length: usize) -> Result<List<'c>, NoRecord> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<List<'c>, NoRecord> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NoRecord> {
        Err(NoRecord::Failed)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Nested<'c>, NoRecord> {
        Ok(Nested { to: self, values: serde_json::Map::new(), name: None })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Nested<'c>, NoRecord> {
        Ok(Nested { to: self, values: serde_json::Map::new(), name: None })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NoRecord> {
        Err(NoRecord::Failed)
    }
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        value.serialize(Cell(&mut self.value, 0))?;
        self.values.extend(self.value.get(0).map(ValueRef::into_owned));
        Ok(())
    }

    fn end(self) -> Result<(), NoRecord> {
        let Cell(cells, row) = self.to;
        cells.set_list(row, self.values);
        Ok(())
    }
}

impl SerializeTuple for List<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), NoRecord> {
        SerializeSeq::end(self)
    }
}

impl SerializeTupleStruct for List<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), NoRecord> {
        SerializeSeq::end(self)
    }
}

/// A map or a struct inside a row, on its way to JSON text.
struct Nested<'c> {
    to: Cell<'c>,
    values: serde_json::Map<String, serde_json::Value>,
    name: Option<String>,
}

impl Nested<'_> {
    fn set<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<(), NoRecord> {
        let value = serde_json::to_value(value).map_err(|_| NoRecord::Failed)?;
        self.values.insert(name, value);
        Ok(())
    }
}

impl SerializeMap for Nested<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoRecord> {
        let mut name = Cells::new();
        key.serialize(Cell(&mut name, 0))?;
        self.name = Some(text(&name).ok_or(NoRecord::Failed)?.into_owned());
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        let name = self.name.take().ok_or(NoRecord::Failed)?;
        self.set(name, value)
    }

    fn end(self) -> Result<(), NoRecord> {
        json(&self.values, self.to)
    }
}

impl SerializeStruct for Nested<'_> {
    type Ok = ();
    type Error = NoRecord;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        self.set(name.to_owned(), value)
    }

    fn end(self) -> Result<(), NoRecord> {
        SerializeMap::end(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::rows::Rows;

    /// What a row has under each of these names.
    fn values<const N: usize>(
        row: &impl Serialize,
        names: [&str; N],
    ) -> Result<[Option<Value>; N], NoRecord> {
        let mut columns = Columns::new();
        write(row, &mut columns)?;
        let mut found = [const { None }; N];
        let visited = columns.visit(&names.map(Into::into), 0..1, &mut |values| {
            found
                .iter_mut()
                .zip(values)
                .for_each(|(to, value)| *to = value.clone().map(ValueRef::into_owned));
            Ok(())
        });
        visited.map(|()| found).map_err(|_| NoRecord::Failed)
    }

    #[derive(Serialize)]
    struct Person {
        email: &'static str,
        points: f64,
        small: f32,
        phone: Option<&'static str>,
        tags: Vec<&'static str>,
        level: Level,
        address: BTreeMap<&'static str, u8>,
    }

    #[derive(Serialize)]
    enum Level {
        Gold,
    }

    #[test]
    fn values_keep_their_types_and_numbers_that_are_not_finite_stay_what_they_are() {
        let person = Person {
            email: "ada@shop.test",
            points: f64::NAN,
            small: 0.1,
            phone: None,
            tags: vec!["a", "b"],
            level: Level::Gold,
            address: BTreeMap::from([("house", 7)]),
        };
        let names = ["points", "small", "phone", "tags", "level", "address", "missing"];
        let [points, values @ ..] = values(&Some(person), names).unwrap();
        assert!(matches!(points, Some(Value::Float(points)) if points.is_nan()));
        let expected = [
            Some(Value::Float(0.1)),
            Some(Value::Null),
            Some(Value::from(vec!["a", "b"])),
            Some(Value::from("Gold")),
            Some(Value::from(r#"{"house":7}"#)),
            None,
        ];
        assert!(values == expected);
    }

    #[test]
    fn equal_maps_are_equal_texts_wherever_they_are_in_a_value() {
        #[derive(Serialize)]
        enum Nested {
            Scores(HashMap<String, HashMap<String, u8>>),
        }
        let scores = || (0..50_u8).map(|number| (number.to_string(), number)).collect::<HashMap<_, _>>();
        let row = || {
            let nested = (0..50).map(|number| (number.to_string(), scores())).collect();
            let row = BTreeMap::from([("scores", Nested::Scores(nested))]);
            let Ok([Some(Value::Text(text))]) = values(&row, ["scores"]) else { panic!("it is text") };
            text
        };
        assert_eq!(row(), row());
    }

    #[test]
    fn names_may_be_numbers_and_what_is_no_map_is_no_record() {
        let row = BTreeMap::from([(3, "ada@shop.test")]);
        assert!(values(&row, ["3"]).unwrap() == [Some(Value::from("ada@shop.test"))]);
        assert!(values(&["ada@shop.test"], []).err() == Some(NoRecord::NoMap));
        assert!(values(&"ada@shop.test", []).err() == Some(NoRecord::NoMap));
        assert!(values(&BTreeMap::from([(true, 1)]), []).err() == Some(NoRecord::NoMap));
    }

    /// A row whose struct has a field and flattened ones of the same name.
    struct Twice;

    impl Serialize for Twice {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([("a", "long ago"), ("b", "beside"), ("a", "now")])
        }
    }

    #[test]
    fn of_two_values_of_one_name_the_last_counts() {
        let found = values(&Twice, ["a", "b"]).unwrap();
        assert!(found == [Some(Value::from("now")), Some(Value::from("beside"))]);
    }
}
