//! What people see: safe text, colours, tables, ages.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::task::Timestamp;

/// Longer messages are cut in tables.
const MAX_CELL: usize = 80;

/// Prints one line to standard output.
pub(super) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// For what is printed while more is to be done, or when the exit code is known: that nobody reads on
/// changes neither.
pub(super) fn even_unread(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints lines to standard error, made safe. Where it is closed or full nobody listens, which must
/// not end what is being done.
pub(super) fn print_note(text: &str) {
    let mut out = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "{}", escape(line));
    }
}

/// Says something on standard error, each line with the name of the program.
pub(super) fn say(text: &str) {
    for line in text.lines() {
        print_note(&format!("task-server: {line}"));
    }
}

/// Prints JSON of the server. JSON itself forbids the older control characters in strings; the rest
/// of what a terminal could obey stands in strings only, where there are escapes for it.
pub(super) fn print_json(json: &str) -> io::Result<()> {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if !c.is_ascii_control() && is_unsafe(c) || c == '\u{7f}' {
            // Of the basic plane, all of them, so one escape is enough.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    print_line(&safe)
}

/// A text of the server, with all that a terminal could obey written out.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// Control characters, and those that change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether people read standard output, and not a program or a file.
pub(super) fn is_for_people() -> bool {
    io::stdout().is_terminal()
}

/// A text for a table. Shortened where people read it; a program wants all of it.
pub(super) fn cell(text: &str) -> String {
    let text = escape(text);
    if is_for_people() { shortened(text) } else { text }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_CELL) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Whether standard output takes colours. Source: <https://no-color.org>.
pub(super) fn has_colours() -> bool {
    is_for_people() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

/// Colours a text by the status that it is, or is about.
pub(super) fn paint(text: &str, status: &str, colours: bool) -> String {
    let code = match status {
        "completed" => "32",
        "failed" => "31",
        "cancelled" => "33",
        "running" => "36",
        _ => return text.to_owned(),
    };
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// How long ago that was, in its largest unit.
pub(super) fn age(then: Timestamp) -> String {
    let seconds = (Timestamp::now().as_micros() - then.as_micros()).max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Prints rows in columns, the last of which is as wide as it likes. The column of that name is
/// coloured by status.
pub(super) fn print_table(rows: &[Vec<String>], status: Option<usize>) -> io::Result<()> {
    let colours = has_colours();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = io::stdout().lock();
    for row in rows {
        let mut line = String::new();
        for (column, text) in row.iter().enumerate() {
            let padded = match column + 1 == columns {
                true => text.clone(),
                false => format!("{text:<width$}  ", width = widths[column]),
            };
            let painted = if status == Some(column) { text.as_str() } else { "" };
            line.push_str(&paint(&padded, painted, colours));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(escape("\x1b[2J\u{9b}1m\u{202e}ü\n"), "\\u{1b}[2J\\u{9b}1m\\u{202e}ü\\n");
    }

    #[test]
    fn a_long_message_is_cut_in_a_table() {
        assert_eq!(shortened("ü".repeat(MAX_CELL)), "ü".repeat(MAX_CELL));
        assert_eq!(shortened("ü".repeat(MAX_CELL + 1)), format!("{}…", "ü".repeat(MAX_CELL)));
    }
}
