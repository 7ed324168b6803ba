//! Eight strings in the lanes of vectors.

use fearless_simd::{Select, Simd, SimdBase, SimdFrom, mask64x8, u64x8};

use super::{AT_ONCE, Beginning, State, Word};

/// A vector with a number of each string.
type Lanes<S> = u64x8<S>;

/// The words of a string, and with them some of what lies behind it.
type Words<'b> = &'b [[u8; 8]];

/// How many words the longest string may have more than the shortest one: while they are taken, lanes have nothing to do.
const DIFFERENCE_MAX: usize = 64;

/// The hashes, if the processor's vectors are long enough to be worth it, the strings are about as long as each other, and enough
/// lies behind each of them: then the words of all of them are taken until the longest one ends.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the caller knows what the processor can do")]
pub(super) fn hashes<S: Simd, const N: usize>(
    simd: S,
    begun: State<u64>,
    strings: &[Beginning<'_>; AT_ONCE],
) -> Option<[[u64; AT_ONCE]; N]> {
    if S::u64s::LEN < 4 {
        return None;
    }
    let mut lengths = [0; AT_ONCE];
    let (mut fewest, mut most) = (usize::MAX, 0);
    for (length, string) in lengths.iter_mut().zip(strings) {
        *length = string.length as u64;
        (fewest, most) = (fewest.min(string.length / 8), most.max(string.length / 8));
    }
    if most - fewest > DIFFERENCE_MAX {
        return None;
    }
    let mut words: [Words<'_>; AT_ONCE] = [&[]; AT_ONCE];
    for (words, string) in words.iter_mut().zip(strings) {
        *words = string.bytes.as_chunks().0.get(..=most)?;
    }

    let mut state = State::of_all(simd, begun);
    for at in 0..fewest {
        state.take(word(simd, &words, at));
    }
    // From here on some strings end: of each the last word is another one, and then it takes no more.
    let lengths = Lanes::simd_from(simd, lengths);
    let ends = lengths >> 3;
    let behind = simd.shlv_u64x8(Lanes::splat(simd, u64::MAX), (lengths & 7) << 3);
    for at in fewest..=most {
        let (taken, number) = (word(simd, &words, at), Lanes::splat(simd, at as u64));
        let last = taken & !behind | lengths << 56;
        let mut next = state;
        next.take(ends.simd_eq(number).select(last, taken));
        state = State::select(ends.simd_lt(number), state, next);
    }
    let mut hashes = [[0; AT_ONCE]; N];
    for (hashes, lanes) in hashes.iter_mut().zip(state.finish::<N>()) {
        *hashes = *lanes;
    }
    Some(hashes)
}

/// The `at`th word of each string.
#[inline(always)]
#[expect(clippy::inline_always, reason = "as that of what calls it")]
fn word<S: Simd>(simd: S, words: &[Words<'_>; AT_ONCE], at: usize) -> Lanes<S> {
    let mut numbers = [0; AT_ONCE];
    for (number, words) in numbers.iter_mut().zip(words) {
        *number = u64::from_le_bytes(words[at]);
    }
    Lanes::simd_from(simd, numbers)
}

#[expect(clippy::inline_always, reason = "as that of what calls it")]
impl<S: Simd> State<Lanes<S>> {
    #[inline(always)]
    fn of_all(simd: S, State { v0, v1, v2, v3 }: State<u64>) -> Self {
        Self {
            v0: Lanes::splat(simd, v0),
            v1: Lanes::splat(simd, v1),
            v2: Lanes::splat(simd, v2),
            v3: Lanes::splat(simd, v3),
        }
    }

    #[inline(always)]
    fn select(mask: mask64x8<S>, a: Self, b: Self) -> Self {
        Self {
            v0: mask.select(a.v0, b.v0),
            v1: mask.select(a.v1, b.v1),
            v2: mask.select(a.v2, b.v2),
            v3: mask.select(a.v3, b.v3),
        }
    }
}

#[expect(clippy::inline_always, reason = "as that of what calls it")]
impl<S: Simd> Word for Lanes<S> {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn rotated<const BITS: u32>(self) -> Self {
        self << BITS | self >> (64 - BITS)
    }
}
