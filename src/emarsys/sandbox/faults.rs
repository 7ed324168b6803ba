//! What the sandbox is told to do wrong, and at which request.

use std::time::Duration;

use serde_json::json;

use super::endpoint::Endpoint;

/// Something that goes wrong at chosen requests.
///
/// Unless told otherwise it concerns the next request, whatever its endpoint. Requests are counted from the moment
/// the fault is handed to [`Sandbox::fail`](super::Sandbox::fail). One request meets one fault: of several that are
/// due, the one told first; the others wait for the next request that they fit.
///
/// ```
/// use reverse_etl::emarsys::sandbox::{Endpoint, Fault};
///
/// // The answer to the third update is lost, although the update takes effect.
/// let lost = Fault::lose_answer().on(Endpoint::UpdateContacts).nth(3);
/// // The next two requests of any kind find the service overloaded.
/// let overloaded = Fault::status(503).times(2);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Fault {
    endpoint: Option<Endpoint>,
    skip: u64,
    times: u64,
    effect: Effect,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Answered without taking effect. Without a body the gateway's usual one is sent.
    Refuse {
        status: u16,
        body: Option<String>,
    },
    /// Carried out, and answered with something else.
    Disguise {
        status: u16,
        body: String,
    },
    LoseRequest,
    LoseAnswer,
    ApplyLate(Duration),
    /// Half of the rows are carried out, and the answer is lost.
    ApplyHalf,
    Delay(Duration),
    CutBody,
    ExhaustLimit,
    ExpireTokens,
    Twist(Twist),
}

/// What goes wrong inside a call that is otherwise carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twist {
    /// Whoever would be created exists, it is said; nobody is created.
    Race,
    /// Whoever is created does not get into the list.
    SkipList,
    /// Whoever would be created is created by somebody else before.
    Overtake,
    /// Whoever exists is deleted by somebody else before.
    Vanish,
    /// Only the first half of the rows is carried out.
    Half,
    /// The export that is asked for comes to nothing.
    FailExport,
}

impl Fault {
    fn new(effect: Effect) -> Self {
        Self { endpoint: None, skip: 0, times: 1, effect }
    }

    /// The request is refused with a status and the body that usually comes with it, and takes no effect.
    pub fn status(status: u16) -> Self {
        Self::new(Effect::Refuse { status, body: None })
    }

    /// The request is refused with a reply code and takes no effect.
    pub fn refuse(status: u16, code: u16, text: &str) -> Self {
        Self::answer(status, json!({ "replyCode": code, "replyText": text, "data": "" }).to_string())
    }

    /// The request takes no effect and is answered with any status and body, such as a web page.
    pub fn answer(status: u16, body: impl Into<String>) -> Self {
        Self::new(Effect::Refuse { status, body: Some(body.into()) })
    }

    /// The request takes effect and is answered with any status and body, as by a gateway that gave up waiting.
    pub fn answer_applied(status: u16, body: impl Into<String>) -> Self {
        Self::new(Effect::Disguise { status, body: body.into() })
    }

    /// The connection closes and the request takes no effect; it does not count against the limit either.
    pub fn lose_request() -> Self {
        Self::new(Effect::LoseRequest)
    }

    /// The request takes effect and the connection closes without an answer.
    pub fn lose_answer() -> Self {
        Self::new(Effect::LoseAnswer)
    }

    /// The connection closes at once without an answer, and the request takes effect after a while.
    pub fn apply_late(after: Duration) -> Self {
        Self::new(Effect::ApplyLate(after))
    }

    /// The first half of the rows takes effect, and the connection closes without an answer: as if the service broke
    /// down in the middle of a batch of contacts or records, or of an edit of a list's members.
    pub fn apply_half() -> Self {
        Self::new(Effect::ApplyHalf)
    }

    /// The request takes effect at once and is answered after a while.
    pub fn delay(by: Duration) -> Self {
        Self::new(Effect::Delay(by))
    }

    /// The request takes effect, and the connection breaks in the middle of the reply's body.
    pub fn cut_body() -> Self {
        Self::new(Effect::CutBody)
    }

    /// A create or an upsert answers 2009 for everybody it would have created, and creates nobody.
    pub fn race() -> Self {
        Self::new(Effect::Twist(Twist::Race))
    }

    /// Just before the request, somebody else creates every contact that it would create, with no value but its key.
    pub fn overtake() -> Self {
        Self::new(Effect::Twist(Twist::Overtake))
    }

    /// Just before the request, somebody else deletes every contact that it would change.
    pub fn vanish() -> Self {
        Self::new(Effect::Twist(Twist::Vanish))
    }

    /// Contacts are created but not put into the list of the request, and the reply does not tell.
    pub fn skip_list() -> Self {
        Self::new(Effect::Twist(Twist::SkipList))
    }

    /// The export that the request asks for is accepted and, when it would be finished, has the status `error` and no
    /// file. Any other request is carried out as usual.
    pub fn fail_export() -> Self {
        Self::new(Effect::Twist(Twist::FailExport))
    }

    /// The caller's request limit is used up before this request, by somebody else: it and all others are answered
    /// with 429 until the window ends. A request for a token has no limit and is answered, and what is used up are the
    /// limits of both API users.
    pub fn exhaust_limit() -> Self {
        Self::new(Effect::ExhaustLimit)
    }

    /// All tokens given out expire before this request is looked at.
    pub fn expire_tokens() -> Self {
        Self::new(Effect::ExpireTokens)
    }

    /// Only requests of this endpoint count.
    pub fn on(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Begins with the `number`th request that fits, 1 being the next.
    pub fn nth(mut self, number: u64) -> Self {
        self.skip = number.saturating_sub(1);
        self
    }

    /// Happens to so many requests in a row. Default 1.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Happens to every request that fits from then on.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to happen to a request that came in.
    pub(super) fn due(&mut self, endpoint: Endpoint) -> Option<Effect> {
        let mut due = None;
        for fault in &mut self.0 {
            if fault.endpoint.is_some_and(|only| only != endpoint) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if due.is_none() && fault.times > 0 {
                fault.times -= 1;
                due = Some(fault.effect.clone());
            }
        }
        self.0.retain(|fault| fault.times > 0);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(faults: &mut Faults, endpoints: &[Endpoint]) -> Vec<u16> {
        let status = |effect| match effect {
            Some(Effect::Refuse { status, .. }) => status,
            _ => 200,
        };
        endpoints.iter().map(|endpoint| status(faults.due(*endpoint))).collect()
    }

    #[test]
    fn fault_meets_the_request_it_was_told_to() {
        let (put, post) = (Endpoint::UpdateContacts, Endpoint::CreateContacts);
        let mut faults = Faults::default();
        faults.push(Fault::status(503).on(put).nth(2).times(2));
        assert_eq!(statuses(&mut faults, &[put, post, put, put, put]), [200, 200, 503, 503, 200]);
    }

    #[test]
    fn faults_that_are_due_together_take_turns() {
        let put = Endpoint::UpdateContacts;
        let mut faults = Faults::default();
        faults.push(Fault::status(500));
        faults.push(Fault::status(503));
        faults.push(Fault::status(502).nth(2));
        assert_eq!(statuses(&mut faults, &[put, put, put, put]), [500, 503, 502, 200]);
    }
}
