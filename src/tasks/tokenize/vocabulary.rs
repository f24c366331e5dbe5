//! Byte pair encoding: turns a word into the tokens of a vocabulary.

use std::ops::Range;

use rustc_hash::FxHashMap;

/// Longer words are encoded in windows of this many bytes. Merging takes time quadratic in what it
/// is given, so this is small, yet a few times the longest token (128 bytes in OpenAI's).
const WINDOW: usize = 512;

/// How many places are tried for the joint of two windows before the first is made larger.
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
            self.push(word, &self.merge(word, 0..word.len()), tokens);
            return Ok(());
        }
        self.encode_long(word, tokens, flush)
    }

    /// Encodes a word in windows, in time linear in its length.
    ///
    /// Whether two neighbouring tokens stay as they are depends on nothing but the two: merges
    /// inside them go on in the same order whatever surrounds them, so the first merge across their
    /// border would happen between the two alone just as well. So if every pair of neighbours,
    /// merged by itself, gives just the two, then they are the tokens of the whole word. Within a
    /// window that holds anyway; it is checked where one window is joined to the next.
    fn encode_long<E>(
        &self,
        word: &[u8],
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let window = |start: usize, size: usize| start..word.len().min(start + size);
        let mut size = WINDOW;
        let mut bounds = self.merge(word, window(0, size));
        while bounds.last() != Some(&word.len()) {
            flush(tokens)?;
            // The last token of a window often depends on what follows, the one before seldom.
            let joint = (1..bounds.len() - 1).rev().take(JOINTS_TRIED).find_map(|joint| {
                let next = self.merge(word, window(bounds[joint], WINDOW));
                let pair = [bounds[joint - 1], bounds[joint], next[1]];
                (self.merge(word, pair[0]..pair[2]) == pair).then_some((joint, next))
            });
            if let Some((joint, next)) = joint {
                self.push(word, &bounds[..=joint], tokens);
                size = WINDOW;
                bounds = next;
            } else {
                size *= 2;
                bounds = self.merge(word, window(bounds[0], size));
            }
        }
        self.push(word, &bounds, tokens);
        Ok(())
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

    fn push(&self, word: &[u8], bounds: &[usize], tokens: &mut Vec<u32>) {
        tokens.extend(bounds.windows(2).map(|token| self.number(&word[token[0]..token[1]])));
    }

    fn number(&self, bytes: &[u8]) -> u32 {
        self.tokens.get(bytes).copied().unwrap_or(NONE)
    }
}

/// Stands for no token.
const NONE: u32 = u32::MAX;
