//! The file of an export: lines of CSV, read in pages.

use super::super::switches::Switches;

pub(in super::super) const CONTENT_TYPE: &str = "text/csv;charset=UTF-8";

/// A file, line by line.
#[derive(Debug)]
pub(super) struct File {
    pub(super) header: Option<String>,
    /// One line for each contact.
    pub(super) rows: Vec<String>,
}

impl File {
    /// Some lines of the file, the header before them if it belongs there.
    pub(super) fn page(&self, offset: usize, limit: usize, switches: &Switches) -> String {
        let (mut first, mut count) = (offset, limit);
        if switches.export_header_counted && self.header.is_some() {
            if offset == 0 {
                count -= 1;
            } else {
                first -= 1;
            }
        }
        let header = self.header.iter().filter(|_| offset == 0 || switches.export_header_repeated);
        let lines = header.chain(self.rows.iter().skip(first).take(count));
        lines.flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// One line of cells, quoted where they must be.
pub(super) fn line(cells: impl IntoIterator<Item = String>, delimiter: char) -> String {
    let special = ['"', '\r', '\n', delimiter];
    let quote = |cell: String| {
        if cell.contains(special) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    };
    let cells: Vec<String> = cells.into_iter().map(quote).collect();
    cells.join(delimiter.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let cells = ["plain", "a,b", "a;b", "say \"hi\"", "two\nlines", ""].map(str::to_owned);
        assert_eq!(line(cells.clone(), ','), "plain,\"a,b\",a;b,\"say \"\"hi\"\"\",\"two\nlines\",");
        assert_eq!(line(cells, ';'), "plain;a,b;\"a;b\";\"say \"\"hi\"\"\";\"two\nlines\";");
    }

    #[test]
    fn header_is_on_the_first_page_and_does_not_count_unless_switched() {
        let rows = ["1", "2", "3"].map(str::to_owned).to_vec();
        let file = File { header: Some("user_id".to_owned()), rows: rows.clone() };
        let pages =
            |switches: &Switches| [0, 2].map(|offset| file.page(offset, 2, switches).replace('\n', " "));
        let switches = Switches::default();
        assert_eq!(pages(&switches), ["user_id 1 2 ", "3 "]);
        assert_eq!(pages(&switches.clone().export_header_repeated(true)), ["user_id 1 2 ", "user_id 3 "]);
        let counted = switches.export_header_counted(true);
        assert_eq!(pages(&counted), ["user_id 1 ", "2 3 "]);
        assert_eq!(pages(&counted.clone().export_header_repeated(true)), ["user_id 1 ", "user_id 2 3 "]);
        let bare = File { header: None, rows };
        assert_eq!(bare.page(0, 2, &counted), "1\n2\n");
    }
}
