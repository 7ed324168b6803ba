//! Segments (Emarsys API: Segments): sets of contacts that Emarsys evaluates when they are asked for.

mod criteria;
mod runs;

use std::fmt;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

pub use self::{
    criteria::{Criteria, Operator},
    runs::{ContactRun, RunResult, RunStatus, SegmentRun},
};
use super::{
    client::Client,
    ids::{ContactId, ListId, SegmentId},
    path::Path,
    polling::Polling,
    reply::{self, Count, Flag, Ignored, List},
    request::{Effect, Method, Request, endpoint},
    words::words,
};
use crate::{Delivery, Error, ErrorKind, Result};

/// Members that are read in one request, of the million that Emarsys takes.
const PAGE: usize = 10_000;

/// The calls about segments; made by [`Client::segments`].
///
/// Emarsys evaluates a segment when it is asked for its members, which may take hours. Until then it answers "not yet",
/// and the calls that take a [`Polling`] ask again.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a>(pub(crate) &'a Client);

/// A segment of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// Its name, unique in the account.
    pub name: String,
    /// How it is made; a single segment may be read without it.
    pub segment_type: Option<SegmentType>,
    /// The number of the segment of Emarsys that it was made from, if there is one.
    pub predefined_segment: Option<SegmentId>,
    /// The list that its members have to be in, if there is one.
    pub base_list: Option<ListId>,
    /// The kinds of its criteria, such as `contact`.
    pub criteria_types: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

words! {
    /// How a segment is made.
    SegmentType {
        /// Of criteria of its own.
        Standard = "standard",
        /// Of other segments.
        Combined = "combined",
        /// Of relational data.
        Relational = "relational",
        /// By a prediction.
        Ai = "ai",
    }
}

/// A segment to be created. Its `Debug` shows no value of its criteria.
#[derive(Clone)]
pub struct NewSegment {
    name: String,
    description: String,
    base_list: Option<ListId>,
    contact_criteria: Option<Criteria>,
    behaviour_criteria: Option<Value>,
}

impl NewSegment {
    /// A segment of the contacts that `criteria` describe.
    pub fn new(name: impl Into<String>, criteria: impl Into<Criteria>) -> Self {
        Self { contact_criteria: Some(criteria.into()), ..Self::empty(name.into()) }
    }

    /// A segment of the contacts that have done something, as the tree of behaviour criteria in JSON says:
    /// `{"type":"criteria","criteria":"response_click","time_restriction":"last_days",…}`.
    pub fn of_behaviour(name: impl Into<String>, criteria: Value) -> Self {
        Self { behaviour_criteria: Some(criteria), ..Self::empty(name.into()) }
    }

    fn empty(name: String) -> Self {
        Self {
            name,
            description: String::new(),
            base_list: None,
            contact_criteria: None,
            behaviour_criteria: None,
        }
    }

    /// What people read about it; default: nothing.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// The list that its members have to be in as well; default: none.
    #[must_use]
    pub fn base_list(mut self, list: ListId) -> Self {
        self.base_list = Some(list);
        self
    }

    /// What its members have to have done as well; see [`of_behaviour`](Self::of_behaviour).
    #[must_use]
    pub fn behaviour_criteria(mut self, criteria: Value) -> Self {
        self.behaviour_criteria = Some(criteria);
        self
    }

    fn check(&self) -> Result<()> {
        if self.name.trim().is_empty() {
            return Err(Error::config("a segment to be created has no name"));
        }
        self.contact_criteria.iter().try_for_each(Criteria::check)
    }
}

impl fmt::Debug for NewSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSegment")
            .field("name", &self.name)
            .field("base_list", &self.base_list)
            .field("contact_criteria", &self.contact_criteria)
            .finish_non_exhaustive()
    }
}

impl Segments<'_> {
    /// All segments of the account, combined ones included (Emarsys API: List segments).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<Segment>> {
        let List(segments) = self.0.send(&ListSegments {}).await?;
        Ok(segments.into_iter().map(|ListedSegment { id, segment }| segment.named(id)).collect())
    }

    /// One segment (Emarsys API: Get a segment). The reply has fewer members than in [`list`](Self::list).
    ///
    /// # Errors
    /// As [`Client::send`], with the code 10002 (unknown segment).
    pub async fn get(&self, segment: SegmentId) -> Result<Segment> {
        Ok(self.0.send(&GetSegment { segment }).await?.named(segment))
    }

    /// Creates a segment (Emarsys API: Create a segment). If the error leaves it unknown whether it was created,
    /// [`list`](Self::list) tells: names are unique.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with nothing sent, if the name is empty, or an `and` or an `or`
    /// is; else as [`Client::send`], with the codes 1008 (the name exists, or the criteria are not valid) and 10004 or
    /// 10005.
    pub async fn create(&self, segment: &NewSegment) -> Result<SegmentId> {
        segment.check()?;
        self.0.send(&CreateSegment(segment)).await.map(|created| created.id)
    }

    /// The contact criteria of a segment (Emarsys API: Get contact criteria), if it has any.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for [`SegmentId::ALL_CONTACTS`], which has none; else as
    /// [`Client::send`], with the code 10002 (unknown segment).
    pub async fn contact_criteria(&self, segment: SegmentId) -> Result<Option<Criteria>> {
        let criteria = self.0.send(&GetCriteria { segment: not_all_contacts(segment)? }).await?;
        Ok(if reply::is_empty(&criteria) { None } else { Some(criteria.into()) })
    }

    /// Replaces the contact criteria of a segment (Emarsys API: Update contact criteria).
    ///
    /// # Errors
    /// As [`contact_criteria`](Self::contact_criteria), with the codes 1008 and 10004 (criteria that are not valid).
    pub async fn set_contact_criteria(&self, segment: SegmentId, criteria: &Criteria) -> Result<()> {
        criteria.check()?;
        let request = SetCriteria { segment: not_all_contacts(segment)?, criteria };
        self.0.send(&request).await.map(|Ignored| ())
    }

    /// Deletes a segment (Emarsys API: Delete a segment). Its contacts stay.
    ///
    /// # Errors
    /// As [`contact_criteria`](Self::contact_criteria), with the code 1008 (something else is made of it).
    pub async fn delete(&self, segment: SegmentId) -> Result<()> {
        self.0.send(&DeleteSegment { segment: not_all_contacts(segment)? }).await.map(|Ignored| ())
    }

    /// How many contacts are in a segment (Emarsys API: Count contacts in a segment).
    ///
    /// # Errors
    /// As [`Client::poll`], with the codes 10002 (unknown segment) and 10003 (status 423: another evaluation is
    /// running).
    pub async fn count(&self, segment: SegmentId, polling: Polling) -> Result<u64> {
        let Count(count) = self.0.poll(&CountMembers { segment }, polling).await?;
        Ok(count)
    }

    /// The contacts of a segment (Emarsys API: List contacts in a segment), read in pages of 10,000 as the stream is
    /// asked for them. `polling` is for each page.
    ///
    /// Whether Emarsys evaluates the segment once for all pages is not documented: for a set that stays the same while
    /// it is read, evaluate it with [`run`](Self::run) and read the contact list of the result.
    ///
    /// # Errors
    /// An item of the stream, its last; as [`count`](Self::count).
    pub fn members(&self, segment: SegmentId, polling: Polling) -> BoxStream<'static, Result<ContactId>> {
        let client = self.0.clone();
        let pages = stream::try_unfold(Some(0), move |offset: Option<usize>| {
            let client = client.clone();
            async move {
                let Some(offset) = offset else { return Ok(None) };
                let List(page) = client.poll(&ListMembers { segment, offset }, polling).await?;
                if page.len() > PAGE {
                    // Whoever does not keep to the limit may not keep to the offset either: the pages would never end.
                    let text =
                        format!("{}: a page has more contacts than asked for", endpoint::<ListMembers>());
                    return Err(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent));
                }
                let next = if page.len() < PAGE { None } else { Some(offset + PAGE) };
                Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// Whether a contact is in a segment (Emarsys API: Check whether a contact is in a segment).
    ///
    /// # Errors
    /// As [`count`](Self::count).
    pub async fn contains(&self, segment: SegmentId, contact: ContactId, polling: Polling) -> Result<bool> {
        let Flag(contains) = self.0.poll(&LookUpMember { segment, contact }, polling).await?;
        Ok(contains)
    }
}

fn not_all_contacts(segment: SegmentId) -> Result<SegmentId> {
    if segment == SegmentId::ALL_CONTACTS {
        return Err(Error::config(
            "segment 0 is all contacts: it has no criteria and cannot be changed or deleted",
        ));
    }
    Ok(segment)
}

#[derive(Serialize)]
struct ListSegments {}

impl Request for ListSegments {
    type Reply = List<ListedSegment>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.list");
}

#[derive(Deserialize)]
struct ListedSegment {
    id: SegmentId,
    #[serde(flatten)]
    segment: SegmentReply,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SegmentReply {
    // It may be null, but is always there: an object without it is no segment.
    #[serde(deserialize_with = "reply::optional_text")]
    name: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "reply::optional_text")]
    segment_type: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_number")]
    predefined_segment_id: Option<u64>,
    #[serde(default, deserialize_with = "reply::optional_number")]
    base_contact_list_id: Option<u64>,
    #[serde(default)]
    criteria_types: List<Value>,
    #[serde(default)]
    tags: List<Value>,
}

impl SegmentReply {
    fn named(self, id: SegmentId) -> Segment {
        // A number of 0 stands for none.
        let number = |id: Option<u64>| id.filter(|id| *id != 0);
        let texts = |List(items): List<Value>| items.iter().map(reply::key_text).collect();
        Segment {
            id,
            name: self.name.unwrap_or_default(),
            segment_type: self.segment_type.map(SegmentType::from),
            predefined_segment: number(self.predefined_segment_id).map(SegmentId::new),
            base_list: number(self.base_contact_list_id).map(ListId::new),
            criteria_types: texts(self.criteria_types),
            tags: texts(self.tags),
        }
    }
}

#[derive(Serialize)]
struct GetSegment {
    segment: SegmentId,
}

impl Request for GetSegment {
    type Reply = SegmentReply;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/{id}";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.get");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

struct CreateSegment<'a>(&'a NewSegment);

/// Which members may be left out is not documented, so all are there but the criteria that there are none of.
impl Serialize for CreateSegment<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(segment) = self;
        let mut body = serializer.serialize_map(None)?;
        body.serialize_entry("name", &segment.name)?;
        body.serialize_entry("description", &segment.description)?;
        body.serialize_entry("baseContactListId", &segment.base_list.map_or(0, ListId::get).to_string())?;
        if let Some(criteria) = &segment.contact_criteria {
            body.serialize_entry("contactCriteria", criteria)?;
        }
        if let Some(criteria) = &segment.behaviour_criteria {
            body.serialize_entry("behaviourCriteria", criteria)?;
        }
        body.end()
    }
}

impl Request for CreateSegment<'_> {
    type Reply = Created;
    const METHOD: Method = Method::Put;
    const ENDPOINT: &'static str = "filter";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("segment.create");
}

#[derive(Deserialize)]
struct Created {
    id: SegmentId,
}

#[derive(Serialize)]
struct GetCriteria {
    segment: SegmentId,
}

impl Request for GetCriteria {
    type Reply = Value;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/{id}/contact_criteria";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.criteria.get");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct SetCriteria<'a> {
    #[serde(skip)]
    segment: SegmentId,
    criteria: &'a Criteria,
}

impl Request for SetCriteria<'_> {
    type Reply = Ignored;
    const METHOD: Method = Method::Put;
    const ENDPOINT: &'static str = "filter/{id}/contact_criteria";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("segment.criteria.update");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

/// Its verb is GET, and yet it deletes.
#[derive(Serialize)]
struct DeleteSegment {
    segment: SegmentId,
}

impl Request for DeleteSegment {
    type Reply = Ignored;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/{id}/delete";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("segment.delete");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

#[derive(Serialize)]
struct CountMembers {
    segment: SegmentId,
}

impl Request for CountMembers {
    type Reply = Count;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/{id}/contacts/count";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.contact.count");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment])
    }
}

#[derive(Serialize)]
struct ListMembers {
    segment: SegmentId,
    offset: usize,
}

impl Request for ListMembers {
    type Reply = List<ContactId>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/{id}/contacts";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.contact.list");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment]).query("limit", PAGE).query("offset", self.offset)
    }
}

#[derive(Serialize)]
struct LookUpMember {
    segment: SegmentId,
    contact: ContactId,
}

impl Request for LookUpMember {
    type Reply = Flag;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "filter/{id}/contacts/{contactId}";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("segment.contact.lookup");

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.segment, &self.contact])
    }
}

#[cfg(test)]
mod tests;
