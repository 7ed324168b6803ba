//! Hasher: the hashes of many rows at once, column by column where a source has its texts so.

use std::ops::Range;

use super::mapper::Mapper;
use crate::{
    Result,
    fingerprint::{AT_ONCE, Beginning, Fingerprinter, Hashed, PairColumn, Pairs, Sheet},
    record::{FieldName, Near, Record},
    rows::{Rows, Texts},
};

/// Rows that are visited one by one are hashed when their pairs, or their keys, have more bytes together.
const LONG: usize = 64 << 10;

/// A source's rows, hashed.
///
/// Texts are taken from where they lie; only what is something else, or has to be converted, is visited row by row. Where a
/// source has no such texts, that is everything.
pub(crate) struct Hasher<'r> {
    mapper: &'r Mapper,
    rows: &'r dyn Rows,
    /// By the place of the column in the mapper.
    texts: Vec<Option<Texts<'r>>>,
    sheet: Sheet,
    /// For rows that are visited one by one.
    few: Few,
    /// For columns that are not texts.
    made: Vec<Made>,
}

/// A few rows that are hashed together.
#[derive(Default)]
struct Few {
    keys: Made,
    rows: Made,
    /// Which of them are valid.
    are_valid: Vec<bool>,
}

/// Bytes of rows, one after the other: pairs, be it of all columns or of one, or keys.
struct Made {
    pairs: Pairs,
    /// Where each row ends, behind the beginning of the first one.
    ends: Vec<usize>,
}

impl<'r> Hasher<'r> {
    pub(crate) fn new(mapper: &'r Mapper, rows: &'r dyn Rows) -> Self {
        let texts = |column| rows.texts(column).filter(|texts| texts.len() == rows.len());
        Self {
            mapper,
            rows,
            texts: mapper.columns().iter().map(texts).collect(),
            sheet: Sheet::new(),
            few: Few::default(),
            made: Vec::new(),
        }
    }

    /// The hashes of a stretch of rows; [`Hashed::NONE`] for an invalid one. Clears `unseen` for each column in which a row
    /// has a value, be it null.
    pub(crate) fn hash(&mut self, rows: Range<usize>, unseen: &mut [bool]) -> Result<Vec<Hashed>> {
        let texts = self.texts.iter().map(|texts| texts.as_ref().map(|texts| texts.slice(rows.clone())));
        let mut texts: Vec<Option<Texts<'r>>> = texts.collect();
        for (_, taken) in self.mapper.synced() {
            let column = &mut texts[taken.position()];
            *column = column.take().filter(|texts| taken.takes_texts(texts));
        }
        if texts.iter().all(Option::is_none) {
            return match self.rows.records().and_then(|records| records.get(rows.clone())) {
                Some(records) => Ok(self.hash_records(records, unseen)),
                None => self.hash_rows(rows, unseen),
            };
        }
        self.hash_columns(rows, &texts, unseen)
    }

    /// Hashes rows some of whose columns are `texts` in canonical form.
    fn hash_columns(
        &mut self,
        rows: Range<usize>,
        texts: &[Option<Texts<'r>>],
        unseen: &mut [bool],
    ) -> Result<Vec<Hashed>> {
        unseen.iter_mut().zip(texts).for_each(|(unseen, texts)| *unseen &= texts.is_none());
        let mut hashes = Vec::with_capacity(rows.len());
        if let Some(Some(keys)) = texts.first() {
            self.mapper.hash_keys(keys, &mut hashes);
        }
        self.make(rows.clone(), texts, &mut hashes, unseen)?;
        let columns = self.mapper.synced().iter().zip(&self.made).map(|((slot, taken), made)| {
            match &texts[taken.position()] {
                Some(texts) => PairColumn::Texts(*slot, texts),
                None => PairColumn::Made { bytes: made.pairs.as_bytes(), ends: &made.ends },
            }
        });
        let columns: Vec<PairColumn<'_>> = columns.collect();
        for (hashes, start) in hashes.chunks_mut(Sheet::ROWS).zip((0..).step_by(Sheet::ROWS)) {
            if self.sheet.fill(&columns, start..start + hashes.len()).is_none() {
                return self.hash_rows(rows, unseen);
            }
            let on_sheet = self.sheet.rows();
            let mut hashes = hashes.iter_mut();
            self.mapper.prints().rows_of(&on_sheet[..hashes.len()], |print| {
                hashes.next().into_iter().for_each(|hashed| hashed.set_print(print));
            });
        }
        Ok(hashes)
    }

    /// Makes the pairs of each column that is not among `texts`, and hashes the keys if they are not. A row that turns out to
    /// be invalid has no hashes.
    fn make(
        &mut self,
        rows: Range<usize>,
        texts: &[Option<Texts<'r>>],
        hashes: &mut Vec<Hashed>,
        unseen: &mut [bool],
    ) -> Result<()> {
        self.made.resize_with(self.mapper.synced().len(), Made::default);
        self.made.iter_mut().for_each(Made::clear);
        let others = |(position, texts): (usize, &Option<Texts<'r>>)| texts.is_none().then_some(position);
        let others: Vec<usize> = texts.iter().enumerate().filter_map(others).collect();
        if others.is_empty() {
            return Ok(());
        }
        let columns: Vec<FieldName> =
            others.iter().map(|other| self.mapper.columns()[*other].clone()).collect();
        let has_keys = others[0] != 0;
        let mut row = 0;
        self.rows.visit(&columns, rows, &mut |values| {
            others.iter().zip(values).for_each(|(other, value)| unseen[*other] &= value.is_none());
            if !has_keys {
                hashes.push(self.mapper.hash_key(values).unwrap_or(Hashed::NONE));
            }
            for ((slot, taken), made) in self.mapper.synced().iter().zip(&mut self.made) {
                let Ok(place) = others.binary_search(&taken.position()) else { continue };
                let pushed = taken.push(*slot, values.get(place), &mut made.pairs);
                made.end_row();
                if pushed.is_err()
                    && let Some(hashed) = hashes.get_mut(row)
                {
                    *hashed = Hashed::NONE;
                }
            }
            row += 1;
            Ok(())
        })?;
        // Whoever asked for another number of rows than were visited has to be told.
        hashes.resize(row, Hashed::NONE);
        Ok(())
    }

    /// Hashes records, which takes less without a list of their values.
    fn hash_records(&mut self, records: &[Record], unseen: &mut [bool]) -> Vec<Hashed> {
        let columns = self.mapper.columns();
        let mut near = vec![Near::default(); columns.len()];
        self.few.clear();
        let mut hashes = Vec::with_capacity(records.len());
        for record in records {
            for (unseen, column) in unseen.iter_mut().zip(columns).filter(|(unseen, _)| **unseen) {
                *unseen = record.get(column).is_none();
            }
            let mut value = |position: usize| {
                let (column, near) = (columns.get(position)?, near.get_mut(position)?);
                record.get_near(column, near)
            };
            let Few { keys, rows, .. } = &mut self.few;
            let is_valid = self.mapper.put_record(&mut value, &mut keys.pairs, &mut rows.pairs).is_ok();
            self.few.end_row(is_valid, self.mapper.prints(), &mut hashes);
        }
        self.few.hash(self.mapper.prints(), &mut hashes);
        hashes
    }

    fn hash_rows(&mut self, rows: Range<usize>, unseen: &mut [bool]) -> Result<Vec<Hashed>> {
        let mut hashes = Vec::with_capacity(rows.len());
        let mut are_all_seen = false;
        // A source that broke off may have left some.
        self.few.clear();
        self.rows.visit(self.mapper.columns(), rows, &mut |values| {
            if !are_all_seen {
                unseen.iter_mut().zip(values).for_each(|(unseen, value)| *unseen &= value.is_none());
                are_all_seen = !unseen.contains(&true);
            }
            let Few { keys, rows, .. } = &mut self.few;
            let is_valid = self.mapper.put(values, &mut keys.pairs, &mut rows.pairs).is_ok();
            self.few.end_row(is_valid, self.mapper.prints(), &mut hashes);
            Ok(())
        })?;
        self.few.hash(self.mapper.prints(), &mut hashes);
        Ok(hashes)
    }
}

impl Default for Made {
    fn default() -> Self {
        Self { pairs: Pairs::new(), ends: vec![0] }
    }
}

impl Made {
    fn clear(&mut self) {
        self.pairs.clear();
        self.ends.truncate(1);
    }

    #[inline]
    fn end_row(&mut self) {
        self.ends.push(self.pairs.as_bytes().len());
    }

    /// The strings of the rows, up to [`AT_ONCE`].
    fn strings(&mut self) -> [Beginning<'_>; AT_ONCE] {
        self.pairs.strings(&self.ends)
    }
}

impl Few {
    fn clear(&mut self) {
        self.keys.clear();
        self.rows.clear();
        self.are_valid.clear();
    }

    /// Ends a row of which key and pairs are there. Rows are hashed once there are as many as are hashed at once, or they are
    /// long. To gather more than that would take longer: their values lie all over the memory, and it has time to fetch the next
    /// ones while these are hashed.
    #[inline]
    fn end_row(&mut self, is_valid: bool, prints: &Fingerprinter, hashes: &mut Vec<Hashed>) {
        self.are_valid.push(is_valid);
        self.keys.end_row();
        self.rows.end_row();
        let is_long = |made: &Made| made.pairs.as_bytes().len() > LONG;
        if self.are_valid.len() == AT_ONCE || is_long(&self.rows) || is_long(&self.keys) {
            self.hash(prints, hashes);
        }
    }

    /// Adds the hashes of the rows that are here, and makes room for others.
    fn hash(&mut self, prints: &Fingerprinter, hashes: &mut Vec<Hashed>) {
        let (first, count) = (hashes.len(), self.are_valid.len());
        prints.keys_of(&self.keys.strings()[..count], |key| hashes.push(Hashed::keyed(key)));
        let mut found = hashes.iter_mut().skip(first).zip(&self.are_valid);
        prints.rows_of(&self.rows.strings()[..count], |print| {
            if let Some((hashed, is_valid)) = found.next() {
                hashed.set_print(print);
                if !is_valid {
                    *hashed = Hashed::NONE;
                }
            }
        });
        self.clear();
    }
}

#[cfg(all(test, feature = "arrow"))]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, Int64Array, RecordBatch, StringArray, StringViewArray, builder::StringViewBuilder,
    };

    use futures::executor::block_on;

    use super::*;
    use crate::{
        Column, FieldKind, Limits, Mapping, NullPolicy, Record, Target,
        fingerprint::{Fingerprinter, Secret, Slot},
        rows::{Piece, Pieces, Source},
    };

    /// Fields that take texts as they are, one that converts them, one that refuses some, and a number in between.
    fn mapper() -> Mapper {
        let mapping = Mapping::new("email")
            .map("a", "any")
            .map("n", "number")
            .column(Column::new("b", "skips").null(NullPolicy::Skip))
            .map("a", "short")
            .map("b", "digits");
        let kinds = [
            FieldKind::Any,
            FieldKind::Any,
            FieldKind::Any,
            FieldKind::Text { chars_max: 80 },
            FieldKind::Number { digits_max: 40 },
        ];
        let target = Target::new("test", FieldKind::Any, Limits::rows(1));
        let fields = mapping.fields().iter().zip(kinds);
        let target = fields.fold(target, |target, (field, kind)| target.field(field, kind, None));
        let slots: Vec<Slot> = (0..5).map(|slot| slot * 70).collect();
        let prints = Fingerprinter::new(&Secret::new([7; 32])).unwrap();
        Mapper::new(&mapping.bind(&target).unwrap(), &slots, prints).unwrap()
    }

    fn texts(row: usize) -> [Option<String>; 3] {
        let text: String = ('a'..='z').cycle().skip(row).take(row * 7 % 71).collect();
        let email = match row % 11 {
            0 => format!(" row{row}"),
            1 => String::new(),
            _ => format!("row{row}"),
        };
        let digits = "1234567890".repeat(row % 4) + if row.is_multiple_of(13) { "x" } else { "" };
        [Some(email), Some(text).filter(|_| row % 5 != 2), Some(digits).filter(|_| row % 3 != 1)]
    }

    fn hashed(rows: &dyn Rows, range: Range<usize>) -> (Vec<Hashed>, Vec<bool>) {
        hashed_by(&mapper(), rows, range)
    }

    fn hashed_by(mapper: &Mapper, rows: &dyn Rows, range: Range<usize>) -> (Vec<Hashed>, Vec<bool>) {
        let mut unseen = vec![true; mapper.columns().len()];
        (Hasher::new(mapper, rows).hash(range, &mut unseen).unwrap(), unseen)
    }

    /// Records that do not say that they are some.
    struct Visited(Vec<Record>);

    impl Rows for Visited {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn visit(
            &self,
            columns: &[FieldName],
            range: Range<usize>,
            row: &mut dyn FnMut(&[Option<crate::ValueRef<'_>>]) -> Result<()>,
        ) -> Result<()> {
            self.0.visit(columns, range, row)
        }
    }

    /// Values are missing, and stand now here, now there.
    #[test]
    fn hashes_of_records_are_those_of_the_rows_that_are_visited() {
        let records: Vec<Record> = (0..200_usize)
            .map(|row| {
                let [email, a, b] = texts(row);
                let columns = [("email", email), ("a", a), ("b", b)];
                let columns =
                    columns.into_iter().cycle().skip(row / 20).take(if row % 7 == 0 { 2 } else { 3 });
                columns.fold(Record::new(), |record, (name, value)| record.with(name, value))
            })
            .collect();
        let (found, unseen) = hashed(&records, 5..190);
        assert!((found, unseen.clone()) == hashed(&Visited(records), 5..190));
        assert_eq!(unseen.iter().filter(|unseen| **unseen).count(), 1); // no row has a number
    }

    #[test]
    fn hashes_of_a_text_that_is_too_long_for_a_sheet_are_those_of_its_record() {
        let text = |row: usize| "long".repeat(if row == 40 { 10 << 20 } else { row });
        let keys: ArrayRef = Arc::new((0..50).map(|row| Some(format!("row{row}"))).collect::<StringArray>());
        let texts: ArrayRef = Arc::new((0..50).map(|row| Some(text(row))).collect::<StringArray>());
        let batch = RecordBatch::try_from_iter([("email", keys), ("a", texts)]).unwrap();
        let record = |row| Record::new().with("email", format!("row{row}")).with("a", text(row));
        let records: Vec<Record> = (0..50).map(record).collect();
        let prints = Fingerprinter::new(&Secret::new([7; 32])).unwrap();
        let mapper = Mapper::new(&Mapping::new("email").map("a", "a"), &[0], prints).unwrap();
        let (found, _) = hashed_by(&mapper, &batch, 0..50);
        assert!(found == hashed_by(&mapper, &records, 0..50).0 && !found.iter().any(Hashed::is_none));
    }

    /// Were they not, a plan would be the same and only take longer.
    #[test]
    fn hashes_of_texts_that_lie_side_by_side_are_those_of_the_same_records() {
        let rows = 0..200_usize;
        let dense = |at: usize| -> ArrayRef {
            Arc::new(rows.clone().map(|row| texts(row)[at].clone()).collect::<StringArray>())
        };
        // Of several buffers, for texts that are too long for their view.
        let views = |at: usize| -> ArrayRef {
            let mut views = StringViewBuilder::new().with_fixed_block_size(200);
            rows.clone().for_each(|row| views.append_option(texts(row)[at].as_deref()));
            let views: StringViewArray = views.finish();
            assert!(at == 0 || views.data_buffers().len() > 1);
            Arc::new(views)
        };
        let numbers: ArrayRef =
            Arc::new(rows.clone().map(|row| i64::try_from(row).ok()).collect::<Int64Array>());
        let batch = |columns: [ArrayRef; 3]| {
            let names = ["email", "a", "b"].into_iter().zip(columns);
            let columns = [("n", Arc::clone(&numbers))].into_iter().chain(names);
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
                .unwrap()
        };
        let batches = [batch([0, 1, 2].map(dense)), batch([0, 1, 2].map(views))];
        let records: Vec<Record> = rows
            .map(|row| {
                let [email, a, b] = texts(row);
                Record::new().with("email", email).with("a", a).with("b", b).with("n", row as u64)
            })
            .collect();
        for start in [0, 1, 7, 31, 100] {
            let range = 3..170_usize.min(200 - start);
            for batch in &batches {
                let (found, unseen) = hashed(&batch.slice(start, 200 - start), range.clone());
                assert!(found == hashed(&&records[start..], range.clone()).0, "from {start}");
                assert!(found.iter().any(Hashed::is_none) && !unseen.contains(&true));
            }
            let mut written = Pieces::new(Source::iter(&records[start..]), 200);
            let Piece { chunk, .. } = block_on(written.next()).unwrap().unwrap();
            assert!(chunk.rows().texts(&"a".into()).is_some() && chunk.rows().texts(&"n".into()).is_none());
            assert!(hashed(chunk.rows(), range.clone()) == hashed(&&records[start..], range), "from {start}");
        }
    }
}
