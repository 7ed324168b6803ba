//! The table of endpoints in the docs against the client and the sandbox.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use reverse_etl::emarsys::{RetryPolicy, sandbox::Endpoint};

use super::{VERSIONS, World, calls};

/// Endpoint → methods, as the docs have them.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("../../../src/emarsys/endpoints.md");
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [endpoint, methods, sandbox, section] = cells[..] else { panic!("{line}") };
        assert!(matches!(sandbox, "yes" | "no") && !section.is_empty(), "{line}");
        let methods = methods.split(", ").map(|method| method.trim_matches(['[', ']', '`']).to_owned());
        let before = table.insert(endpoint.trim_matches('`').to_owned(), methods.collect::<BTreeSet<_>>());
        assert!(before.is_none(), "{endpoint} twice");
        assert_eq!(
            sandbox == "yes",
            Endpoint::all().any(|served| served.as_str() == served_as(endpoint.trim_matches('`'))),
            "{line}"
        );
    }
    table
}

/// The sandbox counts the forms of an endpoint that differ in language as one.
fn served_as(endpoint: &str) -> &str {
    endpoint.strip_suffix("/translate/{language}").unwrap_or(endpoint)
}

#[tokio::test]
async fn each_method_calls_the_endpoints_that_the_docs_say() {
    let table = table();
    for version in VERSIONS {
        let world = World::new(version, RetryPolicy::default()).await;
        let mut called: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for call in calls::all() {
            world.sandbox.clear_requests();
            let outcome = (call.run)(&world).await;
            assert!(outcome.is_ok(), "{} in {version:?}: {outcome:?}", call.method);
            let requests = world.sandbox.requests();
            let endpoints = requests.keys().filter(|endpoint| **endpoint != Endpoint::Token);
            called
                .entry(call.method)
                .or_default()
                .extend(endpoints.map(|endpoint| endpoint.as_str().to_owned()));
        }
        let mut documented: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (endpoint, methods) in &table {
            for method in methods {
                documented.entry(method).or_default().insert(served_as(endpoint).to_owned());
            }
        }
        assert_eq!(called, documented, "{version:?}");
    }
}

#[test]
fn every_endpoint_that_the_sandbox_serves_is_in_the_table() {
    let table = table();
    let others = [Endpoint::Token, Endpoint::HealthCheck, Endpoint::Unknown];
    let deprecated = ["GET contactlist/{id}/contacts", "GET contactlist/{id}/contacts/data"];
    for endpoint in Endpoint::all() {
        let known = table.keys().any(|row| served_as(row) == endpoint.as_str());
        let outside = others.contains(&endpoint) || deprecated.contains(&endpoint.as_str());
        assert!(known != outside, "{endpoint}");
    }
}

#[test]
fn every_request_in_the_code_is_in_the_table() {
    fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("sandbox") {
                visit(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/emarsys"), &mut files);
    let table = table();
    let paths: BTreeSet<&str> =
        table.keys().filter_map(|endpoint| endpoint.split_once(' ')).map(|(_, path)| path).collect();
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if let Some((_, rest)) = line.split_once("const ENDPOINT: &'static str = \"") {
                let path = rest.split('"').next().unwrap();
                assert!(paths.contains(path), "{}: `{path}` is not in the table", file.display());
                found += 1;
            }
        }
    }
    assert!(found > 40, "only {found} requests were found in the code");
}
