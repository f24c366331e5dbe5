//! Compares the tokens with those of tiktoken-rs, and runs the task.

use std::convert::Infallible;
use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use tempfile::tempdir;
use tiktoken_rs::CoreBPE;

use super::*;
use crate::task::testing::TestRun;

const ENCODINGS: [Encoding; 7] = [
    Encoding::Gpt2,
    Encoding::R50kBase,
    Encoding::P50kBase,
    Encoding::P50kEdit,
    Encoding::Cl100kBase,
    Encoding::O200kBase,
    Encoding::O200kHarmony,
];

fn reference(encoding: Encoding) -> &'static CoreBPE {
    match encoding {
        Encoding::Gpt2 | Encoding::R50kBase => tiktoken_rs::r50k_base_singleton(),
        Encoding::P50kBase => tiktoken_rs::p50k_base_singleton(),
        Encoding::P50kEdit => tiktoken_rs::p50k_edit_singleton(),
        Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
        Encoding::O200kBase => tiktoken_rs::o200k_base_singleton(),
        Encoding::O200kHarmony => tiktoken_rs::o200k_harmony_singleton(),
    }
}

fn never() -> Result<(), Infallible> {
    Ok(())
}

fn encode(encoding: Encoding, text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    let Ok(()) = encoding.encoder().encode(text, &mut tokens, &never);
    tokens
}

fn task(encoding: Encoding, special_tokens: SpecialTokens) -> TokenizeTask {
    TokenizeTask { encoding, sleep_duration: 0.0, special_tokens }
}

/// The tokens of a text that is read a few bytes at a time.
fn encode_in_pieces(
    encoding: Encoding,
    special_tokens: SpecialTokens,
    text: &str,
    piece: usize,
) -> Result<Vec<u32>, TaskError> {
    let limits = Limits { piece, uncut: usize::MAX / 2 };
    let mut pieces = Pieces::new(text.as_bytes(), limits);
    let mut tokens = Vec::new();
    while let Some(piece) = pieces.next_piece()? {
        task(encoding, special_tokens).encode(piece, "text", &mut tokens, &|| Ok(()))?;
    }
    Ok(tokens)
}

/// Texts that mix everything the encodings tell apart.
fn texts() -> impl Strategy<Value = String> {
    let blank = prop::sample::select(
        " \t\n\r\u{b}\u{85}\u{a0}\u{2003}\u{3000}".chars().collect::<Vec<_>>(),
    );
    let telling = prop::sample::select(
        "aAsStT'ſǅʰ1٣½!/_|中あ\u{301}\u{345}\u{200d}😀\0\u{feff}".chars().collect::<Vec<_>>(),
    );
    let special = prop::sample::select(vec![
        "<|endoftext|>",
        "<|fim_prefix|>",
        "<|endofprompt|>",
        "<|reserved_200013|>",
        "<|start|>",
        "<|",
        "|>",
        "<|endof",
    ]);
    let part = prop_oneof![
        "[a-zA-Z]{1,12}",
        "[a-z]{1,4}'(s|S|ſ|ll|LL|re|vE|d|m|t)[a-zA-Z]?",
        "[0-9]{1,7}",
        "\\PC{1,4}",
        any::<char>().prop_map(String::from),
        special.prop_map(String::from),
        (blank.clone(), 1..4_usize).prop_map(|(c, n)| String::from(c).repeat(n)),
        vec(blank, 1..5).prop_map(String::from_iter),
        vec(telling.clone(), 1..8).prop_map(String::from_iter),
        (telling, 1..40_usize).prop_map(|(c, n)| String::from(c).repeat(n)),
    ];
    vec(part, 0..16).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn tokens_are_those_of_tiktoken(text in texts()) {
        for encoding in ENCODINGS {
            prop_assert_eq!(encode(encoding, &text), reference(encoding).encode_ordinary(&text));
        }
    }

    #[test]
    fn pieces_have_the_tokens_of_the_whole(text in texts(), piece in 1..40_usize) {
        for encoding in ENCODINGS {
            let reference = reference(encoding);
            let ordinary = reference.encode_ordinary(&text);
            let pieces = |mode| encode_in_pieces(encoding, mode, &text, piece);
            prop_assert_eq!(&pieces(SpecialTokens::Text).unwrap(), &ordinary);
            let special = reference.encode_with_special_tokens(&text);
            prop_assert_eq!(pieces(SpecialTokens::Encode).unwrap(), special);
            let first = reference.special_tokens().into_iter().filter_map(|name| Some((text.find(name)?, name))).min();
            match (pieces(SpecialTokens::Reject), first) {
                (Ok(tokens), None) => prop_assert_eq!(tokens, ordinary),
                (Err(error), Some((offset, name))) => {
                    let expected = format!("`text` has the special token `{name}` at byte {offset},");
                    prop_assert!(error.to_string().starts_with(&expected), "{}", error);
                }
                (result, first) => prop_assert!(false, "{result:?}, expected to find {first:?}"),
            }
        }
    }

    /// Long words are encoded in windows; random letters make for joints of all sorts.
    #[test]
    fn long_words_have_the_tokens_of_tiktoken(
        word in prop_oneof!["[a-z]{500,3000}", "[ACGT]{500,3000}", "[!-/]{500,3000}", "[一-龥]{200,1000}", "[ \t]{500,3000}", "[0-9]{500,3000}", "[\u{600}-\u{6ff}]{300,1500}"],
    ) {
        for encoding in [Encoding::R50kBase, Encoding::Cl100kBase, Encoding::O200kBase] {
            prop_assert_eq!(encode(encoding, &word), reference(encoding).encode_ordinary(&word));
        }
    }
}
