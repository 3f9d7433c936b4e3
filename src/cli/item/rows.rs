//! The rows of a table as bytes, none longer than an item can be: memory does not grow with what the table holds.
//!
//! It stands before the parser of CSV and follows it only as far as to know where a row ends: quotes count at the start
//! of a field, and double themselves within it. A row that is too long is passed over; the ends of lines in it are
//! kept, so that the parser counts lines as people do.

use crate::base::limits::{TABLE_COLUMNS_MAX, TABLE_HEAD_MAX, TABLE_ROW_MAX};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

/// Why a row was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// It has more bytes than this.
    Bytes(usize),
    /// It has more columns than [`TABLE_COLUMNS_MAX`].
    Columns,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(most) => write!(f, "it has more than {most} bytes; is a quote not closed?"),
            Self::Columns => write!(f, "it has more than {TABLE_COLUMNS_MAX} columns"),
        }
    }
}

/// Rows that were passed over, with the line on which each began.
pub(super) type Passed = Rc<RefCell<VecDeque<(u64, TooLarge)>>>;

/// Where in a row the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    FieldStart,
    Field,
    Quoted,
    /// Behind a quote within quotes: doubled, or the end of them.
    Quote,
}

/// Bytes of whole rows.
pub(super) struct Rows<R> {
    source: BufReader<R>,
    /// The row that is being given out, and how much of it was.
    row: Vec<u8>,
    given: usize,
    /// Ends of lines to be given out in the place of a row that was passed over.
    lines: u64,
    /// The line on which the next row begins.
    line: u64,
    head: bool,
    passed: Passed,
}

impl<R: Read> Rows<R> {
    pub(super) fn new(source: R) -> (Self, Passed) {
        let passed = Passed::default();
        let source = BufReader::with_capacity(64 << 10, source);
        let rows = Self {
            source,
            row: Vec::new(),
            given: 0,
            lines: 0,
            line: 1,
            head: true,
            passed: Rc::clone(&passed),
        };
        (rows, passed)
    }

    /// Takes in the next row; false at the end.
    fn next_row(&mut self) -> io::Result<bool> {
        self.row.clear();
        self.given = 0;
        let most = if self.head { TABLE_HEAD_MAX } else { TABLE_ROW_MAX };
        let (mut at, mut lines, mut columns, mut any) = (At::FieldStart, 0, 1, false);
        let mut wrong = None;
        loop {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = row_end(chunk, &mut at, &mut columns);
            let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            lines += piece.iter().fold(0, |lines, &byte| lines + u64::from(byte == b'\n'));
            if columns > TABLE_COLUMNS_MAX {
                wrong = wrong.or(Some(TooLarge::Columns));
            } else if self.row.len() + piece.len() > most {
                wrong = wrong.or(Some(TooLarge::Bytes(most)));
            }
            if wrong.is_none() {
                self.row.extend_from_slice(piece);
            }
            let used = piece.len();
            self.source.consume(used);
            if end.is_some() {
                break;
            }
        }
        if let Some(wrong) = wrong {
            self.row = Vec::new();
            self.lines = lines;
            self.passed.borrow_mut().push_back((self.line, wrong));
        }
        // An empty line is no row, so the head may still come.
        self.head &= self.row.iter().all(|byte| b"\r\n".contains(byte)) && wrong.is_none();
        self.line += lines;
        Ok(any)
    }
}

/// How many bytes of `chunk` belong to the row, if it ends there.
fn row_end(chunk: &[u8], at: &mut At, columns: &mut usize) -> Option<usize> {
    for (index, &byte) in chunk.iter().enumerate() {
        *at = match (*at, byte) {
            (At::FieldStart, b'"') | (At::Quote, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) => At::Quoted,
            (_, b'\r' | b'\n') => return Some(index + 1),
            (_, b',') => {
                *columns += 1;
                At::FieldStart
            }
            _ => At::Field,
        };
    }
    None
}

impl<R: Read> Read for Rows<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.row.len() && self.lines == 0 {
            if !self.next_row()? {
                return Ok(0);
            }
        }
        if self.lines > 0 {
            let some = usize::try_from(self.lines).unwrap_or(usize::MAX).min(buffer.len());
            buffer.iter_mut().take(some).for_each(|byte| *byte = b'\n');
            self.lines -= some as u64;
            return Ok(some);
        }
        let left = self.row.get(self.given..).unwrap_or_default();
        let some = left.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(left) {
            *to = *from;
        }
        self.given += some;
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn all(text: &[u8]) -> (Vec<u8>, Vec<(u64, TooLarge)>) {
        let (mut rows, passed) = Rows::new(text);
        let mut bytes = Vec::new();
        rows.read_to_end(&mut bytes).unwrap();
        let passed = passed.borrow().iter().copied().collect();
        (bytes, passed)
    }

    #[test]
    fn rows_within_the_limits_go_through_as_they_are() {
        let mut prng = Prng::new(5);
        let pieces: [&[u8]; 9] = [b"a", b"\"", b"\"\"", b",", b"\n", b"\r\n", b"\r", b"\xff", b"x y"];
        for _ in 0..3000 {
            let text: Vec<u8> = (0..prng.below(40))
                .flat_map(|_| pieces[usize::try_from(prng.below(9)).unwrap()].to_vec())
                .collect();
            assert_eq!(all(&text), (text.clone(), Vec::new()));
        }
    }

    #[test]
    fn rows_end_where_the_parser_ends_them() {
        let mut prng = Prng::new(6);
        let pieces: [&[u8]; 8] = [b"a", b"\"", b"\"\"", b",", b"\n", b"\r\n", b"\r", b"bc"];
        for _ in 0..3000 {
            let text: Vec<u8> = (0..prng.below(30))
                .flat_map(|_| pieces[usize::try_from(prng.below(8)).unwrap()].to_vec())
                .collect();
            let parse = |bytes: &[u8]| -> Vec<csv::ByteRecord> {
                let mut reader =
                    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
                reader.byte_records().map(Result::unwrap).collect()
            };
            let (mut rows, _) = Rows::new(text.as_slice());
            let mut apart = Vec::new();
            while rows.next_row().unwrap() {
                apart.extend(parse(&rows.row));
            }
            assert_eq!(apart, parse(&text), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_row_without_an_end_is_passed_over_and_the_lines_are_counted_on() {
        let long = "y".repeat(TABLE_ROW_MAX + 1);
        let text = format!("id,value\n1,a\n2,\"{long}\nz\"\n3,c\n");
        let (bytes, passed) = all(text.as_bytes());
        assert_eq!(bytes, b"id,value\n1,a\n\n\n3,c\n");
        assert_eq!(passed, [(3, TooLarge::Bytes(TABLE_ROW_MAX))]);
        let head = format!("{}\n1\n", "n".repeat(TABLE_HEAD_MAX + 1));
        assert_eq!(all(head.as_bytes()), (b"\n1\n".to_vec(), vec![(1, TooLarge::Bytes(TABLE_HEAD_MAX))]));
        let wide = format!("a\n{}\n", ",".repeat(TABLE_COLUMNS_MAX));
        assert_eq!(all(wide.as_bytes()).1, [(2, TooLarge::Columns)]);
    }

    #[test]
    fn a_table_without_an_end_takes_no_memory_beyond_one_row() {
        for byte in [b'x', b'"', b',', b'\n'] {
            // Lines without anything are so many calls.
            let bytes = if byte == b'\n' { 1 << 20 } else { 2 * TABLE_ROW_MAX as u64 };
            let (mut rows, passed) = Rows::new(io::repeat(byte).take(bytes));
            let copied = io::copy(&mut rows, &mut io::sink()).unwrap();
            assert!(rows.row.capacity() <= 2 * TABLE_ROW_MAX, "{} bytes are held", rows.row.capacity());
            assert!(passed.borrow().len() <= 1 && (byte == b'\n' || copied <= TABLE_ROW_MAX as u64));
        }
    }
}
