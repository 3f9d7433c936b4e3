//! Results on stdout, messages on stderr; tables, sizes and escaping for people.

use super::failure::Failure;
use crate::base::shown::is_invisible;
pub(crate) use crate::base::shown::utc;
use serde::Serialize;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};

/// Where results go. Buffered: [`Out::flush`] before waiting for anything.
pub(crate) struct Out {
    writer: io::BufWriter<Box<dyn Write>>,
    terminal: bool,
}

impl Out {
    /// The process's stdout.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { writer: io::BufWriter::new(Box::new(stdout)), terminal }
    }

    /// Whether a person reads it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.writer, "{text}").map_err(|e| Failure::from_stdout(&e))
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: impl Display) -> Result<(), Failure> {
        write!(self.writer, "{text}").map_err(|e| Failure::from_stdout(&e))
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(|e| Failure::from_stdout(&e))
    }

    /// Writes one JSON value and a line end; indented when a person reads it.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        if self.terminal { self.json_indented(value) } else { self.json_line(value) }
    }

    /// Writes one JSON value as one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|e| json_failure(&e))?;
        self.line(text)
    }

    fn json_indented(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| json_failure(&e))?;
        self.line(text)
    }

    /// Hands everything to the kernel.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|e| Failure::from_stdout(&e))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn json_failure(error: &serde_json::Error) -> Failure {
    Failure::error(format!("writing the answer as JSON: {error}"), "")
}

/// Tells a person something, on stderr. A closed stderr is no reason to stop.
pub(crate) fn say(text: impl Display) {
    let mut stderr = io::stderr().lock();
    for line in text.to_string().lines().filter(|line| !line.is_empty()) {
        let _ = writeln!(stderr, "hot-backup: {}", visible(line));
    }
}

/// Tells a failure and what to do about it.
pub(crate) fn say_failure(failure: &Failure) {
    if let Failure::No { message, next } | Failure::Error { message, next } = failure {
        say(message);
        if !next.is_empty() {
            say(format_args!("what to do: {next}"));
        }
    }
}

/// Text that is safe on a terminal: control characters, bytes that are not UTF-8 and characters that change the
/// direction of writing are shown as escapes; a backslash is doubled.
pub(crate) fn escape(bytes: &[u8]) -> String {
    escape_with(bytes, "\\\\")
}

/// The same for messages, which are text already: backslashes stay as they are.
pub(crate) fn visible(message: &str) -> String {
    escape_with(message.as_bytes(), "\\")
}

fn escape_with(bytes: &[u8], backslash: &str) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str(backslash),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_ascii_control() => push_byte(&mut text, u32::from(c)),
                c if c.is_control() || is_invisible(c) => {
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_byte(&mut text, u32::from(byte)));
    }
    text
}

fn push_byte(text: &mut String, byte: u32) {
    let _ = write!(text, "\\x{byte:02x}");
}

/// Rows in aligned columns.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with a head; a column whose name starts with `>` is right-aligned.
    pub(crate) fn new(head: &[&str]) -> Self {
        let right = head.iter().map(|name| name.starts_with('>')).collect();
        let names = head.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![names], right }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| escape(cell.as_bytes())).collect());
    }

    /// The lines, without trailing blanks.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.right.len())
            .map(|c| {
                self.rows.iter().filter_map(|row| row.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let pad = " ".repeat(width - cell.chars().count().min(*width));
                let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
                let _ = write!(line, "{before}{cell}{after}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A duration in the unit that suits it.
pub(crate) fn seconds(s: f64) -> String {
    if s < 0.0005 {
        "0 s".to_owned()
    } else if s < 1.0 {
        format!("{:.0} ms", s * 1000.0)
    } else if s < 120.0 {
        format!("{s:.1} s")
    } else if s < 7200.0 {
        format!("{:.0} min", s / 60.0)
    } else if s < 172_800.0 {
        format!("{:.1} h", s / 3600.0)
    } else {
        format!("{:.1} days", s / 86_400.0)
    }
}

/// How many a second, 0 for no time.
pub(crate) fn per_second(n: u64, elapsed: std::time::Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    u64::try_from(u128::from(n) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_passes_unescaped() {
        assert_eq!(escape(b"plain, caf\xc3\xa9"), "plain, café");
        assert_eq!(escape(b"a\x1b[31mb\n\x00\x7f\xff\\"), "a\\x1b[31mb\\n\\x00\\x7f\\xff\\\\");
        assert_eq!(escape("\u{9b}31m\u{202e}".as_bytes()), "\\u{9b}31m\\u{202e}");
    }

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut table = Table::new(&["name", ">files"]);
        table.row(["a".into(), "5".into()]);
        table.row(["longer".into(), "12345".into()]);
        assert_eq!(table.render(), "name    files\na           5\nlonger  12345\n");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(0.0), "0 s");
        assert_eq!(seconds(0.25), "250 ms");
        assert_eq!(seconds(90.0), "90.0 s");
    }

    #[test]
    fn wall_times_are_shown_in_utc_also_around_leap_days() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(951_868_799_000), "2000-02-29 23:59:59Z");
        assert_eq!(utc(1_767_225_599_000), "2025-12-31 23:59:59Z");
    }
}
