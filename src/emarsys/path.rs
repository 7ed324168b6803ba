//! The paths of requests: their endpoints with the variable parts filled in.

use std::fmt::{self, Display};

use reqwest::Url;

/// The path of a request, query included. Every variable part is percent-encoded, so none can lead to another address.
/// Its `Debug` does not show it: a query may hold the key of a contact.
///
/// ```
/// use reverse_etl::emarsys::{ListId, Path};
///
/// Path::fill("contactlist/{id}/rename", &[&ListId::new(4711)]);
/// Path::fill("field/translate/{language}", &[&"en"]).query("limit", 10);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Path(Result<Url, &'static str>);

impl Path {
    /// The path of an endpoint, mostly [`Request::ENDPOINT`](super::Request::ENDPOINT), of which each name in braces is
    /// replaced by the next of `values`; a name is all of what is between two slashes. Values that are empty or dots, a
    /// wrong number of them, or an endpoint that is no path are an error of the call that the path is for.
    pub fn fill(endpoint: &str, values: &[&dyn Display]) -> Self {
        Self(fill(endpoint, values))
    }

    /// The same path with one more parameter in its query.
    pub fn query(mut self, name: impl Display, value: impl Display) -> Self {
        if let Ok(url) = &mut self.0 {
            url.query_pairs_mut().append_pair(&name.to_string(), &value.to_string());
        }
        self
    }

    /// The same path with a slash at its end.
    pub fn slash(mut self) -> Self {
        if let Ok(Ok(mut parts)) = self.0.as_mut().map(Url::path_segments_mut) {
            parts.push("");
        }
        self
    }

    /// The path as it is sent, or what is wrong with it.
    pub(crate) fn text(&self) -> Result<String, &'static str> {
        let url = self.0.as_ref().map_err(|wrong| *wrong)?;
        let path = url.path().trim_start_matches('/');
        Ok(url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
    }
}

fn fill(endpoint: &str, values: &[&dyn Display]) -> Result<Url, &'static str> {
    let mut values = values.iter();
    let mut parts = Vec::new();
    if endpoint.contains(['?', '#', '%']) {
        return Err("an endpoint is a path as it is read, without a query: add one with `Path::query`");
    }
    for part in endpoint.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err(
                "a part of its path is empty or consists of dots: an endpoint begins below `/api/v3/`",
            );
        }
        if !part.contains(['{', '}']) {
            parts.push(part.to_owned());
            continue;
        }
        if !(part.starts_with('{') && part.ends_with('}')) {
            return Err("a name in braces has to be all of what is between two slashes of its path");
        }
        let value =
            values.next().ok_or("its path has more names in braces than values to replace them: give the request a `path` of its own")?.to_string();
        if matches!(value.trim(), "" | "." | "..") || value.contains(char::is_control) {
            return Err(
                "an id or a name in its path is empty, consists of dots, or has a line end or tab in it",
            );
        }
        parts.push(value);
    }
    if values.next().is_some() {
        return Err("its path has fewer names in braces than values to replace them");
    }
    // Only its path and its query are used.
    let mut url = Url::parse("http://path.invalid").map_err(|_| "its path cannot be made")?;
    url.path_segments_mut().map_err(|()| "its path cannot be made")?.clear().extend(parts);
    Ok(url)
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(endpoint: &str, values: &[&dyn Display]) -> Result<String, &'static str> {
        Path::fill(endpoint, values).text()
    }

    #[test]
    fn values_take_the_place_of_the_names_and_are_encoded() {
        assert_eq!(text("contactlist/{id}/rename", &[&7]), Ok("contactlist/7/rename".to_owned()));
        assert_eq!(
            text("a/{b}/c/{d}", &[&"x/y ?", &"%2e#ä"]),
            Ok("a/x%2Fy%20%3F/c/%252e%23%C3%A4".to_owned())
        );
        let path = Path::fill("contact", &[]).slash().query("3", "a&b@shop.test").query("limit", 2);
        assert_eq!(path.text(), Ok("contact/?3=a%26b%40shop.test&limit=2".to_owned()));
        assert_eq!(format!("{path:?}"), "Path { .. }");
    }

    #[test]
    fn value_that_would_lead_elsewhere_is_an_error() {
        for value in ["", " ", ".", "..", " .. ", "a\tb", ".\n."] {
            assert!(text("filter/runs/{runId}", &[&value]).is_err(), "{value:?}");
        }
    }

    #[test]
    fn number_of_values_has_to_fit() {
        assert!(text("contactlist/{id}", &[]).unwrap_err().contains("more names"));
        assert!(text("contactlist", &[&1]).unwrap_err().contains("fewer names"));
    }

    #[test]
    fn endpoint_that_would_be_sent_as_another_one_is_an_error() {
        for endpoint in [
            "",
            "/settings",
            "settings/",
            "a/../b",
            "https://evil.test/x",
            "contact/?a=1",
            "contact#a",
            "contact%2Fa",
            "x-{id}",
            "{id}x",
            "{id",
        ] {
            assert!(text(endpoint, &[&1]).is_err(), "{endpoint}");
        }
    }
}
