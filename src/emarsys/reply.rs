//! The one decoder of replies: the envelope, and the shapes in which the same thing may be printed.
//!
//! The rules: JSON is read whatever the `Content-Type` says; an id is a number or a string of digits; an empty map
//! may be printed as `[]`, `""`, `false`, `null` or not at all; the text of a reply decides nothing but which of
//! the meanings of a reply code is meant, and goes nowhere, because it may quote the key of a person.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value};

use super::ids::FieldId;

/// A reply that is `{"replyCode": .., "data": ..}` (Emarsys API: Concepts).
pub(crate) struct Envelope {
    pub(crate) code: i64,
    pub(crate) data: Value,
}

impl Envelope {
    /// Reads a body; `None` if it is not an envelope, as the replies of a gateway often are not.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let mut reply: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
        let reply = reply.as_object_mut()?;
        let code = number(reply.get("replyCode")?)?;
        Some(Self { code, data: reply.remove("data").unwrap_or_default() })
    }

    /// Whether the reply names something that was done, whatever its code says.
    pub(crate) fn names_successes(&self) -> bool {
        let named = |member: &str| match self.data.get(member) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(other) => number(other).is_some_and(|count| count > 0),
            None => false,
        };
        ["id", "ids", "inserted_contacts", "deleted_contacts"].into_iter().any(named)
    }
}

/// Reads `data` as `T`; an empty one in any of its spellings counts as an empty object, too.
///
/// The reason of a failure is left out: serde quotes the value it stumbled over.
pub(crate) fn data<T: DeserializeOwned>(data: Value) -> Option<T> {
    let empty = is_empty(&data);
    match serde_json::from_value(data) {
        Ok(reply) => Some(reply),
        Err(_) if empty => serde_json::from_value(Map::new().into()).ok(),
        Err(_) => None,
    }
}

/// A list, which may be printed as an object with numbers for keys, and if empty as nearly anything.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = match Value::deserialize(deserializer)? {
            Value::Array(items) => items,
            Value::Object(map) if map.keys().all(|key| key.parse::<u64>().is_ok()) => {
                map.into_iter().map(|(_, item)| item).collect()
            }
            empty if is_empty(&empty) => Vec::new(),
            _ => return Err(D::Error::custom("expected a list")),
        };
        items
            .into_iter()
            .map(|item| {
                serde_json::from_value(item).map_err(|_| D::Error::custom("unexpected item in a list"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A map from key values, which may be printed as a list when its keys happen to be 0, 1, 2, and if empty as nearly
/// anything.
#[derive(Debug)]
pub(crate) struct KeyMap<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for KeyMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for KeyMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries: Vec<(String, Value)> = match Value::deserialize(deserializer)? {
            Value::Object(map) => map.into_iter().collect(),
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(key, item)| (key.to_string(), item)).collect()
            }
            empty if is_empty(&empty) => Vec::new(),
            _ => return Err(D::Error::custom("expected a map")),
        };
        entries
            .into_iter()
            .map(|(key, item)| match serde_json::from_value(item) {
                Ok(item) => Ok((key, item)),
                Err(_) => Err(D::Error::custom("unexpected item in a map")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The row errors of a reply: of `contact`, `checkids` and the lists a map from the key value to code and text, of
/// `getdata` a list of `{"key", "errorCode", "errorMsg"}`.
#[derive(Default)]
pub(crate) struct RowErrors(pub(crate) Vec<RowError>);

/// One of them. The key is the value that was sent, so this has no `Debug`.
pub(crate) struct RowError {
    pub(crate) key: String,
    /// `None` if there is an entry for the key but no code in it.
    pub(crate) code: Option<i64>,
    /// The field that the text names, for codes about a field.
    pub(crate) field: Option<FieldId>,
    /// Whether the text says that the contact exists: a meaning that 2006 and 2010 may have beside their own.
    pub(crate) says_exists: bool,
}

impl RowError {
    /// Whether it is about the whole request and not about one key.
    pub(crate) fn is_of_the_request(&self) -> bool {
        matches!(self.key.trim(), "" | "<NO_KEY_ID>")
    }

    fn new(key: String, code: Option<&Value>, text: Option<&Value>) -> Self {
        let code = code.and_then(number);
        let text = text.and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        Self {
            key,
            code,
            field: code.and_then(|code| field_in(code, &text)),
            says_exists: text.starts_with("contact") && text.contains(" external id already exist"),
        }
    }
}

impl<'de> Deserialize<'de> for RowErrors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let KeyMap(entries) = KeyMap::<Value>::deserialize(deserializer)?;
        let errors = entries.into_iter().map(|(key, entry)| match entry {
            Value::Object(entry) if entry.contains_key("key") => {
                let key = entry.get("key").map(key_text).unwrap_or_default();
                RowError::new(key, entry.get("errorCode"), entry.get("errorMsg"))
            }
            Value::Object(entry) => {
                let (code, text) = entry.into_iter().next().unzip();
                RowError::new(key, code.map(Value::String).as_ref(), text.as_ref())
            }
            _ => RowError::new(key, None, None),
        });
        Ok(Self(errors.collect()))
    }
}

/// The text under which a reply knows the key value of a row.
pub(crate) fn key_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A whole number, which may be printed as a string.
pub(crate) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The digits after `field id:`. Only for codes whose texts are about fields: others quote the key of the row.
fn field_in(code: i64, text: &str) -> Option<FieldId> {
    if !matches!(code, 2004 | 2006 | 2007) {
        return None;
    }
    let (_, rest) = text.split_once("field id:")?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emarsys::ids::ContactId;

    #[derive(Deserialize)]
    struct Ids {
        #[serde(default)]
        ids: List<ContactId>,
        #[serde(default)]
        errors: RowErrors,
    }

    fn read<T: DeserializeOwned>(body: &str) -> T {
        data(Envelope::read(body.as_bytes()).expect("an envelope").data).expect("the expected shape")
    }

    fn errors(body: &str) -> Vec<(String, Option<i64>, Option<u32>)> {
        let reply: Ids = read(body);
        reply
            .errors
            .0
            .into_iter()
            .map(|error| (error.key, error.code, error.field.map(FieldId::get)))
            .collect()
    }

    #[test]
    fn ids_are_numbers_and_strings_in_the_same_reply() {
        let reply: Ids = read(r#"{"replyCode":0,"replyText":"OK","data":{"ids":["700001",700002]}}"#);
        assert_eq!(reply.ids.0, [ContactId::new(700_001), ContactId::new(700_002)]);
        assert!(reply.errors.0.is_empty());
    }

    #[test]
    fn ids_may_be_an_object_with_numbers_for_keys() {
        let reply: Ids = read(r#"{"replyCode":0,"data":{"ids":{"0":"700001","2":700002}}}"#);
        assert_eq!(reply.ids.0.len(), 2);
    }

    #[test]
    fn empty_maps_and_lists_come_in_every_spelling() {
        for data in [
            r#"{"ids":[],"errors":[]}"#,
            r#"{"ids":{},"errors":{}}"#,
            r#"{"ids":false,"errors":false}"#,
            r#"{"ids":null,"errors":null}"#,
            r#"{"ids":"","errors":""}"#,
            "{}",
            "[]",
            "null",
            "false",
            r#""""#,
        ] {
            let reply: Ids = read(&format!(r#"{{"replyCode":0,"replyText":"OK","data":{data}}}"#));
            assert!(reply.ids.0.is_empty() && reply.errors.0.is_empty(), "{data}");
        }
        let absent: Ids = read(r#"{"replyCode":0}"#);
        assert!(absent.ids.0.is_empty());
    }

    #[test]
    fn reply_code_may_be_a_string() {
        assert_eq!(Envelope::read(br#"{"replyCode":"2008","data":""}"#).map(|reply| reply.code), Some(2008));
    }

    #[test]
    fn envelope_is_read_behind_a_byte_order_mark_and_around_broken_utf_8() {
        let body = b"\xef\xbb\xbf{\"replyCode\":0,\"replyText\":\"\xff\",\"data\":7}";
        assert_eq!(Envelope::read(body).map(|reply| reply.data), Some(7.into()));
    }

    #[test]
    fn replies_of_a_gateway_are_no_envelope() {
        for body in [
            "Your application has made too many requests in too short a time.",
            r#"{"message":"Request size limit exceeded"}"#,
            r#"{"replyCode":null}"#,
            r#"{"replyCode":0,"data":{"ids":["7"#,
            "<html></html>",
            "[]",
            "",
        ] {
            assert!(Envelope::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn row_error_has_its_code_and_the_field_that_its_text_names() {
        assert_eq!(
            errors(
                r#"{"replyCode":0,"data":{"ids":[],"errors":{"C-1001":{"2007":"Invalid choice id for field id: 14"}}}}"#
            ),
            [("C-1001".to_owned(), Some(2007), Some(14))]
        );
        assert_eq!(
            errors(
                r#"{"replyCode":0,"data":{"errors":{"<NO_KEY_ID>":{"2004":"Invalid key field id: 999"}},"ids":[]}}"#
            ),
            [("<NO_KEY_ID>".to_owned(), Some(2004), Some(999))]
        );
    }

    #[test]
    fn digits_of_a_key_are_not_taken_for_a_field() {
        assert_eq!(
            errors(
                r#"{"replyCode":0,"data":{"errors":{"k":{"2008":"No contact found: 3 - field id: 4917012345"}}}}"#
            ),
            [("k".to_owned(), Some(2008), None)]
        );
    }

    #[test]
    fn row_errors_may_be_a_list_with_the_code_as_number_or_string() {
        assert_eq!(
            errors(
                r#"{"replyCode":0,"data":{"result":false,"errors":[
                    {"key":"zoe@shop.test","errorCode":2008,"errorMsg":"No contact found with the external id: 3"},
                    {"key":5678,"errorCode":"2010","errorMsg":""}]}}"#
            ),
            [("zoe@shop.test".to_owned(), Some(2008), None), ("5678".to_owned(), Some(2010), None)]
        );
    }

    #[test]
    fn row_errors_of_the_keys_0_and_1_arrive_as_a_list() {
        assert_eq!(
            errors(r#"{"replyCode":0,"data":{"errors":[{"2008":"No contact"},{"2010":"More contacts"}]}}"#),
            [("0".to_owned(), Some(2008), None), ("1".to_owned(), Some(2010), None)]
        );
    }

    #[test]
    fn entry_without_a_code_is_kept() {
        for entry in ["[]", "{}", "\"2008\"", "null", r#"{"code":"text"}"#] {
            let body = format!(r#"{{"replyCode":0,"data":{{"errors":{{"k":{entry}}}}}}}"#);
            assert_eq!(errors(&body), [("k".to_owned(), None, None)], "{entry}");
        }
    }

    #[test]
    fn code_that_also_means_exists_is_told_apart_by_its_text() {
        let says = |code: i64, text: &str| {
            RowError::new("k".into(), Some(&code.into()), Some(&text.into())).says_exists
        };
        assert!(says(2006, "Contact with the external id already exists: 3"));
        assert!(says(2010, "Contacts with the external id already exist: 3"));
        assert!(!says(2006, "Invalid field id: 999"));
        assert!(!says(2010, "More contacts found with the external id: 3 - external id already exist"));
    }

    #[test]
    fn refusal_that_names_successes_is_noticed() {
        let names = |body: &str| Envelope::read(body.as_bytes()).unwrap().names_successes();
        assert!(names(r#"{"replyCode":1,"data":{"ids":["1"]}}"#));
        assert!(names(r#"{"replyCode":1,"data":{"deleted_contacts":"2"}}"#));
        assert!(!names(r#"{"replyCode":1,"data":{"ids":[],"errors":{"a":{"2007":""}}}}"#));
        assert!(!names(r#"{"replyCode":1,"data":""}"#));
    }
}
