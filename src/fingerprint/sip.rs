//! SipHash-1-3 of eight byte strings at once.
//!
//! Every step of the hash waits for the one before. So the same step of eight strings is taken at once, with the processor's
//! vector instructions; where its vectors are short, two strings are hashed in turn. What comes of it is what [`siphasher`]
//! gives.

mod lanes;

use std::{
    hint::select_unpredictable,
    ops::{BitXor, BitXorAssign},
};

use fearless_simd::{Level, dispatch};

/// Strings that are hashed at once.
pub(crate) const AT_ONCE: usize = 8;

/// A key, mixed into the numbers that a hash of `N` times 64 bits begins with.
#[derive(Clone, Copy)]
pub(super) struct Sip<const N: usize> {
    begun: State<u64>,
    /// What the processor can do.
    level: Level,
}

/// A string that some bytes begin with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Beginning<'b> {
    bytes: &'b [u8],
    length: usize,
}

/// The four numbers of a hash, each of one string or of several.
#[derive(Clone, Copy)]
struct State<W> {
    v0: W,
    v1: W,
    v2: W,
    v3: W,
}

/// A number of 64 bits, or one of each of several strings.
trait Word: Copy + BitXor<Output = Self> + BitXorAssign + BitXorAssign<u64> {
    fn plus(self, other: Self) -> Self;
    fn rotated<const BITS: u32>(self) -> Self;
}

impl<const N: usize> Sip<N> {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        let (halves, _) = key.as_chunks();
        let [k0, k1] = [0, 1].map(|half| u64::from_le_bytes(halves[half]));
        let mut begun = State {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        };
        if N == 2 {
            begun.v1 ^= 0xee;
        }
        Self { begun, level: Level::new() }
    }

    /// Hashes strings of which there may be any number, and calls `each` with the hash of each of them, 64 bits after the other.
    #[inline]
    pub(super) fn each(&self, strings: &[Beginning<'_>], mut each: impl FnMut([u64; N])) {
        let (eights, rest) = strings.as_chunks();
        for eight in eights {
            let hashes = self.hashes(eight);
            (0..AT_ONCE).for_each(|at| each(hashes.map(|hashes| hashes[at])));
        }
        let (twos, last) = rest.as_chunks();
        for state in twos.iter().flat_map(|strings| two(self.begun, *strings)) {
            each(state.finish());
        }
        for string in last {
            each(one(self.begun, *string).finish());
        }
    }

    /// The hashes of eight strings: of each the first 64 bits, then of each the next ones. It is best if the strings are about
    /// as long as each other, and if others lie behind them.
    #[inline]
    fn hashes(&self, strings: &[Beginning<'_>; AT_ONCE]) -> [[u64; AT_ONCE]; N] {
        dispatch!(self.level, simd => lanes::hashes(simd, self.begun, strings)
            .unwrap_or_else(|| in_twos(self.begun, strings)))
    }
}

/// Hashes strings without vectors, two in turn.
#[inline(never)]
fn in_twos<const N: usize>(begun: State<u64>, strings: &[Beginning<'_>; AT_ONCE]) -> [[u64; AT_ONCE]; N] {
    let mut hashes = [[0; AT_ONCE]; N];
    for (strings, place) in strings.as_chunks().0.iter().zip((0..).step_by(2)) {
        for (state, place) in two(begun, *strings).into_iter().zip(place..) {
            let found: [u64; N] = state.finish();
            hashes.iter_mut().zip(found).for_each(|(hashes, found)| hashes[place] = found);
        }
    }
    hashes
}

/// One that is left over.
fn one(begun: State<u64>, string: Beginning<'_>) -> State<u64> {
    let mut state = begun;
    string.words().iter().for_each(|word| state.take(u64::from_le_bytes(*word)));
    state.take(string.last_word());
    state
}

#[inline]
fn two(begun: State<u64>, [a, b]: [Beginning<'_>; 2]) -> [State<u64>; 2] {
    // Which of them is the longer one, and by how much, nobody can foretell: so few jumps depend on it.
    let is_swapped = a.length < b.length;
    let (longer, shorter) = select_unpredictable(is_swapped, (b, a), (a, b));
    let (both, rest) = longer.words().split_at_checked(shorter.length / 8).unwrap_or_default();
    let (mut of_longer, mut of_shorter) = (begun, begun);
    for (longer, shorter) in both.iter().zip(shorter.words()) {
        of_longer.take(u64::from_le_bytes(*longer));
        of_shorter.take(u64::from_le_bytes(*shorter));
    }
    for longer in rest {
        of_longer.take(u64::from_le_bytes(*longer));
    }
    of_longer.take(longer.last_word());
    of_shorter.take(shorter.last_word());
    select_unpredictable(is_swapped, [of_shorter, of_longer], [of_longer, of_shorter])
}

impl<'b> Beginning<'b> {
    /// The first `length` of `bytes`.
    #[inline]
    pub(crate) fn new(bytes: &'b [u8], length: usize) -> Self {
        Self { bytes, length: length.min(bytes.len()) }
    }

    #[inline]
    pub(crate) fn as_bytes(self) -> &'b [u8] {
        self.bytes.get(..self.length).unwrap_or_default()
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

/// With vectors this is fast only where the compiler knows which instructions there are, which is in the function that calls it.
#[expect(clippy::inline_always, reason = "the caller knows what the processor can do")]
impl<W: Word> State<W> {
    #[inline(always)]
    fn take(&mut self, word: W) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.plus(self.v1);
        self.v2 = self.v2.plus(self.v3);
        self.v1 = self.v1.rotated::<13>() ^ self.v0;
        self.v3 = self.v3.rotated::<16>() ^ self.v2;
        self.v0 = self.v0.rotated::<32>();
        self.v2 = self.v2.plus(self.v1);
        self.v0 = self.v0.plus(self.v3);
        self.v1 = self.v1.rotated::<17>() ^ self.v2;
        self.v3 = self.v3.rotated::<21>() ^ self.v0;
        self.v2 = self.v2.rotated::<32>();
    }

    /// The hash once all words are taken, 64 bits after the other.
    #[inline(always)]
    fn finish<const N: usize>(mut self) -> [W; N] {
        let mut hash = [self.v0; N];
        self.v2 ^= if N == 2 { 0xee } else { 0xff };
        for (half, hash) in hash.iter_mut().enumerate() {
            if half == 1 {
                self.v1 ^= 0xdd;
            }
            self.round();
            self.round();
            self.round();
            *hash = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        }
        hash
    }
}

#[expect(clippy::inline_always, reason = "as that of what calls it")]
impl Word for u64 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn rotated<const BITS: u32>(self) -> Self {
        self.rotate_left(BITS)
    }
}

#[cfg(test)]
mod tests {
    use std::array;

    use siphasher::{sip::SipHasher13, sip128::SipHasher13 as SipHasher13x128};

    use super::*;

    /// The hashes of strings, however they are computed here.
    fn hashes_of<const N: usize>(
        key: &[u8; 16],
        strings: &[Beginning<'_>; AT_ONCE],
    ) -> Vec<[[u64; AT_ONCE]; N]> {
        let sip = Sip::new(key);
        let mut found = vec![sip.hashes(strings), in_twos(sip.begun, strings)];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        found.extend(sip.level.as_avx2().and_then(|avx2| lanes::hashes(avx2, sip.begun, strings)));
        found
    }

    #[test]
    fn eight_strings_of_any_lengths_have_the_hashes_that_each_has_alone() {
        let bytes: Vec<u8> = (0..1600_u32).map(|number| number.wrapping_mul(167).to_le_bytes()[0]).collect();
        let key = array::from_fn(|at| bytes[500 + at]);
        let alone = SipHasher13::new_with_key(&key);
        let alone_long = SipHasher13x128::new_with_key(&key);
        let mut random = 1_u64;
        for round in 0..3000_usize {
            let lengths: [usize; AT_ONCE] = array::from_fn(|_| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                usize::try_from(random >> 32).unwrap() % [9, 40, 300, 900][round % 4]
            });
            // Mostly as much lies behind them as is wanted.
            let behind = [0, 5, 8, 300, 300, 300, 300][round % 7];
            let strings = array::from_fn(|at| {
                Beginning::new(&bytes[at * 30..at * 30 + lengths[at] + behind], lengths[at])
            });
            let expected = strings.map(|string| alone.hash(string.as_bytes()));
            let expected_long = strings.map(|string| alone_long.hash(string.as_bytes()));
            for [hashes] in hashes_of(&key, &strings) {
                assert_eq!(hashes, expected, "{lengths:?}");
            }
            for [lower, upper] in hashes_of(&key, &strings) {
                assert_eq!(lower, expected_long.map(|hash| hash.h1), "{lengths:?}");
                assert_eq!(upper, expected_long.map(|hash| hash.h2), "{lengths:?}");
            }
        }
    }

    #[test]
    fn any_number_of_strings_have_the_hashes_that_each_has_alone_in_their_order() {
        let (bytes, key) = ([5; 100], [7; 16]);
        let (sip, alone) = (Sip::<1>::new(&key), SipHasher13::new_with_key(&key));
        for count in 0..20 {
            let strings: Vec<_> = (0..count).map(|at| Beginning::new(&bytes, 3 * at)).collect();
            let mut found = Vec::new();
            sip.each(&strings, |[hash]| found.push(hash));
            let expected: Vec<_> = strings.iter().map(|string| alone.hash(string.as_bytes())).collect();
            assert_eq!(found, expected);
        }
    }

    /// Were they not, the hashes would be the same and only take longer.
    #[test]
    fn strings_with_enough_behind_them_are_hashed_in_the_lanes_of_vectors_where_these_are_long() {
        let (bytes, begun) = ([7; 800], Sip::<1>::new(&[7; 16]).begun);
        let strings = array::from_fn(|at| Beginning::new(&bytes, 100 + 30 * at));
        let apart = array::from_fn(|at| Beginning::new(&bytes, 100 * at));
        let scarce = array::from_fn(|at| Beginning::new(&bytes[..100 + 30 * at], 100 + 30 * at));
        let found = dispatch!(Level::new(), simd => {
            [&strings, &apart, &scarce].map(|strings| lanes::hashes::<_, 1>(simd, begun, strings).is_some())
        });
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        assert_eq!(found, [Level::new().as_avx2().is_some(), false, false]);
        assert_eq!(found[1..], [false, false]);
    }
}
