//! Terminal output: escaping, colours, tables, ages.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::task::Timestamp;

/// Maximum number of characters of a table cell on a terminal.
const MAX_CELL: usize = 80;

pub(super) fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Ignores a closed standard output, which must neither end the work nor change its exit code.
pub(super) fn ignore_broken_pipe(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints escaped lines to standard error. Ignores write errors, which must not end the work.
pub(super) fn print_note(text: &str) {
    let mut out = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "{}", escape(line));
    }
}

/// Prints lines to standard error, each prefixed with the name of the program.
pub(super) fn report(text: &str) {
    for line in text.lines() {
        print_note(&format!("task-server: {line}"));
    }
}

/// Prints JSON from the server. Other unsafe characters than ASCII control characters, which JSON forbids
/// in strings, occur only in strings and can be escaped there.
pub(super) fn print_json(json: &str) -> io::Result<()> {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if !c.is_ascii_control() && is_unsafe(c) || c == '\u{7f}' {
            // All of them are in the basic plane, so a single escape suffices.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    print_line(&safe)
}

/// Escapes text from the server, so that it cannot control the terminal.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// Returns whether `c` is a control character or changes the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(super) fn is_interactive() -> bool {
    io::stdout().is_terminal()
}

/// Formats text for a table: escaped, and shortened on a terminal.
pub(super) fn cell(text: &str) -> String {
    let text = escape(text);
    if is_interactive() { shortened(text) } else { text }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_CELL) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Returns whether to colour standard output, following <https://no-color.org>.
pub(super) fn has_colours() -> bool {
    is_interactive() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Colours text by a status.
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

/// Formats the time since `then` in its largest unit.
pub(super) fn age(then: Timestamp) -> String {
    let seconds = (Timestamp::now().as_micros() - then.as_micros()).max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Prints rows in columns, without padding the last. Colours column `status`.
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
    fn control_characters_are_escaped() {
        assert_eq!(escape("\x1b[2J\u{9b}1m\u{202e}ü\n"), "\\u{1b}[2J\\u{9b}1m\\u{202e}ü\\n");
    }

    #[test]
    fn long_cells_are_shortened() {
        assert_eq!(shortened("ü".repeat(MAX_CELL)), "ü".repeat(MAX_CELL));
        assert_eq!(shortened("ü".repeat(MAX_CELL + 1)), format!("{}…", "ü".repeat(MAX_CELL)));
    }
}
