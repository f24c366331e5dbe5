//! Encodes long words in windows.
//!
//! The crate [`bpe`] encodes a word in one call, which takes seconds for a word of 8 MiB and cannot be
//! stopped. A long word is therefore encoded in windows, and their joints are checked. Whether two
//! neighboring tokens stay as they are depends only on the two: merges inside each go on in the same
//! order whatever surrounds them, so the first merge across their border would happen between the two
//! alone as well. It follows that
//! - tokens of which each two neighbors are the encoding of their own bytes are the encoding of all
//!   their bytes, and
//! - a part of an encoding is the encoding of its bytes.

use bpe::byte_pair_encoding::BytePairEncoding;

/// Bytes that are encoded in one call, which takes 25 ms at most. Few in tests, so that their words
/// have many windows.
pub(super) const WINDOW: usize = if cfg!(test) { 16 } else { 16 * 1024 };

/// Appends the tokens of a word that is longer than a [`WINDOW`]. Calls `flush` for each window, first
/// with an empty list, as no token is certain before the end of the word was seen. `flush` may take the
/// tokens away; its error ends the work.
pub(super) fn encode<E>(
    vocabulary: &BytePairEncoding,
    word: &[u8],
    tokens: &mut Vec<u32>,
    flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), E>,
) -> Result<(), E> {
    let cuts = find_cuts(vocabulary, word, || flush(&mut Vec::new()))?;
    let mut start = 0;
    for end in cuts {
        flush(tokens)?;
        tokens.extend(vocabulary.encode_via_backtracking(&word[start..end]));
        start = end;
    }
    Ok(())
}

/// Ends of tokens, about a window apart; the last one is the end of the word.
///
/// Each round encodes what follows the last cut, and adds a cut in it. If the token before the last
/// cut and the first one found do not stay as they are, that cut is wrong, and the next round goes on
/// from the one before.
fn find_cuts<E>(
    vocabulary: &BytePairEncoding,
    word: &[u8],
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<Vec<usize>, E> {
    // Each with the token that ends there.
    let mut cuts: Vec<(usize, u32)> = Vec::new();
    let mut end = 0;
    loop {
        check()?;
        let start = cuts.last().map_or(0, |&(cut, _)| cut);
        end = end.max(word.len().min(start + WINDOW));
        let found = vocabulary.encode_via_backtracking(&word[start..end]);
        if let Some(&(_, before)) = cuts.last()
            && !stay(vocabulary, [before, found[0]])
        {
            cuts.pop();
            continue;
        }
        if end == word.len() {
            return Ok(cuts.into_iter().map(|(cut, _)| cut).chain([end]).collect());
        }
        // What follows rarely changes more than the last few tokens.
        let kept = &found[..(found.len() * 7).div_ceil(8)];
        let length: usize = kept.iter().map(|&token| vocabulary.token_len(token)).sum();
        cuts.push((start + length, kept[kept.len() - 1]));
    }
}

/// Whether two neighboring tokens are the encoding of their bytes.
fn stay(vocabulary: &BytePairEncoding, pair: [u32; 2]) -> bool {
    vocabulary.encode_via_backtracking(&vocabulary.decode_tokens(&pair)) == pair
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_end_of_a_word_may_change_its_beginning() {
        // "yz" is merged first, "ab" last: whether "ab" is merged depends on the end of the word.
        let letters: Vec<u8> = (b'A'..=b'z').collect();
        let pairs = letters.windows(2).rev().map(<[u8]>::to_vec);
        let single = letters.iter().map(|&letter| vec![letter]);
        let vocabulary = BytePairEncoding::from_dictionary(single.chain(pairs), None);
        for word in (WINDOW + 1..=letters.len()).map(|end| &letters[..end]) {
            let (mut taken, mut tokens) = (Vec::new(), Vec::new());
            let mut flush = |tokens: &mut Vec<u32>| {
                taken.append(tokens);
                Ok::<_, Infallible>(())
            };
            let Ok(()) = encode(&vocabulary, word, &mut tokens, &mut flush);
            taken.append(&mut tokens);
            assert_eq!(taken, vocabulary.encode_via_bitfield(word));
        }
    }
}
