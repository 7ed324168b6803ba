//! The index: every row that the state knows, in 24 bytes each, for one pass over a source.

use crate::fingerprint::{KeyHash, RowFingerprint};

/// Key hashes in order, each with its hot value and a bit that says whether the source had it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: Vec<u128>,
    prints: Vec<u64>,
    seen: Vec<u64>,
    /// Where the keys of each prefix start, so that a look-up starts near its end.
    starts: Vec<usize>,
    shift: u32,
}

impl Index {
    pub(crate) fn new(mut rows: Vec<(KeyHash, RowFingerprint)>) -> Self {
        if !rows.is_sorted_by_key(|(key, _)| *key) {
            rows.sort_unstable_by_key(|(key, _)| *key);
        }
        let (keys, prints): (Vec<_>, Vec<_>) =
            rows.iter().map(|(key, print)| (key.to_u128(), print.to_u64())).unzip();
        drop(rows);
        // About eight keys to a prefix: two cache lines to search.
        let bits = (keys.len() / 8).max(1).ilog2();
        let shift = 128 - bits;
        let mut starts = vec![0; (1 << bits) + 1];
        for &key in &keys {
            starts[prefix(key, shift) + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        Self { seen: vec![0; keys.len().div_ceil(64)], keys, prints, starts, shift }
    }

    fn position(&self, key: KeyHash) -> Option<usize> {
        let key = key.to_u128();
        let prefix = prefix(key, self.shift);
        let (start, end) = (*self.starts.get(prefix)?, *self.starts.get(prefix + 1)?);
        self.keys.get(start..end)?.binary_search(&key).ok().map(|at| start + at)
    }

    /// The hot value of a row; marks the row as seen, and says whether it was before.
    pub(crate) fn see(&mut self, key: KeyHash) -> Option<(RowFingerprint, bool)> {
        let at = self.position(key)?;
        let bit = 1 << (at % 64);
        let before = self.seen[at / 64] & bit != 0;
        self.seen[at / 64] |= bit;
        Some((RowFingerprint::from_u64(self.prints[at]), before))
    }

    /// The rows that were not seen, in the order of their key hashes.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = (KeyHash, RowFingerprint)> + '_ {
        (0..self.keys.len())
            .filter(|at| self.seen[at / 64] & (1 << (at % 64)) == 0)
            .map(|at| (KeyHash::from_u128(self.keys[at]), RowFingerprint::from_u64(self.prints[at])))
    }
}

fn prefix(key: u128, shift: u32) -> usize {
    // A shift by all 128 bits is no shift: then there is one prefix.
    usize::try_from(key.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_once_and_those_not_asked_for_stay_unseen() {
        for count in [0_u128, 1, 7, 64, 1000] {
            let spread = |number: u128| {
                KeyHash::from_u128(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
            };
            let rows: Vec<_> = (1..=count)
                .map(|n| (spread(n), RowFingerprint::from_u64(u64::try_from(n).unwrap())))
                .collect();
            let mut index = Index::new(rows);
            for n in 1..=count {
                if n % 3 != 0 {
                    let print = RowFingerprint::from_u64(u64::try_from(n).unwrap());
                    assert_eq!(index.see(spread(n)), Some((print, false)));
                    assert_eq!(index.see(spread(n)), Some((print, true)));
                }
            }
            assert_eq!(index.see(spread(count + 1)), None);
            let mut unseen: Vec<_> = index.unseen().map(|(_, print)| print.to_u64()).collect();
            unseen.sort_unstable();
            let expected: Vec<u64> =
                (1..=count).filter(|n| n % 3 == 0).map(|n| u64::try_from(n).unwrap()).collect();
            assert_eq!(unseen, expected);
        }
    }
}
