//! `tokenize` against tiktoken-rs on one thread.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use tiktoken_rs::CoreBPE;

use crate::common::server::folder;
use crate::corpus::{Corpus, chinese_and_japanese, prose, source_code};
use crate::report::{Round, Row};
use crate::task::TaskServer;

/// Bytes of the mix: two fifths source code, two fifths prose, one fifth Chinese and Japanese.
const MIX: usize = 100_000_000;
/// Repetitions of the mix in the large file.
const LARGE: usize = 10;
const ROUNDS: usize = 3;
/// Target speedup over tiktoken-rs on two cores.
const TARGET: f64 = 6.0;
/// Memory limit in bytes for a file of any size.
const MEMORY_TARGET: u64 = 150_000_000;
/// Bytes per call of tiktoken-rs: in a long text each match of its regular expression is slow.
const CHUNK: usize = 64 << 10;

pub(crate) async fn measure(is_wanted: &impl Fn(&str) -> bool, push: &mut impl FnMut(Row)) {
    if !is_wanted("tokenize") {
        return;
    }
    let kinds: Vec<Corpus> =
        [source_code(MIX * 2 / 5), prose(MIX * 2 / 5), chinese_and_japanese(MIX / 5)]
            .into_iter()
            .flatten()
            .collect();
    let reference = tiktoken_rs::cl100k_base().unwrap();
    let mix: String = kinds.iter().map(|kind| kind.text.as_str()).collect();
    for (name, text) in
        [("mix", &mix)].into_iter().chain(kinds.iter().map(|kind| (kind.name, &kind.text)))
    {
        let what = format!("tokenize {:.0} MB, {name}", text.len() as f64 / 1e6);
        println!("measuring {what}");
        push(compare(what, text, &reference).await);
    }
    let what = format!("tokenize {:.0} MB, mix x{LARGE}", (mix.len() * LARGE) as f64 / 1e6);
    println!("measuring {what}");
    push(large(what, &mix).await);
}

/// Tokenizes a text with both, in turns, and compares all tokens.
async fn compare(what: String, text: &str, reference: &CoreBPE) -> Row {
    let folder = folder();
    let (input, output) = (folder.path().join("text"), folder.path().join("tokens.json"));
    fs::write(&input, text).unwrap();
    let server = warm_server(folder.path()).await;
    let before = server.cpu_seconds();
    let mut rounds = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..ROUNDS {
        let ours = tokenize(&server, &input, &output).await;
        expected.clear();
        let begin = Instant::now();
        for chunk in chunks(text) {
            expected.extend(reference.encode_ordinary(chunk));
        }
        rounds.push(Round { ours, reference: Some(begin.elapsed().as_secs_f64()) });
    }
    let found: TokenFile = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    let differs = found.tokens.iter().zip(&expected).position(|(found, token)| found != token);
    assert_eq!(differs, None, "the tokens are not those of tiktoken-rs");
    assert_eq!(found.tokens.len(), expected.len(), "the tokens are not those of tiktoken-rs");
    println!("  the same {} tokens from both", expected.len());
    Row {
        what,
        amount: text.len() as f64 / 1e6,
        unit: "MB",
        rounds,
        target: Some(TARGET),
        cpu_seconds: (server.cpu_seconds() - before) / ROUNDS as f64,
        peak_memory: server.peak_memory(),
        memory_target: Some(MEMORY_TARGET),
    }
}

/// Tokenizes a large file once, to measure memory.
async fn large(what: String, text: &str) -> Row {
    let folder = folder();
    let (input, output) = (folder.path().join("text"), folder.path().join("tokens.json"));
    let mut file = File::create(&input).unwrap();
    for _ in 0..LARGE {
        file.write_all(text.as_bytes()).unwrap();
    }
    let server = warm_server(folder.path()).await;
    let before = server.cpu_seconds();
    let ours = tokenize(&server, &input, &output).await;
    Row {
        what,
        amount: (text.len() * LARGE) as f64 / 1e6,
        unit: "MB",
        rounds: vec![Round { ours, reference: None }],
        target: None,
        cpu_seconds: server.cpu_seconds() - before,
        peak_memory: server.peak_memory(),
        memory_target: Some(MEMORY_TARGET),
    }
}

/// A server with its vocabulary loaded, like the reference.
async fn warm_server(root: &Path) -> TaskServer {
    let server = TaskServer::start(root);
    let (input, output) = (root.join("first"), root.join("first.json"));
    fs::write(&input, "the first text").unwrap();
    tokenize(&server, &input, &output).await;
    server
}

async fn tokenize(server: &TaskServer, input: &Path, output: &Path) -> f64 {
    let parameters = json!({ "encoding": "cl100k_base", "sleep_duration": 0 });
    server.run("tokenize", &parameters, (input, output)).await
}

#[derive(Deserialize)]
struct TokenFile {
    tokens: Vec<u32>,
}

/// Splits a text between an ASCII letter or digit and an ASCII space, where a split changes no
/// token: no rule for words lets a letter or digit be followed by a space.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        let is_cut = |&at: &usize| {
            bytes[at - 1].is_ascii_alphanumeric() && matches!(bytes[at], b' ' | b'\n' | b'\t')
        };
        let cut = (CHUNK..bytes.len()).find(is_cut).unwrap_or(bytes.len());
        let (chunk, after) = rest.split_at(cut);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}
