//! Who is in a list, page by page.

use std::collections::HashSet;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};

use super::super::{
    client::Client,
    ids::{ContactId, ListId},
    lists::Lists,
    path::Path,
    reply::{self, List},
    request::{Effect, Method, ReplyForm, Request},
};
use crate::{Error, ErrorKind, Result};

/// Members on one page. Emarsys allows 100,000.
const PAGE: usize = 10_000;

impl Lists<'_> {
    /// The contacts of a list, by their internal numbers (Emarsys API: Fetch contacts in a contact list). Pages of
    /// 10,000 are asked for as the stream is read; members that come or go meanwhile may or may not be in it, and new
    /// ones may need a moment to show up.
    ///
    /// ```no_run
    /// use futures::TryStreamExt;
    /// use reverse_etl::emarsys::{Client, KeyField, ListId};
    ///
    /// # async fn members(client: &Client, list: ListId) -> reverse_etl::Result<()> {
    /// let members: Vec<_> = client.lists().members(list).try_collect().await?;
    /// let keys: Vec<String> = members.iter().map(|contact| contact.to_string()).collect();
    /// let data = client.contacts().get_data(KeyField::Id, &keys, &[]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An item is an error, and the last one, as with [`Client::send`]; code 3006 or status 404 if there is no such
    /// list.
    pub fn members(&self, list: ListId) -> BoxStream<'static, Result<ContactId>> {
        let client = self.0.clone();
        let start = Some((Next::default(), HashSet::new()));
        let pages = stream::try_unfold(start, move |state| {
            let client = client.clone();
            async move {
                let Some((next, mut seen)) = state else { return Ok(None) };
                let (page, next) = read(&client, list, next, &mut seen).await?;
                Ok(Some((stream::iter(page.into_iter().map(Ok)), next.map(|next| (next, seen)))))
            }
        });
        pages.try_flatten().boxed()
    }
}

/// Where the next page begins: what the page before said, which is no offset and not to be computed.
#[derive(Clone, Default)]
struct Next {
    token: Option<String>,
    top: Option<String>,
}

/// The members of a page, and where the next one begins. `seen` has the tokens of the pages so far.
async fn read(
    client: &Client,
    list: ListId,
    next: Next,
    seen: &mut HashSet<String>,
) -> Result<(Vec<ContactId>, Option<Next>)> {
    let page = client.send(&ReadMembers { list, next }).await?;
    let wrong = |why: &str| {
        Error::new(
            ErrorKind::Undecodable,
            format!("GET {}: the address of the next page {why}", ReadMembers::ENDPOINT),
        )
        .with_delivery(crate::Delivery::NotSent)
    };
    let Some(address) = page.next else { return Ok((page.value.0, None)) };
    let following = Next::of(&address).ok_or_else(|| wrong("has no skip token"))?;
    if following.token.clone().is_some_and(|token| !seen.insert(token)) {
        return Err(wrong("is that of a page before, so the pages would never end"));
    }
    Ok((page.value.0, Some(following)))
}

impl Next {
    /// Reads `/contactlist/4711/contactIds?$skiptoken=1840&$top=2000`, of which only the query matters: the path has
    /// other beginnings at some servers.
    fn of(address: &str) -> Option<Self> {
        let (_, query) = address.split_once('?')?;
        let pairs: Vec<_> = reqwest::Url::parse(&format!("http://path.invalid/?{query}"))
            .ok()?
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let value =
            |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Some(Self { token: Some(value("$skiptoken")?), top: value("$top") })
    }
}

#[derive(Serialize)]
struct ReadMembers {
    #[serde(skip)]
    list: ListId,
    #[serde(skip)]
    next: Next,
}

impl Request for ReadMembers {
    type Reply = MembersPage;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "contactlist/{id}/contactIds";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("contactlist.contact.ids");
    // One description of the reply has no envelope.
    const REPLY: ReplyForm = ReplyForm::Any;

    fn path(&self) -> Path {
        let path = Path::fill(Self::ENDPOINT, &[&self.list]);
        let path = path.query("$top", self.next.top.as_deref().unwrap_or(&PAGE.to_string()));
        match &self.next.token {
            Some(token) => path.query("$skiptoken", token),
            None => path,
        }
    }
}

#[derive(Deserialize)]
struct MembersPage {
    // Not optional: a reply without it is none.
    value: List<ContactId>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emarsys::transport::fake::{Answer, client};

    async fn read_all(answers: &[&str]) -> (Result<Vec<u64>>, Vec<String>) {
        let (client, script) = client(answers.iter().map(|answer| Answer::reply(200, answer)));
        let members: Result<Vec<ContactId>> = client.lists().members(ListId::new(4711)).try_collect().await;
        let base = "https://api.emarsys.net/api/v2/contactlist/4711/contactIds?";
        let queries =
            script.sent().iter().map(|sent| sent.url.strip_prefix(base).unwrap().to_owned()).collect();
        (members.map(|members| members.into_iter().map(ContactId::get).collect()), queries)
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_followed_by_the_token_that_the_last_one_named() {
        let (members, queries) = read_all(&[
            r#"{"replyCode":0,"replyText":"OK","data":{"value":[700001,700002],
                "next":"/contactlist/4711/contactIds?$skiptoken=1840&$top=2000"}}"#,
            r#"{"replyCode":0,"replyText":"OK","data":{"value":["700003"],
                "next":"/internal/123/contactlist/4711/contactIds?%24skiptoken=7"}}"#,
            r#"{"value":[700004],"next":null}"#,
        ])
        .await;
        assert_eq!(members.unwrap(), [700_001, 700_002, 700_003, 700_004]);
        assert_eq!(queries, ["%24top=10000", "%24top=2000&%24skiptoken=1840", "%24top=10000&%24skiptoken=7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_list_has_no_members() {
        for reply in [
            r#"{"replyCode":0,"replyText":"OK","data":{"value":[],"next":null}}"#,
            r#"{"replyCode":0,"data":{"value":false,"next":""}}"#,
            r#"{"value":[]}"#,
            r#"{"replyCode":0,"data":{"value":{},"next":false}}"#,
        ] {
            let (members, _) = read_all(&[reply]).await;
            assert!(members.unwrap().is_empty(), "{reply}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_leads_nowhere_is_an_error_after_the_members_before_it() {
        for next in ["/contactlist/4711/contactIds?$top=5", "nowhere"] {
            let page = format!(r#"{{"replyCode":0,"data":{{"value":[7],"next":"{next}"}}}}"#);
            let (members, _) = read_all(&[&page]).await;
            let error = members.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Undecodable);
            assert!(error.to_string().contains("no skip token"), "{error}");
        }
        let page = r#"{"replyCode":0,"data":{"value":[7],"next":"x?$skiptoken=7"}}"#;
        let (members, queries) = read_all(&[page, page]).await;
        assert!(members.unwrap_err().to_string().contains("never end"));
        assert_eq!(queries.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn reply_that_is_no_page_is_not_taken_for_an_empty_one() {
        let (members, _) = read_all(&["<html></html>"; 5]).await;
        assert_eq!(members.unwrap_err().kind(), ErrorKind::Undecodable);
        let (members, _) = read_all(&[r#"{"message":"hello"}"#]).await;
        assert_eq!(members.unwrap_err().kind(), ErrorKind::Undecodable);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_that_lead_in_a_circle_end_with_an_error() {
        let page =
            |token: u32| format!(r#"{{"replyCode":0,"data":{{"value":[7],"next":"x?$skiptoken={token}"}}}}"#);
        let (one, two) = (page(1), page(2));
        let (members, queries) = read_all(&[&one, &two, &one, &two, r#"{"value":[]}"#]).await;
        assert!(members.unwrap_err().to_string().contains("never end"));
        assert_eq!(queries.len(), 3);
    }
}
