use std::{fmt::Write, time::Duration};

use chrono::NaiveDate;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::*;
use crate::{
    emarsys::{
        ContactId, ListId, Refusal, RunId, SegmentId,
        transport::fake::{Answer, client},
    },
    rows::Pieces,
};

fn reply(data: &str) -> Answer {
    Answer::reply(200, format!(r#"{{"replyCode":0,"replyText":"OK","data":{data}}}"#))
}

fn refusal(status: u16, code: u16) -> Answer {
    Answer::reply(status, format!(r#"{{"replyCode":{code},"replyText":"","data":""}}"#))
}

fn csv(text: impl AsRef<[u8]>) -> Answer {
    Answer::reply(200, text).header("content-type", "text/csv;charset=UTF-8")
}

fn status(word: &str) -> Answer {
    reply(&format!(r#"{{"id":"4711","status":"{word}"}}"#))
}

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 3, day).unwrap()
}

const FIELDS: [FieldId; 2] = [FieldId::FIRST_NAME, FieldId::EMAIL];

#[tokio::test(start_paused = true)]
async fn each_kind_of_export_is_started_at_its_endpoint() {
    let range = TimeRange::days(day(1), day(2));
    let times =
        TimeRange::times(day(1).and_hms_opt(10, 15, 0).unwrap(), day(2).and_hms_opt(0, 0, 7).unwrap());
    let body = |extra: Value| {
        let mut body = json!({"distribution_method": "local", "contact_fields": ["1", "3"], "delimiter": ",",
            "add_field_names_header": 1});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let cases = [
        (
            NewExport::changes(range, &FIELDS),
            "contact/getchanges",
            body(json!({"time_range": ["2026-03-01", "2026-03-02"], "origin": "all"})),
        ),
        (
            NewExport::changes(times, &FIELDS).origin(Origin::Api).origin_id(0),
            "contact/getchanges",
            body(json!({"time_range": ["2026-03-01 10:15:00", "2026-03-02 00:00:07"], "origin": "api",
                "origin_id": 0})),
        ),
        (
            NewExport::registrations(range, &FIELDS).delimiter(Delimiter::Semicolon).language("en"),
            "contact/getregistrations",
            body(json!({"time_range": ["2026-03-01", "2026-03-02"], "delimiter": ";", "language": "en"})),
        ),
        (
            NewExport::list(ListId::new(12), &FIELDS).notification_url("https://shop.test/ready?key=s3cret"),
            "email/getcontacts",
            body(json!({"contactlist": 12, "notification_url": "https://shop.test/ready?key=s3cret"})),
        ),
        (
            NewExport::segment(SegmentId::new(123), &FIELDS)
                .distribution(Distribution::Other("sftp".to_owned())),
            "export/filter",
            body(json!({"filter": 123, "distribution_method": "sftp"})),
        ),
    ];
    for (export, path, body) in cases {
        for id in ["4711", r#""4711""#] {
            let (client, script) = client([reply(&format!(r#"{{"id":{id}}}"#))]);
            let started = client.exports().start(&export).await.unwrap();
            assert_eq!(started, ExportRef::new(ExportId::new(4711), &FIELDS));
            let sent = &script.sent()[0];
            assert_eq!(sent.method, "POST");
            assert_eq!(sent.url, format!("https://api.emarsys.net/api/v2/{path}"));
            assert_eq!(serde_json::from_str::<Value>(&sent.body).unwrap(), body, "{path}");
            assert!(!format!("{export:?}").contains("s3cret"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn export_that_cannot_be_is_refused_before_anything_is_sent() {
    let (client, script) = client([]);
    let list = ListId::new(12);
    let mut exports = vec![
        NewExport::list(list, &[]),
        NewExport::list(list, &(100..121).map(FieldId::new).collect::<Vec<_>>()),
        NewExport::list(list, &[FieldId::EMAIL, FieldId::CITY, FieldId::EMAIL]),
        NewExport::changes(TimeRange::days(day(2), day(1)), &FIELDS),
    ];
    for field in [27, 28, 29, 32, 33] {
        exports.push(NewExport::list(list, &[FieldId::EMAIL, FieldId::new(field)]));
    }
    for export in exports {
        let error = client.exports().start(&export).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
    }
    let elsewhere = NewExport::list(list, &FIELDS).distribution(Distribution::Other("sftp".to_owned()));
    let error = client.exports().fetch(&elsewhere, Polling::default()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(script.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn start_is_never_sent_twice() {
    let (client, script) = client([Answer::Lost]);
    let export = NewExport::list(ListId::new(12), &FIELDS);
    let error = client.exports().start(&export).await.unwrap_err();
    assert_eq!(error.delivery(), Delivery::Unknown);
    assert_eq!(script.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn status_is_read_with_and_without_the_rest() {
    let full = r#"{"id":4711,"created":"2026-03-01 10:15:00","status":"in progress","type":"contactlist",
        "file_name":"export.csv","ftp_host":"","ftp_dir":null}"#;
    let (client, script) = client([reply(full), status("moonstruck")]);
    let exports = client.exports();
    let state = exports.status(ExportId::new(4711)).await.unwrap();
    assert_eq!((state.id, &state.status), (ExportId::new(4711), &ExportStatus::InProgress));
    assert_eq!(state.created, day(1).and_hms_opt(10, 15, 0));
    assert_eq!(state.file_name.as_deref(), Some("export.csv"));
    assert_eq!((state.ftp_host, state.ftp_dir), (None, None));
    let state = exports.status(ExportId::new(4711)).await.unwrap();
    assert_eq!(state.status, ExportStatus::Other("moonstruck".to_owned()));
    assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/export/4711");
}

#[tokio::test(start_paused = true)]
async fn export_is_waited_for() {
    for last in ["ready", "done"] {
        let (client, script) =
            client([status("scheduled"), status("in progress"), status("moonstruck"), status(last)]);
        let state = client.exports().wait(ExportId::new(4711), Polling::default()).await.unwrap();
        assert_eq!(state.status.as_str(), last);
        assert_eq!(script.sent()[3].at, Duration::from_millis(9_500));
    }
}

#[tokio::test(start_paused = true)]
async fn export_that_fails_or_takes_too_long_is_an_error_that_names_it() {
    let (client, _) = client([status("error"), status("in progress"), status("in progress")]);
    let polling = Polling::default().time_max(Duration::from_secs(3));
    for part in ["the export 4711 failed at Emarsys", "the export 4711 is still in progress"] {
        let error = client.exports().wait(ExportId::new(4711), polling).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::NotSent));
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn export_is_downloaded_page_by_page_until_one_has_no_rows() {
    for repeated in [false, true] {
        let header = "user_id,First Name,Email\n";
        let mut first = header.to_owned();
        for id in 0..10_000 {
            writeln!(first, "{id},Ada,ada@shop.test").unwrap();
        }
        let again = if repeated { header } else { "" };
        let (client, script) =
            client([csv(first), csv(format!("{again}10000,\"Bob, B\",bob@shop.test\n")), csv(again)]);
        let export = ExportRef::new(ExportId::new(4711), &FIELDS);
        let rows: Vec<ExportRow> = client.exports().download(&export).try_collect().await.unwrap();
        assert_eq!(rows.len(), 10_001);
        assert_eq!(rows[10_000].id(), ContactId::new(10_000));
        assert_eq!(rows[10_000].field(FieldId::FIRST_NAME), Some("Bob, B"));
        assert_eq!(rows[10_000].column("Email"), Some("bob@shop.test"));
        let urls: Vec<String> = script.sent().into_iter().map(|sent| sent.url).collect();
        let page =
            |offset| format!("https://api.emarsys.net/api/v2/export/4711/data?offset={offset}&limit=10000");
        assert_eq!(urls, [page(0), page(10_000), page(20_000)]);
    }
}

#[tokio::test(start_paused = true)]
async fn offset_behind_the_end_may_be_refused_but_only_there() {
    let page = || csv("user_id,Email\n1,ada@shop.test\n");
    let (client, _) = client([page(), refusal(400, 10001), page(), refusal(410, 4003), refusal(400, 10001)]);
    let download = || client.exports().download(ExportId::new(4711));
    let rows: Vec<ExportRow> = download().try_collect().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(download().try_collect::<Vec<_>>().await.is_err());
    assert!(download().try_collect::<Vec<_>>().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn empty_export_has_no_rows() {
    let (client, _) = client([csv("user_id,Email\n")]);
    let mut rows = client.exports().download(ExportId::new(4711));
    assert!(rows.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn reason_why_there_is_no_file_is_told() {
    for (status, code, part) in [
        (404, 4004, "not made for download"),
        (404, 4005, "still in progress"),
        (404, 4006, "was not found"),
        (410, 4003, "is gone"),
    ] {
        let (client, _) = client([refusal(status, code)]);
        let mut rows = client.exports().download(ExportId::new(4711));
        let error = rows.next().await.unwrap().unwrap_err();
        let kind = if code == 4005 { ErrorKind::Server } else { ErrorKind::Refused };
        assert_eq!((error.kind(), error.is_retryable()), (kind, code == 4005));
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(i64::from(code)));
        assert!(error.to_string().contains(part), "{error}");
        assert!(rows.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn page_that_is_cut_is_an_error_and_the_last_item() {
    let (client, _) = client([csv("user_id,Email\n1,\"ada@shop.test")]);
    let mut rows = client.exports().download(ExportId::new(4711));
    let error = rows.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    assert!(!format!("{error:?}").contains("ada"), "{error:?}");
    assert!(rows.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn fetch_starts_waits_and_downloads_even_if_the_file_comes_late() {
    let (client, script) = client([
        reply(r#"{"id":4711}"#),
        status("scheduled"),
        status("ready"),
        refusal(404, 4005),
        csv("user_id;First Name;Email\n700001;Ada;ada@shop.test\n"),
        csv(""),
    ]);
    let export = NewExport::segment(SegmentId::new(123), &FIELDS).delimiter(Delimiter::Semicolon);
    let rows = client.exports().fetch(&export, Polling::default()).await.unwrap();
    let rows: Vec<ExportRow> = rows.try_collect().await.unwrap();
    assert_eq!(rows[0].field(FieldId::EMAIL), Some("ada@shop.test"));
    let verbs: Vec<_> = script.sent().iter().map(|sent| sent.method).collect();
    assert_eq!(verbs, ["POST", "GET", "GET", "GET", "GET", "GET"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_and_reading_can_be_done_in_a_task() {
    fn is_send(_: &impl Send) {}

    let (client, _) = client([]);
    let export = NewExport::list(ListId::new(12), &FIELDS);
    is_send(&client.exports().fetch(&export, Polling::default()));
    is_send(&client.exports().download(ExportId::new(4711)));
    is_send(&client.segments().members(SegmentId::new(7), Polling::default()));
    let run = RunId::new("r1");
    is_send(&client.segments().wait_for_run(&run, Polling::default()));
    is_send(&client.segments().wait_for_contact_run(&run, Polling::default()));
}

#[tokio::test(start_paused = true)]
async fn rows_are_a_source() {
    let (client, _) = client([csv("user_id,Email\n700001,ada@shop.test\n"), csv("")]);
    let source = crate::Source::stream(client.exports().download(ExportId::new(4711)));
    let mut pieces = Pieces::new(source, 10);
    let piece = pieces.next().await.unwrap().unwrap();
    let mut seen = Vec::new();
    let columns = ["Email".into(), "user_id".into()];
    let visited = piece.chunk.rows().visit(&columns, piece.range, &mut |values| {
        seen.extend(
            values.iter().map(|value| serde_json::to_value(value.clone().unwrap().into_owned()).unwrap()),
        );
        Ok(())
    });
    visited.unwrap();
    assert_eq!(seen, ["ada@shop.test", "700001"]);
    assert!(pieces.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn rows_after_a_page_that_is_too_short_are_an_error_and_no_export_with_holes() {
    let rows = |from: u64, count: u64| {
        let rows: Vec<String> = (from..from + count).map(|id| format!("{id},a@shop.test")).collect();
        csv(format!("user_id,Email\n{}", rows.join("\n")))
    };
    // One row short is what a counted header costs.
    for (first, second, is_whole) in
        [(10_000, 5, true), (9_999, 5, true), (9_998, 5, false), (10_001, 5, false)]
    {
        let (client, _) = client([rows(1, first), rows(20_001, second), csv("")]);
        let read = client.exports().download(ExportId::new(4711)).try_collect::<Vec<_>>().await;
        match read {
            Ok(read) => assert!(is_whole && read.len() as u64 == first + second, "{first}"),
            Err(error) => assert!(!is_whole && error.kind() == ErrorKind::Undecodable, "{first}: {error}"),
        }
    }
}
