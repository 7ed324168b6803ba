//! What may happen to a request on its way.

use std::{fmt, time::Duration};

use reverse_etl::emarsys::sandbox::{Endpoint, Fault, Request};
use serde_json::{Value as Json, json};

use super::{choices::Draw, clock::nanos, flight::rows};

/// The longest time in which a request takes effect after it was sent.
pub(crate) const LATE: Duration = Duration::from_secs(20);

/// A millisecond in nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    IsSlow,
    FindsNoWay,
    IsLost,
    LosesItsAnswer,
    ArrivesLate,
    IsAnsweredTooLate,
    ArrivesTwice,
    MeetsAnOverload,
    TakesEffectBehindABrokenGateway,
    MeetsTheLimit,
    MeetsExpiredTokens,
    IsAnsweredInPart,
    IsAnsweredByAWebPage,
    TakesEffectByHalf,
    IsForbidden,
    MeetsARace,
    IsOvertaken,
    MeetsNobody,
    MissesTheList,
    HasItsRowsRefused,
}

/// All of them, some more often than others.
const FATES: [Fate; 31] = [
    Fate::Arrives,
    Fate::IsSlow,
    Fate::FindsNoWay,
    Fate::IsLost,
    Fate::LosesItsAnswer,
    Fate::ArrivesLate,
    Fate::IsAnsweredTooLate,
    Fate::ArrivesTwice,
    Fate::MeetsAnOverload,
    Fate::TakesEffectBehindABrokenGateway,
    Fate::MeetsTheLimit,
    Fate::MeetsExpiredTokens,
    Fate::IsAnsweredInPart,
    Fate::IsAnsweredByAWebPage,
    Fate::TakesEffectByHalf,
    Fate::IsForbidden,
    Fate::MeetsARace,
    Fate::IsOvertaken,
    Fate::MeetsNobody,
    Fate::MissesTheList,
    Fate::HasItsRowsRefused,
    // What follows is more likely than the rest.
    Fate::HasItsRowsRefused,
    Fate::LosesItsAnswer,
    Fate::ArrivesLate,
    // So is what only creations meet, of which there are fewer.
    Fate::MeetsARace,
    Fate::MeetsARace,
    Fate::IsOvertaken,
    Fate::IsOvertaken,
    Fate::MissesTheList,
    Fate::MissesTheList,
    Fate::MissesTheList,
];

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Arrives => "arrives",
            Fate::IsSlow => "is slow",
            Fate::FindsNoWay => "finds no connection",
            Fate::IsLost => "is lost",
            Fate::LosesItsAnswer => "takes effect, and its answer is lost",
            Fate::ArrivesLate => "takes effect late, and its answer is lost",
            Fate::IsAnsweredTooLate => "takes effect late, and is answered when nobody waits any more",
            Fate::ArrivesTwice => "arrives twice",
            Fate::MeetsAnOverload => "is answered by an overloaded server, without effect",
            Fate::TakesEffectBehindABrokenGateway => "takes effect, and a broken gateway answers",
            Fate::MeetsTheLimit => "meets a limit that others have used up",
            Fate::MeetsExpiredTokens => "meets expired tokens",
            Fate::IsAnsweredInPart => "takes effect, and its answer breaks off",
            Fate::IsAnsweredByAWebPage => "is answered by a web page",
            Fate::TakesEffectByHalf => "takes effect for half of its rows, and its answer is lost",
            Fate::IsForbidden => "is forbidden",
            Fate::MeetsARace => "is told that its contacts exist, which they do not",
            Fate::IsOvertaken => "finds that others have just created its contacts",
            Fate::MeetsNobody => "finds that others have just deleted its contacts",
            Fate::MissesTheList => "creates contacts outside of the list, and its answer is lost",
            Fate::HasItsRowsRefused => "has all of its rows refused",
        })
    }
}

impl Fate {
    /// What may happen to such a request, some of it more often than the rest; the calm one comes first.
    pub(crate) fn all(endpoint: Endpoint) -> impl Iterator<Item = Self> {
        FATES.into_iter().filter(move |fate| fate.is_possible(endpoint))
    }

    /// How it is counted. Reads are many, and of a kind.
    pub(crate) fn met(self, endpoint: Endpoint) -> String {
        let what = if endpoint.is_write() { endpoint.as_str() } else { "a read" };
        format!("fault: {what} {self}")
    }

    /// Whether it can happen to such a request.
    fn is_possible(self, endpoint: Endpoint) -> bool {
        match self {
            Fate::MeetsARace | Fate::IsOvertaken | Fate::MissesTheList => {
                endpoint == Endpoint::CreateContacts
            }
            Fate::MeetsNobody => endpoint == Endpoint::UpdateContacts,
            Fate::HasItsRowsRefused | Fate::TakesEffectByHalf => {
                matches!(endpoint, Endpoint::CreateContacts | Endpoint::UpdateContacts | Endpoint::AddToList)
            }
            _ => true,
        }
    }
}

/// How a request gets there and back. All times are in nanoseconds.
pub(crate) struct Way {
    /// When it arrives, counted from when it is sent: mostly once.
    pub(crate) arrivals: Vec<u64>,
    /// From its last arrival to its answer; `None` if the answer is lost.
    pub(crate) back: Option<u64>,
    /// When its sender gives up.
    pub(crate) times_out: Option<u64>,
    /// Which of several forms its fate has.
    pub(crate) dice: usize,
}

impl Way {
    pub(crate) fn draw(fate: Fate, timeout: Duration, choices: &mut Draw) -> Self {
        let late = nanos(LATE) - MS;
        let timeout = nanos(timeout);
        // Some hear of a broken connection at once.
        let breaks_off = |choices: &mut Draw| choices.of(&[50 * MS, 50 * MS, timeout]);
        let mut way = Self { arrivals: vec![5 * MS], back: Some(5 * MS), times_out: Some(timeout), dice: 0 };
        match fate {
            Fate::IsSlow => {
                way.arrivals = vec![choices.of(&[400, 1_500, 5]) * MS];
                way.back = Some(choices.of(&[400, 5, 3_000]) * MS);
            }
            Fate::FindsNoWay => {
                way.arrivals.clear();
                way.times_out = None;
            }
            Fate::IsLost => {
                way.arrivals.clear();
                way.times_out = Some(breaks_off(choices));
            }
            Fate::LosesItsAnswer | Fate::TakesEffectByHalf | Fate::MissesTheList => way.back = None,
            Fate::ArrivesLate => {
                way.arrivals = vec![choices.of(&[9_000 * MS, 1_000 * MS, late])];
                way.back = None;
                way.times_out = Some(breaks_off(choices));
            }
            Fate::IsAnsweredTooLate => {
                way.arrivals = vec![timeout.min(late) - choices.of(&[MS, 3_000 * MS])];
                way.back = Some(timeout);
            }
            // A second time, while nothing was answered yet.
            Fate::ArrivesTwice => way.arrivals.push(5 * MS + choices.of(&[0, 1_000 * MS, 4_000 * MS])),
            Fate::MeetsAnOverload
            | Fate::TakesEffectBehindABrokenGateway
            | Fate::IsAnsweredByAWebPage
            | Fate::HasItsRowsRefused => way.dice = choices.below(4),
            _ => {}
        }
        way
    }
}

/// What the account is told to do wrong with a request.
pub(crate) fn fault(fate: Fate, dice: usize, request: &Request) -> Option<Fault> {
    let status = [500, 502, 503, 504][dice];
    Some(match fate {
        Fate::MeetsAnOverload => Fault::status(status),
        Fate::TakesEffectBehindABrokenGateway => Fault::answer_applied(status, "<html>bad gateway</html>"),
        Fate::MeetsTheLimit => Fault::exhaust_limit(),
        Fate::MeetsExpiredTokens => Fault::expire_tokens(),
        Fate::IsAnsweredInPart => Fault::cut_body(),
        Fate::IsAnsweredByAWebPage if dice < 2 => Fault::answer_applied(200, "<html>hello</html>"),
        Fate::IsAnsweredByAWebPage => Fault::answer(200, "<html>hello</html>"),
        Fate::TakesEffectByHalf => Fault::apply_half(),
        Fate::IsForbidden => Fault::status(403),
        Fate::MeetsARace => Fault::race(),
        Fate::IsOvertaken => Fault::overtake(),
        Fate::MeetsNobody => Fault::vanish(),
        Fate::MissesTheList => Fault::skip_list(),
        // Nobody says that a row of which an update is refused is as it was before.
        Fate::HasItsRowsRefused if request.endpoint() == Endpoint::UpdateContacts && dice < 2 => {
            Fault::answer_applied(200, refusal(request))
        }
        Fate::HasItsRowsRefused => Fault::answer(200, refusal(request)),
        _ => return None,
    })
}

/// A reply in which every row has an error.
fn refusal(request: &Request) -> String {
    let rows = rows(request.endpoint(), &request.json());
    // A list call rejects a row only if contacts share its key, or it is gone.
    let error = if request.endpoint() == Endpoint::AddToList {
        json!({ "2010": "More contacts found with the external id" })
    } else {
        json!({ "2007": "Invalid choice id for field id: 5" })
    };
    let errors: serde_json::Map<String, Json> =
        rows.into_iter().map(|(email, _)| (email, error.clone())).collect();
    let data = if request.endpoint() == Endpoint::AddToList {
        json!({ "inserted_contacts": 0, "errors": errors })
    } else {
        json!({ "ids": [], "errors": errors })
    };
    json!({ "replyCode": 0, "replyText": "OK", "data": data }).to_string()
}
