//! One Emarsys call as data: what is sent where, what it may change, and what comes back.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

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
    /// `DELETE`, without a body.
    Delete,
}

/// Whether a call may change something at Emarsys. It decides what may be sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It changes nothing, whatever its verb, and is repeated when no answer comes.
    Read,
    /// It may change something, and is repeated only if it surely did not.
    Write,
}

/// One Emarsys call; `Self` serializes as its JSON body. Implement it for an endpoint that is not covered yet, and
/// pass it to [`Client::send`](super::Client::send).
///
/// ```
/// use std::borrow::Cow;
///
/// use reverse_etl::emarsys::{Effect, ListId, Method, Request};
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
///     fn path(&self) -> Cow<'_, str> {
///         format!("contactlist/{}/rename", self.list).into()
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

    /// The path below `/api/v3/`, query included; by default the endpoint as it stands.
    fn path(&self) -> Cow<'_, str> {
        Self::ENDPOINT.into()
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
            Self::Delete => "DELETE",
        }
    }

    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put)
    }
}
