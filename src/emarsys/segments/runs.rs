//! Evaluations of a segment that are asked for: of one contact, or of all.

use std::ops::ControlFlow::{Break, Continue};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    super::{
        ids::{ContactId, ListId, RunId, SegmentId},
        path::Path,
        polling::Polling,
        reply::{self, Count, Flag},
        request::{Effect, Method, Request, endpoint},
        words::words,
    },
    Segments,
};
use crate::{Delivery, Error, ErrorKind, Result};

words! {
    /// How far the evaluation of a segment is.
    RunStatus {
        /// It has not come to its end.
        Waiting = "waiting",
        /// Its result is there.
        Done = "done",
        /// It failed.
        Error = "error",
    }
}

/// An evaluation of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentRun {
    /// Its id, to ask for its status with.
    pub id: RunId,
    /// How far it is.
    pub status: RunStatus,
    /// What came of it, once it is done.
    pub result: Option<RunResult>,
}

/// The evaluation of a segment for one contact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContactRun {
    /// Its id, to ask for its status with.
    pub id: RunId,
    /// How far it is.
    pub status: RunStatus,
    /// Whether the contact is in the segment, once it is done.
    pub is_in_segment: Option<bool>,
}

/// What came of the evaluation of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunResult {
    /// A contact list with the members, which Emarsys keeps for at least 12 hours.
    pub list: ListId,
    /// How many contacts are in the segment.
    pub contacts: u64,
    /// How many of them have consented to be written to.
    pub opted_in: u64,
    /// How long the evaluation took, if the reply says so. The unit is not documented.
    pub duration: Option<u64>,
}

impl Segments<'_> {
    /// Starts an evaluation of a segment (Emarsys API: Run a segment for multiple contacts). Its members end up in a
    /// contact list; [`wait_for_run`](Self::wait_for_run) tells which.
    ///
    /// # Errors
    /// As [`Client::send`](super::super::Client::send), with the codes 10002 (unknown segment) and 10003 (status 423:
    /// another evaluation is running; it is asked for again as often as the retry policy says).
    pub async fn run(&self, segment: SegmentId) -> Result<SegmentRun> {
        self.start(segment, false).await
    }

    /// As [`run`](Self::run), with `renew=true`: a new evaluation, where otherwise a recent one may be handed out.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_renewed(&self, segment: SegmentId) -> Result<SegmentRun> {
        self.start(segment, true).await
    }

    async fn start(&self, segment: SegmentId, renew: bool) -> Result<SegmentRun> {
        self.0.send(&Run { segment, renew }).await?.segment_run(&endpoint::<Run>())
    }

    /// How far an evaluation is (Emarsys API: Get the status of a segment run).
    ///
    /// # Errors
    /// As [`Client::send`](super::super::Client::send), with the code 10008 (unknown run).
    pub async fn run_status(&self, run: &RunId) -> Result<SegmentRun> {
        self.0.send(&ReadRun { run }).await?.segment_run(&endpoint::<ReadRun<'_>>())
    }

    /// Waits until an evaluation is done: in the list of the result are its members.
    ///
    /// # Errors
    /// As [`run_status`](Self::run_status); [`ErrorKind::Server`] if Emarsys failed to evaluate the segment, or is not
    /// done in the time that `polling` gives it.
    pub async fn wait_for_run(&self, run: &RunId, polling: Polling) -> Result<RunResult> {
        self.wait(&ReadRun { run }, polling).await
    }

    /// Starts the evaluation of a segment for one contact (Emarsys API: Run a segment for a single contact).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_for_contact(&self, segment: SegmentId, contact: ContactId) -> Result<ContactRun> {
        let request = RunForContact { segment, contact };
        self.0.send(&request).await?.contact_run(&endpoint::<RunForContact>())
    }

    /// How far the evaluation for one contact is (Emarsys API: Get the status of a single contact run).
    ///
    /// # Errors
    /// As [`run_status`](Self::run_status).
    pub async fn contact_run_status(&self, run: &RunId) -> Result<ContactRun> {
        self.0.send(&ReadContactRun { run }).await?.contact_run(&endpoint::<ReadContactRun<'_>>())
    }

    /// Waits until the evaluation for one contact is done, and tells whether the contact is in the segment.
    ///
    /// # Errors
    /// As [`wait_for_run`](Self::wait_for_run).
    pub async fn wait_for_contact_run(&self, run: &RunId, polling: Polling) -> Result<bool> {
        let InSegment { is_in_segment: Flag(is_in_segment) } =
            self.wait(&ReadContactRun { run }, polling).await?;
        Ok(is_in_segment)
    }

    async fn wait<R, T>(&self, request: &R, polling: Polling) -> Result<T>
    where
        R: Request<Reply = RunReply>,
        T: DeserializeOwned + Send,
    {
        let endpoint = &endpoint::<R>();
        let ask = || async move {
            if let Some(result) = self.0.send(request).await?.result(endpoint)? {
                return Ok(Break(result));
            }
            let text =
                format!("{endpoint}: the segment is still being evaluated; ask for the same run again later");
            Ok(Continue(Error::new(ErrorKind::Server, text).with_delivery(Delivery::NotSent)))
        };
        self.0.ask(polling, ask).await
    }
}

/// What both kinds of runs are answered with, when they are started and later.
#[derive(Deserialize)]
struct RunReply {
    run_id: RunId,
    status: RunStatus,
    #[serde(default)]
    result: Value,
}

impl RunReply {
    /// The result; `None` as long as there is none.
    fn result<T: DeserializeOwned>(self, endpoint: &str) -> Result<Option<T>> {
        match self.status {
            RunStatus::Done => self.done(endpoint).map(Some),
            RunStatus::Error => {
                let text = format!(
                    "{endpoint}: Emarsys failed to evaluate the segment (status `error`); check the segment in \
                     Emarsys, or start another run later"
                );
                Err(Error::new(ErrorKind::Server, text).with_delivery(Delivery::NotSent))
            }
            RunStatus::Waiting | RunStatus::Other(_) => Ok(None),
        }
    }

    fn done<T: DeserializeOwned>(self, endpoint: &str) -> Result<T> {
        reply::data(self.result).ok_or_else(|| {
            let text = format!("{endpoint}: the run is done, but its result is not in the expected form");
            Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent)
        })
    }

    fn segment_run(self, endpoint: &str) -> Result<SegmentRun> {
        let (id, status) = (self.run_id.clone(), self.status.clone());
        let result = if status == RunStatus::Done { Some(self.done(endpoint)?) } else { None };
        Ok(SegmentRun { id, status, result })
    }

    fn contact_run(self, endpoint: &str) -> Result<ContactRun> {
        let (id, status) = (self.run_id.clone(), self.status.clone());
        let result: Option<InSegment> =
            if status == RunStatus::Done { Some(self.done(endpoint)?) } else { None };
        Ok(ContactRun { id, status, is_in_segment: result.map(|result| result.is_in_segment.0) })
    }
}

#[derive(Deserialize)]
struct InSegment {
    is_in_segment: Flag,
}

impl<'de> Deserialize<'de> for RunResult {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Reply {
            contact_list_id: ListId,
            user_count: Count,
            opt_in_count: Count,
            #[serde(default, deserialize_with = "reply::optional_number")]
            duration: Option<u64>,
        }

        let reply = Reply::deserialize(deserializer)?;
        Ok(Self {
            list: reply.contact_list_id,
            contacts: reply.user_count.0,
            opted_in: reply.opt_in_count.0,
            duration: reply.duration,
        })
    }
}

/// A run makes a contact list and keeps others from running, so that a second one is not the same as none.
#[derive(Serialize)]
struct Run {
    #[serde(skip)]
    segment: SegmentId,
    #[serde(skip)]
    renew: bool,
}

impl Request for Run {
    type Reply = RunReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "filter/{id}/runs";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("segment.contacts.run");

    fn path(&self) -> Path {
        let path = Path::fill(Self::ENDPOINT, &[&self.segment]);
        if self.renew { path.query("renew", true) } else { path }
    }
}

#[derive(Serialize)]
struct ReadRun<'a> {
    run: &'a RunId,
}

impl Request for ReadRun<'_> {
    type Reply = RunReply;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/runs/{runId}";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.contacts.run.status");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.run])
    }
}

#[derive(Serialize)]
struct RunForContact {
    #[serde(skip)]
    segment: SegmentId,
    #[serde(skip)]
    contact: ContactId,
}

impl Request for RunForContact {
    type Reply = RunReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "filter/{id}/single_runs";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("segment.contact.run");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment]).query("contact_id", self.contact)
    }
}

#[derive(Serialize)]
struct ReadContactRun<'a> {
    run: &'a RunId,
}

impl Request for ReadContactRun<'_> {
    type Reply = RunReply;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/single_runs/{runId}";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.contact.run.status");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.run])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::emarsys::{
        Refusal,
        transport::fake::{Answer, client},
    };

    fn reply(data: &str) -> Answer {
        Answer::reply(200, format!(r#"{{"replyCode":0,"replyText":"OK","data":{data}}}"#))
    }

    #[tokio::test(start_paused = true)]
    async fn run_is_started_and_waited_for() {
        let (client, script) = client([
            reply(r#"{"run_id":"ab/12","status":"waiting"}"#),
            reply(r#"{"run_id":"ab/12","status":"waiting"}"#),
            reply(r#"{"run_id":"ab/12","status":"queued","result":[]}"#),
            reply(
                r#"{"run_id":"ab/12","status":"done","result":
                {"contact_list_id":51507,"user_count":960,"opt_in_count":"610","duration":12}}"#,
            ),
        ]);
        let segments = client.segments();
        let run = segments.run(SegmentId::new(123)).await.unwrap();
        assert_eq!((run.id.as_str(), &run.status, &run.result), ("ab/12", &RunStatus::Waiting, &None));
        let result = segments.wait_for_run(&run.id, Polling::default()).await.unwrap();
        assert_eq!(
            result,
            RunResult { list: ListId::new(51507), contacts: 960, opted_in: 610, duration: Some(12) }
        );
        let sent = script.sent();
        assert_eq!(
            (sent[0].method, sent[0].url.as_str(), sent[0].body.as_str()),
            ("POST", "https://api.emarsys.net/api/v2/filter/123/runs", "{}")
        );
        assert_eq!(
            (sent[3].method, sent[3].url.as_str()),
            ("GET", "https://api.emarsys.net/api/v2/filter/runs/ab%2F12")
        );
        assert_eq!(sent[3].at, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn renewed_run_says_so() {
        let (client, script) = client([reply(r#"{"run_id":7,"status":"waiting"}"#)]);
        let run = client.segments().run_renewed(SegmentId::new(123)).await.unwrap();
        assert_eq!(run.id, RunId::new("7"));
        assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/filter/123/runs?renew=true");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_run_is_an_error_of_the_server() {
        let failed = r#"{"run_id":"r1","status":"error"}"#;
        let (client, _) = client([reply(failed), reply(failed)]);
        let run = RunId::new("r1");
        let status = client.segments().run_status(&run).await.unwrap().status;
        assert_eq!(status, RunStatus::Error);
        let error = client.segments().wait_for_run(&run, Polling::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::NotSent));
        assert!(error.to_string().contains("status `error`"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn run_that_takes_too_long_is_given_up() {
        let waiting = || reply(r#"{"run_id":"r1","status":"waiting"}"#);
        let (client, script) = client([waiting(), waiting()]);
        let polling = Polling::default().time_max(Duration::from_secs(3));
        let error = client.segments().wait_for_run(&RunId::new("r1"), polling).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server);
        assert!(error.is_retryable() && error.to_string().contains("still being evaluated"), "{error}");
        assert_eq!(script.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn result_in_another_form_is_no_result() {
        let (client, _) = client([reply(r#"{"run_id":"r1","status":"done","result":[]}"#)]);
        let error = client.segments().run_status(&RunId::new("r1")).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Undecodable, Delivery::NotSent));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_run_is_refused() {
        let unknown =
            r#"{"replyCode":10008,"replyText":"The segment run specified does not exist.","data":""}"#;
        let (client, _) = client([Answer::reply(404, unknown)]);
        let error = client.segments().wait_for_run(&RunId::new("r1"), Polling::default()).await.unwrap_err();
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(10008));
        assert!(error.to_string().contains("no run of a segment has this id"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn another_evaluation_is_waited_for() {
        let locked = r#"{"replyCode":10003,"replyText":"The admin already running a segment.","data":""}"#;
        let (client, script) =
            client([Answer::reply(423, locked), reply(r#"{"run_id":"r1","status":"waiting"}"#)]);
        client.segments().run(SegmentId::new(123)).await.unwrap();
        assert_eq!(script.sent().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn segment_is_evaluated_for_one_contact() {
        for (printed, expected) in [("true", true), ("false", false), ("1", true), (r#""0""#, false)] {
            let (client, script) = client([
                reply(r#"{"run_id":"r2","status":"waiting"}"#),
                reply(r#"{"run_id":"r2","status":"waiting"}"#),
                reply(&format!(
                    r#"{{"run_id":"r2","status":"done","result":{{"is_in_segment":{printed}}}}}"#
                )),
            ]);
            let segments = client.segments();
            let run = segments.run_for_contact(SegmentId::new(123), ContactId::new(700_001)).await.unwrap();
            assert_eq!(segments.contact_run_status(&run.id).await.unwrap().is_in_segment, None);
            assert_eq!(segments.wait_for_contact_run(&run.id, Polling::default()).await.unwrap(), expected);
            let sent = script.sent();
            assert_eq!(
                sent[0].url,
                "https://api.emarsys.net/api/v2/filter/123/single_runs?contact_id=700001"
            );
            assert_eq!(sent[1].url, "https://api.emarsys.net/api/v2/filter/single_runs/r2");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn run_without_an_id_is_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        for id in ["", ".."] {
            let error = client.segments().run_status(&RunId::new(id)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().starts_with("GET filter/runs/{runId}: an id or a name"), "{error}");
        }
        assert!(script.sent().is_empty());
    }
}
