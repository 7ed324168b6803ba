//! A row of any serde type as a record: each value in its own type, none through JSON.
//!
//! JSON has no number that is not finite, and writes it as null, which would clear a field. Here it stays what it is, and
//! the field refuses it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Serialize, Serializer,
    ser::{
        self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct,
    },
};

use crate::record::{FieldName, Record, Value, in_order, widened};

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

pub(super) fn record(row: &impl Serialize) -> Result<Record, NoRecord> {
    row.serialize(Rows)
}

/// Takes a whole row.
struct Rows;

/// Takes one value.
struct Values;

/// Names and values as they come.
#[derive(Default)]
struct Columns {
    record: Record,
    name: Option<FieldName>,
}

/// Values as they come.
struct List(Vec<Value>);

/// What is neither a scalar nor a list goes as its JSON text.
fn json<T: Serialize + ?Sized>(value: &T) -> Result<Value, NoRecord> {
    let value = serde_json::to_value(value).map_err(|_| NoRecord::Failed)?;
    Ok(Value::Text(in_order(value).to_string()))
}

macro_rules! no_map {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<Record, NoRecord> {
            Err(NoRecord::NoMap)
        })*
    };
}

impl Serializer for Rows {
    type Ok = Record;
    type Error = NoRecord;
    type SerializeSeq = Impossible<Record, NoRecord>;
    type SerializeTuple = Impossible<Record, NoRecord>;
    type SerializeTupleStruct = Impossible<Record, NoRecord>;
    type SerializeTupleVariant = Impossible<Record, NoRecord>;
    type SerializeMap = Columns;
    type SerializeStruct = Columns;
    type SerializeStructVariant = Impossible<Record, NoRecord>;

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

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Record, NoRecord> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Record, NoRecord> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Record, NoRecord> {
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

    fn serialize_map(self, _: Option<usize>) -> Result<Columns, NoRecord> {
        Ok(Columns::default())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Columns, NoRecord> {
        Ok(Columns::default())
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

impl SerializeMap for Columns {
    type Ok = Record;
    type Error = NoRecord;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoRecord> {
        // A name that is a number is its digits, as JSON has it.
        self.name = Some(match key.serialize(Values)? {
            Value::Text(name) => name.into(),
            Value::Int(number) => number.to_string().into(),
            _ => return Err(NoRecord::NoMap),
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        let name = self.name.take().ok_or(NoRecord::Failed)?;
        self.record.set(name, value.serialize(Values)?);
        Ok(())
    }

    fn end(self) -> Result<Record, NoRecord> {
        Ok(self.record)
    }
}

impl SerializeStruct for Columns {
    type Ok = Record;
    type Error = NoRecord;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        self.record.set(name.into(), value.serialize(Values)?);
        Ok(())
    }

    fn end(self) -> Result<Record, NoRecord> {
        Ok(self.record)
    }
}

macro_rules! scalars {
    ($($method:ident($type:ty) => |$value:ident| $made:expr;)*) => {
        $(fn $method(self, $value: $type) -> Result<Value, NoRecord> {
            Ok($made)
        })*
    };
}

impl Serializer for Values {
    type Ok = Value;
    type Error = NoRecord;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = Impossible<Value, NoRecord>;
    type SerializeMap = Nested;
    type SerializeStruct = Nested;
    type SerializeStructVariant = Impossible<Value, NoRecord>;

    scalars! {
        serialize_bool(bool) => |value| Value::Bool(value);
        serialize_i8(i8) => |value| Value::Int(value.into());
        serialize_i16(i16) => |value| Value::Int(value.into());
        serialize_i32(i32) => |value| Value::Int(value.into());
        serialize_i64(i64) => |value| Value::Int(value.into());
        serialize_i128(i128) => |value| Value::Int(value);
        serialize_u8(u8) => |value| Value::Int(value.into());
        serialize_u16(u16) => |value| Value::Int(value.into());
        serialize_u32(u32) => |value| Value::Int(value.into());
        serialize_u64(u64) => |value| Value::Int(value.into());
        serialize_f64(f64) => |value| Value::Float(value);
        serialize_char(char) => |value| Value::Text(value.to_string());
        serialize_str(&str) => |value| Value::Text(value.to_owned());
    }

    fn serialize_u128(self, value: u128) -> Result<Value, NoRecord> {
        Ok(i128::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, NoRecord> {
        Ok(Value::Float(widened(value)))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, NoRecord> {
        Ok(Value::List(value.iter().map(|byte| Value::Int((*byte).into())).collect()))
    }

    fn serialize_none(self) -> Result<Value, NoRecord> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, NoRecord> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, NoRecord> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, NoRecord> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, NoRecord> {
        Ok(Value::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, NoRecord> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, NoRecord> {
        json(&BTreeMap::from([(variant, value)]))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<List, NoRecord> {
        Ok(List(Vec::with_capacity(length.unwrap_or(0).min(1024))))
    }

    fn serialize_tuple(self, length: usize) -> Result<List, NoRecord> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<List, NoRecord> {
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

    fn serialize_map(self, _: Option<usize>) -> Result<Nested, NoRecord> {
        Ok(Nested::default())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Nested, NoRecord> {
        Ok(Nested::default())
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

impl SerializeSeq for List {
    type Ok = Value;
    type Error = NoRecord;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        self.0.push(value.serialize(Values)?);
        Ok(())
    }

    fn end(self) -> Result<Value, NoRecord> {
        Ok(Value::List(self.0))
    }
}

impl SerializeTuple for List {
    type Ok = Value;
    type Error = NoRecord;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Value, NoRecord> {
        SerializeSeq::end(self)
    }
}

impl SerializeTupleStruct for List {
    type Ok = Value;
    type Error = NoRecord;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Value, NoRecord> {
        SerializeSeq::end(self)
    }
}

/// A map or a struct inside a row, on its way to JSON text.
#[derive(Default)]
struct Nested {
    values: serde_json::Map<String, serde_json::Value>,
    name: Option<String>,
}

impl Nested {
    fn set<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<(), NoRecord> {
        let value = serde_json::to_value(value).map_err(|_| NoRecord::Failed)?;
        self.values.insert(name, value);
        Ok(())
    }
}

impl SerializeMap for Nested {
    type Ok = Value;
    type Error = NoRecord;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoRecord> {
        self.name = Some(match key.serialize(Values)? {
            Value::Text(name) => name,
            Value::Int(number) => number.to_string(),
            _ => return Err(NoRecord::Failed),
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoRecord> {
        let name = self.name.take().ok_or(NoRecord::Failed)?;
        self.set(name, value)
    }

    fn end(self) -> Result<Value, NoRecord> {
        json(&self.values)
    }
}

impl SerializeStruct for Nested {
    type Ok = Value;
    type Error = NoRecord;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoRecord> {
        self.set(name.to_owned(), value)
    }

    fn end(self) -> Result<Value, NoRecord> {
        SerializeMap::end(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

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
        let record = record(&Some(person)).unwrap();
        let value = |name: &str| record.get(&name.into()).unwrap().clone();
        assert!(matches!(value("points"), Value::Float(points) if points.is_nan()));
        assert!(value("small") == Value::Float(0.1));
        assert!(value("phone") == Value::Null);
        assert!(value("tags") == Value::from(vec!["a", "b"]));
        assert!(value("level") == Value::from("Gold"));
        assert!(value("address") == Value::from(r#"{"house":7}"#));
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
            let row = record(&BTreeMap::from([("scores", Nested::Scores(nested))])).unwrap();
            let Some(Value::Text(text)) = row.get(&"scores".into()) else { panic!("it is text") };
            text.clone()
        };
        assert_eq!(row(), row());
    }

    #[test]
    fn names_may_be_numbers_and_what_is_no_map_is_no_record() {
        let row = record(&BTreeMap::from([(3, "ada@shop.test")])).unwrap();
        assert!(row.get(&"3".into()).is_some());
        assert_eq!(record(&["ada@shop.test"]).err(), Some(NoRecord::NoMap));
        assert_eq!(record(&"ada@shop.test").err(), Some(NoRecord::NoMap));
    }
}
