//! Splits a stream of bytes into lines of bounded length.

/// Splits a stream into lines. What exceeds the limit of a line is dropped.
#[derive(Debug)]
pub(super) struct Lines {
    line: Vec<u8>,
    max: usize,
    /// Whether the line so far ends in a carriage return.
    returned: bool,
}

/// What follows a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A new line, or the end of the stream.
    Line,
    /// Another line in its place, as with progress bars.
    Overwritten,
}

impl Lines {
    pub(super) fn new(max: usize) -> Self {
        Self { line: Vec::new(), max, returned: false }
    }

    /// Takes a piece of the stream, and calls `each` for every line that ends in it.
    pub(super) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], End)) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let end = piece.last().copied().filter(|last| matches!(last, b'\n' | b'\r'));
            let text = &piece[..piece.len() - usize::from(end.is_some())];
            // A new line after a carriage return ends the same line.
            if self.returned && !(text.is_empty() && end == Some(b'\n')) {
                each(&self.line, End::Overwritten);
                self.line.clear();
            }
            let room = self.max - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.returned = end == Some(b'\r');
            if end == Some(b'\n') {
                each(&self.line, End::Line);
                self.line.clear();
            }
        }
    }

    /// The beginning of the line that has not ended yet.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]], max: usize) -> Vec<(String, End)> {
        let mut lines = Lines::new(max);
        let mut found = Vec::new();
        for piece in pieces {
            lines.take(piece, |line, end| {
                found.push((String::from_utf8_lossy(line).into_owned(), end));
            });
        }
        if !lines.unfinished().is_empty() {
            found.push((String::from_utf8_lossy(lines.unfinished()).into_owned(), End::Line));
        }
        found
    }

    #[test]
    fn a_progress_bar_overwrites_itself() {
        let found = lines(&[b"start\n\r10%\r20%", b"\rdone\r\nbye"], 100);
        let found: Vec<_> = found.iter().map(|(line, end)| (&**line, *end)).collect();
        let (line, over) = (End::Line, End::Overwritten);
        let expected = [
            ("start", line),
            ("", over),
            ("10%", over),
            ("20%", over),
            ("done", line),
            ("bye", line),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(lines(&[b"abc", b"def\ngh\n"], 4)[0].0, "abcd");
        assert_eq!(lines(&[b"abc", b"def\ngh\n"], 4)[1].0, "gh");
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(
            text in "[ab\r\n]{0,40}",
            cuts in prop::collection::vec(0..40_usize, 0..5),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut begin = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text.as_bytes()[begin..cut]);
                begin = cut;
            }
            prop_assert_eq!(lines(&pieces, 7), lines(&[text.as_bytes()], 7));
        }
    }
}
