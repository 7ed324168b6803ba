//! The specification of fingerprints is all that it takes to reproduce them. Needs `python3`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use chrono::NaiveDate;
use reverse_etl::{
    Secret, Value,
    fingerprint::{Fingerprinter, Pairs},
};
use serde_json::{Value as Json, json};

fn rows() -> Vec<(String, Vec<(u16, Value)>)> {
    let day = Value::Date(NaiveDate::from_ymd_opt(2024, 2, 29).unwrap());
    let each = vec![
        Value::Null,
        true.into(),
        false.into(),
        Value::Int(i128::MIN),
        (-1).into(),
        u64::MAX.into(),
        (-0.0).into(),
        1e300.into(),
        "".into(),
        "Zoë 🦀".into(),
        day.clone(),
        Value::List(vec![]),
        Value::List(vec!["a".into(), Value::Null, 7.into(), day]),
    ];
    let all = (0..).zip(each.clone()).map(|(slot, value)| (slot * 300, value)).collect();
    let mut rows = vec![(String::new(), vec![]), ("ada@shop.test".to_owned(), all)];
    rows.extend(each.into_iter().map(|value| ("Zoë".to_owned(), vec![(65_535, value)])));
    // Whatever is left of the last word of the hash, and more than fits beside other values.
    rows.extend((0..70).map(|length| {
        let text: String = ('a'..='z').cycle().take(length).collect();
        (text.clone(), vec![(1, text.as_str().into()), (2, Value::Null), (3, text.into())])
    }));
    rows
}

fn described(value: &Value) -> Json {
    match value {
        Value::Null => json!({ "null": null }),
        Value::Bool(value) => json!({ "bool": value }),
        Value::Int(value) => json!({ "int": value.to_string() }),
        Value::Float(value) => json!({ "float": value }),
        Value::Text(text) => json!({ "text": text }),
        Value::Date(day) => json!({ "date": day.to_string() }),
        Value::List(values) => json!({ "list": values.iter().map(described).collect::<Vec<_>>() }),
        other => panic!("{other:?} is not in the specification"),
    }
}

#[test]
fn python_reproduces_fingerprints_from_their_specification() {
    let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
    let secret = Secret::new(bytes);
    let prints = Fingerprinter::new(&secret).unwrap();
    let mut expected = vec![hex::encode(secret.check_value().unwrap())];
    for (key, values) in rows() {
        let mut row = Pairs::new();
        let mut fields = Vec::new();
        for (slot, value) in &values {
            let mut field = Pairs::new();
            field.push(*slot, &value.as_ref());
            row.push(*slot, &value.as_ref());
            fields.push(format!("{:016x}", prints.field(&field)));
        }
        let hashes = [format!("{:?}", prints.key(&key)), format!("{:?}", prints.row(&row))];
        expected.push(hashes.into_iter().chain(fields).collect::<Vec<_>>().join(" "));
    }

    let described = rows().into_iter().map(|(key, values)| {
        let values: Vec<Json> = values.iter().map(|(slot, value)| json!([slot, described(value)])).collect();
        json!({ "key": key, "values": values })
    });
    let given = json!({ "secret": hex::encode(bytes), "rows": described.collect::<Vec<_>>() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/fingerprints.py");
    let mut python = Command::new("python3");
    let mut python = python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), expected);
}
