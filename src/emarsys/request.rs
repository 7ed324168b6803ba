//! One Emarsys call as data: what is sent where, what it may change, and what comes back.

use serde::{Serialize, de::DeserializeOwned};

use super::path::Path;

/// The version of the API. It follows from the credentials; paths, bodies and replies are the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// Signed with WSSE; announced to end on 31 December 2026.
    V2,
    /// With an OAuth 2 token.
    V3,
}

/// The verb of a call. It does not say whether the call changes anything: [`Effect`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// `GET`, without a body.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`, without a body.
    Delete,
}

/// Whether a call may change something at Emarsys. It decides what may be sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It changes nothing, whatever its verb, and is repeated when no answer comes.
    Read,
    /// It may change something, but twice is the same as once: it is repeated when no answer comes. The attempt
    /// without an answer may take effect late, after others have written something newer.
    Idempotent,
    /// It may change something, and is repeated only if it surely did not.
    Write,
}

/// Below which address a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Root {
    /// `/api/v3/` or `/api/v2/`, as the credentials say.
    Core,
    /// `/api/rds/v1/`, which has no versions of that kind (Emarsys API: Relational data).
    RelationalData,
}

/// What a reply looks like that says that the call was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplyForm {
    /// `{"replyCode":0,"replyText":"OK","data":…}`, of which `data` is read.
    Envelope,
    /// That envelope, or another body under a status of 2xx: JSON without an envelope is read as it is, an empty body as
    /// null, a word or two as a string. A member `code` of relational data (15001 to 15013) is a refusal. Anything else,
    /// such as a web page, is undecodable.
    Any,
    /// Any text under a status of 2xx that is no envelope, read as a string.
    Text,
}

/// One Emarsys call; `Self` serializes as its JSON body (what serializes as nothing, such as a unit struct, is sent as
/// `{}`), unless its method has none: then all that it says is in its path. Implement it for an endpoint that is not
/// covered yet, and pass it to [`Client::send`](super::Client::send).
///
/// ```
/// use reverse_etl::emarsys::{Effect, ListId, Method, Path, Request};
///
/// #[derive(serde::Serialize)]
/// struct RenameList {
///     #[serde(skip)]
///     list: ListId,
///     name: String,
/// }
///
/// impl Request for RenameList {
///     type Reply = serde_json::Value;
///     const METHOD: Method = Method::Post;
///     const ENDPOINT: &'static str = "contactlist/{id}/rename";
///     const EFFECT: Effect = Effect::Write;
///
///     fn path(&self) -> Path {
///         Path::fill(Self::ENDPOINT, &[&self.list])
///     }
/// }
/// ```
pub trait Request: Serialize + Sync {
    /// The `data` member of the reply.
    type Reply: DeserializeOwned;

    /// The verb.
    const METHOD: Method;

    /// The path below `/api/v3/` with names for its variable parts: what errors and log lines call this endpoint.
    const ENDPOINT: &'static str;

    /// Whether it may change something.
    const EFFECT: Effect;

    /// The name of the permission that the API user needs, if it is known; an error about it names it.
    const PERMISSION: Option<&'static str> = None;

    /// The address that [`path`](Self::path) is below.
    const ROOT: Root = Root::Core;

    /// What a reply looks like that says that it was done.
    const REPLY: ReplyForm = ReplyForm::Envelope;

    /// The path below [`ROOT`](Self::ROOT), query included; by default the endpoint, which then has no names in braces.
    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[])
    }
}

/// What errors and log lines call a request.
pub(crate) fn endpoint<R: Request>() -> String {
    format!("{} {}", R::METHOD.as_str(), R::ENDPOINT)
}

impl Version {
    pub(crate) fn segment(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}
