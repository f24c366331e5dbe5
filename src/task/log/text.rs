//! Parts of a text that consist of whole lines.

/// Length of the whole lines within the first `limit` bytes.
pub(super) fn whole_lines(text: &[u8], limit: usize) -> usize {
    let text = &text[..limit.min(text.len())];
    text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1)
}

/// Start of the whole lines within the last `limit` bytes. The text consists of whole lines.
pub(super) fn last_lines(text: &[u8], limit: usize) -> usize {
    match text.len().checked_sub(limit) {
        None | Some(0) => 0,
        Some(cut) => {
            let rest = &text[cut - 1..];
            rest.iter().position(|&byte| byte == b'\n').map_or(text.len(), |end| cut + end)
        }
    }
}

/// The last lines of a text.
pub(crate) fn tail_lines(text: &[u8], lines: usize) -> &[u8] {
    let ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match ends.map(|(end, _)| end + 1).nth(lines) {
        Some(begin) => &text[begin..],
        None => text,
    }
}
