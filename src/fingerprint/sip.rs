//! SipHash-1-3 of two byte strings at once.
//!
//! Every step of the hash waits for the one before, and a processor could do several meanwhile. So the steps of two strings
//! are taken in turn, which takes about two thirds of the time. What comes of it is what [`siphasher`] gives.

use std::hint::select_unpredictable;

/// A key, mixed into the numbers that a hash begins with.
#[derive(Clone, Copy)]
pub(super) struct Sip(State);

#[derive(Clone, Copy)]
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        let (halves, _) = key.as_chunks();
        let [k0, k1] = [0, 1].map(|half| u64::from_le_bytes(halves[half]));
        Self(State {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        })
    }

    /// The hashes of two strings; it is best if they are about as long as each other.
    #[inline]
    pub(super) fn two(&self, strings: [Beginning<'_>; 2]) -> [u64; 2] {
        // Which of them is the longer one, and by how much, nobody can foretell: so few jumps depend on it.
        let [a, b] = strings;
        let is_swapped = a.length < b.length;
        let (longer, shorter) = select_unpredictable(is_swapped, (b, a), (a, b));
        let (both, rest) = longer.words().split_at_checked(shorter.length / 8).unwrap_or_default();
        let (mut of_longer, mut of_shorter) = (self.0, self.0);
        for (longer, shorter) in both.iter().zip(shorter.words()) {
            of_longer.take(u64::from_le_bytes(*longer));
            of_shorter.take(u64::from_le_bytes(*shorter));
        }
        for longer in rest {
            of_longer.take(u64::from_le_bytes(*longer));
        }
        of_longer.take(longer.last_word());
        of_shorter.take(shorter.last_word());
        of_longer.v2 ^= 0xff;
        of_shorter.v2 ^= 0xff;
        for _ in 0..3 {
            of_longer.round();
            of_shorter.round();
        }
        let [longer, shorter] = [of_longer, of_shorter].map(|State { v0, v1, v2, v3 }| v0 ^ v1 ^ v2 ^ v3);
        select_unpredictable(is_swapped, [shorter, longer], [longer, shorter])
    }
}

/// A string that some bytes begin with.
#[derive(Clone, Copy)]
pub(crate) struct Beginning<'b> {
    bytes: &'b [u8],
    length: usize,
}

impl<'b> Beginning<'b> {
    /// The first `length` of `bytes`. It is hashed faster if eight others stand behind them.
    #[inline]
    pub(crate) fn new(bytes: &'b [u8], length: usize) -> Self {
        Self { bytes, length: length.min(bytes.len()) }
    }

    #[inline]
    fn words(self) -> &'b [[u8; 8]] {
        self.bytes.as_chunks().0.get(..self.length / 8).unwrap_or_default()
    }

    /// What is left of the string, fewer than eight bytes, and the lowest byte of its length.
    #[inline]
    fn last_word(self) -> u64 {
        let behind = self.bytes.get(self.length / 8 * 8..).unwrap_or_default();
        let word = match behind.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => behind.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        let bits_behind = u64::MAX << (self.length % 8 * 8);
        word & !bits_behind | (self.length as u64) << 56
    }
}

impl State {
    #[inline]
    fn take(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use siphasher::sip::SipHasher13;

    use super::*;

    #[test]
    fn two_strings_of_any_lengths_have_the_hashes_that_each_has_alone() {
        let bytes: Vec<u8> = (0..600_u32).map(|number| number.wrapping_mul(167).to_le_bytes()[0]).collect();
        let key = std::array::from_fn(|at| bytes[500 + at]);
        let (sip, alone) = (Sip::new(&key), SipHasher13::new_with_key(&key));
        let lengths = || (0..40).chain([255, 256, 257, 300]);
        for (a, b) in lengths().flat_map(|a| lengths().map(move |b| (a, b))) {
            for behind in [0, 5, 8, 100] {
                let a_and_more = Beginning::new(&bytes[..a + behind], a);
                let b_and_more = Beginning::new(&bytes[100..100 + b + behind], b);
                let expected = [alone.hash(&bytes[..a]), alone.hash(&bytes[100..100 + b])];
                assert_eq!(sip.two([a_and_more, b_and_more]), expected);
            }
        }
    }
}
