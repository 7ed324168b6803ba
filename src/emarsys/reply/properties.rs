//! What a reply means does not depend on how it is printed, and nothing that comes is a panic.

use std::collections::BTreeMap;

use proptest::{
    collection::{btree_map, hash_set, vec},
    prelude::*,
};
use serde_json::json;

use super::*;
use crate::emarsys::ids::{ContactId, FieldId, ListId, SegmentId};

/// What a reply about rows says, however it is printed.
#[derive(Clone, Debug)]
struct Meaning {
    ids: Vec<u64>,
    errors: BTreeMap<String, i64>,
}

/// How it is printed: one choice after the other, from a list that begins anew when it ends.
#[derive(Clone, Debug)]
struct Spelling {
    choices: Vec<u8>,
    next: usize,
}

impl Spelling {
    fn choose(&mut self, among: u8) -> u8 {
        let choice = self.choices[self.next % self.choices.len()] % among;
        self.next += 1;
        choice
    }

    fn id(&mut self, id: u64) -> Value {
        if self.choose(2) == 0 { json!(id) } else { json!(id.to_string()) }
    }

    fn code(&mut self, code: i64) -> Value {
        if self.choose(2) == 0 { json!(code) } else { json!(code.to_string()) }
    }

    /// Nothing, in one of its spellings; `None` if it is left out.
    fn nothing(&mut self) -> Option<Value> {
        [None, Some(json!([])), Some(json!({})), Some(json!(false)), Some(json!("")), Some(Value::Null)]
            [usize::from(self.choose(6))]
        .clone()
    }

    fn ids(&mut self, ids: &[u64]) -> Option<Value> {
        if ids.is_empty() {
            return self.nothing();
        }
        let items: Vec<Value> = ids.iter().map(|id| self.id(*id)).collect();
        Some(if self.choose(2) == 0 {
            Value::Array(items)
        } else {
            items
                .into_iter()
                .enumerate()
                .map(|(place, id)| (place.to_string(), id))
                .collect::<Map<_, _>>()
                .into()
        })
    }

    /// Row errors as a map from key to code and text, or as the list that `getdata` has.
    fn errors(&mut self, errors: &BTreeMap<String, i64>) -> Option<Value> {
        const TEXT: &str = "No contact found with the external id: 3";
        if errors.is_empty() {
            return self.nothing();
        }
        if self.choose(2) == 0 {
            let entries = errors
                .iter()
                .map(|(key, code)| json!({"key": key, "errorCode": self.code(*code), "errorMsg": TEXT}));
            return Some(entries.collect());
        }
        let entries = errors.iter().map(|(key, code)| {
            let mut entry = Map::new();
            entry.insert(code.to_string(), TEXT.into());
            (key.clone(), Value::Object(entry))
        });
        Some(Value::Object(entries.collect()))
    }

    /// The body, with members in any order, and perhaps a byte order mark, blanks, and members nobody knows.
    fn body(&mut self, meaning: &Meaning) -> Vec<u8> {
        let mut data = Map::new();
        for (name, value) in [("ids", self.ids(&meaning.ids)), ("errors", self.errors(&meaning.errors))] {
            if let Some(value) = value {
                data.insert(name.into(), value);
            }
        }
        let data = if data.is_empty() { self.nothing() } else { Some(data.into()) };
        let mut members = vec![format!(r#""replyCode":{}"#, self.code(0))];
        if let Some(data) = data {
            members.push(format!(r#""data":{data}"#));
        }
        if self.choose(3) > 0 {
            members.push(r#""replyText":"OK""#.to_owned());
        }
        if self.choose(4) == 0 {
            members.push(r#""trace":{"id":[1,2,3]}"#.to_owned());
        }
        let turn = usize::from(self.choose(4)) % members.len();
        members.rotate_left(turn);
        let blank = ["", " ", "\n\t"][usize::from(self.choose(3))];
        let mark = if self.choose(3) == 0 { "\u{feff}" } else { "" };
        format!("{mark}{blank}{{{}}}{blank}", members.join(&format!(",{blank}"))).into_bytes()
    }
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    ids: List<ContactId>,
    #[serde(default)]
    errors: RowErrors,
}

fn meanings() -> impl Strategy<Value = Meaning> {
    let ids = hash_set(0..=u64::MAX, 0..6).prop_map(|ids| ids.into_iter().collect());
    // A single number as key would make a map that PHP prints as a list; that form has a test of its own.
    let errors = btree_map("[a-z]{1,4}@[a-z]{1,4}|[A-Z][0-9]{0,4}|<NO_KEY_ID>", 2000_i64..2030, 0..5);
    (ids, errors).prop_map(|(ids, errors)| Meaning { ids, errors })
}

fn spellings() -> impl Strategy<Value = Spelling> {
    vec(any::<u8>(), 1..40).prop_map(|choices| Spelling { choices, next: 0 })
}

/// JSON of any kind, of a few levels.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}|[0-9]{1,20}".prop_map(Value::from),
    ];
    let name = "data|ids|errors|id|result|key|errorCode|replyCode|value|next|[a-z0-9@.]{0,8}";
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((name, inner), 0..6).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reply_means_the_same_however_it_is_printed(meaning in meanings(), mut spelling in spellings()) {
        let body = spelling.body(&meaning);
        let envelope = Envelope::read(&body).expect("an envelope");
        prop_assert_eq!(envelope.code, 0);
        let reply: Written = data(envelope.data).expect("the expected shape");
        let ids: Vec<u64> = reply.ids.0.into_iter().map(ContactId::get).collect();
        prop_assert_eq!(ids, meaning.ids);
        let errors: BTreeMap<String, i64> =
            reply.errors.0.into_iter().map(|error| (error.key, error.code.expect("a code"))).collect();
        prop_assert_eq!(errors, meaning.errors);
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in vec(any::<u8>(), 0..300)) {
        read_all(&body);
    }

    #[test]
    fn any_json_is_read_or_refused(value in values(), cut in 0..400_usize) {
        let text = value.to_string();
        read_all(text.as_bytes());
        read_all(&text.as_bytes()[..cut.min(text.len())]);
        read_all(format!(r#"{{"replyCode":0,"data":{text}}}"#).as_bytes());
    }

    #[test]
    fn ids_are_read_in_every_form_in_which_they_are_printed(id: u64, field: u32) {
        for text in [id.to_string(), format!("\"{id}\"")] {
            prop_assert_eq!(serde_json::from_str::<ContactId>(&text).unwrap(), ContactId::new(id));
            prop_assert_eq!(serde_json::from_str::<ListId>(&text).unwrap().get(), id);
        }
        let segment = SegmentId::new(id);
        prop_assert_eq!(segment.to_string().parse::<SegmentId>().unwrap(), segment);
        prop_assert_eq!(serde_json::from_str::<SegmentId>(&serde_json::to_string(&segment).unwrap()).unwrap(), segment);
        prop_assert_eq!(serde_json::from_str::<FieldId>(&format!("\"{field}\"")).unwrap(), FieldId::new(field));
    }
}

/// Everything that is read of a body, with nothing expected of it but to come to an end.
fn read_all(body: &[u8]) {
    crate::emarsys::fuzzing::decode(body);
}
