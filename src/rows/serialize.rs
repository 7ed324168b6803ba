//! A row of any serde type, written into the columns of a chunk: each value in its own type, none through JSON.
//!
//! JSON has no number that is not finite, and writes it as null, which would clear a field. Here it stays what it is, and
//! the field refuses it.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Serialize, Serializer,
    ser::{
        self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
        SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::value::Serializer as Json;

use super::{cells::Cells, columns::Columns};
use crate::record::{Value, ValueRef, widened};

/// Why a row could not be written. It never says what is in the row: serde's own messages quote values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// It is not a map of names to values.
    NoMap,
    /// Its `Serialize` failed.
    Failed,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMap => "is not a map of column names to values: make it a struct or a map",
            Self::Failed => "cannot be written by serde: check its `Serialize`",
        })
    }
}

impl std::error::Error for Unwritten {}

impl ser::Error for Unwritten {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Failed
    }
}

/// Writes a row into a chunk, behind those that it has.
pub(super) fn write(row: &impl Serialize, columns: &mut Columns) -> Result<(), Unwritten> {
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

/// Takes what is neither a scalar nor a list, on its way to JSON text.
struct Nested<'c, J> {
    to: Cell<'c>,
    json: J,
}

impl<'c> Cell<'c> {
    fn set(self, value: Value) {
        let Self(cells, row) = self;
        cells.set(row, value);
    }

    fn set_json(self, json: Result<serde_json::Value, serde_json::Error>) -> Result<(), Unwritten> {
        self.set(Value::from_json(json?));
        Ok(())
    }

    fn nested<J>(self, json: Result<J, serde_json::Error>) -> Result<Nested<'c, J>, Unwritten> {
        Ok(Nested { to: self, json: json? })
    }
}

impl From<serde_json::Error> for Unwritten {
    fn from(_: serde_json::Error) -> Self {
        Self::Failed
    }
}

macro_rules! no_map {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<(), Unwritten> {
            Err(Unwritten::NoMap)
        })*
    };
}

impl<'c> Serializer for Row<'c> {
    type Ok = ();
    type Error = Unwritten;
    type SerializeSeq = Impossible<(), Unwritten>;
    type SerializeTuple = Impossible<(), Unwritten>;
    type SerializeTupleStruct = Impossible<(), Unwritten>;
    type SerializeTupleVariant = Impossible<(), Unwritten>;
    type SerializeMap = Named<'c>;
    type SerializeStruct = Named<'c>;
    type SerializeStructVariant = Impossible<(), Unwritten>;

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

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritten> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unwritten> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unwritten> {
        Err(Unwritten::NoMap)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Unwritten> {
        Err(Unwritten::NoMap)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unwritten> {
        Err(Unwritten::NoMap)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Unwritten> {
        Err(Unwritten::NoMap)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritten> {
        Err(Unwritten::NoMap)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Named<'c>, Unwritten> {
        Ok(Named { columns: self.0, column: None, next: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Named<'c>, Unwritten> {
        Ok(Named { columns: self.0, column: None, next: 0 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritten> {
        Err(Unwritten::NoMap)
    }
}

impl Named<'_> {
    fn set<T: Serialize + ?Sized>(&mut self, column: usize, value: &T) -> Result<(), Unwritten> {
        self.next = column + 1;
        let (cells, row) = self.columns.next_cell(column).ok_or(Unwritten::Failed)?;
        value.serialize(Cell(cells, row))
    }
}

impl SerializeMap for Named<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritten> {
        key.serialize(Cell(&mut self.columns.name, 0))?;
        let name = text(&self.columns.name).ok_or(Unwritten::NoMap)?;
        self.column = self.columns.find(&name, self.next);
        if self.column.is_none() {
            let name = name.as_ref().into();
            self.column = Some(self.columns.add(name, Cells::new()));
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        let column = self.column.take().ok_or(Unwritten::Failed)?;
        self.set(column, value)
    }

    fn end(self) -> Result<(), Unwritten> {
        Ok(())
    }
}

impl SerializeStruct for Named<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unwritten> {
        let found = self.columns.find(name, self.next);
        let column = found.unwrap_or_else(|| self.columns.add(name.into(), Cells::new()));
        self.set(column, value)
    }

    fn end(self) -> Result<(), Unwritten> {
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
    ($($method:ident($type:ty) => |$value:ident| $made:expr;)*) => {
        $(fn $method(self, $value: $type) -> Result<(), Unwritten> {
            self.set($made);
            Ok(())
        })*
    };
}

impl<'c> Serializer for Cell<'c> {
    type Ok = ();
    type Error = Unwritten;
    type SerializeSeq = List<'c>;
    type SerializeTuple = List<'c>;
    type SerializeTupleStruct = List<'c>;
    type SerializeTupleVariant = Nested<'c, <Json as Serializer>::SerializeTupleVariant>;
    type SerializeMap = Nested<'c, <Json as Serializer>::SerializeMap>;
    type SerializeStruct = Nested<'c, <Json as Serializer>::SerializeStruct>;
    type SerializeStructVariant = Nested<'c, <Json as Serializer>::SerializeStructVariant>;

    scalars! {
        serialize_i8(i8) => |value| Value::Int(value.into());
        serialize_i16(i16) => |value| Value::Int(value.into());
        serialize_i32(i32) => |value| Value::Int(value.into());
        serialize_i64(i64) => |value| Value::Int(value.into());
        serialize_i128(i128) => |value| Value::Int(value);
        serialize_u8(u8) => |value| Value::Int(value.into());
        serialize_u16(u16) => |value| Value::Int(value.into());
        serialize_u32(u32) => |value| Value::Int(value.into());
        serialize_u64(u64) => |value| Value::Int(value.into());
        serialize_bool(bool) => |value| Value::Bool(value);
        serialize_f32(f32) => |value| Value::Float(widened(value));
        serialize_f64(f64) => |value| Value::Float(value);
    }

    fn serialize_char(self, value: char) -> Result<(), Unwritten> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Unwritten> {
        let Self(cells, row) = self;
        cells.set_text(row, value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Unwritten> {
        match i128::try_from(value) {
            Ok(value) => self.serialize_i128(value),
            Err(_) => self.collect_str(&value),
        }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unwritten> {
        value.serialize(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Unwritten> {
        let Self(cells, row) = self;
        cells.set_shown(row, value).map_err(|_| Unwritten::Failed)
    }

    fn serialize_none(self) -> Result<(), Unwritten> {
        self.set(Value::Null);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritten> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unwritten> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unwritten> {
        self.serialize_none()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unwritten> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unwritten> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unwritten> {
        self.set_json(serde_json::to_value(BTreeMap::from([(variant, value)])))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<List<'c>, Unwritten> {
        Ok(List { to: self, values: Vec::with_capacity(length.unwrap_or(0).min(1024)), value: Cells::new() })
    }

    fn serialize_tuple(self, length: usize) -> Result<List<'c>, Unwritten> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<List<'c>, Unwritten> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritten> {
        self.nested(Json.serialize_tuple_variant(name, index, variant, length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, Unwritten> {
        self.nested(Json.serialize_map(length))
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, Unwritten> {
        self.nested(Json.serialize_struct(name, length))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritten> {
        self.nested(Json.serialize_struct_variant(name, index, variant, length))
    }
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        value.serialize(Cell(&mut self.value, 0))?;
        self.values.extend(self.value.get(0).map(ValueRef::into_owned));
        Ok(())
    }

    fn end(self) -> Result<(), Unwritten> {
        self.to.set(Value::List(self.values));
        Ok(())
    }
}

impl SerializeTuple for List<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Unwritten> {
        SerializeSeq::end(self)
    }
}

impl SerializeTupleStruct for List<'_> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Unwritten> {
        SerializeSeq::end(self)
    }
}

macro_rules! nested {
    ($($trait:ident: $method:ident($($name:ident: $type:ty),*);)*) => {$(
        impl<J: $trait<Ok = serde_json::Value, Error = serde_json::Error>> $trait for Nested<'_, J> {
            type Ok = ();
            type Error = Unwritten;

            fn $method<T: Serialize + ?Sized>(&mut self, $($name: $type,)* value: &T) -> Result<(), Unwritten> {
                Ok(self.json.$method($($name,)* value)?)
            }

            fn end(self) -> Result<(), Unwritten> {
                self.to.set_json(self.json.end())
            }
        }
    )*};
}

nested! {
    SerializeStruct: serialize_field(name: &'static str);
    SerializeTupleVariant: serialize_field();
    SerializeStructVariant: serialize_field(name: &'static str);
}

impl<J: SerializeMap<Ok = serde_json::Value, Error = serde_json::Error>> SerializeMap for Nested<'_, J> {
    type Ok = ();
    type Error = Unwritten;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritten> {
        Ok(self.json.serialize_key(key)?)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritten> {
        Ok(self.json.serialize_value(value)?)
    }

    fn end(self) -> Result<(), Unwritten> {
        self.to.set_json(self.json.end())
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
    ) -> Result<[Option<Value>; N], Unwritten> {
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
        visited.map(|()| found).map_err(|_| Unwritten::Failed)
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

    #[derive(Serialize)]
    enum Place {
        Home { house: u8 },
        Map(u8, u8),
        Post(u8),
    }

    #[test]
    fn variants_with_data_are_their_json_text_in_a_field_and_in_a_list() {
        let places = || [Place::Home { house: 7 }, Place::Map(1, 2), Place::Post(3)];
        let [home, map, post] = places();
        let row = BTreeMap::from([("home", home), ("map", map), ("post", post)]);
        let texts = [r#"{"Home":{"house":7}}"#, r#"{"Map":[1,2]}"#, r#"{"Post":3}"#];
        let found = values(&row, ["home", "map", "post"]).unwrap();
        assert!(found == texts.map(|text| Some(Value::from(text))));
        let found = values(&BTreeMap::from([("all", places())]), ["all"]).unwrap();
        assert!(found == [Some(Value::from(texts.to_vec()))]);
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
        assert!(values(&["ada@shop.test"], []).err() == Some(Unwritten::NoMap));
        assert!(values(&"ada@shop.test", []).err() == Some(Unwritten::NoMap));
        assert!(values(&BTreeMap::from([(true, 1)]), []).err() == Some(Unwritten::NoMap));
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
