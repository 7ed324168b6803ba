//! The client as its users hold it; what becomes of a request is in `exchange`.

use std::{
    fmt,
    ops::ControlFlow::{self, Break, Continue},
    sync::Arc,
};

use super::{
    builder::{ClientBuilder, Shared},
    combined::Combined,
    contacts::Contacts,
    events::Events,
    exchange::Call,
    exports::Exports,
    fields::Fields,
    limiter::Limiter,
    lists::Lists,
    polling::Polling,
    refusal::Refusal,
    relational::RelationalData,
    reply,
    request::{Request, Version},
    segments::Segments,
    settings::{ReadSettings, Settings},
    sources::Sources,
    transport::HttpResponse,
};
use crate::{
    Delivery, Error, Result,
    host::{Deadline, Host},
};

/// A client of one Emarsys account. Clones are cheap and share token, request limit and connections.
///
/// What may be sent a second time, and for how long, is said at [`Effect`](super::Effect) and
/// [`RetryPolicy`](super::RetryPolicy); whether something may have been applied, by
/// [`Error::delivery`](crate::Error::delivery).
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) deadline: Option<Deadline>,
    pub(super) at_most_once: bool,
}

impl Client {
    /// Starts the settings of a client.
    pub fn builder(credentials: super::Credentials) -> ClientBuilder {
        ClientBuilder::new(credentials)
    }

    /// The same client, which begins no attempt once `deadline` has passed: then the error is
    /// [`ErrorKind::Expired`](crate::ErrorKind::Expired). An attempt that was begun before is waited for.
    #[must_use]
    pub fn until(&self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same client, which never sends a write a second time once it may have arrived, even where twice would be
    /// the same as once: the copy whose answer was lost may take effect after something newer.
    #[must_use]
    pub fn at_most_once(&self) -> Self {
        Self { at_most_once: true, ..self.clone() }
    }

    /// The version of the API that the credentials are for.
    pub fn version(&self) -> Version {
        self.shared.version
    }

    /// The request budget that this client keeps, for other clients with the same API user.
    pub fn limiter(&self) -> Limiter {
        self.shared.limiter.clone()
    }

    /// Contacts: write, delete, find, read.
    pub fn contacts(&self) -> Contacts<'_> {
        Contacts(self)
    }

    /// Contact fields: list, create, delete, choices.
    pub fn fields(&self) -> Fields<'_> {
        Fields(self)
    }

    /// Contact lists: list, create, members.
    pub fn lists(&self) -> Lists<'_> {
        Lists(self)
    }

    /// Segments made of others: list, read, create, change.
    pub fn combined_segments(&self) -> Combined<'_> {
        Combined(self)
    }

    /// External events: trigger.
    pub fn events(&self) -> Events<'_> {
        Events(self)
    }

    /// Exports: start, wait for, download.
    pub fn exports(&self) -> Exports<'_> {
        Exports(self)
    }

    /// Tables beside the contacts: query and write.
    pub fn relational_data(&self) -> RelationalData<'_> {
        RelationalData(self)
    }

    /// Segments: list, create, count, members, runs.
    pub fn segments(&self) -> Segments<'_> {
        Segments(self)
    }

    /// Contact sources: list, create, delete.
    pub fn sources(&self) -> Sources<'_> {
        Sources(self)
    }

    /// Reads the settings of the account (Emarsys API: Settings); the cheapest way to try the credentials.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn settings(&self) -> Result<Settings> {
        self.send(&ReadSettings {}).await
    }

    /// Sends one request, again where that is safe, and reads the `data` of its reply. Errors that a reply has for
    /// single rows are in that `data`. This is what all other methods are made of: an endpoint that has none is
    /// called with a [`Request`] of one's own.
    ///
    /// # Errors
    /// [`Unauthorized`](crate::ErrorKind::Unauthorized), [`Forbidden`](crate::ErrorKind::Forbidden),
    /// [`RateLimited`](crate::ErrorKind::RateLimited) and [`Refused`](crate::ErrorKind::Refused), with a [`Refusal`] as
    /// cause. So it is if the token is refused (with the endpoint `POST token`; of kind
    /// [`Config`](crate::ErrorKind::Config) if the status speaks of a wrong token URL), and wherever a reply that makes
    /// another error has a status or a code of note;
    /// [`Server`](crate::ErrorKind::Server), [`NoAnswer`](crate::ErrorKind::NoAnswer) and
    /// [`Undecodable`](crate::ErrorKind::Undecodable) if Emarsys does not come to an answer;
    /// [`Expired`](crate::ErrorKind::Expired) if the deadline passed; [`Config`](crate::ErrorKind::Config) if the request cannot
    /// be written. Whether a write may have been applied is in [`Error::delivery`](crate::Error::delivery); of a read
    /// it never says [`Unknown`](crate::Delivery::Unknown).
    pub async fn send<R: Request>(&self, request: &R) -> Result<R::Reply> {
        self.call(request).await.map(|answer| answer.reply)
    }

    /// Sends a request again and again until its result is there: for endpoints that answer with status 202 while
    /// they compute, and with 423 while they compute something else. What is no
    /// [`Read`](crate::emarsys::Effect::Read) is not sent again after 202: it may have been done.
    ///
    /// # Errors
    /// As [`send`](Self::send); the error of the last attempt, with status 202 or 423 in its [`Refusal`], once
    /// `polling` allows no other.
    pub async fn poll<R: Request>(&self, request: &R, polling: Polling) -> Result<R::Reply> {
        let ask = || async move {
            match self.send(request).await {
                // A write that is answered with 202 may have been done.
                Err(error)
                    if error.delivery() != Delivery::Unknown
                        && error.cause::<Refusal>().is_some_and(Refusal::is_for_later) =>
                {
                    Ok(Continue(error))
                }
                result => result.map(Break),
            }
        };
        self.ask(polling, ask).await
    }

    /// Asks until there is a result, within what `polling` and the deadline allow.
    pub(crate) async fn ask<T, F>(&self, polling: Polling, question: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<ControlFlow<T, Error>>>,
    {
        polling.ask(self.host(), self.deadline, question).await
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.shared.host
    }

    /// As [`send`](Self::send), with the status beside the reply.
    pub(crate) async fn call<R: Request>(&self, request: &R) -> Result<Answer<R::Reply>> {
        let call = Call::new(request, &self.shared)?;
        let (response, data) = self.exchange(&call).await?;
        let HttpResponse { status, body, .. } = response;
        let status = status.as_u16();
        let reply = reply::data(data).ok_or_else(|| call.undecodable(status, &body))?;
        Ok(Answer { status, reply })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.shared.base).finish_non_exhaustive()
    }
}

/// A reply that says that it was done.
pub(crate) struct Answer<T> {
    pub(crate) status: u16,
    pub(crate) reply: T,
}
