//! The encodings, and the tokens they make of a text.

use std::sync::Arc;

use bpe::byte_pair_encoding::BytePairEncoding;
use rustc_hash::FxHashMap;
use tiktoken_rs::CoreBPE;

use super::cache::WordCache;
use super::long_words::{self, WINDOW};
use super::words::WordRules;

/// With this factor bpe's hash has no collisions in any of the vocabularies. Found by its
/// `find_hash_factor_for_dictionary`.
const HASH_FACTOR: u64 = 9_745_359_386_969_117_936;

/// Takes the number of a special token among ordinary ones, since bpe knows no gaps. UTF-8 has no such
/// bytes.
const GAP: [u8; 2] = [0xff; 2];

/// Bytes of text between two calls of `flush`; they take half a second at worst.
const STRETCH: usize = 512 * 1024;

/// Makes the tokens of a text, the same ones as tiktoken.
///
/// Vocabulary and special tokens come from tiktoken-rs. Its own encoder serves as the reference in
/// the tests. It fails on a megabyte of blanks, takes 400 MB of memory for a word of 8 MiB, and
/// cannot be stopped meanwhile.
pub(super) struct Encoder {
    words: WordRules,
    vocabulary: Arc<BytePairEncoding>,
    special_tokens: FxHashMap<String, u32>,
}

/// A special token that stands in a text.
#[derive(Debug, PartialEq)]
pub(super) struct SpecialToken<'a> {
    /// In bytes.
    pub(super) offset: usize,
    pub(super) name: &'a str,
    number: u32,
}

impl Encoder {
    pub(super) fn new(words: WordRules, source: CoreBPE) -> Self {
        let special_tokens = special_tokens(&source);
        let special_numbers: Vec<_> = special_tokens.values().collect();
        let token = |number| match special_numbers.contains(&&number) {
            true => Some(GAP.to_vec()),
            false => source.decode_bytes(&[number]).ok(),
        };
        let tokens: Vec<_> = (0..).map_while(token).collect();
        // It takes more memory than the vocabulary.
        drop(source);
        let vocabulary = BytePairEncoding::from_dictionary(tokens, Some(HASH_FACTOR));
        Self { words, vocabulary: Arc::new(vocabulary), special_tokens }
    }

    /// The same encoder with the special tokens of `source`.
    pub(super) fn with_special_tokens_of(&self, source: &CoreBPE) -> Self {
        let (vocabulary, special_tokens) = (Arc::clone(&self.vocabulary), special_tokens(source));
        Self { words: self.words, vocabulary, special_tokens }
    }

    /// Appends the tokens of `text`, in which special tokens are text like any other.
    ///
    /// Calls `flush` now and then with tokens that are certain, or with an empty list. `flush` may take
    /// them away; its error ends the work.
    pub(super) fn encode<E>(
        &self,
        text: &str,
        cache: &mut WordCache,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut start, mut flushed) = (0, 0);
        while start < text.len() {
            if start - flushed >= STRETCH {
                flush(tokens)?;
                flushed = start;
            }
            let end = self.words.word_end(text, start);
            let word = &text.as_bytes()[start..end];
            if word.len() <= WINDOW {
                cache.append(word, tokens, || self.vocabulary.encode_via_backtracking(word));
            } else {
                long_words::encode(&self.vocabulary, word, tokens, flush)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Appends the tokens of `text`, special ones included: what lies between those is encoded as
    /// if it stood alone.
    pub(super) fn encode_with_special_tokens<E>(
        &self,
        mut text: &str,
        cache: &mut WordCache,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(special) = self.find_special_token(text) {
            self.encode(&text[..special.offset], cache, tokens, flush)?;
            flush(&mut Vec::new())?;
            tokens.push(special.number);
            text = &text[special.offset + special.name.len()..];
        }
        self.encode(text, cache, tokens, flush)
    }

    /// The first special token in `text`.
    pub(super) fn find_special_token<'a>(&self, text: &'a str) -> Option<SpecialToken<'a>> {
        // They all look like `<|this_1|>`.
        text.match_indices("<|").find_map(|(offset, _)| {
            let inside = &text[offset + 2..];
            let other = |letter: char| !matches!(letter, 'a'..='z' | '0'..='9' | '_');
            let length = inside.find(other).filter(|&end| inside[end..].starts_with("|>"))? + 4;
            let name = &text[offset..offset + length];
            self.special_tokens.get(name).map(|&number| SpecialToken { offset, name, number })
        })
    }

    /// Number of ordinary tokens with gaps, and number of special tokens.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.vocabulary.num_tokens(), self.special_tokens.len())
    }

    /// The names of the special tokens.
    #[cfg(test)]
    pub(super) fn special_tokens(&self) -> impl Iterator<Item = &str> {
        self.special_tokens.keys().map(String::as_str)
    }
}

fn special_tokens(source: &CoreBPE) -> FxHashMap<String, u32> {
    let number = |name| source.encode_with_special_tokens(name)[0];
    source.special_tokens().into_iter().map(|name| (name.to_owned(), number(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::encodings::Encoding;
    use super::*;

    #[test]
    fn a_long_word_can_be_stopped() {
        let mut flush = |_: &mut Vec<u32>| Err("stop");
        let (mut cache, mut tokens) = (WordCache::new(), Vec::new());
        let word = "a".repeat(1024 * 1024);
        let encoder = Encoding::Cl100kBase.encoder();
        let result = encoder.encode(&word, &mut cache, &mut tokens, &mut flush);
        assert_eq!(result, Err("stop"));
        assert!(tokens.len() < 100_000, "{} tokens were made before it stopped", tokens.len());
    }

    #[test]
    fn many_beginnings_of_special_tokens_are_no_trouble() {
        let text = "<|".repeat(512 * 1024) + "<|endoftext|>";
        let found = Encoding::Cl100kBase.encoder().find_special_token(&text).unwrap();
        assert_eq!((found.offset, found.name), (1024 * 1024, "<|endoftext|>"));
    }
}
