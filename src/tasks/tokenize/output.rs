//! Writes the tokens as a JSON file.

use std::io::{self, Seek, SeekFrom, Write};
use std::mem;

use serde_json::to_string;

use super::encodings::Encoding;

/// Tokens that are put into words at once.
const BATCH: usize = 8 * 1024;

/// Room for a count, which is known only at the end: as many digits as a number of 64 bits can have.
const ROOM: usize = 20;

/// How much text became how many tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) chars: u64,
    pub(super) tokens: u64,
}

/// A JSON file under way.
pub(super) struct TokenFile<W> {
    out: W,
    counts: Counts,
    /// Where to put the numbers of characters and of tokens.
    counts_at: [u64; 2],
    empty: bool,
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
        Ok(Self {
            out,
            counts: Counts::default(),
            counts_at,
            empty: true,
            batch: vec![0; 10 * BATCH],
        })
    }

    /// Writes the tokens of a text with that many characters.
    pub(super) fn write(&mut self, tokens: &[u32], chars: u64) -> io::Result<()> {
        for tokens in tokens.chunks(BATCH) {
            let mut end = 0;
            for &token in tokens {
                let (digits, length) = digits(token);
                let place = &mut self.batch[end..end + 10];
                place[..2].copy_from_slice(b",\n");
                place[2..].copy_from_slice(&digits);
                end += 2 + length;
            }
            // There is no comma before the first.
            let start = usize::from(mem::take(&mut self.empty));
            self.out.write_all(&self.batch[start..end])?;
        }
        self.counts.chars += chars;
        self.counts.tokens += tokens.len() as u64;
        Ok(())
    }

    pub(super) fn finish(mut self, encoding: Encoding) -> io::Result<Counts> {
        write!(self.out, "\n  ],\n  \"encoding\": {}\n}}\n", to_string(&encoding)?)?;
        for (at, count) in self.counts_at.into_iter().zip([self.counts.chars, self.counts.tokens]) {
            self.out.seek(SeekFrom::Start(at))?;
            write!(self.out, "{count:ROOM$}")?;
        }
        Ok(self.counts)
    }
}

/// The decimal digits of a number below a hundred million, and how many there are.
fn digits(number: u32) -> ([u8; 8], usize) {
    // Each step divides all parts of a number at once, and puts the remainders above the quotients.
    let number = u64::from(number);
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((twos - 10 * tens) << 8);
    let zeros = (ones.trailing_zeros() / 8).min(7);
    let digits = (ones | u64::from_ne_bytes([b'0'; 8])) >> (8 * zeros);
    (digits.to_le_bytes(), 8 - zeros as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_std(length in 0..=8_u32, number: u32) {
            let number = number % 10_u32.pow(length);
            let (digits, length) = digits(number);
            let expected = number.to_string();
            prop_assert_eq!(&digits[..length], expected.as_bytes());
        }
    }
}
