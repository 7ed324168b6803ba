//! The rows of an export, read from pages of CSV.

use std::{collections::HashSet, fmt, sync::Arc};

use csv::{ReaderBuilder, StringRecord};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::super::ids::{ContactId, FieldId};
use crate::{Delivery, Error, ErrorKind, Result};

/// One contact of an export. Its `Debug` shows the columns and not their values.
///
/// It serializes as a map, so that it can be the row of a [`Source`](crate::Source): `id` and the number of each field,
/// such as `3`, if it is known which fields are in the export (see [`field`](Self::field)); else the names that the header
/// line has, in the language of the export. All values are texts, and an empty one may be no value: CSV cannot say.
#[derive(Clone)]
pub struct ExportRow {
    id: ContactId,
    cells: StringRecord,
    columns: Arc<Columns>,
}

impl ExportRow {
    /// The internal number of the contact: the first column.
    pub fn id(&self) -> ContactId {
        self.id
    }

    /// The value in the column of this name, which is in the language of the export. Of columns with the same name, the
    /// first.
    pub fn column(&self, name: &str) -> Option<&str> {
        self.cells.get(self.columns.header.iter().position(|column| column == name)?)
    }

    /// The value of a field. `None` if the field is not in the export, or if it is not known which fields are: an
    /// [`ExportRef`](super::ExportRef) knows that if it comes from [`Exports::start`](super::Exports::start).
    pub fn field(&self, field: FieldId) -> Option<&str> {
        // The first column is the contact's number.
        self.cells.get(1 + self.columns.fields.iter().position(|known| *known == field)?)
    }

    /// The names of the columns and their values, in the order of the export; the first is the contact's number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns.header.iter().zip(&self.cells)
    }
}

impl fmt::Debug for ExportRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.columns.header.iter().collect();
        f.debug_struct("ExportRow").field("id", &self.id).field("columns", &columns).finish_non_exhaustive()
    }
}

impl Serialize for ExportRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let fields = &self.columns.fields;
        if !fields.is_empty() {
            map.serialize_entry("id", &self.id.to_string())?;
            for (field, value) in fields.iter().zip(self.cells.iter().skip(1)) {
                map.serialize_entry(&field.to_string(), value)?;
            }
            return map.end();
        }
        for ((name, value), first) in self.iter().zip(&self.columns.first) {
            if *first {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// What the header line of an export says, and which fields were asked for, if that is known.
struct Columns {
    header: StringRecord,
    /// Whether a column is the first of its name.
    first: Vec<bool>,
    fields: Vec<FieldId>,
    delimiter: u8,
}

/// Reads one page after the other.
pub(super) struct Pages {
    endpoint: String,
    fields: Option<Vec<FieldId>>,
    columns: Option<Arc<Columns>>,
    rows: u64,
}

impl Pages {
    pub(super) fn new(endpoint: String, fields: Option<Vec<FieldId>>) -> Self {
        Self { endpoint, fields, columns: None, rows: 0 }
    }

    /// The rows of the next page. Whether each page has a header line is not documented: the first one must, and a
    /// line that equals it is no row.
    pub(super) fn read(&mut self, mut page: String) -> Result<Vec<ExportRow>> {
        /// A line of our own behind the page: if it is not read as one, the page ended within quotes.
        const END: &str = "\u{1}end";
        let delimiter = match &self.columns {
            Some(columns) => columns.delimiter,
            None => delimiter_of(&page),
        };
        page.push('\n');
        page.push_str(END);
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(page.as_bytes());
        let mut rows = Vec::new();
        let mut ended = false;
        for cells in reader.records() {
            let cells = cells.map_err(|_| self.undecodable("is not valid CSV"))?;
            ended = cells.len() == 1 && cells.get(0) == Some(END);
            if ended {
                break;
            }
            let columns = match &self.columns {
                Some(columns) if columns.header == cells => continue,
                Some(columns) => Arc::clone(columns),
                None => {
                    self.columns = Some(Arc::new(self.header(cells, delimiter)?));
                    continue;
                }
            };
            // The page may have been cut within this row, and the end mark be a part of it.
            if cells.iter().next_back().is_some_and(|cell| cell.ends_with(END)) {
                break;
            }
            self.rows += 1;
            let (found, named) = (cells.len(), columns.header.len());
            if found != named {
                let what = format!("has {found} cells, and the header names {named} columns");
                return Err(self.undecodable(&what));
            }
            let id = cells.get(0).and_then(|id| id.trim().parse().ok());
            let id = id.ok_or_else(|| self.undecodable("does not begin with the number of a contact"))?;
            rows.push(ExportRow { id, cells, columns });
        }
        if !ended {
            self.rows += 1;
            return Err(self.undecodable("ends within quotes: the page is incomplete"));
        }
        if self.columns.is_none() {
            // Taken for an export of nobody, it would look as if everybody had left.
            let text = format!("{}: the reply is empty, without even a header line", self.endpoint);
            return Err(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent));
        }
        Ok(rows)
    }

    fn header(&self, header: StringRecord, delimiter: u8) -> Result<Columns> {
        let wrong = |what: &str| {
            let text = format!("{}: {what}", self.endpoint);
            Err(Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent))
        };
        // A gateway may answer with a page of its own, or with JSON.
        if header.get(0).is_none_or(|name| name.is_empty() || name.trim_start().starts_with(['<', '{', '[']))
        {
            return wrong("the reply is not an export");
        }
        if header.get(0).is_some_and(|name| name.trim().parse::<ContactId>().is_ok()) {
            return wrong("the export has no header line; start it with `add_field_names_header`");
        }
        let fields = self.fields.clone().unwrap_or_default();
        if self.fields.is_some() && header.len() != fields.len() + 1 {
            let text = format!(
                "the export has {} columns, and the contact's number and {} fields were asked for; download it by its \
                 number alone and take its columns by name",
                header.len(),
                fields.len()
            );
            return wrong(&text);
        }
        let mut names = HashSet::new();
        let first = header.iter().map(|name| names.insert(name)).collect();
        Ok(Columns { header, first, fields, delimiter })
    }

    pub(super) fn undecodable(&self, what: &str) -> Error {
        let text = format!("{}: row {} of the export {what}", self.endpoint, self.rows);
        Error::new(ErrorKind::Undecodable, text).with_delivery(Delivery::NotSent)
    }
}

/// The delimiter of a page, of which the first column's name has none: a comma or a semicolon, whichever comes first.
fn delimiter_of(page: &str) -> u8 {
    let line = page.lines().next().unwrap_or_default();
    if line.find(';').is_some_and(|at| line.find(',').is_none_or(|comma| at < comma)) { b';' } else { b',' }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: Option<&[FieldId]>, pages: &[&str]) -> Result<Vec<ExportRow>> {
        let mut reader = Pages::new("GET export/{id}/data".to_owned(), fields.map(<[_]>::to_vec));
        let mut rows = Vec::new();
        for page in pages {
            rows.extend(reader.read((*page).to_owned())?);
        }
        Ok(rows)
    }

    fn ids(rows: &[ExportRow]) -> Vec<u64> {
        rows.iter().map(|row| row.id().get()).collect()
    }

    #[test]
    fn row_is_read_by_column_by_field_and_as_a_map() {
        let page = "user_id,\"First Name\",Email\r\n700001,\"Ada \"\"A\"\", Lady\nLovelace\",ada@shop.test\r\n700002,,\r\n";
        let rows = read(Some(&[FieldId::FIRST_NAME, FieldId::EMAIL]), &[page]).unwrap();
        let [ada, nobody] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(ada.id(), ContactId::new(700_001));
        assert_eq!(ada.column("First Name"), Some("Ada \"A\", Lady\nLovelace"));
        assert_eq!((ada.field(FieldId::EMAIL), ada.field(FieldId::CITY)), (Some("ada@shop.test"), None));
        assert_eq!((nobody.column("Email"), nobody.column("City")), (Some(""), None));
        assert_eq!(
            serde_json::to_value(ada).unwrap(),
            json!({"id": "700001", "1": "Ada \"A\", Lady\nLovelace", "3": "ada@shop.test"})
        );
        let by_name = &read(None, &[page]).unwrap()[1];
        assert_eq!(
            serde_json::to_value(by_name).unwrap(),
            json!({"user_id": "700002", "First Name": "", "Email": ""})
        );
        assert_eq!(
            format!("{ada:?}"),
            r#"ExportRow { id: ContactId(700001), columns: ["user_id", "First Name", "Email"], .. }"#
        );
    }

    #[test]
    fn delimiter_is_found_out() {
        for page in [
            "user_id;Email\n7;a,b\n",
            "\"user_id\";\"Email, main\"\n7;\"a,b\"",
            "user_id,Email;x\n7,\"a,b\"\n",
        ] {
            let rows = read(None, &[page]).unwrap();
            assert_eq!(rows[0].iter().last().map(|(_, value)| value), Some("a,b"), "{page}");
        }
    }

    #[test]
    fn header_is_a_row_on_no_page() {
        let repeated = ["user_id,Email\n1,a\n2,b\n", "user_id,Email\n3,c\n", "user_id,Email\n"];
        let once = ["user_id,Email\n1,a\n2,b\n", "3,c\n", ""];
        let cut = ["user_id,Email\n1,a", "2,b", "\n3,c\n"];
        for pages in [repeated, once, cut] {
            assert_eq!(ids(&read(None, &pages).unwrap()), [1, 2, 3], "{pages:?}");
        }
        assert!(read(None, &["user_id,Email\n"]).unwrap().is_empty());
    }

    #[test]
    fn page_that_is_none_is_not_taken_for_an_export_of_nobody() {
        for page in ["", "\n", "<html>Lovelace</html>", "{\"message\":\"Lovelace\"}", "{\"replyCode\":0,\"da"]
        {
            let error = read(None, &[page]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Undecodable, "{page}");
            assert!(!error.to_string().contains("Lovelace"), "{error}");
        }
    }

    #[test]
    fn columns_of_the_same_name_are_told_apart_by_their_field() {
        let rows = read(Some(&[FieldId::CITY, FieldId::COMPANY_CITY]), &["user_id,City,City\n7,Wien,Graz\n"]);
        let row = &rows.unwrap()[0];
        assert_eq!(
            (row.field(FieldId::CITY), row.field(FieldId::COMPANY_CITY)),
            (Some("Wien"), Some("Graz"))
        );
        assert_eq!(row.column("City"), Some("Wien"));
        assert_eq!(serde_json::to_string(row).unwrap(), r#"{"id":"7","11":"Wien","43":"Graz"}"#);
        let by_name = &read(None, &["user_id,City,City\n7,Wien,Graz\n"]).unwrap()[0];
        assert_eq!(serde_json::to_string(by_name).unwrap(), r#"{"user_id":"7","City":"Wien"}"#);
    }

    #[test]
    fn page_that_cannot_be_understood_is_an_error_that_names_the_row_and_shows_nothing() {
        let header = "user_id,Email\n1,ada@shop.test\n";
        for (page, why) in [
            ("2,\"bob@shop.test", "row 2 of the export ends within quotes"),
            ("2,\"bob@shop.test\n3,carl@shop.test\n", "row 2 of the export ends within quotes"),
            ("\"2", "row 2 of the export ends within quotes"),
            ("2\n", "row 2 of the export has 1 cells, and the header names 2 columns"),
            ("2,bob@shop.test,x\n", "row 2 of the export has 3 cells"),
            ("bob@shop.test,2\n", "row 2 of the export does not begin with the number of a contact"),
        ] {
            let error = read(None, &[header, page]).unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Undecodable, Delivery::NotSent));
            assert!(error.to_string().starts_with(&format!("GET export/{{id}}/data: {why}")), "{error}");
            assert!(!format!("{error:?}").contains("bob"), "{error:?}");
        }
    }

    #[test]
    fn export_without_a_header_loses_no_row_silently() {
        let error = read(None, &["1,ada@shop.test\n2,bob@shop.test\n"]).unwrap_err();
        assert!(error.to_string().contains("no header line"), "{error}");
        assert!(!format!("{error:?}").contains("ada"), "{error:?}");
    }

    #[test]
    fn columns_that_do_not_fit_the_fields_are_not_mistaken_for_each_other() {
        let error = read(Some(&[FieldId::EMAIL]), &["user_id,First Name,Email\n"]).unwrap_err();
        assert!(error.to_string().contains("has 3 columns"), "{error}");
        assert_eq!(read(None, &["user_id,First Name,Email\n1,a,b\n"]).unwrap().len(), 1);
    }
}
