//! Combined segments (Emarsys API: Segments): those that are made of others.
//!
//! Their members are counted and read as those of any other segment, by [`Segments`](super::Segments).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{
    client::Client,
    ids::SegmentId,
    path::Path,
    reply::List,
    request::{Effect, Method, Request},
    words::words,
};
use crate::{Error, Result};

/// The calls about combined segments; made by [`Client::combined_segments`].
#[derive(Clone, Copy, Debug)]
pub struct Combined<'a>(pub(crate) &'a Client);

/// A combined segment of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CombinedSegment {
    /// Its number.
    pub id: SegmentId,
    /// Its name, if the reply has it.
    pub name: Option<String>,
    /// What it is made of, if the reply has it.
    pub definition: Option<CombinedDefinition>,
}

/// What a combined segment is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CombinedDefinition {
    /// Whom it has.
    pub include: SegmentSet,
    /// Whom of these it leaves out, if anybody.
    #[serde(default, deserialize_with = "optional_set", skip_serializing_if = "Option::is_none")]
    pub exclude: Option<SegmentSet>,
}

/// Some segments, and how they go together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSet {
    /// Whether a contact has to be in all of them, or in one.
    pub relation: Relation,
    /// The segments.
    pub segments: Vec<SegmentId>,
}

words! {
    /// How segments go together.
    Relation {
        /// A contact has to be in all of them.
        And = "AND",
        /// A contact has to be in one of them.
        Or = "OR",
    }
}

impl CombinedDefinition {
    /// The contacts of these segments.
    pub fn new(include: SegmentSet) -> Self {
        Self { include, exclude: None }
    }

    /// The same, but without the contacts of these segments.
    #[must_use]
    pub fn without(mut self, exclude: SegmentSet) -> Self {
        self.exclude = Some(exclude);
        self
    }

    fn check(&self, name: &str) -> Result<()> {
        if name.trim().is_empty() {
            return Err(Error::config("a combined segment has no name"));
        }
        if self.include.segments.is_empty()
            || self.exclude.as_ref().is_some_and(|set| set.segments.is_empty())
        {
            return Err(Error::config(format!("the combined segment `{name}` has a set of no segments")));
        }
        Ok(())
    }
}

impl SegmentSet {
    /// The contacts that are in all of these segments.
    pub fn all(segments: impl IntoIterator<Item = SegmentId>) -> Self {
        Self { relation: Relation::And, segments: segments.into_iter().collect() }
    }

    /// The contacts that are in at least one of these segments.
    pub fn any(segments: impl IntoIterator<Item = SegmentId>) -> Self {
        Self { relation: Relation::Or, segments: segments.into_iter().collect() }
    }
}

/// With the numbers as strings, as in the documentation.
impl Serialize for SegmentSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Set<'a> {
            relation: &'a Relation,
            segment_ids: Vec<String>,
        }

        let segment_ids = self.segments.iter().map(SegmentId::to_string).collect();
        Set { relation: &self.relation, segment_ids }.serialize(serializer)
    }
}

#[derive(Deserialize)]
struct SetReply {
    #[serde(default)]
    relation: Option<Relation>,
    #[serde(default)]
    segment_ids: List<SegmentId>,
}

impl From<SetReply> for SegmentSet {
    fn from(SetReply { relation, segment_ids: List(segments) }: SetReply) -> Self {
        Self { relation: relation.unwrap_or(Relation::Other(String::new())), segments }
    }
}

impl<'de> Deserialize<'de> for SegmentSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SetReply::deserialize(deserializer).map(Self::from)
    }
}

/// A set that need not be there: an empty one in any spelling is none.
fn optional_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SegmentSet>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Printed {
        Set(SetReply),
        Empty(List<SetReply>),
    }

    match Printed::deserialize(deserializer)? {
        Printed::Set(set) if !set.segment_ids.0.is_empty() => Ok(Some(set.into())),
        Printed::Set(_) => Ok(None),
        Printed::Empty(List(sets)) => Ok(sets.into_iter().next().map(SegmentSet::from)),
    }
}

impl Combined<'_> {
    /// All combined segments of the account (Emarsys API: List combined segments).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<CombinedSegment>> {
        let List(segments) = self.0.send(&ListCombined {}).await?;
        Ok(segments.into_iter().map(CombinedSegment::from).collect())
    }

    /// One combined segment (Emarsys API: Get a combined segment).
    ///
    /// # Errors
    /// As [`Client::send`], with the code 13001 (unknown combined segment).
    pub async fn get(&self, segment: SegmentId) -> Result<CombinedSegment> {
        self.0.send(&GetCombined { segment }).await.map(CombinedSegment::from)
    }

    /// Creates a combined segment (Emarsys API: Create a combined segment) and gives what Emarsys says that it has
    /// created. If the error leaves it unknown whether it was, [`list`](Self::list) tells.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with nothing sent, if the name or a set is empty; else as
    /// [`Client::send`], with the codes 13002 to 13005 (name or definition not valid).
    pub async fn create(&self, name: &str, definition: &CombinedDefinition) -> Result<CombinedSegment> {
        definition.check(name)?;
        self.0.send(&CreateCombined(Body { name, definition })).await.map(CombinedSegment::from)
    }

    /// Gives a combined segment this name and definition (Emarsys API: Update a combined segment).
    ///
    /// # Errors
    /// As [`create`](Self::create), with the code 13001 (unknown combined segment).
    pub async fn change(
        &self,
        segment: SegmentId,
        name: &str,
        definition: &CombinedDefinition,
    ) -> Result<CombinedSegment> {
        definition.check(name)?;
        let request = ChangeCombined { segment, body: Body { name, definition } };
        self.0.send(&request).await.map(CombinedSegment::from)
    }
}

#[derive(Deserialize)]
struct CombinedReply {
    id: SegmentId,
    #[serde(default)]
    name: Option<String>,
    /// Kept apart, so that a definition of another form does not hide all segments.
    #[serde(default)]
    definition: Value,
}

impl From<CombinedReply> for CombinedSegment {
    fn from(CombinedReply { id, name, definition }: CombinedReply) -> Self {
        Self { id, name, definition: serde_json::from_value(definition).ok() }
    }
}

#[derive(Serialize)]
struct ListCombined {}

impl Request for ListCombined {
    type Reply = List<CombinedReply>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "combinedsegments";
    const EFFECT: Effect = Effect::Read;
}

#[derive(Serialize)]
struct GetCombined {
    segment: SegmentId,
}

impl Request for GetCombined {
    type Reply = CombinedReply;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "combinedsegments/{id}";
    const EFFECT: Effect = Effect::Read;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

#[derive(Serialize)]
struct Body<'a> {
    name: &'a str,
    definition: &'a CombinedDefinition,
}

#[derive(Serialize)]
#[serde(transparent)]
struct CreateCombined<'a>(Body<'a>);

impl Request for CreateCombined<'_> {
    type Reply = CombinedReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "combinedsegments";
    const EFFECT: Effect = Effect::Write;
}

#[derive(Serialize)]
#[serde(transparent)]
struct ChangeCombined<'a> {
    #[serde(skip)]
    segment: SegmentId,
    body: Body<'a>,
}

impl Request for ChangeCombined<'_> {
    type Reply = CombinedReply;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "combinedsegments/{id}";
    const EFFECT: Effect = Effect::Write;

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Delivery, ErrorKind,
        emarsys::{
            Refusal,
            transport::fake::{Answer, client},
        },
    };

    fn ids<const N: usize>(ids: [u64; N]) -> [SegmentId; N] {
        ids.map(SegmentId::new)
    }

    #[tokio::test(start_paused = true)]
    async fn combined_segments_are_read_in_every_form_they_are_printed_in() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":[
            {"id":7,"name":"both","definition":{"include":{"relation":"AND","segment_ids":["1",2]},
                "exclude":{"relation":"OR","segment_ids":["3"]}}},
            {"id":"8","name":"one","definition":{"include":{"relation":"XOR","segment_ids":{"0":"1"}},"exclude":[]}},
            {"id":9,"definition":{"include":{"relation":"OR","segment_ids":["1"]},
                "exclude":{"relation":"AND","segment_ids":[]}}},
            {"id":10,"definition":{"include":{"relation":"OR","segment_ids":["1"]},"exclude":null}},
            {"id":11,"definition":{"include":{"relation":"OR","segment_ids":["1"]},"exclude":{}}},
            {"id":12,"definition":{"include":{"relation":"OR","segment_ids":["1"]}}},
            {"id":13}]}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let combined = client.combined_segments().list().await.unwrap();
        let definition = |index: usize| combined[index].definition.clone();
        assert_eq!((combined[0].id, combined[0].name.as_deref()), (SegmentId::new(7), Some("both")));
        assert_eq!(
            definition(0),
            Some(CombinedDefinition::new(SegmentSet::all(ids([1, 2]))).without(SegmentSet::any(ids([3]))))
        );
        let relation = definition(1).unwrap().include.relation;
        assert_eq!(relation, Relation::Other("XOR".to_owned()));
        for index in 2..6 {
            assert_eq!(
                definition(index),
                Some(CombinedDefinition::new(SegmentSet::any(ids([1])))),
                "{index}"
            );
        }
        assert_eq!((definition(6), &combined[6].name), (None, &None));
        let sent = script.sent();
        assert_eq!(
            (sent[0].method, sent[0].url.as_str()),
            ("GET", "https://api.emarsys.net/api/v2/combinedsegments")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn combined_segment_is_created_changed_and_read() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":7,"name":"both","definition":
            {"include":{"relation":"AND","segment_ids":["1","2"]},"exclude":{"relation":"OR","segment_ids":["3"]}}}}"#;
        let (client, script) =
            client([Answer::reply(200, reply), Answer::reply(200, reply), Answer::reply(200, reply)]);
        let combined = client.combined_segments();
        let definition =
            CombinedDefinition::new(SegmentSet::all(ids([1, 2]))).without(SegmentSet::any(ids([3])));
        let created = combined.create("both", &definition).await.unwrap();
        assert_eq!((created.id, created.definition.as_ref()), (SegmentId::new(7), Some(&definition)));
        let plain = CombinedDefinition::new(SegmentSet::any(ids([1])));
        combined.change(created.id, "one", &plain).await.unwrap();
        assert_eq!(combined.get(created.id).await.unwrap(), created);
        let sent = script.sent();
        let urls: Vec<_> = sent.iter().map(|sent| (sent.method, sent.url.as_str())).collect();
        assert_eq!(
            urls,
            [
                ("POST", "https://api.emarsys.net/api/v2/combinedsegments"),
                ("POST", "https://api.emarsys.net/api/v2/combinedsegments/7"),
                ("GET", "https://api.emarsys.net/api/v2/combinedsegments/7"),
            ]
        );
        assert_eq!(
            sent[0].body,
            concat!(
                r#"{"name":"both","definition":{"include":{"relation":"AND","segment_ids":["1","2"]},"#,
                r#""exclude":{"relation":"OR","segment_ids":["3"]}}}"#
            )
        );
        assert_eq!(
            sent[1].body,
            r#"{"name":"one","definition":{"include":{"relation":"OR","segment_ids":["1"]}}}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn empty_sets_and_names_are_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        let plain = CombinedDefinition::new(SegmentSet::any(ids([1])));
        for (name, definition) in [
            (" ", plain.clone()),
            ("x", CombinedDefinition::new(SegmentSet::all([]))),
            ("x", plain.without(SegmentSet::any([]))),
        ] {
            let error = client.combined_segments().create(name, &definition).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        }
        assert!(script.sent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_combined_segment_is_refused() {
        let reply = r#"{"replyCode":13001,"replyText":"Not found.","data":""}"#;
        let (client, _) = client([Answer::reply(404, reply)]);
        let error = client.combined_segments().get(SegmentId::new(7)).await.unwrap_err();
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(13001));
        assert!(error.to_string().contains("no combined segment has this id"), "{error}");
    }
}
