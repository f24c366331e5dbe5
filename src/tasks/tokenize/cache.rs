//! Cache of the tokens of short words.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

/// Bytes of a cached word and of its length.
const SIZE: usize = 16;

/// The cache takes half a megabyte, so that it stays near the core.
const PLACES: usize = 1 << 14;

/// Stands for no token.
const NONE: u32 = u32::MAX;

/// A cache of one thread. Each word has one place, and takes it from the word that had it.
pub(super) struct WordCache(Vec<([u8; SIZE], [u32; 4])>);

impl WordCache {
    pub(super) fn new() -> Self {
        Self(vec![([0; SIZE], [NONE; 4]); PLACES])
    }

    /// Appends the tokens of `word`; those that are not cached come from `encode`.
    pub(super) fn append(
        &mut self,
        word: &[u8],
        tokens: &mut Vec<u32>,
        encode: impl FnOnce() -> Vec<u32>,
    ) {
        let mut key = [0; SIZE];
        let Some(start) = key[..SIZE - 1].get_mut(..word.len()) else {
            return tokens.extend(encode());
        };
        start.copy_from_slice(word);
        key[SIZE - 1] = word.len() as u8;
        let hash = FxBuildHasher.hash_one(u128::from_le_bytes(key));
        let (cached, found) = &mut self.0[hash as usize % PLACES];
        if *cached != key {
            let new = encode();
            if new.len() > found.len() {
                return tokens.extend(new);
            }
            (*cached, *found) = (key, [NONE; 4]);
            found[..new.len()].copy_from_slice(&new);
        }
        tokens.extend(found.iter().copied().take_while(|&token| token != NONE));
    }
}
