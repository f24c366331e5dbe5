//! Writes the tokens as a JSON file.

use std::io::{self, Seek, SeekFrom, Write};

use serde_json::to_string;

use super::encodings::Encoding;

/// Tokens that are put into words at once.
const BATCH: usize = 8 * 1024;

/// Room for a count, which is known only at the end: as many digits as a number of 64 bits can have.
const ROOM: usize = 20;

/// How much text became how many tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) chars: u64,
    pub(super) tokens: u64,
}

/// A JSON file under way.
pub(super) struct TokenFile<W> {
    out: W,
    written: u64,
    /// Where to put the numbers of characters and of tokens.
    counts_at: [u64; 2],
    separator: &'static str,
    batch: Vec<u8>,
}

impl<W: Write + Seek> TokenFile<W> {
    pub(super) fn create(mut out: W, input_file: &str) -> io::Result<Self> {
        let mut head = format!("{{\n  \"input_file\": {},\n", to_string(input_file)?);
        let counts_at = ["char_count", "token_count"].map(|name| {
            head.push_str(&format!("  \"{name}\": "));
            let at = head.len() as u64;
            head.push_str(&format!("{:ROOM$},\n", ""));
            at
        });
        head.push_str("  \"tokens\": [");
        out.write_all(head.as_bytes())?;
        Ok(Self { out, written: 0, counts_at, separator: "\n", batch: Vec::new() })
    }

    pub(super) fn write(&mut self, tokens: &[u32]) -> io::Result<()> {
        let mut digits = itoa::Buffer::new();
        for tokens in tokens.chunks(BATCH) {
            self.batch.clear();
            for &token in tokens {
                self.batch.extend_from_slice(self.separator.as_bytes());
                self.batch.extend_from_slice(digits.format(token).as_bytes());
                self.separator = ",\n";
            }
            self.out.write_all(&self.batch)?;
            self.written += tokens.len() as u64;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, chars: u64, encoding: Encoding) -> io::Result<Counts> {
        let counts = Counts { chars, tokens: self.written };
        write!(self.out, "\n  ],\n  \"encoding\": {}\n}}\n", to_string(&encoding)?)?;
        for (at, count) in self.counts_at.into_iter().zip([counts.chars, counts.tokens]) {
            self.out.seek(SeekFrom::Start(at))?;
            write!(self.out, "{count:ROOM$}")?;
        }
        Ok(counts)
    }
}
