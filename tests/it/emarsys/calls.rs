//! One call of each method.

use std::fmt::Debug;

use chrono::NaiveDate;
use futures::{FutureExt, TryStreamExt};
use reverse_etl::{
    Error, Result,
    emarsys::{
        ApplicationType, CombinedDefinition, Contact, Criteria, EmailId, ExportRow, FieldId, ListId, Lookup,
        Merge, MergeRule, NewExport, NewField, NewSegment, Operator, Polling, RowResult, SegmentId,
        SegmentSet, TimeRange, Trigger, Unsubscription,
    },
};
use serde_json::{Value, json};

use super::{Call, World};

const EMAIL: FieldId = FieldId::EMAIL;

pub(super) fn definition(segment: SegmentId) -> CombinedDefinition {
    CombinedDefinition::new(SegmentSet::all([segment]))
}

pub(super) fn export(list: ListId) -> NewExport {
    NewExport::list(list, &[EMAIL, FieldId::LAST_NAME])
}

fn days() -> TimeRange {
    let day = |day| NaiveDate::from_ymd_opt(2026, 3, day).unwrap();
    TimeRange::days(day(1), day(2))
}

fn person(email: &str) -> Contact {
    Contact::new(EMAIL, email).with(FieldId::LAST_NAME, "Byron")
}

/// Fails as the first row does of which nothing is known; none of these rows is rejected.
fn all_done(rows: &[RowResult]) -> Result<()> {
    for row in rows {
        match row {
            RowResult::Done => {}
            RowResult::Failed(error) => return Err(again(error)),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

fn all_found<T: Debug>(rows: &[Lookup<T>]) -> Result<()> {
    for row in rows {
        match row {
            Lookup::Found(_) => {}
            Lookup::Failed(error) => return Err(again(error)),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

/// The error of a row, which is shared by its request's rows, as one of a call.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), format!("{error} {error:?}")).with_delivery(error.delivery())
}

macro_rules! calls {
    ($($method:literal: |$world:ident| $call:expr;)+) => {
        vec![$(Call {
            method: $method,
            run: |$world| async move { $call }.boxed(),
        }),+]
    };
}

/// In an order in which each finds what it needs.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(super) fn all() -> Vec<Call> {
    calls! {
        "Client::settings": |w| w.client.settings().await.map(drop);

        "Contacts::find": |w| w.client.contacts().find(EMAIL, "ada@shop.test").await.map(|id| assert_eq!(id, Some(w.ada)));
        "Contacts::create": |w| all_done(&w.client.contacts().create(EMAIL, &[person("new1@shop.test")], Some(w.list)).await?);
        "Contacts::create_one": |w| w.client.contacts().create_one(EMAIL, &person("new2@shop.test"), None).await.map(drop);
        "Contacts::update": |w| all_done(&w.client.contacts().update(EMAIL, &[person("ada@shop.test")]).await?);
        "Contacts::update_one": |w| w.client.contacts().update_one(EMAIL, &person("ada@shop.test")).await.map(|id| assert_eq!(id, w.ada));
        "Contacts::upsert": |w| {
            let people = [person("ada@shop.test").from_source(w.source), person("new3@shop.test")];
            let upserted = w.client.contacts().upsert(EMAIL, &people, Some(w.list)).await?;
            all_done(&upserted.rows)?;
            assert_eq!((upserted.created.len(), upserted.updated.len()), (1, 1));
            Ok(())
        };
        "Contacts::upsert_one": |w| w.client.contacts().upsert_one(EMAIL, &person("ada@shop.test"), None).await.map(drop);
        "Contacts::check_ids": |w| w.client.contacts().check_ids(EMAIL, &["ada@shop.test"]).await.and_then(|found| all_found(&found));
        "Contacts::check_all_ids": |w| w.client.contacts().check_all_ids(EMAIL, &["ada@shop.test"]).await.and_then(|found| all_found(&found));
        "Contacts::get_data": |w| w.client.contacts().get_data(EMAIL, &["ada@shop.test"], &[FieldId::CITY]).await.and_then(|found| all_found(&found));
        "Query::stream": |w| {
            let query = w.client.contacts().query(EMAIL).exclude_empty().page(2);
            query.stream().try_collect::<Vec<_>>().await.map(|found| assert!(found.len() >= 2))
        };
        "Contacts::history": |w| {
            let day = |day| NaiveDate::from_ymd_opt(2026, 3, day).unwrap();
            w.client.contacts().history(&[w.ada], day(1), day(2)).await.map(drop)
        };
        "Contacts::unsubscribe": |w| {
            w.client.contacts().unsubscribe(&Unsubscription::new(7, EmailId::new(12), &w.uid)).await
        };

        "Fields::list": |w| w.client.fields().list().await.map(|fields| assert!(fields.len() > 49));
        "Fields::list_in": |w| w.client.fields().list_in("de").await.map(drop);
        "Fields::create": |w| w.client.fields().create(&NewField::new("Level", ApplicationType::ShortText)).await.map(drop);
        "Fields::choices": |w| w.client.fields().choices(FieldId::GENDER).await.map(|choices| assert!(choices.len() > 1));
        "Fields::choices_in": |w| w.client.fields().choices_in(FieldId::GENDER, "de").await.map(drop);
        "Fields::choices_of": |w| {
            let fields = [FieldId::GENDER, FieldId::TITLE];
            w.client.fields().choices_of(&fields, Some("en")).await.map(|choices| assert_eq!(choices.len(), 2))
        };
        "Fields::delete": |w| w.client.fields().delete(w.field).await;

        "Lists::list": |w| w.client.lists().list().await.map(|lists| assert!(lists.iter().any(|list| list.id == w.list)));
        "Lists::create": |w| w.client.lists().create("summer", None).await.map(drop);
        "Lists::create_with": |w| {
            let created = w.client.lists().create_with("autumn", Some("of all"), EMAIL, &["ada@shop.test"]).await?;
            all_done(&created.rows)
        };
        "Lists::add": |w| all_done(&w.client.lists().add(w.list, EMAIL, &["bob@shop.test"]).await?);
        "Lists::remove": |w| all_done(&w.client.lists().remove(w.list, EMAIL, &["bob@shop.test"]).await?);
        "Lists::replace": |w| all_done(&w.client.lists().replace(w.list, EMAIL, &["ada@shop.test"]).await?);
        "Lists::rename": |w| w.client.lists().rename(w.list, "spring again").await;
        "Lists::count": |w| w.client.lists().count(w.list).await.map(|count| assert_eq!(count, 1));
        "Lists::members": |w| {
            w.client.lists().members(w.list).try_collect::<Vec<_>>().await.map(|members| assert_eq!(members, [w.ada]))
        };
        "Lists::contains": |w| w.client.lists().contains(w.list, w.ada).await.map(|is_in| assert!(is_in));

        "Segments::list": |w| w.client.segments().list().await.map(|segments| assert!(segments.len() >= 3));
        "Segments::create": |w| {
            let criteria = Criteria::compare("first_name", Operator::Equals, "Ada");
            w.client.segments().create(&NewSegment::new("Adas", criteria)).await.map(drop)
        };
        "Segments::get": |w| w.client.segments().get(w.segment).await.map(|segment| assert_eq!(segment.id, w.segment));
        "Segments::contact_criteria": |w| {
            w.client.segments().contact_criteria(w.segment).await.map(|criteria| assert!(criteria.is_some()))
        };
        "Segments::set_contact_criteria": |w| {
            let criteria = Criteria::not_empty("last_name");
            w.client.segments().set_contact_criteria(w.other_segment, &criteria).await
        };
        "Segments::count": |w| w.client.segments().count(w.segment, Polling::default()).await.map(drop);
        "Segments::members": |w| {
            w.client.segments().members(w.segment, Polling::default()).try_collect::<Vec<_>>().await.map(drop)
        };
        "Segments::contains": |w| w.client.segments().contains(w.segment, w.ada, Polling::default()).await.map(drop);
        "Segments::run": |w| w.client.segments().run(w.segment).await.map(drop);
        "Segments::run_renewed": |w| w.client.segments().run_renewed(w.segment).await.map(drop);
        "Segments::run_status": |w| w.client.segments().run_status(&w.run).await.map(drop);
        "Segments::wait_for_run": |w| {
            w.client.segments().wait_for_run(&w.run, Polling::default()).await.map(|run| assert_eq!(run.contacts, 1))
        };
        "Segments::run_for_contact": |w| w.client.segments().run_for_contact(w.segment, w.ada).await.map(drop);
        "Segments::contact_run_status": |w| w.client.segments().contact_run_status(&w.contact_run).await.map(drop);
        "Segments::wait_for_contact_run": |w| {
            w.client.segments().wait_for_contact_run(&w.contact_run, Polling::default()).await.map(|is_in| assert!(is_in))
        };

        "Combined::list": |w| w.client.combined_segments().list().await.map(|all| assert_eq!(all.len(), 1));
        "Combined::create": |w| w.client.combined_segments().create("more", &definition(w.segment)).await.map(drop);
        "Combined::get": |w| w.client.combined_segments().get(w.combined).await.map(drop);
        "Combined::change": |w| {
            w.client.combined_segments().change(w.combined, "both again", &definition(w.segment)).await.map(drop)
        };

        "Exports::start": |w| w.client.exports().start(&export(w.list)).await.map(drop);
        "Exports::start": |w| w.client.exports().start(&NewExport::changes(days(), &[EMAIL])).await.map(drop);
        "Exports::start": |w| w.client.exports().start(&NewExport::registrations(days(), &[EMAIL])).await.map(drop);
        "Exports::start": |w| w.client.exports().start(&NewExport::segment(w.segment, &[EMAIL])).await.map(drop);
        "Exports::status": |w| w.client.exports().status(w.export).await.map(drop);
        "Exports::wait": |w| w.client.exports().wait(w.export, Polling::default()).await.map(drop);
        "Exports::download": |w| {
            let rows: Vec<_> = w.client.exports().download(w.export).try_collect().await?;
            assert_eq!(rows.iter().map(ExportRow::id).collect::<Vec<_>>(), [w.ada]);
            Ok(())
        };
        "Exports::fetch": |w| {
            let export = NewExport::segment(SegmentId::new(0), &[EMAIL]);
            let rows: Vec<_> = w.client.exports().fetch(&export, Polling::default()).await?.try_collect().await?;
            assert!(rows.len() >= 2);
            Ok(())
        };

        "Sources::list": |w| w.client.sources().list().await.map(|sources| assert_eq!(sources[0].id, w.source));
        "Sources::create": |w| w.client.sources().create("app").await;
        "Sources::delete": |w| w.client.sources().delete(w.source).await;

        "Events::trigger_one": |w| {
            let trigger = Trigger::new("ada@shop.test").data(json!({"order": 1}));
            w.client.events().trigger_one(w.event, EMAIL, &trigger).await
        };
        "Events::trigger": |w| {
            let triggers = [Trigger::new("ada@shop.test"), Trigger::new("bob@shop.test")];
            all_done(&w.client.events().trigger(w.event, EMAIL, &triggers).await?)
        };

        "Table::insert": |w| all_done(&orders(w).insert(&[json!({"id": "1", "name": "Byron"})]).await?);
        "Table::patch": |w| all_done(&orders(w).patch(&[json!({"id": "1", "name": "Lovelace"})]).await?);
        "Table::upsert": |w| all_done(&orders(w).upsert(&[json!({"id": "2", "name": "Byron"})]).await?);
        "Table::query": |w| {
            let found: Vec<Value> = orders(w).query(&[("id", "1")]).await?;
            assert_eq!(found.len(), 1);
            Ok(())
        };
        "Table::remove": |w| all_done(&orders(w).remove(&[json!({"id": "2"})]).await?);
        "Table::replace": |w| orders(w).replace(&[json!({"id": "3", "name": "Byron"})]).await;

        "Contacts::merge": |w| {
            let merge = Merge::new(EMAIL, "bob@shop.test", "ada@shop.test").rule(FieldId::CITY, MergeRule::Overwrite);
            w.client.contacts().merge(&merge).await
        };
        "Contacts::delete": |w| all_done(&w.client.contacts().delete(EMAIL, &["bob@shop.test"]).await?);
        "Lists::delete": |w| w.client.lists().delete(w.list).await;
        "Segments::delete": |w| w.client.segments().delete(w.other_segment).await;
    }
}

fn orders(world: &World) -> reverse_etl::emarsys::Table<'_> {
    world.client.relational_data().table("shop", "orders")
}
