//! The kinds of characters that the encodings tell apart.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// What a character is to the encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `\p{Lu}` and `\p{Lt}`: upper and title case letters.
    Upper,
    /// `\p{Ll}`: lower case letters.
    Lower,
    /// `\p{Lm}` and `\p{Lo}`: letters without case.
    Caseless,
    /// `\p{M}`: what changes the letter before it.
    Mark,
    /// `\p{N}`: digits of every script, fractions, numerals.
    Number,
    /// `[\r\n]`.
    LineBreak,
    /// `\s` but for `[\r\n]`.
    Blank,
    /// Punctuation, symbols and all the rest.
    Other,
}

impl Kind {
    pub(super) fn of(character: char) -> Self {
        match ASCII.get(character as usize) {
            Some(&kind) => kind,
            None => BLOCKS.kind(character),
        }
    }

    const fn of_ascii(byte: u8) -> Self {
        match byte {
            b'A'..=b'Z' => Self::Upper,
            b'a'..=b'z' => Self::Lower,
            b'0'..=b'9' => Self::Number,
            b'\r' | b'\n' => Self::LineBreak,
            b'\t' | 0x0b | 0x0c | b' ' => Self::Blank,
            _ => Self::Other,
        }
    }

    /// The kind of the character that begins at a byte of a text, and where it ends.
    pub(super) fn at(text: &str, start: usize) -> Option<(Self, usize)> {
        let byte = *text.as_bytes().get(start)?;
        if byte.is_ascii() {
            return Some((ASCII[usize::from(byte)], start + 1));
        }
        let character = text[start..].chars().next()?;
        Some((BLOCKS.kind(character), start + character.len_utf8()))
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const fn new(kinds: &[Kind]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    pub(super) const fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

/// `\p{L}`
pub(super) const LETTER: Kinds = Kinds::new(&[Kind::Upper, Kind::Lower, Kind::Caseless]);
/// `\s`
pub(super) const BLANK: Kinds = Kinds::new(&[Kind::Blank, Kind::LineBreak]);
/// `[^\s\p{L}\p{N}]`
pub(super) const SYMBOL: Kinds = Kinds::new(&[Kind::Mark, Kind::Other]);

static ASCII: [Kind; 128] = {
    let mut kinds = [Kind::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        kinds[byte as usize] = Kind::of_ascii(byte);
        byte += 1;
    }
    kinds
};

/// The kinds of all characters, in blocks of which equal ones are kept once.
struct Blocks {
    /// Which block each 256 characters have.
    numbers: Vec<u8>,
    blocks: Vec<[Kind; 256]>,
}

impl Blocks {
    fn kind(&self, character: char) -> Kind {
        let block = self.numbers[character as usize >> 8];
        self.blocks[usize::from(block)][character as usize & 0xff]
    }
}

/// Taken from the tables that tiktoken-rs's own regular expressions use, so that both are of the
/// same version of Unicode.
static BLOCKS: LazyLock<Blocks> = LazyLock::new(|| {
    let mut kinds = vec![Kind::Other; char::MAX as usize + 1];
    for (pattern, kind) in [
        (r"[\p{Lu}\p{Lt}]", Kind::Upper),
        (r"\p{Ll}", Kind::Lower),
        (r"[\p{Lm}\p{Lo}]", Kind::Caseless),
        (r"\p{M}", Kind::Mark),
        (r"\p{N}", Kind::Number),
        (r"\s", Kind::Blank),
        (r"[\r\n]", Kind::LineBreak),
    ] {
        let class = regex_syntax::parse(pattern).map(|hir| hir.into_kind());
        let Ok(HirKind::Class(Class::Unicode(class))) = class else {
            unreachable!("{pattern} is a class of characters");
        };
        for range in class.ranges() {
            kinds[range.start() as usize..=range.end() as usize].fill(kind);
        }
    }
    let mut blocks: Vec<[Kind; 256]> = Vec::new();
    let numbers = kinds.as_chunks().0.iter().map(|block| {
        let known = blocks.iter().position(|known| known == block);
        let number = known.unwrap_or_else(|| {
            blocks.push(*block);
            blocks.len() - 1
        });
        u8::try_from(number).expect("there are fewer than 256 different blocks")
    });
    Blocks { numbers: numbers.collect(), blocks }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_characters_have_the_kinds_of_the_tables() {
        for byte in 0..128 {
            assert_eq!(Kind::of(byte.into()), BLOCKS.kind(byte.into()), "{byte:#04x}");
        }
    }
}
