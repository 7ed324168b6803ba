//! Columns of texts, read where they lie.

use std::{fmt, ops::Range};

/// A column of texts that lie in memory one behind the other, as in a columnar format.
///
/// Most rows have not changed since the last run, and to find that out nothing has to be known of a text but its bytes. The
/// record batches of Arrow have such columns; rows of another type that hold a batch can hand on what it says.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    bytes: &'a [u8],
    offsets: &'a [i32],
    nulls: Option<Nulls<'a>>,
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
    #[cfg(feature = "arrow")]
    pub(super) fn new(bytes: &'a [u8], offsets: &'a [i32]) -> Self {
        Self { bytes, offsets, nulls: None }
    }

    /// The texts with a bit for each row, the lowest of a byte first, which is 0 where the value is null. The first row's
    /// bit is number `start`.
    #[cfg(feature = "arrow")]
    pub(super) fn with_nulls(self, bits: &'a [u8], start: usize) -> Self {
        Self { nulls: Some(Nulls { bits, start }), ..self }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of all texts.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many bytes the texts have together.
    pub(crate) fn size(&self) -> usize {
        match self.offsets {
            [first, .., last] => whole(last.wrapping_sub(*first)),
            _ => 0,
        }
    }

    /// Adds to each number the bytes of the text of a row, from `row` on.
    #[inline]
    pub(crate) fn add_lengths(&self, row: usize, to: &mut [u32]) {
        let offsets = self.offsets.get(row..).unwrap_or_default();
        for ((to, start), end) in to.iter_mut().zip(offsets).zip(offsets.iter().skip(1)) {
            *to = to.wrapping_add(end.wrapping_sub(*start).cast_unsigned());
        }
    }

    /// Some of the rows.
    pub(crate) fn slice(&self, rows: Range<usize>) -> Self {
        let nulls = self.nulls.map(|Nulls { bits, start }| Nulls { bits, start: start + rows.start });
        Self {
            bytes: self.bytes,
            offsets: self.offsets.get(rows.start..=rows.end).unwrap_or_default(),
            nulls,
        }
    }

    /// Where the texts of some rows begin in [`bytes`](Self::bytes), and how long they are. One that is null may have any
    /// length.
    #[inline]
    pub(crate) fn spans(
        &self,
        rows: Range<usize>,
    ) -> impl ExactSizeIterator<Item = (usize, usize)> + use<'a> {
        let offsets = self.offsets.get(rows.start..=rows.end).unwrap_or_default();
        offsets.windows(2).map(move |ends| (whole(ends[0]), whole(ends[1].wrapping_sub(ends[0]))))
    }

    /// The texts; `None` for a null.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'_, 'a> {
        let texts = self.spans(0..self.len()).enumerate();
        texts
            .map(|(row, (start, length))| self.bytes.get(start..start + length).filter(|_| self.is_text(row)))
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
