//! Byte pair encoding: turns a word into the tokens of a vocabulary.
//!
//! By definition a word that has no token of its own is [merged](Vocabulary::merge) from single
//! bytes, which takes time quadratic in its length. But whether two neighbouring tokens stay as they
//! are depends on nothing but the two: merges inside them go on in the same order whatever surrounds
//! them, so the first merge across their border would happen between the two alone just as well. So
//! the tokens of a word are the only ones of which each two neighbours, merged by themselves, give
//! just the two. They are found by trying the longest ones first.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::caches::{PairCache, ShortWord, WordCache};
use super::prefixes::Prefixes;

/// Stands for no token.
pub(super) const NONE: u32 = u32::MAX;

/// Tokens of a long word between two calls of `flush`. Words that are cached have fewer.
const BLOCK: usize = 32 * 1024;

/// The byte strings that have a token. Those with a lower number are merged first.
pub(super) struct Vocabulary {
    short: FxHashMap<ShortWord, u32>,
    long: FxHashMap<Box<[u8]>, u32>,
    prefixes: Prefixes,
    /// The length of each token, by its number; the last is that of no token at all.
    lengths: Vec<u8>,
    pairs: PairCache,
}

/// What a thread needs to encode words: its cache, and room to work in.
pub(super) struct Workspace {
    words: WordCache,
    /// A bit for each place in a word, set where it turned out that no token can end.
    dead_ends: Vec<u64>,
    merging: Merging,
    block: usize,
}

#[derive(Default)]
struct Merging {
    bounds: Vec<usize>,
    /// The number of the token that each two neighbours would become.
    merged: Vec<u32>,
}

impl Workspace {
    pub(super) fn new() -> Self {
        Self::with_blocks(BLOCK)
    }

    fn with_blocks(block: usize) -> Self {
        let (words, merging) = (WordCache::new(), Merging::default());
        Self { words, dead_ends: Vec::new(), merging, block }
    }
}

impl Vocabulary {
    pub(super) fn new(mut tokens: Vec<(Vec<u8>, u32)>) -> Self {
        let limit = tokens.iter().map(|&(_, number)| number + 1).max().unwrap_or(0);
        let mut lengths = vec![0; limit as usize + 1];
        for (bytes, number) in &tokens {
            lengths[*number as usize] = bytes.len().try_into().expect("no token is that long");
        }
        tokens.sort_by_key(|(bytes, _)| bytes.len());
        let prefixes = Prefixes::new(&tokens, limit);
        let mut short = FxHashMap::default();
        let mut long = FxHashMap::default();
        short.reserve(tokens.len());
        for (bytes, number) in tokens {
            match ShortWord::new(&bytes, 0..bytes.len()) {
                Some(word) => short.insert(word, number),
                None => long.insert(bytes.into(), number),
            };
        }
        Self { short, long, prefixes, lengths, pairs: PairCache::new() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    /// Appends the tokens of a word of `text`. In a long one calls `flush` now and then, which may
    /// take away what it is given. Its error ends the work.
    pub(super) fn encode<E>(
        &self,
        text: &[u8],
        word: Range<usize>,
        space: &mut Workspace,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let short = ShortWord::new(text, word.clone());
        if let Some(known) = short.and_then(|short| space.words.get(short)) {
            tokens.extend(known.into_iter().take_while(|&token| token != NONE));
            return Ok(());
        }
        let before = tokens.len();
        match self.number(text, word.clone()) {
            NONE => self.push_tokens(text, word, space, tokens, flush)?,
            token => tokens.push(token),
        }
        if let Some(short) = short {
            space.words.put(short, &tokens[before..]);
        }
        Ok(())
    }

    fn push_tokens<E>(
        &self,
        text: &[u8],
        word: Range<usize>,
        Workspace { dead_ends, merging, block, .. }: &mut Workspace,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = tokens.len();
        // The end of a word may change its beginning, so no token is certain before. To save memory
        // there are only the last ones in `tokens`, and of those before them a bit where each ends.
        let mut ends: Vec<u64> = Vec::new();
        let mut tokens_at = word.start;
        let bit = |place| ((place - word.start) / 64, 1_u64 << ((place - word.start) % 64));
        dead_ends.clear();
        dead_ends.resize(word.len() / 64 + 1, 0);
        let mut at = word.start;
        let mut next = self.prefixes.longest(&text[at..word.end]);
        while at < word.end {
            let Some(token) = next else {
                // Nothing goes on from here, so the last token cannot be one.
                let (index, mask) = bit(at);
                dead_ends[index] |= mask;
                let token = tokens.pop().expect("a word has tokens, if only its bytes");
                next = Some(token);
                at -= self.length(token);
                if at == tokens_at && at > word.start {
                    let (index, mask) = bit(at);
                    ends[index] ^= mask;
                    let earlier = |&place: &usize| ends[bit(place).0] & bit(place).1 != 0;
                    tokens_at = (word.start..at).rev().find(earlier).unwrap_or(word.start);
                    tokens.push(self.number(text, tokens_at..at));
                }
                continue;
            };
            let end = at + self.length(token);
            let (index, mask) = bit(end);
            let last = tokens[before..].last().copied().unwrap_or(self.nothing());
            let fits = dead_ends[index] & mask == 0 && self.stay(text, at, [last, token], merging);
            if fits {
                tokens.push(token);
                at = end;
                next = self.prefixes.longest(&text[at..word.end]);
                if tokens.len() - before == 2 * *block {
                    flush(&mut Vec::new())?;
                    ends.resize(dead_ends.len(), 0);
                    for token in tokens.drain(before..before + *block) {
                        tokens_at += self.length(token);
                        let (index, mask) = bit(tokens_at);
                        ends[index] |= mask;
                    }
                }
            } else {
                next = self.prefixes.longest(&text[at..end - 1]);
            }
        }
        if tokens_at == word.start {
            return Ok(());
        }
        // Now all are certain.
        let last = tokens.split_off(before);
        let mut start = word.start;
        for end in word.start + 1..=tokens_at {
            let (index, mask) = bit(end);
            if ends[index] & mask != 0 {
                tokens.push(self.number(text, start..end));
                start = end;
                if tokens.len() >= *block {
                    flush(tokens)?;
                }
            }
        }
        tokens.extend(last);
        Ok(())
    }

    /// Whether two neighbouring tokens stay as they are. The second one begins at `border`. At the
    /// beginning of a word [nothing](Self::nothing) comes before it, and it may be that the merging
    /// never gets to that token.
    fn stay(&self, text: &[u8], border: usize, pair: [u32; 2], merging: &mut Merging) -> bool {
        self.pairs.get(pair).unwrap_or_else(|| {
            let [left, right] = pair.map(|token| self.length(token));
            let bounds = [border - left, border, border + right];
            let expected = &bounds[usize::from(left == 0)..];
            let stay = self.merge(text, bounds[0]..bounds[2], merging) == expected;
            self.pairs.put(pair, stay);
            stay
        })
    }

    /// Stands for the token before the first one.
    fn nothing(&self) -> u32 {
        self.lengths.len() as u32 - 1
    }

    /// Merges the bytes of a part of a text, two neighbours at a time, always those that become the
    /// token with the lowest number. Returns where the tokens begin, and where the last one ends.
    fn merge<'m>(
        &self,
        text: &[u8],
        part: Range<usize>,
        Merging { bounds, merged }: &'m mut Merging,
    ) -> &'m [usize] {
        merged.clear();
        let pairs = text[part.clone()].windows(2);
        merged.extend(pairs.map(|pair| self.prefixes.pair([pair[0], pair[1]])));
        bounds.clear();
        bounds.extend(part.start..=part.end);
        while let Some(lowest) = merged.iter().copied().min().filter(|&number| number != NONE) {
            // From left to right, until that makes way for one that comes before.
            let mut at = 0;
            while let Some(next) = merged[at..].iter().position(|&number| number == lowest) {
                at += next;
                merged.remove(at);
                bounds.remove(at + 1);
                let around = at.saturating_sub(1)..merged.len().min(at + 1);
                for pair in around.clone() {
                    merged[pair] = self.number(text, bounds[pair]..bounds[pair + 2]);
                }
                if merged[around].iter().any(|&number| number < lowest) {
                    break;
                }
            }
        }
        bounds
    }

    fn number(&self, text: &[u8], part: Range<usize>) -> u32 {
        let number = match ShortWord::new(text, part.clone()) {
            Some(word) => self.short.get(&word),
            None => self.long.get(&text[part]),
        };
        number.copied().unwrap_or(NONE)
    }

    fn length(&self, token: u32) -> usize {
        usize::from(self.lengths[token as usize])
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Single letters, and tokens that are each put together from two earlier ones.
    fn vocabulary(letters: &str, pairs: &[(usize, usize)]) -> Vocabulary {
        let mut tokens: Vec<Vec<u8>> = letters.bytes().map(|letter| vec![letter]).collect();
        for &(left, right) in pairs {
            let [left, right] = [left, right].map(|token| &tokens[token % tokens.len()]);
            let both = [&left[..], right].concat();
            if both.len() < 256 && !tokens.contains(&both) {
                tokens.push(both);
            }
        }
        Vocabulary::new(tokens.into_iter().zip(0..).collect())
    }

    /// The tokens by definition.
    fn merged(vocabulary: &Vocabulary, word: &[u8]) -> Vec<u32> {
        match vocabulary.number(word, 0..word.len()) {
            NONE => {
                let mut merging = Merging::default();
                let bounds = vocabulary.merge(word, 0..word.len(), &mut merging);
                let tokens = bounds.windows(2);
                tokens.map(|token| vocabulary.number(word, token[0]..token[1])).collect()
            }
            token => vec![token],
        }
    }

    fn encoded(vocabulary: &Vocabulary, word: &[u8], space: &mut Workspace) -> Vec<u32> {
        let (mut taken, mut tokens) = (Vec::new(), Vec::new());
        let mut flush = |tokens: &mut Vec<u32>| {
            taken.append(tokens);
            Ok::<_, Infallible>(())
        };
        let Ok(()) = vocabulary.encode(word, 0..word.len(), space, &mut tokens, &mut flush);
        taken.append(&mut tokens);
        taken
    }

    #[test]
    fn the_end_of_a_word_may_change_its_beginning() {
        // "yz" is merged first, "ab" last: what becomes of "ab" depends on the end of the word.
        let letters: String = ('A'..='z').collect();
        let pairs: Vec<_> = (1..letters.len()).rev().map(|letter| (letter - 1, letter)).collect();
        let vocabulary = vocabulary(&letters, &pairs);
        for end in 2..letters.len() {
            let word = &letters.as_bytes()[..end];
            for block in [BLOCK, 8, 9, 10] {
                let mut space = Workspace::with_blocks(block);
                assert_eq!(encoded(&vocabulary, word, &mut space), merged(&vocabulary, word));
            }
        }
    }

    #[test]
    fn a_token_that_merging_never_gets_to_is_not_used() {
        // "aa" is merged before "ac" and "ba", of which "baac" is put together.
        let vocabulary = vocabulary("abc", &[(0, 0), (0, 2), (1, 0), (5, 4)]);
        assert_eq!(encoded(&vocabulary, b"baac", &mut Workspace::new()), [6]);
        assert_eq!(encoded(&vocabulary, b"baacc", &mut Workspace::new()), [1, 3, 2, 2]);
    }

    proptest! {
        #[test]
        fn words_have_the_tokens_of_the_definition(
            pairs in prop::collection::vec(any::<(usize, usize)>(), 0..40),
            words in prop::collection::vec("[abc]{1,80}", 1..8),
            block in 8..30_usize,
        ) {
            let vocabulary = vocabulary("abc", &pairs);
            let mut space = Workspace::with_blocks(block);
            // Twice, so that caches answer as well.
            for word in words.iter().chain(&words).map(String::as_bytes) {
                prop_assert_eq!(
                    encoded(&vocabulary, word, &mut space), merged(&vocabulary, word)
                );
            }
        }

        #[test]
        fn the_longest_token_is_found(
            pairs in prop::collection::vec(any::<(usize, usize)>(), 0..40),
            text in "[abcd]{0,80}",
        ) {
            let (vocabulary, text) = (vocabulary("abc", &pairs), text.as_bytes());
            let numbers = (1..=text.len()).rev().map(|end| vocabulary.number(text, 0..end));
            let expected = numbers.into_iter().find(|&number| number != NONE);
            prop_assert_eq!(vocabulary.prefixes.longest(text), expected);
        }
    }
}
