//! Every call of the client against the sandbox, in both versions: what the docs say it does, and what it says when
//! something goes wrong.

mod calls;
mod faults;
mod table;

use std::sync::Arc;

use futures::future::BoxFuture;
use reverse_etl::{
    Result,
    emarsys::{
        Client, ContactId, Credentials, EventId, ExportId, FieldId, ListId, RetryPolicy, RunId, SegmentId,
        SourceId, Version, sandbox::Sandbox,
    },
    host::{Host, TestHost},
};
use serde_json::json;

/// Words that stand for people in these tests, and must show up nowhere.
const PEOPLE: [&str; 5] = ["ada@", "bob@", "zoe@", "Lovelace", "Byron"];

const VERSIONS: [Version; 2] = [Version::V2, Version::V3];

/// An account with one of each thing, and a client.
struct World {
    sandbox: Sandbox,
    client: Client,
    ada: ContactId,
    list: ListId,
    segment: SegmentId,
    other_segment: SegmentId,
    combined: SegmentId,
    field: FieldId,
    source: SourceId,
    event: EventId,
    uid: String,
    run: RunId,
    contact_run: RunId,
    export: ExportId,
}

impl World {
    async fn new(version: Version, retry: RetryPolicy) -> Self {
        crate::watch::install();
        let host: Arc<dyn Host> = TestHost::shared();
        let sandbox = Sandbox::builder().host(Arc::clone(&host)).build();
        let ada = sandbox.add_contact([
            (FieldId::EMAIL, json!("ada@shop.test")),
            (FieldId::FIRST_NAME, json!("Ada")),
            (FieldId::LAST_NAME, json!("Lovelace")),
        ]);
        sandbox.add_contact([
            (FieldId::EMAIL, json!("bob@shop.test")),
            (FieldId::LAST_NAME, json!("Byron")),
            (FieldId::OPT_IN, json!(1)),
        ]);
        let list = sandbox.add_list("spring");
        sandbox.add_to_list(list, ada);
        sandbox.add_index(FieldId::CITY);
        sandbox.add_table("shop", "orders", ["id"]);
        let criteria =
            json!({"type": "criteria", "field": "last_name", "operator": "equals", "value": "Lovelace"});
        let segment = sandbox.add_segment("ladies", &criteria);
        let other_segment = sandbox.add_segment("others", &criteria);
        let credentials = match version {
            Version::V2 => Credentials::wsse(sandbox.username(), sandbox.wsse_secret()),
            _ => Credentials::oauth2(sandbox.client_id(), sandbox.client_secret()),
        };
        let client =
            Client::builder(credentials).host(host).retry(retry).in_process(&sandbox).build().unwrap();
        let segments = client.segments();
        let definition = calls::definition(segment);
        let combined = client.combined_segments().create("both", &definition).await.unwrap().id;
        let run = segments.run(segment).await.unwrap().id;
        let contact_run = segments.run_for_contact(segment, ada).await.unwrap().id;
        let export = client.exports().start(&calls::export(list)).await.unwrap().id();
        let data = client.contacts().get_data(FieldId::EMAIL, &["ada@shop.test"], &[]).await.unwrap();
        let uid = match &data[..] {
            [reverse_etl::emarsys::Lookup::Found(ada)] => ada.uid().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        let world = Self {
            ada,
            list,
            segment,
            other_segment,
            combined,
            field: sandbox.add_field("Points", "numeric"),
            source: sandbox.add_source("crm"),
            event: sandbox.add_event("shipped"),
            uid,
            run,
            contact_run,
            export,
            client,
            sandbox,
        };
        world.sandbox.clear_requests();
        world
    }
}

/// A method of the client, by the name that the docs have for it, and a call of it that succeeds.
struct Call {
    method: &'static str,
    run: for<'a> fn(&'a World) -> BoxFuture<'a, Result<()>>,
}
