//! Splits a text into the words that become tokens, each by itself.
//!
//! OpenAI publishes a regular expression for each encoding. They look ahead, so they need a matcher
//! that backtracks, and such a one gives up on a long run of blanks. Here they are written out by
//! hand; each takes time linear in the text.

use super::kinds::{BLANK, Kind, Kinds, LETTER, SYMBOL};

/// The rules of an encoding. Each is shown with its regular expression, in parts that are tried in
/// this order.
#[derive(Clone, Copy, Debug)]
pub(super) enum WordRules {
    /// r50k_base, which is that of GPT-2, and the p50k encodings.
    R50k,
    /// cl100k_base.
    Cl100k,
    /// The o200k encodings.
    O200k,
}

impl WordRules {
    /// Where the word ends that begins at `start`, which is before the end of the text.
    pub(super) fn word_end(self, text: &str, start: usize) -> usize {
        let found = match self {
            Self::R50k => r50k_word(text, start),
            Self::Cl100k => cl100k_word(text, start),
            Self::O200k => o200k_word(text, start),
        };
        found.unwrap_or_else(|| self.blanks_end(text, start))
    }

    /// White space that no word has taken in.
    ///
    /// `\s+(?!\S)|\s`: the last blank of several is left for the word that follows. Where there are
    /// line breaks, cl100k and o200k go up to the last of them (`\s*[\r\n]`), but at the end of the
    /// text everything is one word to cl100k (`\s++$`).
    fn blanks_end(self, text: &str, start: usize) -> usize {
        let mut end = start;
        let mut last = start;
        let mut line_break = None;
        while let Some((kind, next)) = Kind::at(text, end).filter(|&(kind, _)| BLANK.has(kind)) {
            if kind == Kind::LineBreak {
                line_break = Some(next);
            }
            (last, end) = (end, next);
        }
        let at_end = end == text.len();
        match (self, line_break) {
            (Self::Cl100k, Some(line_break)) if !at_end => line_break,
            (Self::O200k, Some(line_break)) => line_break,
            _ if last > start && !at_end => last,
            _ => end,
        }
    }
}

/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++`
fn r50k_word(text: &str, start: usize) -> Option<usize> {
    if let Some(end) = contraction(text, start, char::from) {
        return Some(end);
    }
    let (kind, end) = Kind::at(text, skip_space(text, start))?;
    let kinds = [LETTER, NUMBER, SYMBOL].into_iter().find(|kinds| kinds.has(kind))?;
    Some(run(text, end, kinds))
}

/// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+`
fn cl100k_word(text: &str, start: usize) -> Option<usize> {
    if let Some(end) = contraction(text, start, fold_case) {
        return Some(end);
    }
    let (first, letters) = Kind::at(text, start)?;
    if LETTER.has(first) {
        return Some(run(text, letters, LETTER));
    }
    if PREFIX.has(first)
        && let Some((second, end)) = Kind::at(text, letters)
        && LETTER.has(second)
    {
        return Some(run(text, end, LETTER));
    }
    numbers(text, start).or_else(|| Some(run(text, symbols(text, start)?, LINE_BREAK)))
}

/// With `U` for `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]` and `L` for `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`:
/// `[^\r\n\p{L}\p{N}]?U*L+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?U+L*(?i:…)?`
/// `|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*`
fn o200k_word(text: &str, start: usize) -> Option<usize> {
    // A mark can be taken as the prefix and as a letter, so both ways have to be tried.
    let starts = [skip_prefix(text, start), Some(start)];
    let letters = starts.into_iter().flatten().find_map(|start| lower_case_word(text, start));
    let letters = letters
        .or_else(|| starts.into_iter().flatten().find_map(|start| upper_case_word(text, start)));
    if let Some(end) = letters {
        return Some(contraction(text, end, fold_case).unwrap_or(end));
    }
    numbers(text, start).or_else(|| {
        let end = symbols(text, start)?;
        let tail = text.as_bytes()[end..].iter();
        Some(end + tail.take_while(|next| matches!(next, b'\r' | b'\n' | b'/')).count())
    })
}

/// `U*L+`
fn lower_case_word(text: &str, start: usize) -> Option<usize> {
    let upper = run(text, start, UPPER);
    if let Some((Kind::Lower, end)) = Kind::at(text, upper) {
        return Some(run(text, end, LOWER));
    }
    // `U*` has to give back what it took, up to the last one that can be in `L` as well.
    let mut taken = text[start..upper].char_indices();
    taken
        .rfind(|&(_, character)| LOWER.has(Kind::of(character)))
        .map(|(at, character)| start + at + character.len_utf8())
}

/// `U+L*`, where `U*L+` does not match: nothing is left for `L*`.
fn upper_case_word(text: &str, start: usize) -> Option<usize> {
    let upper = run(text, start, UPPER);
    (upper > start).then_some(upper)
}

/// `U`
const UPPER: Kinds = Kinds::new(&[Kind::Upper, Kind::Caseless, Kind::Mark]);
/// `L`
const LOWER: Kinds = Kinds::new(&[Kind::Lower, Kind::Caseless, Kind::Mark]);
/// `[^\r\n\p{L}\p{N}]`
const PREFIX: Kinds = Kinds::new(&[Kind::Blank, Kind::Mark, Kind::Other]);
/// `\p{N}`
const NUMBER: Kinds = Kinds::new(&[Kind::Number]);
/// `[\r\n]`
const LINE_BREAK: Kinds = Kinds::new(&[Kind::LineBreak]);

/// `[^\r\n\p{L}\p{N}]`
fn skip_prefix(text: &str, start: usize) -> Option<usize> {
    let (kind, end) = Kind::at(text, start)?;
    PREFIX.has(kind).then_some(end)
}

/// `\p{N}{1,3}`
fn numbers(text: &str, start: usize) -> Option<usize> {
    let number = |at| Kind::at(text, at).filter(|&(kind, _)| kind == Kind::Number);
    let (_, first) = number(start)?;
    let Some((_, second)) = number(first) else { return Some(first) };
    Some(number(second).map_or(second, |(_, third)| third))
}

/// ` ?[^\s\p{L}\p{N}]+`
fn symbols(text: &str, start: usize) -> Option<usize> {
    let symbols = skip_space(text, start);
    let end = run(text, symbols, SYMBOL);
    (end > symbols).then_some(end)
}

/// `'(?:[sdmt]|ll|ve|re)`, after `fold` was applied to the letters.
fn contraction(text: &str, start: usize, fold: fn(char) -> char) -> Option<usize> {
    if text.as_bytes().get(start) != Some(&b'\'') {
        return None;
    }
    let mut letters = text[start + 1..].chars();
    let first = letters.next()?;
    let length = match fold(first) {
        's' | 'd' | 'm' | 't' => first.len_utf8(),
        'l' if letters.next().map(fold) == Some('l') => 2,
        'v' | 'r' if letters.next().map(fold) == Some('e') => 2,
        _ => return None,
    };
    Some(start + 1 + length)
}

/// As `(?i:…)` does for the letters of contractions; one of them has a third form.
fn fold_case(letter: char) -> char {
    if letter == 'ſ' { 's' } else { letter.to_ascii_lowercase() }
}

/// ` ?`
fn skip_space(text: &str, start: usize) -> usize {
    start + usize::from(text.as_bytes().get(start) == Some(&b' '))
}

/// Where the characters end that have one of the kinds.
fn run(text: &str, start: usize, kinds: Kinds) -> usize {
    let mut end = start;
    while let Some((_, next)) = Kind::at(text, end).filter(|&(kind, _)| kinds.has(kind)) {
        end = next;
    }
    end
}
