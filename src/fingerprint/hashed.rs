//! What a row is known by: the hash of its key, and its fingerprint.

use super::{KeyHash, RowFingerprint};

/// Key hash, upper half first, and hot value, beside each other and without the gap that a `u128` would leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) key: [u64; 2],
    pub(crate) print: u64,
}

impl Hashed {
    /// Stands for no row.
    pub(crate) const NONE: Self = Self { key: [0; 2], print: 0 };

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken on its own")]
    pub(crate) fn new(key: KeyHash, print: RowFingerprint) -> Self {
        Self { key: [(key.0 >> 64) as u64, key.0 as u64], print: print.0 }
    }

    pub(crate) fn key_hash(&self) -> KeyHash {
        KeyHash(u128::from(self.key[0]) << 64 | u128::from(self.key[1]))
    }

    pub(crate) fn fingerprint(&self) -> RowFingerprint {
        RowFingerprint(self.print)
    }

    /// The lower half of the key hash with the hot value in it.
    #[inline]
    pub(crate) fn blend(&self) -> u64 {
        self.key[1] ^ self.print
    }

    /// The row of this key with such a blend.
    pub(crate) fn of_blend(key: [u64; 2], blend: u64) -> Self {
        Self { key, print: key[1] ^ blend }
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}
