//! Objects and lists that are empty, in every way in which PHP may print them.

use chrono::NaiveDate;
use futures::TryStreamExt as _;

use super::*;
use crate::emarsys::{
    Client, CombinedDefinition, Contact, Credentials, Lookup, NewSegment, Polling, RowResult, SegmentId,
    SegmentSet, Trigger,
};

const EMAIL: FieldId = FieldId::EMAIL;

#[test]
fn empty_objects_and_arrays_are_printed_as_switched() {
    let standard = Switches::default;
    for (switches, object, array) in [
        (standard(), json!({}), json!([])),
        (standard().empty_objects_as_arrays(true), json!([]), json!([])),
        (standard().empty_arrays_as_objects(true), json!({}), json!({})),
        (standard().empty_objects_as_arrays(true).empty_arrays_as_objects(true), json!([]), json!({})),
    ] {
        let caller = Caller::switched(switches);
        let list = caller.sandbox.add_list("Customers");
        let page = caller.get(&format!("contactlist/{list}/contactIds"));
        assert_eq!(page, json!({"value": array, "next": null}));
        let nobody = json!({"key_id": "3", "external_ids": []});
        assert_eq!(caller.data("POST", "contact/checkids", &nobody), json!({"ids": array, "errors": array}));
        assert_eq!(caller.get("source"), array);
        assert_eq!(caller.data("POST", &format!("contactlist/{list}/deletelist"), &Value::Null), object);
        assert_eq!(caller.get("contactlist"), array);
    }
}

#[test]
fn empty_list_inside_a_row_stays_an_array() {
    let caller = Caller::switched(Switches::default().empty_arrays_as_objects(true));
    caller.sandbox.add_segment("Everybody", &json!({"type": "criteria", "criteria": "bounce"}));
    assert_eq!(caller.get("filter")[0]["tags"], json!([]));
    let sports = caller.sandbox.add_field("Sports", "multichoice");
    let ada = caller.sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test")), (sports, json!([]))]);
    let data = caller.data("POST", "contact/getdata", &json!({"keyId": "id", "keyValues": [ada]}));
    assert_eq!((&data["errors"], &data["result"][0][sports.to_string()]), (&json!({}), &json!([])));
}

/// The client reads every one of them.
#[tokio::test]
async fn client_takes_whatever_is_empty_however_it_is_printed() {
    let standard = Switches::default;
    for switches in [
        standard(),
        standard().empty_objects_as_arrays(true).deleted_counted(false),
        standard().empty_arrays_as_objects(true).empty_errors_shown(true),
        standard().empty_objects_as_arrays(true).empty_arrays_as_objects(true).empty_errors_shown(true),
        standard().empty_arrays_as_objects(true).contact_ids_bare(true),
    ] {
        let sandbox = Sandbox::builder().switches(switches.clone()).build();
        let credentials = Credentials::oauth2(sandbox.client_id(), sandbox.client_secret());
        let client = Client::builder(credentials).in_process(&sandbox).build().unwrap();
        nothing_is_there(&sandbox, &client).await.unwrap_or_else(|error| panic!("{error}: {switches:?}"));
        everything_is_fine(&sandbox, &client).await.unwrap_or_else(|error| panic!("{error}: {switches:?}"));
    }
}

/// Calls whose replies have no row.
async fn nothing_is_there(sandbox: &Sandbox, client: &Client) -> Result<()> {
    let (contacts, lists, segments) = (client.contacts(), client.lists(), client.segments());
    assert!(lists.list().await?.is_empty());
    assert!(segments.list().await?.is_empty());
    assert!(client.combined_segments().list().await?.is_empty());
    assert!(client.sources().list().await?.is_empty());
    let field = sandbox.add_field("Sports", "multichoice");
    assert!(client.fields().choices(field).await?.is_empty());
    assert!(client.fields().choices_of(&[field], None).await?.values().all(Vec::is_empty));
    assert!(contacts.query(EMAIL).stream().try_collect::<Vec<_>>().await?.is_empty());
    assert!(matches!(contacts.check_ids(EMAIL, &["zoe@shop.test"]).await?[..], [Lookup::Missing]));
    assert!(matches!(contacts.get_data(EMAIL, &["zoe@shop.test"], &[EMAIL]).await?[..], [Lookup::Missing]));
    assert!(all_rejected(&contacts.update(EMAIL, &[Contact::new(EMAIL, "zoe@shop.test")]).await?));
    assert!(all_rejected(&contacts.delete(EMAIL, &["zoe@shop.test"]).await?));
    let list = sandbox.add_list("Customers");
    assert!(lists.members(list).try_collect::<Vec<_>>().await?.is_empty());
    assert!(all_rejected(&lists.add(list, EMAIL, &["zoe@shop.test"]).await?));
    let everybody = SegmentId::ALL_CONTACTS;
    assert!(segments.members(everybody, Polling::default()).try_collect::<Vec<_>>().await?.is_empty());
    let day = |day| NaiveDate::from_ymd_opt(2026, 3, day).unwrap();
    assert!(contacts.history(&[ContactId::new(1)], day(1), day(2)).await?.is_empty());
    lists.delete(list).await
}

/// Calls whose replies have no error.
async fn everything_is_fine(sandbox: &Sandbox, client: &Client) -> Result<()> {
    let (contacts, lists) = (client.contacts(), client.lists());
    let ada = sandbox.add_contact([(FieldId::EMAIL, json!("ada@shop.test"))]);
    let list = sandbox.add_list("Customers");
    let person = || [Contact::new(EMAIL, "ada@shop.test")];
    assert!(all_done(&contacts.create(EMAIL, &[Contact::new(EMAIL, "bob@shop.test")], None).await?));
    assert!(all_done(&contacts.update(EMAIL, &person()).await?));
    assert!(all_done(&contacts.upsert(EMAIL, &person(), Some(list)).await?.rows));
    assert!(
        matches!(contacts.check_ids(EMAIL, &["ada@shop.test"]).await?[..], [Lookup::Found(id)] if id == ada)
    );
    assert!(matches!(contacts.get_data(EMAIL, &["ada@shop.test"], &[EMAIL]).await?[..], [Lookup::Found(_)]));
    assert!(all_done(&lists.add(list, EMAIL, &["bob@shop.test"]).await?));
    assert!(all_done(&lists.remove(list, EMAIL, &["bob@shop.test"]).await?));
    assert!(all_done(&lists.replace(list, EMAIL, &["ada@shop.test"]).await?));
    assert!(all_done(&lists.create_with("Friends", None, EMAIL, &["ada@shop.test"]).await?.rows));
    let event = sandbox.add_event("shipped");
    client.events().trigger_one(event, EMAIL, &Trigger::new("ada@shop.test")).await?;
    assert!(all_done(&client.events().trigger(event, EMAIL, &[Trigger::new("ada@shop.test")]).await?));
    let segment = sandbox.add_segment("Bounced", &json!({"type": "criteria", "criteria": "bounce"}));
    assert_eq!(client.segments().get(segment).await?.id, segment);
    let definition = CombinedDefinition::new(SegmentSet::all([segment]));
    client.combined_segments().create("Both", &definition).await?;
    let behaviour = NewSegment::of_behaviour("Quiet", json!({"type": "criteria", "criteria": "bounce"}));
    let quiet = client.segments().create(&behaviour).await?;
    assert_eq!(client.segments().contact_criteria(quiet).await?, None);
    assert!(all_done(&contacts.delete(EMAIL, &["ada@shop.test"]).await?));
    Ok(())
}

fn all_done(rows: &[RowResult]) -> bool {
    rows.iter().all(|row| matches!(row, RowResult::Done))
}

fn all_rejected(rows: &[RowResult]) -> bool {
    rows.iter().all(|row| matches!(row, RowResult::Rejected(_)))
}
