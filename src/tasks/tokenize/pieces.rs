//! Reads a text in pieces that can be encoded each by itself.

use std::io::{self, Read};
use std::mem;

use super::kinds::{Kind, LETTER};

/// How large pieces are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes to read at once, which is about the size of a piece.
    pub(super) piece: usize,
    /// Bytes that there may be without a place to cut.
    pub(super) uncut: usize,
}

/// A part of a text that can be encoded by itself.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    pub(super) text: String,
}

/// Takes a text apart.
pub(super) struct Pieces<R> {
    input: R,
    limits: Limits,
    ended: bool,
    /// What was read and is no text yet: part of a character, but for the time of a call.
    bytes: Vec<u8>,
    text: String,
    /// Where `text` begins in the input.
    offset: u64,
    /// How much of `text` is known to have no place to cut.
    searched: usize,
}

/// Why a text cannot be read. Worded to follow the name of the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error(
        "is not UTF-8: byte {offset} ({byte:#04x}) belongs to no character, expected UTF-8 text"
    )]
    NotUtf8 { offset: u64, byte: u8 },
    #[error(
        "has more than {limit} bytes from byte {offset} on in which no word or number ends, \
         expected shorter stretches without one"
    )]
    NoCut { offset: u64, limit: usize },
}

impl<R: Read> Pieces<R> {
    pub(super) fn new(input: R, limits: Limits) -> Self {
        Self {
            input,
            limits,
            ended: false,
            bytes: Vec::new(),
            text: String::new(),
            offset: 0,
            searched: 0,
        }
    }

    /// The next piece; `None` at the end of the input.
    pub(super) fn next_piece(&mut self) -> Result<Option<Piece>, ReadError> {
        let cut = loop {
            if let Some(cut) = self.find_cut() {
                break cut;
            }
            if self.text.len() > self.limits.uncut {
                let limit = self.limits.uncut;
                return Err(ReadError::NoCut { offset: self.offset, limit });
            }
            if self.ended {
                break self.text.len();
            }
            self.read()?;
        };
        if cut == 0 {
            return Ok(None);
        }
        let rest = self.text.split_off(cut);
        let text = mem::replace(&mut self.text, rest);
        let offset = self.offset;
        self.offset += text.len() as u64;
        self.searched = self.text.len();
        Ok(Some(Piece { offset, text }))
    }

    /// The last place to cut in what has not been searched yet.
    fn find_cut(&mut self) -> Option<usize> {
        let searched = mem::replace(&mut self.searched, self.text.len());
        let mut characters = self.text.char_indices().rev();
        let (mut place, mut after) = characters.next()?;
        for (start, before) in characters {
            if place < searched {
                break;
            }
            if may_cut(before, after) {
                return Some(place);
            }
            (place, after) = (start, before);
        }
        None
    }

    /// Reads about as much as a piece has. What goes beyond the limit of uncut text is just enough
    /// to tell whether there is a cut at the limit.
    fn read(&mut self) -> Result<(), ReadError> {
        let most = self.limits.uncut + 4 - self.text.len();
        let wanted = self.limits.piece.min(most);
        if self.text.len() >= self.limits.piece {
            // There is no cut in sight. To make room at once saves copies, which take memory.
            self.text.reserve_exact(most);
        }
        let mut input = self.input.by_ref().take(wanted as u64);
        let read = input.read_to_end(&mut self.bytes)?;
        self.ended = read < wanted;
        let valid = self.bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        self.text.push_str(valid);
        let valid = valid.len();
        self.bytes.drain(..valid);
        match std::str::from_utf8(&self.bytes) {
            // A character may go on in what is not read yet.
            Err(error) if self.ended || error.error_len().is_some() => Err(ReadError::NotUtf8 {
                offset: self.offset + self.text.len() as u64,
                byte: self.bytes[0],
            }),
            _ => Ok(()),
        }
    }
}

/// Whether a text can be cut between two characters without a change to its tokens.
///
/// It can be cut where a letter or number ends a word whatever is around it: in none of the [word
/// rules](super::words) a number is followed by anything but a number, or a letter by anything but a
/// letter, a mark, or the apostrophe of a contraction. None looks back, and only blanks look ahead.
/// Before underscore and bar there is no cut because special tokens (`<|fim_prefix|>`) have no other
/// place for one.
pub(super) fn may_cut(before: char, after: char) -> bool {
    if matches!(after, '_' | '|') {
        return false;
    }
    let next = Kind::of(after);
    match Kind::of(before) {
        Kind::Number => next != Kind::Number,
        letter if LETTER.has(letter) => !LETTER.has(next) && next != Kind::Mark && after != '\'',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(input: &[u8], limits: Limits) -> Result<Vec<String>, ReadError> {
        let mut pieces = Pieces::new(input, limits);
        let mut texts: Vec<String> = Vec::new();
        while let Some(piece) = pieces.next_piece()? {
            assert_eq!(piece.offset as usize, texts.iter().map(String::len).sum::<usize>());
            texts.push(piece.text);
        }
        Ok(texts)
    }

    #[test]
    fn pieces_end_with_words_and_numbers() {
        let limits = Limits { piece: 4, uncut: 100 };
        let pieces = read("one two, 3x don't <|a_b|>".as_bytes(), limits).unwrap();
        assert_eq!(pieces, ["one", " two", ", 3x", " don't", " <|a_b|>"]);
    }

    #[test]
    fn a_stretch_without_a_cut_has_a_limit() {
        let limits = Limits { piece: 16, uncut: 100 };
        let text = |dashes: usize| format!("1234567 word{} word", "-".repeat(dashes));
        assert!(read(text(94).as_bytes(), limits).is_ok());
        for dashes in [110, 1000] {
            let result = read(text(dashes).as_bytes(), limits);
            assert!(
                matches!(result, Err(ReadError::NoCut { offset: 12, limit: 100 })),
                "{result:?}"
            );
        }
        // It may be just as long at the end of the text.
        assert!(read(&[b'-'; 100], limits).is_ok());
        assert!(matches!(read(&[b'-'; 101], limits), Err(ReadError::NoCut { offset: 0, .. })));
    }

    #[test]
    fn the_first_bad_byte_is_named() {
        for (input, bad) in [
            (&b"\xff"[..], 0),
            (b"abc \x80 def\xff", 4),
            (b"caf\xc3", 3),
            (b"caf\xc3 au lait", 3),
            (b"\xe4\xb8\xad\xe4\xb8", 3),
            (b"\xed\xa0\x80", 0),
        ] {
            for piece in 1..12 {
                match read(input, Limits { piece, uncut: 100 }) {
                    Err(ReadError::NotUtf8 { offset, byte }) => {
                        assert_eq!((offset, byte), (bad, input[bad as usize]));
                    }
                    other => panic!("expected bad UTF-8 in {input:?}, got {other:?}"),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text(text in "\\PC*", piece in 1..20_usize) {
            let pieces = read(text.as_bytes(), Limits { piece, uncut: 1 << 20 }).unwrap();
            prop_assert_eq!(pieces.concat(), text);
        }

        #[test]
        fn bad_bytes_are_found_where_std_finds_them(
            bytes in prop::collection::vec(any::<u8>(), 0..40), piece in 1..20_usize,
        ) {
            match (read(&bytes, Limits { piece, uncut: 1 << 20 }), std::str::from_utf8(&bytes)) {
                (Ok(pieces), Ok(text)) => prop_assert_eq!(pieces.concat(), text),
                (Err(ReadError::NotUtf8 { offset, .. }), Err(error)) => {
                    prop_assert_eq!(offset as usize, error.valid_up_to());
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
