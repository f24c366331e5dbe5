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
        KINDS[character as usize]
    }

    /// `\p{L}`.
    pub(super) fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Caseless)
    }

    /// `\s`.
    pub(super) fn is_blank(self) -> bool {
        matches!(self, Self::Blank | Self::LineBreak)
    }

    /// `[^\s\p{L}\p{N}]`.
    pub(super) fn is_symbol(self) -> bool {
        matches!(self, Self::Mark | Self::Other)
    }
}

/// The kind of every character. Taken from the tables that tiktoken-rs's own regular expressions
/// use, so that both are of the same version of Unicode.
static KINDS: LazyLock<Box<[Kind]>> = LazyLock::new(|| {
    let mut kinds = vec![Kind::Other; char::MAX as usize + 1].into_boxed_slice();
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
    kinds
});
