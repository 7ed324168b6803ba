//! Contact sources: where contacts are said to come from (Emarsys API: Contact sources).

use serde::{Deserialize, Serialize};

use super::{
    client::Client,
    ids::SourceId,
    path::Path,
    reply::{Ignored, List},
    request::{Effect, Method, Request},
};
use crate::{Error, Result};

/// The calls about contact sources; made by [`Client::sources`].
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a>(pub(crate) &'a Client);

/// A contact source of the account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ContactSource {
    /// Its number, for [`Contact::from_source`](super::Contact::from_source).
    pub id: SourceId,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

impl Sources<'_> {
    /// All contact sources of the account (Emarsys API: List contact sources).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<ContactSource>> {
        self.0.send(&ListSources {}).await.map(|List(sources)| sources)
    }

    /// Creates a contact source (Emarsys API: Create a contact source). The reply is not known to name its number:
    /// [`list`](Self::list) does. That is also the way to learn whether it was created after an error that leaves it
    /// unknown.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the name is empty; else as [`Client::send`], with code 7001
    /// if the name exists.
    pub async fn create(&self, name: &str) -> Result<()> {
        if name.trim().is_empty() {
            return Err(Error::config("a contact source to be created has no name"));
        }
        self.0.send(&CreateSource { name }).await.map(|Ignored| ())
    }

    /// Deletes a contact source (Emarsys API: Delete a contact source). Its contacts stay.
    ///
    /// # Errors
    /// As [`Client::send`], with code 7002 if there is none of this number.
    pub async fn delete(&self, source: SourceId) -> Result<()> {
        self.0.send(&DeleteSource { source }).await.map(|Ignored| ())
    }
}

#[derive(Serialize)]
struct ListSources {}

impl Request for ListSources {
    type Reply = List<ContactSource>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "source";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("source.get");
}

#[derive(Serialize)]
struct CreateSource<'a> {
    name: &'a str,
}

impl Request for CreateSource<'_> {
    type Reply = Ignored;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "source/create";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("source.create");
}

#[derive(Serialize)]
struct DeleteSource {
    source: SourceId,
}

impl Request for DeleteSource {
    type Reply = Ignored;
    const METHOD: Method = Method::Delete;
    const ENDPOINT: &'static str = "source/{id}";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("source.delete");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.source])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        emarsys::{
            Refusal,
            transport::fake::{Answer, client},
        },
    };

    #[tokio::test(start_paused = true)]
    async fn sources_are_listed_created_and_deleted() {
        let (client, script) = client([
            Answer::reply(
                200,
                r#"{"replyCode":0,"replyText":"OK","data":[{"id":"77","name":"crm"},{"id":78,"name":"shop"}]}"#,
            ),
            Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":{"id":79}}"#),
            Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":""}"#),
        ]);
        let sources = client.sources().list().await.unwrap();
        assert_eq!(sources[0], ContactSource { id: SourceId::new(77), name: "crm".to_owned() });
        assert_eq!(sources[1].id, SourceId::new(78));
        client.sources().create("app").await.unwrap();
        client.sources().delete(SourceId::new(77)).await.unwrap();
        let sent = script.sent();
        let lines: Vec<_> =
            sent.iter().map(|sent| (sent.method, sent.url.as_str(), sent.body.as_str())).collect();
        assert_eq!(
            lines,
            [
                ("GET", "https://api.emarsys.net/api/v2/source", ""),
                ("POST", "https://api.emarsys.net/api/v2/source/create", r#"{"name":"app"}"#),
                ("DELETE", "https://api.emarsys.net/api/v2/source/77", ""),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn name_that_exists_is_told_by_its_code() {
        let (client, _) = client([Answer::reply(400, r#"{"replyCode":7001,"replyText":"","data":""}"#)]);
        let error = client.sources().create("crm").await.unwrap_err();
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(7001));
        assert_eq!(client.sources().create(" ").await.unwrap_err().kind(), ErrorKind::Config);
    }
}
