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

/// All that differ; gpt2 is another name.
const ENCODINGS: [Encoding; 6] = [
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

fn keep<E>(_: &mut Vec<u32>) -> Result<(), E> {
    Ok(())
}

fn encode(encoding: Encoding, text: &str) -> Vec<u32> {
    let mut cache = WordCache::new();
    let mut encode = || {
        let mut tokens = Vec::new();
        let flush = &mut keep::<Infallible>;
        let Ok(()) = encoding.encoder().encode(text, &mut cache, &mut tokens, flush);
        tokens
    };
    let tokens = encode();
    assert_eq!(encode(), tokens, "the cache has other tokens");
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
    let limits = Limits { piece, uncut: 1 << 16 };
    let mut pieces = Pieces::new(text.as_bytes(), limits);
    let (mut cache, mut tokens) = (WordCache::new(), Vec::new());
    while let Some(piece) = pieces.next_piece()? {
        let task = task(encoding, special_tokens);
        task.encode(&piece, "text", &mut cache, &mut tokens, &mut keep)?;
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
        "[a-z]{1,6}([A-Z_-][a-z]{1,6}){1,4}",
        "[а-яёА-Я]{1,12}",
        "[ぁ-んァ-ヶー]{1,12}",
        "[一-龥、。]{1,20}",
        "[가-힣]{1,8}",
        "[\u{600}-\u{6ff}\u{900}-\u{97f}]{1,12}",
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
    #![proptest_config(ProptestConfig::with_cases(128))]

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

#[test]
fn a_run_of_any_character_has_the_tokens_of_tiktoken() {
    for character in " \t\n\u{a0}aA1!'/中あ٣😀\0\u{301}\u{200d}".chars() {
        for encoding in [Encoding::R50kBase, Encoding::Cl100kBase, Encoding::O200kBase] {
            let mut run = String::from(character).repeat(3_000);
            assert_eq!(encode(encoding, &run), reference(encoding).encode_ordinary(&run));
            run.push('x');
            assert_eq!(encode(encoding, &run), reference(encoding).encode_ordinary(&run));
        }
    }
}

#[test]
fn a_megabyte_of_blanks_is_no_trouble() {
    for (blank, encoding, tokens) in [
        (" ", Encoding::R50kBase, 1024 * 1024),
        (" ", Encoding::O200kBase, 1024 * 1024 / 128),
        ("\t", Encoding::O200kBase, 1024 * 1024 / 16),
    ] {
        let text = blank.repeat(1024 * 1024);
        assert_eq!(encode(encoding, &text).len(), tokens);
        assert!(reference(encoding).encode(&(text + "x"), &Default::default()).is_err());
    }
}

/// Runs the task on a file `in.txt` and returns how it went, and what it wrote.
async fn run(task: TokenizeTask, input: &[u8]) -> (TaskResult, Option<String>) {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("in.txt"), input).unwrap();
    let run = TestRun::new(folder.path(), Some("in.txt"), Some("out/tokens.json"));
    let result = run.run(Box::new(task)).await;
    (result, fs::read_to_string(folder.path().join("out/tokens.json")).ok())
}

async fn error(task: TokenizeTask, input: &[u8]) -> String {
    let (result, output) = run(task, input).await;
    assert_eq!(output, None);
    match result {
        Err(TaskError::Failed { message, permanent: true }) => message,
        other => panic!("expected a permanent failure, got {other:?}"),
    }
}

#[tokio::test]
async fn the_output_has_the_shape_of_the_ported_service() {
    let task = task(Encoding::Cl100kBase, SpecialTokens::Text);
    let (result, output) = run(task, b"hello world").await;
    assert_eq!(
        result.unwrap(),
        json!({
            "message": "Tokenization completed",
            "input_file": "in.txt",
            "output_file": "out/tokens.json",
            "char_count": 11,
            "token_count": 2,
            "encoding": "cl100k_base",
        })
    );
    let expected = concat!(
        "{\n",
        "  \"input_file\": \"in.txt\",\n",
        "  \"char_count\":                   11,\n",
        "  \"token_count\":                    2,\n",
        "  \"tokens\": [\n15339,\n1917\n  ],\n",
        "  \"encoding\": \"cl100k_base\"\n",
        "}\n",
    );
    assert_eq!(output.unwrap(), expected);
}

#[tokio::test]
async fn a_file_of_several_pieces_has_the_tokens_of_the_whole() {
    let text = "Ein Satz, <|endoftext|> 中文 😀😀 and 12345.\r\n".repeat(12_000);
    assert!(text.len() > 2 * LIMITS.piece);
    let (result, output) =
        run(task(Encoding::O200kBase, SpecialTokens::Encode), text.as_bytes()).await;
    let written: Value = serde_json::from_str(&output.unwrap()).unwrap();
    let tokens = reference(Encoding::O200kBase).encode_with_special_tokens(&text);
    assert_eq!(written["tokens"], json!(tokens));
    assert_eq!(written["token_count"], json!(tokens.len()));
    assert_eq!(written["char_count"], json!(text.chars().count()));
    let result = result.unwrap();
    assert_eq!(result["token_count"], written["token_count"]);
    assert_eq!(result["char_count"], written["char_count"]);
}

#[tokio::test]
async fn an_empty_file_has_no_tokens() {
    let (result, output) = run(task(Encoding::R50kBase, SpecialTokens::Reject), b"").await;
    assert_eq!(result.unwrap()["token_count"], 0);
    let written: Value = serde_json::from_str(&output.unwrap()).unwrap();
    assert_eq!(written["tokens"], json!([]));
}

#[tokio::test]
async fn a_rejected_special_token_is_named_with_its_place() {
    let mut text = "word ".repeat(100_000);
    text.push_str("<|fim_suffix|>");
    assert_eq!(
        error(task(Encoding::P50kEdit, SpecialTokens::Reject), text.as_bytes()).await,
        "`in.txt` has the special token `<|fim_suffix|>` at byte 500000, expected none as \
         special_tokens is \"reject\""
    );
    // The same text is fine where it is no special token.
    let (result, _) = run(task(Encoding::P50kBase, SpecialTokens::Reject), text.as_bytes()).await;
    result.unwrap();
}

#[tokio::test]
async fn the_first_fault_of_several_pieces_is_the_one_told() {
    let words = "word ".repeat(100_000).into_bytes();
    let (special, bad) = (&b"<|endoftext|>"[..], &b"\xff"[..]);
    let reject = || task(Encoding::R50kBase, SpecialTokens::Reject);
    let fault = error(reject(), &[&words, special, &words, &words, bad].concat()).await;
    assert!(fault.contains("`<|endoftext|>` at byte 500000,"), "{fault}");
    let fault = error(reject(), &[&words, bad, &words, &words, special].concat()).await;
    assert!(fault.contains("byte 500000 (0xff)"), "{fault}");
}

#[tokio::test]
async fn a_text_without_cuts_is_written_in_several_goes() {
    let text = "-=".repeat(2 * 1024 * 1024) + " end";
    let (result, output) =
        run(task(Encoding::Cl100kBase, SpecialTokens::Text), text.as_bytes()).await;
    let written: Value = serde_json::from_str(&output.unwrap()).unwrap();
    let tokens = reference(Encoding::Cl100kBase).encode_ordinary(" end");
    let count = written["tokens"].as_array().unwrap().len();
    assert_eq!(written["tokens"][count - 1], json!(tokens[0]));
    assert_eq!(result.unwrap()["token_count"], json!(count));
    assert_eq!(written["char_count"], json!(text.len()));
}

#[tokio::test]
async fn what_is_not_utf8_is_named_with_its_place() {
    assert_eq!(
        error(task(Encoding::R50kBase, SpecialTokens::Text), b"caf\xe9 au lait").await,
        "`in.txt` is not UTF-8: byte 3 (0xe9) belongs to no character, expected UTF-8 text"
    );
}

#[tokio::test]
async fn an_absent_input_is_reported_before_any_sleep() {
    let folder = tempdir().unwrap();
    let run = TestRun::new(folder.path(), Some("absent.txt"), Some("tokens.json"));
    let mut task = task(Encoding::R50kBase, SpecialTokens::Text);
    task.sleep_duration = MAX_SLEEP;
    let error = run.run(Box::new(task)).await.unwrap_err().to_string();
    assert!(error.contains("absent.txt"), "{error}");
}

#[tokio::test]
async fn a_cancelled_task_does_not_sleep() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("in.txt"), "text").unwrap();
    let run = TestRun::new(folder.path(), Some("in.txt"), Some("tokens.json"));
    run.token.cancel();
    let mut task = task(Encoding::R50kBase, SpecialTokens::Text);
    task.sleep_duration = MAX_SLEEP;
    assert!(matches!(run.run(Box::new(task)).await, Err(TaskError::Cancelled)));
    assert!(!folder.path().join("tokens.json").exists());
}
