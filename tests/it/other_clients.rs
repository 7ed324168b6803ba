//! Clients that have nothing to do with this crate, against the `sandbox` program. They need `curl`, `openssl` and
//! `python3`.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::process::{SandboxProgram, run};

fn command(program: &str, script: &str, sandbox: &SandboxProgram) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = Command::new(program);
    command.arg(script).env("EMARSYS_URL", &sandbox.url).envs(&sandbox.access).env("NO_PROXY", "127.0.0.1");
    command
}

#[test]
fn curl_with_a_header_made_by_openssl_is_served() {
    let sandbox = SandboxProgram::start(["--port", "0"]);
    let ended = run(&mut command("sh", "wsse.sh", &sandbox)).assert(0);
    let lines: Vec<&str> = ended.out.lines().collect();
    let [settings, created, updated, data, found, refused] = lines[..] else { panic!("{}", ended.out) };
    let reply = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    assert_eq!(reply(settings)["data"]["timezone"], "Europe/Vienna");
    assert_eq!(created, r#"{"replyCode":0,"replyText":"OK","data":{"ids":[700001,700002]}}"#);
    assert_eq!(reply(updated)["data"]["ids"], json!(["700001"]));
    assert!(reply(updated)["data"]["errors"]["zoe@shop.test"]["2008"].is_string());
    assert_eq!(reply(data)["data"]["result"][0]["2"], "L.");
    assert_eq!(reply(found)["data"], json!({"id": "700002"}));
    assert!(refused.ends_with(" 401") && refused.starts_with(r#"{"replyCode":1,"#), "{refused}");
}

#[test]
fn python_is_served_in_both_versions() {
    for version in ["v2", "v3"] {
        let sandbox = SandboxProgram::start(["--port", "0"]);
        let ended = run(command("python3", "emarsys.py", &sandbox).arg(version)).assert(0);
        let found: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(
            found,
            json!({"value": "7", "members": true, "unknown": ["2008"], "twice": [400, 2009]}),
            "{version}"
        );
    }
}
