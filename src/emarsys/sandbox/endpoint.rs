//! Which call of the API a request is: path and verb, in all spellings that are in use.

use std::fmt;

use reqwest::Url;

use super::reply::Failure;

/// The calls of the API that the sandbox serves: name, verb and path, and whether it is there to change something.
macro_rules! endpoints {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $kind:ident;)+) => {
        /// A call of the Emarsys API that the sandbox serves, for counting requests and placing faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Endpoint {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Endpoint {
            /// All of them.
            pub fn all() -> impl Iterator<Item = Self> {
                [$(Self::$variant),+].into_iter()
            }

            /// Verb and path below the API's base address, such as `PUT contact`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Whether it is there to change something, or to set something off.
            ///
            /// `checkids` counts as a read here, although it can be told to put what it finds into a list; see
            /// [`Sandbox::write_requests`](super::Sandbox::write_requests). So do an export and a run of a segment:
            /// they are ways to read, and the list that a run makes is its answer.
            pub fn is_write(self) -> bool {
                match self {
                    $(Self::$variant => endpoints!(@ $kind),)+
                }
            }
        }
    };
    (@ read) => { false };
    (@ write) => { true };
}

endpoints! {
    /// `POST /oauth2/token`
    Token = "POST oauth2/token", read;
    /// `GET settings`
    Settings = "GET settings", read;
    /// `GET field`, `GET field/translate/{language}`
    ListFields = "GET field", read;
    /// `POST field`
    CreateField = "POST field", write;
    /// `DELETE field/{id}`
    DeleteField = "DELETE field/{id}", write;
    /// `GET field/{id}/choice`, `GET field/{id}/choice/translate/{language}`
    ListChoices = "GET field/{id}/choice", read;
    /// `GET field/choices?fields=5,9`
    ListManyChoices = "GET field/choices", read;
    /// `POST contact`
    CreateContacts = "POST contact", write;
    /// `PUT contact`, with or without `create_if_not_exists`
    UpdateContacts = "PUT contact", write;
    /// `GET contact/?{field}={value}`
    FindContact = "GET contact", read;
    /// `POST contact/delete`
    DeleteContacts = "POST contact/delete", write;
    /// `POST contact/checkids`
    CheckIds = "POST contact/checkids", read;
    /// `POST contact/getdata`
    GetData = "POST contact/getdata", read;
    /// `GET contact/query/?return={field}`
    QueryContacts = "GET contact/query", read;
    /// `POST contact/getcontacthistory`
    ContactHistory = "POST contact/getcontacthistory", read;
    /// `POST contact/merge`
    MergeContacts = "POST contact/merge", write;
    /// `GET source`
    ListSources = "GET source", read;
    /// `POST source/create`
    CreateSource = "POST source/create", write;
    /// `DELETE source/{id}`
    DeleteSource = "DELETE source/{id}", write;
    /// `POST event/{id}/trigger`
    TriggerEvent = "POST event/{id}/trigger", write;
    /// `POST email/unsubscribe`
    Unsubscribe = "POST email/unsubscribe", write;
    /// `GET connections/{connection}/tables/{table}/records`, of relational data
    QueryRecords = "GET connections/{connection}/tables/{table}/records", read;
    /// `POST connections/{connection}/tables/{table}/records`
    InsertRecords = "POST connections/{connection}/tables/{table}/records", write;
    /// `PUT connections/{connection}/tables/{table}/records`
    ReplaceRecords = "PUT connections/{connection}/tables/{table}/records", write;
    /// `PATCH connections/{connection}/tables/{table}/records`
    PatchRecords = "PATCH connections/{connection}/tables/{table}/records", write;
    /// `POST connections/{connection}/tables/{table}/records/upsert`
    UpsertRecords = "POST connections/{connection}/tables/{table}/records/upsert", write;
    /// `POST connections/{connection}/tables/{table}/records/remove`
    RemoveRecords = "POST connections/{connection}/tables/{table}/records/remove", write;
    /// `GET contactlist`
    ListLists = "GET contactlist", read;
    /// `POST contactlist`
    CreateList = "POST contactlist", write;
    /// `POST contactlist/{id}/add`
    AddToList = "POST contactlist/{id}/add", write;
    /// `POST contactlist/{id}/delete`
    RemoveFromList = "POST contactlist/{id}/delete", write;
    /// `POST contactlist/{id}/replace`
    ReplaceList = "POST contactlist/{id}/replace", write;
    /// `POST contactlist/{id}/rename`
    RenameList = "POST contactlist/{id}/rename", write;
    /// `POST contactlist/{id}/deletelist`
    DeleteList = "POST contactlist/{id}/deletelist", write;
    /// `GET contactlist/{id}/count`
    CountList = "GET contactlist/{id}/count", read;
    /// `GET contactlist/{id}/contacts/{contactId}`
    FindInList = "GET contactlist/{id}/contacts/{contactId}", read;
    /// `GET contactlist/{id}/contacts/data`, a deprecated read
    ListContactData = "GET contactlist/{id}/contacts/data", read;
    /// `GET contactlist/{id}/contactIds`
    ContactIds = "GET contactlist/{id}/contactIds", read;
    /// `GET contactlist/{id}/contacts`, the deprecated read
    ListContacts = "GET contactlist/{id}/contacts", read;
    /// `GET filter`
    ListSegments = "GET filter", read;
    /// `PUT filter`
    CreateSegment = "PUT filter", write;
    /// `GET filter/{id}`
    ReadSegment = "GET filter/{id}", read;
    /// `GET filter/{id}/contact_criteria`
    ReadCriteria = "GET filter/{id}/contact_criteria", read;
    /// `PUT filter/{id}/contact_criteria`
    UpdateCriteria = "PUT filter/{id}/contact_criteria", write;
    /// `GET filter/{id}/delete`, which deletes
    DeleteSegment = "GET filter/{id}/delete", write;
    /// `GET filter/{id}/contacts`
    SegmentContacts = "GET filter/{id}/contacts", read;
    /// `GET filter/{id}/contacts/count`
    CountSegment = "GET filter/{id}/contacts/count", read;
    /// `GET filter/{id}/contacts/{contactId}`
    FindInSegment = "GET filter/{id}/contacts/{contactId}", read;
    /// `POST filter/{id}/single_runs`
    RunForContact = "POST filter/{id}/single_runs", read;
    /// `GET filter/single_runs/{runId}`
    ReadContactRun = "GET filter/single_runs/{runId}", read;
    /// `POST filter/{id}/runs`
    RunSegment = "POST filter/{id}/runs", read;
    /// `GET filter/runs/{runId}`, `GET filter/{id}/runs/{runId}`
    ReadRun = "GET filter/runs/{runId}", read;
    /// `GET combinedsegments`
    ListCombinedSegments = "GET combinedsegments", read;
    /// `POST combinedsegments`
    CreateCombinedSegment = "POST combinedsegments", write;
    /// `GET combinedsegments/{id}`
    ReadCombinedSegment = "GET combinedsegments/{id}", read;
    /// `POST combinedsegments/{id}`
    UpdateCombinedSegment = "POST combinedsegments/{id}", write;
    /// `POST contact/getchanges`
    ExportChanges = "POST contact/getchanges", read;
    /// `POST contact/getregistrations`
    ExportRegistrations = "POST contact/getregistrations", read;
    /// `POST email/getcontacts`, the export of a contact list
    ExportList = "POST email/getcontacts", read;
    /// `POST export/filter`
    ExportSegment = "POST export/filter", read;
    /// `GET export/{id}`
    ReadExport = "GET export/{id}", read;
    /// `GET export/{id}/data`
    DownloadExport = "GET export/{id}/data", read;
    /// `GET /healthcheck`
    HealthCheck = "GET healthcheck", read;
    /// A path or verb that the sandbox does not serve.
    Unknown = "unknown", read;
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Under which roof a request came in; it decides who may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// `/api/v2`, WSSE.
    Wsse,
    /// `/api/v3`, a bearer token.
    Bearer,
    /// `/api/rds`, relational data: either of the two.
    Relational,
    /// None of them: the token endpoint, the health check, a wrong address.
    Outside,
}

/// The calls that a path serves, each with its verb.
type Calls = &'static [(&'static str, Endpoint)];

/// A request's address, understood.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) api: Api,
    pub(super) endpoint: Endpoint,
    /// The number in the path: of a field, a list, a segment or an export; 0 where there is none.
    pub(super) id: u64,
    /// What else the path names: a contact in a list or a segment, a run of a segment, or connection and table with a
    /// slash between.
    pub(super) item: String,
    /// The language of a translated read.
    pub(super) language: Option<String>,
    pub(super) query: Query,
    /// Why the address or the verb is refused, for [`Endpoint::Unknown`].
    pub(super) refusal: Option<Failure>,
}

/// The decoded query, whether it came after a `?` or as the last part of the path.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `name=value&name=value`, the form of a query and of the body of a token request.
    pub(super) fn parse(text: &str) -> Self {
        // The host is only there because a query is decoded as part of an address.
        let Ok(mut url) = Url::parse("http://sandbox.invalid/") else { return Self::default() };
        url.set_query(Some(text));
        Self(url.query_pairs().into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Route {
    pub(super) fn of(method: &str, target: &str) -> Self {
        let (path, mut query) = match target.split_once('?') {
            Some((path, query)) => (path, query.to_owned()),
            None => (target, String::new()),
        };
        if path == "/oauth2/token" {
            let endpoint = if method == "POST" { Endpoint::Token } else { Endpoint::Unknown };
            return Self::outside(endpoint, Failure::wrong_verb());
        }
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts == ["healthcheck"] {
            return Self::outside(Endpoint::HealthCheck, Failure::wrong_verb());
        }
        let api = match parts.get(..2) {
            Some(["api", "v2"]) => Api::Wsse,
            Some(["api", "v3"]) => Api::Bearer,
            Some(["api", "rds"]) => Api::Relational,
            _ => {
                let from_root: Vec<&str> = path.split('/').collect();
                return Self::outside(Endpoint::Unknown, Failure::not_served(plain(method, &from_root)));
            }
        };
        parts.drain(..2);
        // The old style of a query: the last part of the path is `limit=100&offset=200`.
        if let Some(last) = parts.pop_if(|last| last.contains('=')) {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(last);
        }
        let mut route = Self {
            api,
            endpoint: Endpoint::Unknown,
            id: 0,
            item: String::new(),
            language: None,
            query: Query::parse(&query),
            refusal: None,
        };
        let found = match api {
            Api::Relational => route.find_records(method, &parts),
            _ => route.find(method, &parts),
        };
        match found {
            Ok(endpoint) => route.endpoint = endpoint,
            Err(refusal) => route.refusal = Some(refusal),
        }
        route
    }

    fn outside(endpoint: Endpoint, refusal: Failure) -> Self {
        let refusal = (endpoint == Endpoint::Unknown).then_some(refusal);
        let (item, query) = (String::new(), Query::default());
        Self { api: Api::Outside, endpoint, id: 0, item, language: None, query, refusal }
    }

    fn find(&mut self, method: &str, parts: &[&str]) -> Result<Endpoint, Failure> {
        // One line per path: the calls that it serves, each with its verb.
        let calls: Calls = match *parts {
            ["settings"] => &[("GET", Endpoint::Settings)],
            ["field"] => &[("GET", Endpoint::ListFields), ("POST", Endpoint::CreateField)],
            ["field", "translate", language] => {
                self.language = Some(language.to_owned());
                &[("GET", Endpoint::ListFields)]
            }
            ["field", "choices"] => &[("GET", Endpoint::ListManyChoices)],
            ["field", id] => {
                self.id = number(id)?;
                &[("DELETE", Endpoint::DeleteField)]
            }
            ["field", id, "choice"] => {
                self.id = number(id)?;
                &[("GET", Endpoint::ListChoices)]
            }
            ["field", id, "choice", "translate", language] => {
                self.id = number(id)?;
                self.language = Some(language.to_owned());
                &[("GET", Endpoint::ListChoices)]
            }
            ["contact"] => &[
                ("POST", Endpoint::CreateContacts),
                ("PUT", Endpoint::UpdateContacts),
                ("GET", Endpoint::FindContact),
            ],
            ["contact", "query"] => &[("GET", Endpoint::QueryContacts)],
            ["contact", "getcontacthistory"] => &[("POST", Endpoint::ContactHistory)],
            ["contact", "merge"] => &[("POST", Endpoint::MergeContacts)],
            ["source"] => &[("GET", Endpoint::ListSources)],
            ["source", "create"] => &[("POST", Endpoint::CreateSource)],
            ["source", id] => {
                self.id = number(id)?;
                &[("DELETE", Endpoint::DeleteSource)]
            }
            ["event", id, "trigger"] => {
                self.id = number(id)?;
                &[("POST", Endpoint::TriggerEvent)]
            }
            ["email", "unsubscribe"] => &[("POST", Endpoint::Unsubscribe)],
            ["contact", "delete"] => &[("POST", Endpoint::DeleteContacts)],
            ["contact", "checkids"] => &[("POST", Endpoint::CheckIds)],
            ["contact", "getdata"] => &[("POST", Endpoint::GetData)],
            ["contact", "getchanges"] => &[("POST", Endpoint::ExportChanges)],
            ["contact", "getregistrations"] => &[("POST", Endpoint::ExportRegistrations)],
            ["email", "getcontacts"] => &[("POST", Endpoint::ExportList)],
            ["export", ..] => self.find_export(method, parts)?,
            ["filter", ..] => self.find_segment(method, parts)?,
            ["combinedsegments"] => {
                &[("GET", Endpoint::ListCombinedSegments), ("POST", Endpoint::CreateCombinedSegment)]
            }
            ["combinedsegments", id] => {
                self.id = number(id)?;
                &[("GET", Endpoint::ReadCombinedSegment), ("POST", Endpoint::UpdateCombinedSegment)]
            }
            ["contactlist"] => &[("GET", Endpoint::ListLists), ("POST", Endpoint::CreateList)],
            ["contactlist", id] => {
                self.id = number(id)?;
                &[("GET", Endpoint::ListContacts)]
            }
            ["contactlist", id, "contacts", "data"] => {
                self.id = number(id)?;
                &[("GET", Endpoint::ListContactData)]
            }
            ["contactlist", id, "contacts", contact] => {
                self.id = number(id)?;
                self.item = number(contact)?.to_string();
                &[("GET", Endpoint::FindInList)]
            }
            // Seen in a live account, where any other wrong verb is 400.
            ["contactlist", _, "deletelist"] if method == "DELETE" => return Err(Failure::forbidden()),
            ["contactlist", id, action] => {
                self.id = number(id)?;
                match action {
                    "add" => &[("POST", Endpoint::AddToList)],
                    "delete" => &[("POST", Endpoint::RemoveFromList)],
                    "replace" => &[("POST", Endpoint::ReplaceList)],
                    "rename" => &[("POST", Endpoint::RenameList)],
                    "deletelist" => &[("POST", Endpoint::DeleteList)],
                    "count" => &[("GET", Endpoint::CountList)],
                    "contactIds" => &[("GET", Endpoint::ContactIds)],
                    "contacts" => &[("GET", Endpoint::ListContacts)],
                    _ => return Err(unknown(method, parts)),
                }
            }
            _ => return Err(unknown(method, parts)),
        };
        let served = calls.iter().find(|(verb, _)| *verb == method);
        served.map(|(_, endpoint)| *endpoint).ok_or_else(Failure::wrong_verb)
    }

    /// Relational data, with or without the version in the path.
    fn find_records(&mut self, method: &str, parts: &[&str]) -> Result<Endpoint, Failure> {
        let parts = parts.strip_prefix(&["v1"]).unwrap_or(parts);
        let ["connections", connection, "tables", table, "records", action @ ..] = parts else {
            return Err(Failure::not_served(plain(method, parts)));
        };
        self.item = format!("{connection}/{table}");
        match (method, action) {
            ("GET", []) => Ok(Endpoint::QueryRecords),
            ("POST", []) => Ok(Endpoint::InsertRecords),
            ("PUT", []) => Ok(Endpoint::ReplaceRecords),
            ("PATCH", []) => Ok(Endpoint::PatchRecords),
            ("POST", ["upsert"]) => Ok(Endpoint::UpsertRecords),
            ("POST", ["remove"]) => Ok(Endpoint::RemoveRecords),
            (_, [] | ["upsert" | "remove"]) => Err(Failure::wrong_verb()),
            _ => Err(Failure::not_served(plain(method, parts))),
        }
    }

    fn find_segment(&mut self, method: &str, parts: &[&str]) -> Result<Calls, Failure> {
        match *parts {
            ["filter"] => return Ok(&[("GET", Endpoint::ListSegments), ("PUT", Endpoint::CreateSegment)]),
            ["filter", "runs", run] => {
                run.clone_into(&mut self.item);
                return Ok(&[("GET", Endpoint::ReadRun)]);
            }
            ["filter", "single_runs", run] => {
                run.clone_into(&mut self.item);
                return Ok(&[("GET", Endpoint::ReadContactRun)]);
            }
            ["filter", id, ..] => self.id = number(id)?,
            _ => {}
        }
        match parts.get(2..).unwrap_or_default() {
            [] => Ok(&[("GET", Endpoint::ReadSegment)]),
            ["contact_criteria"] => Ok(&[("GET", Endpoint::ReadCriteria), ("PUT", Endpoint::UpdateCriteria)]),
            ["delete"] => Ok(&[("GET", Endpoint::DeleteSegment)]),
            ["contacts"] => Ok(&[("GET", Endpoint::SegmentContacts)]),
            ["contacts", "count"] => Ok(&[("GET", Endpoint::CountSegment)]),
            ["contacts", contact] => {
                self.item = number(contact)?.to_string();
                Ok(&[("GET", Endpoint::FindInSegment)])
            }
            ["single_runs"] => Ok(&[("POST", Endpoint::RunForContact)]),
            ["runs"] => Ok(&[("POST", Endpoint::RunSegment)]),
            ["runs", run] => {
                (*run).clone_into(&mut self.item);
                Ok(&[("GET", Endpoint::ReadRun)])
            }
            _ => Err(unknown(method, parts)),
        }
    }

    fn find_export(&mut self, method: &str, parts: &[&str]) -> Result<Calls, Failure> {
        match *parts {
            ["export", "filter"] => Ok(&[("POST", Endpoint::ExportSegment)]),
            ["export", id] => {
                self.id = number(id)?;
                Ok(&[("GET", Endpoint::ReadExport)])
            }
            ["export", id, "data"] => {
                self.id = number(id)?;
                Ok(&[("GET", Endpoint::DownloadExport)])
            }
            _ => Err(unknown(method, parts)),
        }
    }
}

/// A path that leads to no call.
fn unknown(method: &str, parts: &[&str]) -> Failure {
    Failure::unknown_action(parts.last().copied().unwrap_or_default(), plain(method, parts))
}

/// Verb and path with `{id}` in place of whatever may be one, or a key: what is not written as a word.
fn plain(method: &str, parts: &[&str]) -> String {
    let is_word = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let parts: Vec<_> = parts.iter().map(|part| if is_word(part) { *part } else { "{id}" }).collect();
    format!("{method} {}", parts.join("/"))
}

/// A number in the path. Anything else is taken for the name of an action that does not exist.
fn number(part: &str) -> Result<u64, Failure> {
    part.parse().map_err(|_| Failure::action(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_query_styles_and_slashes_lead_to_the_same_call() {
        for target in [
            "/api/v2/contact/?create_if_not_exists=1",
            "/api/v2/contact?create_if_not_exists=1",
            "/api/v2/contact/create_if_not_exists=1",
            "/api/v2/contact/create_if_not_exists=1/",
        ] {
            let route = Route::of("PUT", target);
            assert_eq!(route.endpoint, Endpoint::UpdateContacts, "{target}");
            assert_eq!(route.query.get("create_if_not_exists"), Some("1"), "{target}");
        }
    }

    #[test]
    fn dollar_may_be_escaped_in_a_query() {
        for target in
            ["/api/v3/contactlist/7/contactIds?$top=5", "/api/v3/contactlist/7/contactIds/?%24top=5"]
        {
            let route = Route::of("GET", target);
            assert_eq!((route.endpoint, route.id), (Endpoint::ContactIds, 7));
            assert_eq!(route.query.get("$top"), Some("5"));
        }
    }

    #[test]
    fn token_address_has_no_trailing_slash() {
        assert_eq!(Route::of("POST", "/oauth2/token").endpoint, Endpoint::Token);
        assert_eq!(Route::of("POST", "/oauth2/token/").endpoint, Endpoint::Unknown);
    }
}
