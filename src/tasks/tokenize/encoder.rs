//! The encodings, and the tokens they make of a text.

use rustc_hash::{FxHashMap, FxHashSet};
use tiktoken_rs::CoreBPE;

use super::vocabulary::{Vocabulary, Workspace};
use super::words::WordRules;

/// Tokens at which `flush` is called.
const MANY: usize = 256 * 1024;

/// Makes the tokens of a text, the same ones as tiktoken.
///
/// Vocabulary and special tokens come from tiktoken-rs. Its own encoder is what the tests compare
/// with. It is not used here because it fails on a megabyte of blanks, takes 400 MB of
/// memory for a word of 8 MiB, and cannot be stopped meanwhile.
pub(super) struct Encoder {
    words: WordRules,
    vocabulary: Vocabulary,
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
        let special_tokens: FxHashMap<_, _> = source
            .special_tokens()
            .into_iter()
            .map(|name| (name.to_owned(), source.encode_with_special_tokens(name)[0]))
            .collect();
        let special_numbers: FxHashSet<u32> = special_tokens.values().copied().collect();
        // The only numbers without a token are above all ordinary ones.
        let tokens: Vec<_> = (0..)
            .map_while(|number| Some((source.decode_bytes(&[number]).ok()?, number)))
            .filter(|(_, number)| !special_numbers.contains(number))
            .collect();
        // It takes more memory than what is made of it.
        drop(source);
        Self { words, vocabulary: Vocabulary::new(tokens), special_tokens }
    }

    /// Appends the tokens of `text`, in which special tokens are text like any other.
    ///
    /// `flush` is called in long texts now and then. It may take away what it is given, which is
    /// nothing where it is not yet certain. Its error ends the work.
    pub(super) fn encode<E>(
        &self,
        text: &str,
        space: &mut Workspace,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = 0;
        while start < text.len() {
            if tokens.len() >= MANY {
                flush(tokens)?;
            }
            let end = self.words.word_end(text, start);
            self.vocabulary.encode(text.as_bytes(), start..end, space, tokens, flush)?;
            start = end;
        }
        Ok(())
    }

    /// Appends the tokens of `text`, special ones included: what lies between those is encoded as
    /// if it stood alone.
    pub(super) fn encode_with_special_tokens<E>(
        &self,
        mut text: &str,
        space: &mut Workspace,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(special) = self.find_special_token(text) {
            self.encode(&text[..special.offset], space, tokens, flush)?;
            tokens.push(special.number);
            text = &text[special.offset + special.name.len()..];
        }
        self.encode(text, space, tokens, flush)
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

    /// How many ordinary tokens there are, and how many special ones.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.vocabulary.len(), self.special_tokens.len())
    }

    /// The names of the special tokens.
    #[cfg(test)]
    pub(super) fn special_tokens(&self) -> impl Iterator<Item = &str> {
        self.special_tokens.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encodings::Encoding;
    use super::super::vocabulary::Workspace;

    #[test]
    fn a_long_word_can_be_stopped() {
        let mut flush = |_: &mut Vec<u32>| Err("stop");
        let (mut space, mut tokens) = (Workspace::new(), Vec::new());
        let word = "a".repeat(1024 * 1024);
        let encoder = Encoding::Cl100kBase.encoder();
        let result = encoder.encode(&word, &mut space, &mut tokens, &mut flush);
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
