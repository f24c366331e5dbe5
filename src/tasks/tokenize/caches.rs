//! What was found out about words and tokens before. Both caches have a fixed size: each entry has
//! one place, and takes it from whatever had it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::vocabulary::NONE;

/// Spreads keys over the places of a table when they are multiplied by it.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A word of a few bytes as a number, which is quick to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ShortWord {
    low: u64,
    /// Has the length in its top byte.
    high: u64,
}

impl ShortWord {
    pub(super) const MAX: usize = 15;

    /// A part of a text; `None` if it is too long.
    pub(super) fn new(text: &[u8], part: Range<usize>) -> Option<Self> {
        let length = part.len();
        if length > Self::MAX {
            return None;
        }
        // To copy a varying number of bytes takes longer than to read too many and clear the rest.
        let bytes = match text[part.start..].first_chunk() {
            Some(bytes) => u128::from_le_bytes(*bytes) & ((1 << (8 * length)) - 1),
            None => {
                let mut bytes = [0; 16];
                bytes[..length].copy_from_slice(&text[part]);
                u128::from_le_bytes(bytes)
            }
        };
        let high = (bytes >> 64) as u64 | (length as u64) << 56;
        Some(Self { low: bytes as u64, high })
    }
}

/// The tokens of words that one thread has met.
pub(super) struct WordCache(Box<[CachedWord]>);

#[derive(Clone, Copy)]
struct CachedWord {
    word: ShortWord,
    /// Followed by [`NONE`] if there are fewer.
    tokens: [u32; 4],
}

impl WordCache {
    /// Takes half a megabyte, so that it stays near the core.
    const PLACES: usize = 1 << 14;

    pub(super) fn new() -> Self {
        let free = CachedWord { word: ShortWord { low: 0, high: 0 }, tokens: [NONE; 4] };
        Self(vec![free; Self::PLACES].into())
    }

    pub(super) fn get(&self, word: ShortWord) -> Option<[u32; 4]> {
        let cached = &self.0[Self::place(word)];
        (cached.word == word).then_some(cached.tokens)
    }

    pub(super) fn put(&mut self, word: ShortWord, found: &[u32]) {
        let mut tokens = [NONE; 4];
        if found.len() <= tokens.len() {
            tokens[..found.len()].copy_from_slice(found);
            self.0[Self::place(word)] = CachedWord { word, tokens };
        }
    }

    fn place(word: ShortWord) -> usize {
        let product = u128::from(word.low ^ SPREAD) * u128::from(word.high ^ !SPREAD);
        (product as u64 ^ (product >> 64) as u64) as usize % Self::PLACES
    }
}

/// Which pairs of tokens stay as they are. All threads share it.
pub(super) struct PairCache(Box<[AtomicU64]>);

impl PairCache {
    const PLACES: usize = 1 << 17;

    pub(super) fn new() -> Self {
        Self((0..Self::PLACES).map(|_| AtomicU64::new(u64::MAX)).collect())
    }

    pub(super) fn get(&self, pair: [u32; 2]) -> Option<bool> {
        let key = Self::key(pair);
        let cached = self.place(key).load(Ordering::Relaxed);
        (cached >> 1 == key).then_some(cached & 1 == 1)
    }

    pub(super) fn put(&self, pair: [u32; 2], stays: bool) {
        let key = Self::key(pair);
        self.place(key).store(key << 1 | u64::from(stays), Ordering::Relaxed);
    }

    /// Leaves the top bit free, as numbers of tokens are far from using theirs.
    fn key([left, right]: [u32; 2]) -> u64 {
        u64::from(left) << 32 | u64::from(right)
    }

    fn place(&self, key: u64) -> &AtomicU64 {
        &self.0[(key.wrapping_mul(SPREAD) >> 40) as usize % Self::PLACES]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_words_are_equal_where_their_bytes_are(
            bytes in prop::collection::vec(0..2_u8, 0..40),
            [a, b, c, d] in any::<[prop::sample::Index; 4]>(),
        ) {
            let part = |from: prop::sample::Index, to: prop::sample::Index| {
                let [from, to] = [from.index(bytes.len() + 1), to.index(bytes.len() + 1)];
                from.min(to)..from.max(to)
            };
            let (one, other) = (part(a, b), part(c, d));
            let [short_one, short_other] =
                [&one, &other].map(|part| ShortWord::new(&bytes, part.clone()));
            prop_assert_eq!(short_one.is_some(), one.len() <= ShortWord::MAX);
            if let (Some(short_one), Some(short_other)) = (short_one, short_other) {
                prop_assert_eq!(short_one == short_other, bytes[one] == bytes[other]);
            }
        }
    }

    #[test]
    fn a_cache_knows_what_it_was_last_told() {
        let mut words = WordCache::new();
        let pairs = PairCache::new();
        for number in 0..100_000_u32 {
            let word = ShortWord::new(&number.to_le_bytes(), 0..4).unwrap();
            assert_eq!(words.get(word), None);
            words.put(word, &[number, 7]);
            assert_eq!(words.get(word), Some([number, 7, NONE, NONE]));
            assert_eq!(pairs.get([7, number]), None);
            pairs.put([7, number], number % 3 == 0);
            assert_eq!(pairs.get([7, number]), Some(number % 3 == 0));
        }
        let word = ShortWord::new(b"long", 0..4).unwrap();
        words.put(word, &[1, 2, 3, 4, 5]);
        assert_eq!(words.get(word), None);
    }
}
