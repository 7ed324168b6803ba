//! Columns of texts, read where they lie.

use std::{fmt, ops::Range};
#[cfg(feature = "arrow")]
use std::{hint, iter, sync::Arc};

use crate::fingerprint::Beginning;

/// A column of texts, each a stretch of bytes somewhere in memory, as in a columnar format.
///
/// Most rows have not changed since the last run, and to find that out nothing has to be known of a text but its bytes. The
/// record batches of Arrow have such columns; rows of another type that hold a batch can hand on what it says.
#[derive(Clone)]
pub struct Texts<'a> {
    layout: Layout<'a>,
    nulls: Option<Nulls<'a>>,
}

#[derive(Clone)]
enum Layout<'a> {
    /// One behind the other: each begins at its offset, and ends at the next.
    Dense { bytes: &'a [u8], offsets: &'a [i32] },
    #[cfg(feature = "arrow")]
    Views(ByView<'a>),
}

/// Texts of which each has a view: its length, and either the text itself or where it lies.
#[cfg(feature = "arrow")]
#[derive(Clone)]
struct ByView<'a> {
    views: &'a [u128],
    /// The number of the first view in the buffer of all views.
    first: usize,
    /// The buffer of all views, then those of the texts that are too long for their view.
    buffers: Arc<[&'a [u8]]>,
}

/// A bit for each row, the lowest of a byte first: set where there is a text.
#[derive(Clone, Copy)]
struct Nulls<'a> {
    bits: &'a [u8],
    /// The bit of the first row.
    start: usize,
}

impl<'a> Texts<'a> {
    /// Texts of which each begins at its offset in `bytes` and ends at the next: there is one offset more than there are
    /// texts.
    pub(super) fn dense(bytes: &'a [u8], offsets: &'a [i32]) -> Self {
        Self { layout: Layout::Dense { bytes, offsets }, nulls: None }
    }

    /// Texts of which each has a view, whose bytes are `inline`; the longer ones lie in `buffers`.
    #[cfg(feature = "arrow")]
    pub(super) fn views(
        views: &'a [u128],
        inline: &'a [u8],
        buffers: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let buffers = iter::once(inline).chain(buffers).collect();
        Self { layout: Layout::Views(ByView { views, first: 0, buffers }), nulls: None }
    }

    /// The texts with a bit for each row, the lowest of a byte first, which is 0 where the value is null. The first row's
    /// bit is number `start`.
    pub(super) fn with_nulls(self, bits: &'a [u8], start: usize) -> Self {
        Self { nulls: Some(Nulls { bits, start }), ..self }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        match &self.layout {
            Layout::Dense { offsets, .. } => offsets.len().saturating_sub(1),
            #[cfg(feature = "arrow")]
            Layout::Views(views) => views.views.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds to each number the bytes of the text of a row, from `row` on; a null has any length. Sums may wrap. What this gives
    /// is at least each of these lengths, and at most twice the longest of them.
    #[inline]
    pub(crate) fn add_lengths(&self, row: usize, to: &mut [u32]) -> u32 {
        let mut all = 0;
        let mut add = |to: &mut u32, length: u32| {
            *to = to.wrapping_add(length);
            all |= length;
        };
        match &self.layout {
            Layout::Dense { offsets, .. } => {
                let offsets = offsets.get(row..).unwrap_or_default();
                for ((to, start), end) in to.iter_mut().zip(offsets).zip(offsets.iter().skip(1)) {
                    add(to, end.wrapping_sub(*start).cast_unsigned());
                }
            }
            #[cfg(feature = "arrow")]
            Layout::Views(views) => {
                let views = views.views.get(row..).unwrap_or_default();
                to.iter_mut().zip(views).for_each(|(to, view)| add(to, length(*view)));
            }
        }
        all
    }

    /// Some of the rows.
    pub(crate) fn slice(&self, rows: Range<usize>) -> Self {
        let nulls = self.nulls.map(|Nulls { bits, start }| Nulls { bits, start: start + rows.start });
        let layout = match &self.layout {
            Layout::Dense { bytes, offsets } => {
                let offsets = offsets.get(rows.start..=rows.end).unwrap_or_default();
                Layout::Dense { bytes, offsets }
            }
            #[cfg(feature = "arrow")]
            Layout::Views(ByView { views, first, buffers }) => Layout::Views(ByView {
                first: first + rows.start,
                views: views.get(rows).unwrap_or_default(),
                buffers: Arc::clone(buffers),
            }),
        };
        Self { layout, nulls }
    }

    /// Calls `each` for rows from `row` on, as many as there are items in `to`, each with its item: in which bytes the text
    /// lies, where it begins there, and how long it is. One that is null may lie anywhere and have any length.
    #[inline]
    pub(crate) fn each<T>(
        &self,
        row: usize,
        to: &mut [T],
        mut each: impl FnMut(&mut T, &'a [u8], usize, usize),
    ) {
        match &self.layout {
            &Layout::Dense { bytes, offsets } => {
                let offsets = offsets.get(row..).unwrap_or_default();
                for (to, ends) in to.iter_mut().zip(offsets.windows(2)) {
                    each(to, bytes, whole(ends[0]), whole(ends[1].wrapping_sub(ends[0])));
                }
            }
            #[cfg(feature = "arrow")]
            Layout::Views(ByView { views, first, buffers }) => {
                let views = views.get(row..).unwrap_or_default();
                for ((to, view), row) in to.iter_mut().zip(views).zip(first + row..) {
                    // Whether a text is short, nobody can foretell.
                    let length = length(*view) as usize;
                    let is_inline = length <= INLINE_MAX;
                    let buffer = hint::select_unpredictable(is_inline, 0, part(*view, 64).wrapping_add(1));
                    let start = hint::select_unpredictable(is_inline, row * 16 + 4, part(*view, 96));
                    each(to, buffers.get(buffer).copied().unwrap_or_default(), start, length);
                }
            }
        }
    }

    /// Calls `each` for the text of each row, with `None` for a null.
    #[inline]
    pub(crate) fn each_text(&self, mut each: impl FnMut(Option<Beginning<'a>>)) {
        let mut row = 0;
        self.each(0, &mut vec![(); self.len()], |(), bytes, start, length| {
            let text = bytes.get(start..).filter(|text| text.len() >= length && self.is_text(row));
            each(text.map(|text| Beginning::new(text, length)));
            row += 1;
        });
    }

    /// Whether any of the rows may be null.
    pub(crate) fn has_nulls(&self) -> bool {
        self.nulls.is_some()
    }

    /// Whether the value of a row is a text.
    fn is_text(&self, row: usize) -> bool {
        self.nulls.is_none_or(|nulls| nulls.bits_from(row) & 1 == 1)
    }

    /// For each row from `row` a bit, the lowest first, which is set where there is a text; at least 32 of them.
    #[inline]
    pub(crate) fn bits_from(&self, row: usize) -> u64 {
        self.nulls.map_or(u64::MAX, |nulls| nulls.bits_from(row))
    }
}

/// The longest text that lies in its view.
#[cfg(feature = "arrow")]
const INLINE_MAX: usize = 12;

#[cfg(feature = "arrow")]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the length is the lowest part")]
fn length(view: u128) -> u32 {
    view as u32
}

/// Number of the buffer, and offset in it, of a text that is longer than its view.
#[cfg(feature = "arrow")]
#[inline]
fn part(view: u128, shift: u32) -> usize {
    length(view >> shift) as usize
}

/// No offset of an array is below 0, and each is at least the one before.
#[inline]
fn whole(offset: i32) -> usize {
    usize::try_from(offset.cast_unsigned()).unwrap_or(0)
}

impl Nulls<'_> {
    #[inline]
    fn bits_from(&self, row: usize) -> u64 {
        let bit = self.start + row;
        let rest = self.bits.get(bit / 8..).unwrap_or_default();
        let eight = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut eight = [0; 8];
            eight.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
            eight
        });
        u64::from_le_bytes(eight) >> (bit % 8)
    }
}

/// Shows how many texts there are, never what they are.
impl fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("len", &self.len()).finish_non_exhaustive()
    }
}
