//! Turns a text file into the tokens of a language model.
//!
//! The text is read in [`pieces`] that can be encoded each by itself, so that a file of any size
//! takes the same memory. An [`encoder`] splits a piece into [`words`], which the crate [`bpe`]
//! turns into tokens.

mod cache;
mod encoder;
mod encodings;
mod kinds;
mod long_words;
mod output;
mod pieces;
#[cfg(test)]
mod tests;
mod words;

use std::fs::File;
use std::mem;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use self::cache::WordCache;
use self::encoder::SpecialToken;
use self::encodings::Encoding;
use self::output::{Counts, TokenFile};
use self::pieces::{Limits, Piece, Pieces, ReadError};
use crate::task::{Paths, Task, TaskContext, TaskError, TaskResult, async_trait};

/// Upper limit of `sleep_duration`: a hundred years, in seconds.
const MAX_SLEEP: f64 = 100.0 * 365.25 * 86_400.0;

/// Steps in which `sleep_duration` passes.
const SLEEP_STEPS: u32 = 12;

const LIMITS: Limits = Limits { piece: 256 * 1024, uncut: 8 * 1024 * 1024 };

/// Encodes a text file as the tokens of an OpenAI model.
///
/// Writes a JSON file with `input_file`, `char_count`, `token_count`, `tokens` and `encoding`; the
/// task's result holds the same but for the tokens. The input has to be UTF-8. It is taken as it is:
/// neither line ends nor a byte order mark are changed. It can be of any size, as long as there is
/// an end of a word or number in every 8 MiB of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizeTask {
    /// Which vocabulary to use.
    encoding: Encoding,
    /// Seconds of simulated work before the text is read: it waits, and reports progress, to try out long
    /// tasks; 0 for none.
    #[schemars(range(min = 0.0, max = MAX_SLEEP))]
    sleep_duration: f64,
    /// What to do with special tokens such as `<|endoftext|>` in the text.
    special_tokens: SpecialTokens,
}

/// What to do with special tokens in the text.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SpecialTokens {
    /// They are text like any other.
    Text,
    /// Each becomes its own token.
    Encode,
    /// The task fails, and names the first one.
    Reject,
}

#[async_trait]
impl Task for TokenizeTask {
    fn paths() -> Paths {
        Paths::BOTH
    }

    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let encoding = self.encoding;
        let prepare = ctx.run_blocking(move |ctx| {
            ctx.update_progress(10.0, "Reading input file");
            let input = ctx.open_input()?;
            ctx.update_progress(20.0, "Loading the vocabulary");
            encoding.encoder();
            Ok(input)
        });
        // Loading takes seconds and cannot be stopped: a cancelled task leaves it to its thread.
        let input = tokio::select! {
            biased;
            () = ctx.cancelled() => return Err(TaskError::Cancelled),
            input = prepare => input?,
        };
        self.sleep(&ctx).await?;
        let counts = ctx.run_blocking(move |ctx| self.tokenize_file(ctx, input)).await?;
        Ok(json!({
            "message": "Tokenization completed",
            "input_file": ctx.input_file_path(),
            "output_file": ctx.output_file_path(),
            "char_count": counts.chars,
            "token_count": counts.tokens,
            "encoding": encoding,
        }))
    }
}

impl TokenizeTask {
    /// Stands in for long work.
    async fn sleep(&self, ctx: &TaskContext) -> Result<(), TaskError> {
        if self.sleep_duration == 0.0 {
            return Ok(());
        }
        let pause = self.sleep_duration / f64::from(SLEEP_STEPS);
        for step in 1..=SLEEP_STEPS {
            ctx.sleep(Duration::from_secs_f64(pause)).await?;
            let passed = (f64::from(step) * pause * 10.0).round() / 10.0;
            ctx.update_progress(
                20.0 + 60.0 * f64::from(step) / f64::from(SLEEP_STEPS),
                format!("Processing ({step}/{SLEEP_STEPS}, {passed}s / {}s)", self.sleep_duration),
            );
        }
        Ok(())
    }

    fn tokenize_file(&self, ctx: &TaskContext, input: File) -> Result<Counts, TaskError> {
        ctx.update_progress(80.0, "Tokenizing text");
        let path = ctx.input_file_path().unwrap_or_default();
        let size = input.metadata()?.len();
        let mut pieces = Pieces::new(input, LIMITS);
        let mut output = TokenFile::create(ctx.create_output()?, path)?;
        ctx.in_parallel(
            || {
                let piece = pieces.next_piece().map_err(|error| unreadable(path, error))?;
                Ok(piece.map(|piece| {
                    let bytes = piece.text.len();
                    (piece, bytes)
                }))
            },
            || {
                let mut cache = WordCache::new();
                move |piece: Piece, send| {
                    let mut tokens = Vec::with_capacity(piece.text.len().min(LIMITS.piece) / 2);
                    self.encode(&piece, path, &mut cache, &mut tokens, &mut |tokens| {
                        ctx.check_cancelled()?;
                        if tokens.is_empty() {
                            return Ok(());
                        }
                        send(Tokens { tokens: mem::take(tokens), chars: 0, end: None })
                    })?;
                    let chars = piece.text.chars().count() as u64;
                    let end = Some(piece.offset + piece.text.len() as u64);
                    send(Tokens { tokens, chars, end })
                }
            },
            |tokens| {
                output.write(&tokens.tokens, tokens.chars)?;
                if let Some(end) = tokens.end {
                    report(ctx, end, size);
                }
                Ok(())
            },
        )?;
        ctx.update_progress(95.0, "Writing output file");
        Ok(output.finish(self.encoding)?)
    }

    /// Appends the tokens of a piece, and has them taken away by `flush` now and then.
    fn encode(
        &self,
        piece: &Piece,
        path: &str,
        cache: &mut WordCache,
        tokens: &mut Vec<u32>,
        flush: &mut impl FnMut(&mut Vec<u32>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let encoder = self.encoding.encoder();
        let text = &piece.text;
        match self.special_tokens {
            SpecialTokens::Text => encoder.encode(text, cache, tokens, flush),
            SpecialTokens::Encode => encoder.encode_with_special_tokens(text, cache, tokens, flush),
            SpecialTokens::Reject => match encoder.find_special_token(text) {
                None => encoder.encode(text, cache, tokens, flush),
                Some(SpecialToken { offset, name, .. }) => Err(TaskError::permanent(format!(
                    "`{path}` has the special token `{name}` at byte {}, expected none as \
                     special_tokens is \"reject\"",
                    piece.offset + offset as u64,
                ))),
            },
        }
    }
}

/// Tokens of a piece.
struct Tokens {
    tokens: Vec<u32>,
    /// Characters of the piece.
    chars: u64,
    /// Where the piece ends, if these are its last tokens.
    end: Option<u64>,
}

fn unreadable(path: &str, error: ReadError) -> TaskError {
    match error {
        ReadError::Io(error) => TaskError::failed(format!("cannot read `{path}`: {error}")),
        fault @ (ReadError::NotUtf8 { .. } | ReadError::NoCut { .. }) => {
            TaskError::permanent(format!("`{path}` {fault}"))
        }
    }
}

fn report(ctx: &TaskContext, done: u64, size: u64) {
    // The file may have grown since its size was read.
    let [done, size] = [done, size.max(done)].map(|bytes| bytes as f64 / 1e6);
    ctx.update_progress(80.0 + 15.0 * done / size, format!("Tokenized {done:.1} of {size:.1} MB"));
}
