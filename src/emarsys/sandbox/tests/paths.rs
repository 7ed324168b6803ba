//! Every address in every spelling.

use super::{endpoint::Route, *};

/// Verb and path of the calls below `/api/v2` and `/api/v3`.
const CALLS: &[(&str, &str, Endpoint)] = &[
    ("GET", "settings", Endpoint::Settings),
    ("GET", "field", Endpoint::ListFields),
    ("GET", "field/translate/en", Endpoint::ListFields),
    ("POST", "field", Endpoint::CreateField),
    ("DELETE", "field/7", Endpoint::DeleteField),
    ("GET", "field/7/choice", Endpoint::ListChoices),
    ("GET", "field/7/choice/translate/en", Endpoint::ListChoices),
    ("GET", "field/choices", Endpoint::ListManyChoices),
    ("POST", "contact", Endpoint::CreateContacts),
    ("PUT", "contact", Endpoint::UpdateContacts),
    ("GET", "contact", Endpoint::FindContact),
    ("GET", "contact/query", Endpoint::QueryContacts),
    ("POST", "contact/delete", Endpoint::DeleteContacts),
    ("POST", "contact/checkids", Endpoint::CheckIds),
    ("POST", "contact/getdata", Endpoint::GetData),
    ("POST", "contact/getcontacthistory", Endpoint::ContactHistory),
    ("POST", "contact/merge", Endpoint::MergeContacts),
    ("GET", "source", Endpoint::ListSources),
    ("POST", "source/create", Endpoint::CreateSource),
    ("DELETE", "source/7", Endpoint::DeleteSource),
    ("POST", "event/7/trigger", Endpoint::TriggerEvent),
    ("POST", "email/unsubscribe", Endpoint::Unsubscribe),
    ("GET", "contactlist", Endpoint::ListLists),
    ("POST", "contactlist", Endpoint::CreateList),
    ("POST", "contactlist/7/add", Endpoint::AddToList),
    ("POST", "contactlist/7/delete", Endpoint::RemoveFromList),
    ("POST", "contactlist/7/replace", Endpoint::ReplaceList),
    ("POST", "contactlist/7/rename", Endpoint::RenameList),
    ("POST", "contactlist/7/deletelist", Endpoint::DeleteList),
    ("GET", "contactlist/7/count", Endpoint::CountList),
    ("GET", "contactlist/7/contacts/8", Endpoint::FindInList),
    ("GET", "contactlist/7/contacts/data", Endpoint::ListContactData),
    ("GET", "contactlist/7/contactIds", Endpoint::ContactIds),
    ("GET", "contactlist/7/contacts", Endpoint::ListContacts),
    ("GET", "contactlist/7", Endpoint::ListContacts),
    ("GET", "filter", Endpoint::ListSegments),
    ("PUT", "filter", Endpoint::CreateSegment),
    ("GET", "filter/7", Endpoint::ReadSegment),
    ("GET", "filter/7/contacts", Endpoint::SegmentContacts),
    ("GET", "combinedsegments", Endpoint::ListCombinedSegments),
    ("GET", "export/7", Endpoint::ReadExport),
    ("GET", "export/7/data", Endpoint::DownloadExport),
];

#[test]
fn every_call_has_the_same_path_in_both_versions_with_and_without_slash_and_query() {
    for (method, path, endpoint) in CALLS {
        for version in ["v2", "v3"] {
            for tail in ["", "/", "?limit=5&3=x", "/?limit=5&3=x", "/limit=5&3=x", "/limit=5&3=x/"] {
                let target = format!("/api/{version}/{path}{tail}");
                let route = Route::of(method, &target);
                assert_eq!(route.endpoint, *endpoint, "{method} {target}");
                let limit = route.query.get("limit");
                assert_eq!(
                    (limit, route.query.get("3")),
                    if tail.contains('=') { (Some("5"), Some("x")) } else { (None, None) }
                );
            }
        }
        assert_eq!(endpoint.as_str().split(' ').next(), Some(*method));
    }
}

#[test]
fn verb_that_no_call_has_is_refused() {
    for (_, path, _) in CALLS {
        assert_eq!(Route::of("PATCH", &format!("/api/v3/{path}")).endpoint, Endpoint::Unknown, "{path}");
    }
}

#[test]
fn list_is_not_deleted_by_the_verb_of_that_name() {
    let caller = Caller::new();
    let list = caller.sandbox.add_list("Customers");
    let path = format!("contactlist/{list}/deletelist");
    assert_eq!(caller.response("DELETE", &path, &Value::Null).status(), 403);
    assert_eq!(caller.sandbox.lists().len(), 1);
}
