//! A sheet: the pairs of several rows at once, put together column by column.
//!
//! The bytes are those of [`Pairs`](super::Pairs). In the order of columns each of them is read from one end to the other,
//! and what is to be known of it is known for all its values.

use std::{array, ops::Range};

use super::{Beginning, HEADER, ROOM, SHORT, Slot};
use crate::rows::Texts;

/// The most bytes that a sheet may have.
const BYTES_MAX: usize = 64 << 20;

/// What a column adds to each row.
#[derive(Clone, Copy)]
pub(crate) enum PairColumn<'c> {
    /// Texts in canonical form, or nulls.
    Texts(Slot, &'c Texts<'c>),
    /// Pairs that were made before; those of a row begin at its end, and end at the next.
    Made { bytes: &'c [u8], ends: &'c [usize] },
}

/// The pairs of a few rows.
pub(crate) struct Sheet {
    bytes: Vec<u8>,
    starts: [usize; Self::ROWS],
    ends: [usize; Self::ROWS],
}

impl Sheet {
    /// The most rows: so few that their pairs stay in the nearest cache.
    pub(crate) const ROWS: usize = 32;

    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), starts: [0; Self::ROWS], ends: [0; Self::ROWS] }
    }

    /// The pairs of each row. Behind those of the last one stand as many bytes as the longest row has, at least.
    #[inline]
    pub(crate) fn rows(&self) -> [Beginning<'_>; Self::ROWS] {
        array::from_fn(|row| {
            let (start, end) = (self.starts[row], self.ends[row]);
            Beginning::new(self.bytes.get(start..).unwrap_or_default(), end - start)
        })
    }

    /// Puts together the pairs of `rows`, of which there are at most [`ROWS`](Self::ROWS), from columns in ascending order
    /// of slots. `None` if they are too long for a sheet.
    #[inline]
    pub(crate) fn fill(&mut self, columns: &[PairColumn<'_>], rows: Range<usize>) -> Option<()> {
        self.make_room(columns, rows.clone())?;
        for column in columns {
            match column {
                PairColumn::Texts(slot, texts) => self.put_texts(*slot, texts, rows.clone()),
                PairColumn::Made { bytes, ends } => self.put_made(bytes, ends, rows.clone()),
            }
        }
        Some(())
    }

    /// Sees where each row begins, with as much room behind each as a short value may write to.
    fn make_room(&mut self, columns: &[PairColumn<'_>], rows: Range<usize>) -> Option<()> {
        // In numbers this small, several are added at once.
        let mut sizes = [0_u32; Self::ROWS];
        let sizes = &mut sizes[..rows.len().min(Self::ROWS)];
        let (mut fixed, mut longest_at_most) = (ROOM, 0);
        for column in columns {
            match column {
                PairColumn::Texts(_, texts) => {
                    fixed += HEADER;
                    longest_at_most = longest_at_most.max(texts.add_lengths(rows.start, sizes));
                }
                PairColumn::Made { ends, .. } => {
                    let ends = ends.get(rows.start..=rows.end).unwrap_or_default();
                    for (size, ends) in sizes.iter_mut().zip(ends.windows(2)) {
                        let length = u32::try_from(ends[1] - ends[0]).unwrap_or(u32::MAX);
                        *size = size.wrapping_add(length);
                        longest_at_most = longest_at_most.max(length);
                    }
                }
            }
        }
        // Sizes might have wrapped.
        if u64::from(longest_at_most).saturating_mul(columns.len() as u64) > u64::from(u32::MAX) {
            return None;
        }
        let (mut start, mut longest) = (0, 0);
        for ((size, row_start), row_end) in sizes.iter().zip(&mut self.starts).zip(&mut self.ends) {
            (*row_start, *row_end) = (start, start);
            let size = *size as usize + fixed;
            (start, longest) = (start + size, longest.max(size));
        }
        let room = start + longest;
        if room > BYTES_MAX {
            return None;
        }
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        Some(())
    }

    fn put_texts(&mut self, slot: Slot, texts: &Texts<'_>, rows: Range<usize>) {
        let mut bits = texts.bits_from(rows.start);
        let (sheet, ends) = (self.bytes.as_mut_slice(), self.ends.get_mut(..rows.len()).unwrap_or_default());
        texts.each(rows.start, ends, |end, bytes, start, length| {
            let is_text = bits & 1;
            bits >>= 1;
            // Nulls are too few to be foreseen: without a jump, one costs no more than a text.
            let length = length * usize::from(is_text == 1);
            let Some(to) = sheet.get_mut(*end..).and_then(<[u8]>::first_chunk_mut::<ROOM>) else {
                return;
            };
            // One store for slot, tag and length; its last byte is overwritten by the text. A text's tag is 4, a null's 0.
            let header = u64::from(slot) | is_text << 18 | (length as u64) << 24;
            to[..=HEADER].copy_from_slice(&header.to_le_bytes());
            // What is copied too much is overwritten by the next pair, or stands behind the row.
            match bytes.get(start..).and_then(<[u8]>::first_chunk::<SHORT>) {
                Some(wide) if length <= SHORT => to[HEADER..HEADER + SHORT].copy_from_slice(wide),
                _ => put(sheet, *end + HEADER, bytes.get(start..start + length)),
            }
            *end += HEADER + length;
        });
    }

    fn put_made(&mut self, bytes: &[u8], ends: &[usize], rows: Range<usize>) {
        let ends = ends.get(rows.start..=rows.end).unwrap_or_default();
        for (end, made) in self.ends.iter_mut().zip(ends.windows(2)) {
            let pairs = bytes.get(made[0]..made[1]).unwrap_or_default();
            if let Some(to) = self.bytes.get_mut(*end..*end + pairs.len()) {
                to.copy_from_slice(pairs);
            }
            *end += pairs.len();
        }
    }
}

/// Copies a text that is long, or has not much behind it.
#[inline(never)]
fn put(bytes: &mut [u8], at: usize, text: Option<&[u8]>) {
    if let Some(text) = text
        && let Some(to) = bytes.get_mut(at..at + text.len())
    {
        to.copy_from_slice(text);
    }
}
