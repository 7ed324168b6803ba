//! What a row is known by: the hash of its key, and its fingerprint.

use super::{KeyHash, RowFingerprint};

/// Key hash and hot value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) key: KeyHash,
    pub(crate) print: RowFingerprint,
}

impl Hashed {
    /// Stands for no row.
    pub(crate) const NONE: Self = Self { key: KeyHash::from_u128(0), print: RowFingerprint::LOAD };

    /// A row of this key, of which the fingerprint is not known yet.
    #[inline]
    pub(crate) fn keyed(key: KeyHash) -> Self {
        Self { key, print: RowFingerprint::MISSING }
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Gives the row its fingerprint; what stands for no row stays that.
    #[inline]
    pub(crate) fn set_print(&mut self, print: RowFingerprint) {
        if !self.is_none() {
            self.print = print;
        }
    }

    /// The lower half of the key hash with the hot value in it.
    #[inline]
    pub(crate) fn blend(&self) -> u64 {
        self.key.lower ^ self.print.0
    }

    /// The row of this key with such a blend.
    pub(crate) fn of_blend(key: KeyHash, blend: u64) -> Self {
        Self { key, print: RowFingerprint(key.lower ^ blend) }
    }
}
