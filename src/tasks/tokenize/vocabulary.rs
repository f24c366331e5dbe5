//! Byte pair encoding: turns a word into the tokens of a vocabulary.

use std::ops::Range;

use rustc_hash::FxHashMap;

/// Longer words are looked at in windows of this many bytes. Merging takes time quadratic in what it
/// is given, so this is small, yet a few times the longest token (128 bytes in OpenAI's).
const WINDOW: usize = 512;

/// How many places are tried for the joint of two windows.
const JOINTS_TRIED: usize = 4;

/// The byte strings that have a token. Those with a lower number are merged first.
pub(super) struct Vocabulary {
    tokens: FxHashMap<Box<[u8]>, u32>,
}

impl FromIterator<(Box<[u8]>, u32)> for Vocabulary {
    fn from_iter<I: IntoIterator<Item = (Box<[u8]>, u32)>>(tokens: I) -> Self {
        Self { tokens: tokens.into_iter().collect() }
    }
}

impl Vocabulary {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Appends the tokens of a word, and has a long word's taken away by `flush` now and then.
    pub(super) fn encode<E>(
        &self,
        word: &[u8],
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(&token) = self.tokens.get(word) {
            tokens.push(token);
            return Ok(());
        }
        if word.len() <= WINDOW {
            self.push_merged(word, 0..word.len(), tokens);
            return Ok(());
        }
        let mut size = WINDOW;
        let parts = loop {
            match self.parts(word, size, || flush(tokens))? {
                Some(parts) => break parts,
                None => size *= 2,
            }
        };
        for part in parts {
            self.push_merged(word, part, tokens);
            flush(tokens)?;
        }
        Ok(())
    }

    /// Takes a long word apart so that the parts have the tokens of the whole. `None` if windows of
    /// this size are too small to tell.
    ///
    /// Whether two neighbouring tokens stay as they are depends on nothing but the two: merges
    /// inside them go on in the same order whatever surrounds them, so the first merge across their
    /// border would happen between the two alone just as well. So if every pair of neighbours,
    /// merged by itself, gives just the two, then they are the tokens of the whole word. Within a
    /// window that holds anyway; it is checked where one window is joined to the next.
    fn parts<E>(
        &self,
        word: &[u8],
        size: usize,
        mut check: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Vec<Range<usize>>>, E> {
        let window = |start: usize| start..word.len().min(start + size);
        let mut parts = Vec::new();
        let mut bounds = self.merge(word, window(0));
        while bounds.last() != Some(&word.len()) {
            check()?;
            // The last token of a window often depends on what follows, the one before seldom.
            let joint = (1..bounds.len() - 1).rev().take(JOINTS_TRIED).find_map(|joint| {
                let next = self.merge(word, window(bounds[joint]));
                let pair = [bounds[joint - 1], bounds[joint], next[1]];
                (self.merge(word, pair[0]..pair[2]) == pair).then_some(next)
            });
            let Some(next) = joint else { return Ok(None) };
            parts.push(bounds[0]..next[0]);
            bounds = next;
        }
        parts.push(bounds[0]..word.len());
        Ok(Some(parts))
    }

    /// Where the tokens of a part of a word begin, and where the last one ends.
    fn merge(&self, word: &[u8], part: Range<usize>) -> Vec<usize> {
        // The number of the token that each two neighbours would become, if there is one.
        let mut merged: Vec<u32> =
            word[part.clone()].windows(2).map(|pair| self.number(pair)).collect();
        let mut bounds: Vec<usize> = (part.start..=part.end).collect();
        while let Some(lowest) = merged.iter().copied().min().filter(|&number| number != NONE) {
            // From left to right, until that makes way for one that comes before.
            let mut at = 0;
            while let Some(next) = merged[at..].iter().position(|&number| number == lowest) {
                at += next;
                merged.remove(at);
                bounds.remove(at + 1);
                let around = at.saturating_sub(1)..merged.len().min(at + 1);
                for pair in around.clone() {
                    merged[pair] = self.number(&word[bounds[pair]..bounds[pair + 2]]);
                }
                if merged[around].iter().any(|&number| number < lowest) {
                    break;
                }
            }
        }
        bounds
    }

    fn push_merged(&self, word: &[u8], part: Range<usize>, tokens: &mut Vec<u32>) {
        let bounds = self.merge(word, part);
        tokens.extend(bounds.windows(2).map(|token| self.number(&word[token[0]..token[1]])));
    }

    fn number(&self, bytes: &[u8]) -> u32 {
        self.tokens.get(bytes).copied().unwrap_or(NONE)
    }
}

/// Stands for no token.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Single letters, and tokens that are each put together from two earlier ones.
    fn vocabulary(letters: &str, pairs: &[(usize, usize)]) -> Vocabulary {
        let mut tokens: Vec<Box<[u8]>> = letters.bytes().map(|letter| [letter].into()).collect();
        for &(left, right) in pairs {
            let [left, right] = [left, right].map(|token| &tokens[token % tokens.len()]);
            let both = [&left[..], right].concat().into();
            if !tokens.contains(&both) {
                tokens.push(both);
            }
        }
        tokens.into_iter().zip(0..).collect()
    }

    fn parts(vocabulary: &Vocabulary, word: &[u8], size: usize) -> Option<Vec<Range<usize>>> {
        let Ok(parts) = vocabulary.parts::<Infallible>(word, size, || Ok(()));
        parts
    }

    #[test]
    fn windows_that_are_too_small_to_tell_are_known() {
        // "yz" is merged first, "ab" last: what becomes of "ab" depends on the end of the word.
        let pairs: Vec<_> = (0..25).rev().map(|letter| (letter, letter + 1)).collect();
        let letters = "abcdefghijklmnopqrstuvwxyz";
        let vocabulary = vocabulary(letters, &pairs);
        assert_eq!(parts(&vocabulary, &letters.as_bytes()[1..], 8), None);
        assert_eq!(
            parts(&vocabulary, &letters.as_bytes()[1..], 32),
            Some(std::iter::once(0..25).collect())
        );
    }

    proptest! {
        #[test]
        fn parts_have_the_tokens_of_the_whole(
            pairs in prop::collection::vec(any::<(usize, usize)>(), 0..40),
            word in "[abc]{1,80}",
            size in 2..40_usize,
        ) {
            let (vocabulary, word) = (vocabulary("abc", &pairs), word.as_bytes());
            let mut whole = Vec::new();
            vocabulary.push_merged(word, 0..word.len(), &mut whole);
            if let Some(parts) = parts(&vocabulary, word, size) {
                let mut tokens = Vec::new();
                parts.into_iter().for_each(|part| vocabulary.push_merged(word, part, &mut tokens));
                prop_assert_eq!(tokens, whole);
            }
        }
    }
}
