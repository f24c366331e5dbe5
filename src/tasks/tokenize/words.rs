//! Splits a text into the words that become tokens, each by itself.
//!
//! OpenAI publishes a regular expression for each encoding. They look ahead, so they need a matcher
//! that backtracks, and such a one gives up on a long run of blanks. Here they are written out by
//! hand; each takes time linear in the text.

use super::kinds::Kind;

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
        let end = run(text, start, Kind::is_blank);
        let blanks = &text[start..end];
        let line_break = match self {
            Self::R50k => None,
            Self::Cl100k if end == text.len() => None,
            Self::Cl100k | Self::O200k => blanks.rfind(['\r', '\n']),
        };
        match (line_break, blanks.char_indices().next_back()) {
            (Some(line_break), _) => start + line_break + 1,
            (None, Some((last, _))) if last > 0 && end < text.len() => start + last,
            (None, _) => end,
        }
    }
}

/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++`
fn r50k_word(text: &str, start: usize) -> Option<usize> {
    if let Some(end) = contraction(text, start, char::from) {
        return Some(end);
    }
    let from = skip_space(text, start);
    match kind_at(text, from)? {
        kind if kind.is_letter() => Some(run(text, from, Kind::is_letter)),
        Kind::Number => Some(run(text, from, |kind| kind == Kind::Number)),
        kind if kind.is_symbol() => Some(run(text, from, Kind::is_symbol)),
        _ => None,
    }
}

/// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+`
fn cl100k_word(text: &str, start: usize) -> Option<usize> {
    if let Some(end) = contraction(text, start, fold_case) {
        return Some(end);
    }
    let letters = skip_prefix(text, start).unwrap_or(start);
    if kind_at(text, letters).is_some_and(Kind::is_letter) {
        return Some(run(text, letters, Kind::is_letter));
    }
    numbers(text, start).or_else(|| {
        let end = symbols(text, start)?;
        Some(run(text, end, |kind| kind == Kind::LineBreak))
    })
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
        let tail = text[end..].find(|next| !matches!(next, '\r' | '\n' | '/'));
        Some(tail.map_or(text.len(), |tail| end + tail))
    })
}

/// `U*L+`
fn lower_case_word(text: &str, start: usize) -> Option<usize> {
    let upper = run(text, start, is_upper);
    if kind_at(text, upper) == Some(Kind::Lower) {
        return Some(run(text, upper, is_lower));
    }
    // `U*` has to give back what it took, up to the last one that can be in `L` as well.
    let mut taken = text[start..upper].char_indices();
    taken
        .rfind(|&(_, character)| is_lower(Kind::of(character)))
        .map(|(at, character)| start + at + character.len_utf8())
}

/// `U+L*`, where `U*L+` does not match: nothing is left for `L*`.
fn upper_case_word(text: &str, start: usize) -> Option<usize> {
    let upper = run(text, start, is_upper);
    (upper > start).then_some(upper)
}

/// `U`
fn is_upper(kind: Kind) -> bool {
    matches!(kind, Kind::Upper | Kind::Caseless | Kind::Mark)
}

/// `L`
fn is_lower(kind: Kind) -> bool {
    matches!(kind, Kind::Lower | Kind::Caseless | Kind::Mark)
}

/// `[^\r\n\p{L}\p{N}]`
fn skip_prefix(text: &str, start: usize) -> Option<usize> {
    let prefix = text[start..].chars().next()?;
    let kind = Kind::of(prefix);
    (kind == Kind::Blank || kind.is_symbol()).then(|| start + prefix.len_utf8())
}

/// `\p{N}{1,3}`
fn numbers(text: &str, start: usize) -> Option<usize> {
    let numbers = text[start..].chars().take_while(|&next| Kind::of(next) == Kind::Number).take(3);
    let length = numbers.map(char::len_utf8).sum::<usize>();
    (length > 0).then_some(start + length)
}

/// ` ?[^\s\p{L}\p{N}]+`
fn symbols(text: &str, start: usize) -> Option<usize> {
    let symbols = skip_space(text, start);
    let end = run(text, symbols, Kind::is_symbol);
    (end > symbols).then_some(end)
}

/// `'(?:[sdmt]|ll|ve|re)`, after `fold` was applied to the letters.
fn contraction(text: &str, start: usize, fold: fn(char) -> char) -> Option<usize> {
    let mut letters = text[start..].strip_prefix('\'')?.chars();
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
    start + usize::from(text[start..].starts_with(' '))
}

fn kind_at(text: &str, at: usize) -> Option<Kind> {
    text[at..].chars().next().map(Kind::of)
}

/// Where the characters end that have such a kind.
fn run(text: &str, start: usize, such: impl Fn(Kind) -> bool) -> usize {
    let end = text[start..].find(|next| !such(Kind::of(next)));
    end.map_or(text.len(), |end| start + end)
}
