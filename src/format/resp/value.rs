//! The client's side: requests written, replies read.

use super::{ProtocolError, array, bulk, number_line};
use crate::base::limits::CLIENT_REPLY_MAX;

/// Appends a request: the command's name and its arguments.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    array(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A short text.
    Simple(String),
    /// An error; its first word says which.
    Error(String),
    /// An integer.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing.
    Null,
    /// Replies in order.
    Array(Vec<Value>),
    /// Pairs in order.
    Map(Vec<(Value, Value)>),
    /// Replies without order.
    Set(Vec<Value>),
    /// Something the server tells without being asked.
    Push(Vec<Value>),
    /// A floating-point number.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// Text for people.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// An integer of any size, in decimal.
    BigNumber(String),
}

/// Aggregates within aggregates.
const DEPTH_MAX: usize = 16;
/// Members of one aggregate.
const MEMBERS_MAX: usize = 1 << 21;
/// A line of text (bytes).
const LINE_MAX: usize = 64 << 10;

/// Reads replies from bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct ReplyParser {
    buffer: Vec<u8>,
    start: usize,
    seen: usize,
    bulk: Option<(u8, usize)>,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    kind: u8,
    missing: usize,
    members: Vec<Value>,
}

impl ReplyParser {
    /// Takes what was received.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole reply, or `None` until more was fed.
    ///
    /// # Errors
    /// Any [`ProtocolError`]; the parser is of no further use then. Never panics.
    pub fn reply(&mut self) -> Result<Option<Value>, ProtocolError> {
        loop {
            let value = match self.bulk {
                Some((kind, len)) => self.bulk_body(kind, len)?,
                None => self.line()?,
            };
            match value {
                Step::More => return Ok(None),
                Step::Bulk { kind, len } => self.bulk = Some((kind, len)),
                Step::Aggregate { .. } if self.open.len() == DEPTH_MAX => {
                    return Err(ProtocolError::Reply("nested too deep"));
                }
                Step::Aggregate { kind, members: missing } => {
                    self.open.push(Open { kind, missing, members: Vec::new() });
                }
                Step::Value(value) => {
                    if let Some(whole) = self.close(value) {
                        return Ok(Some(whole));
                    }
                }
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// A bulk's bytes, once they are all there.
    fn bulk_body(&mut self, kind: u8, len: usize) -> Result<Step, ProtocolError> {
        let Some(whole) = self.rest().get(..len + 2) else { return Ok(Step::More) };
        let body = whole.strip_suffix(b"\r\n").ok_or(ProtocolError::LineEnd)?;
        let value = match (kind, body) {
            (b'=', [a, b, c, b':', text @ ..]) => {
                Value::Verbatim { format: [*a, *b, *c], text: text.to_vec() }
            }
            (b'=', _) => return Err(ProtocolError::Reply("a verbatim text without its format")),
            _ => Value::Bulk(body.to_vec()),
        };
        self.start += len + 2;
        self.bulk = None;
        Ok(Step::Value(value))
    }

    fn line(&mut self) -> Result<Step, ProtocolError> {
        let rest = self.rest();
        let unseen = rest.get(self.seen..).unwrap_or_default();
        let found = unseen.iter().position(|&byte| byte == b'\n');
        let end = found.map_or(rest.len(), |at| self.seen + at + 1);
        if end > LINE_MAX {
            return Err(ProtocolError::Reply("a line too long"));
        }
        if found.is_none() {
            self.seen = end;
            return Ok(Step::More);
        }
        let Some((&kind, body)) = rest.get(..end).and_then(<[u8]>::split_first) else {
            return Ok(Step::More);
        };
        let step = match kind {
            b'$' | b'=' | b'*' | b'~' | b'>' | b'%' => head(kind, body)?,
            _ => Step::Value(scalar(kind, body)?),
        };
        self.seen = 0;
        self.start += end;
        Ok(step)
    }

    /// Puts a value into the aggregate it belongs to; returns what is whole with it.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(mut open) = self.open.pop() {
            open.members.push(value);
            open.missing -= 1;
            if open.missing > 0 {
                self.open.push(open);
                return None;
            }
            value = aggregate(open.kind, open.members);
        }
        Some(value)
    }
}

enum Step {
    More,
    Bulk { kind: u8, len: usize },
    Aggregate { kind: u8, members: usize },
    Value(Value),
}

/// The head of a bulk or an aggregate, without its first byte.
fn head(kind: u8, body: &[u8]) -> Result<Step, ProtocolError> {
    let is_bulk = matches!(kind, b'$' | b'=');
    let wrong = if is_bulk { ProtocolError::Length } else { ProtocolError::Count };
    let count = match number_line(body, &wrong)? {
        Some((count, taken)) if taken == body.len() => count,
        _ => return Err(wrong),
    };
    if count == -1 && matches!(kind, b'$' | b'*') {
        return Ok(Step::Value(Value::Null));
    }
    let count = usize::try_from(count).map_err(|_| wrong.clone())?;
    match is_bulk {
        true if count <= CLIENT_REPLY_MAX => Ok(Step::Bulk { kind, len: count }),
        false if count == 0 => Ok(Step::Value(aggregate(kind, Vec::new()))),
        false if count <= MEMBERS_MAX => {
            Ok(Step::Aggregate { kind, members: if kind == b'%' { count * 2 } else { count } })
        }
        _ => Err(wrong),
    }
}

fn aggregate(kind: u8, members: Vec<Value>) -> Value {
    match kind {
        b'~' => Value::Set(members),
        b'>' => Value::Push(members),
        b'%' => {
            let mut members = members.into_iter();
            Value::Map(std::iter::from_fn(|| members.next().zip(members.next())).collect())
        }
        _ => Value::Array(members),
    }
}

/// A reply that is one line, without its first byte.
fn scalar(kind: u8, body: &[u8]) -> Result<Value, ProtocolError> {
    let body = body.strip_suffix(b"\r\n").ok_or(ProtocolError::LineEnd)?;
    let text = || String::from_utf8_lossy(body).into_owned();
    let parsed = match (kind, body) {
        (b'+', _) => Some(Value::Simple(text())),
        (b'-', _) => Some(Value::Error(text())),
        (b'_', b"") => Some(Value::Null),
        (b'#', b"t") => Some(Value::Boolean(true)),
        (b'#', b"f") => Some(Value::Boolean(false)),
        (b':', _) => text().parse().ok().map(Value::Integer),
        (b',', _) => text().parse().ok().map(Value::Double),
        (b'(', _) if body.iter().enumerate().all(|(at, b)| b.is_ascii_digit() || at == 0 && *b == b'-') => {
            Some(Value::BigNumber(text()))
        }
        _ => None,
    };
    parsed.ok_or(ProtocolError::Reply("neither a type nor a value of this protocol"))
}

/// All replies in `bytes` when they arrive `step` bytes at a time, as text, and the error they end with.
pub(super) fn fuzz_replies(bytes: &[u8], step: usize) -> (Vec<String>, Option<ProtocolError>) {
    let mut parser = ReplyParser::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(step) {
        parser.feed(piece);
        loop {
            match parser.reply() {
                Ok(None) => break,
                Ok(Some(value)) => found.push(format!("{value:?}")),
                Err(why) => return (found, Some(why)),
            }
        }
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use super::super::{self as resp, Version};
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Value> {
        let mut parser = ReplyParser::default();
        let mut found = Vec::new();
        for byte in bytes {
            parser.feed(&[*byte]);
            while let Some(value) = parser.reply().unwrap() {
                found.push(value);
            }
        }
        found
    }

    #[test]
    fn what_the_server_writes_the_client_reads() {
        let mut out = Vec::new();
        resp::simple(&mut out, "OK");
        resp::error(&mut out, "ERR no");
        resp::map(&mut out, Version::V3, 1);
        resp::bulk(&mut out, b"k\r\n");
        resp::array(&mut out, 2);
        resp::integer(&mut out, -5);
        resp::null(&mut out, Version::V2);
        resp::set(&mut out, Version::V3, 0);
        resp::push(&mut out, Version::V3, 1);
        resp::boolean(&mut out, Version::V3, true);
        resp::double(&mut out, Version::V3, 0.25);
        resp::verbatim(&mut out, Version::V3, *b"txt", "hi");
        resp::null_array(&mut out, Version::V2);
        resp::null(&mut out, Version::V3);
        out.extend_from_slice(b"(-123456789012345678901234567890\r\n");
        let expected = [
            Value::Simple("OK".into()),
            Value::Error("ERR no".into()),
            Value::Map(vec![(
                Value::Bulk(b"k\r\n".into()),
                Value::Array(vec![Value::Integer(-5), Value::Null]),
            )]),
            Value::Set(vec![]),
            Value::Push(vec![Value::Boolean(true)]),
            Value::Double(0.25),
            Value::Verbatim { format: *b"txt", text: b"hi".into() },
            Value::Null,
            Value::Null,
            Value::BigNumber("-123456789012345678901234567890".into()),
        ];
        assert_eq!(read(&out), expected);
    }

    #[test]
    fn a_request_is_an_array_of_bulks() {
        let mut out = Vec::new();
        command(&mut out, &[b"SET", b"a", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n");
    }

    #[test]
    fn replies_that_are_not_of_the_protocol_are_refused() {
        let nested = b"*1\r\n".repeat(40);
        let cases: [&[u8]; 9] = [
            b"x\r\n",
            b":a\r\n",
            b"#x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"*99999999\r\n",
            b"=2\r\nab\r\n",
            &nested,
            b"$1\r\nabc",
        ];
        for bad in cases {
            let mut parser = ReplyParser::default();
            parser.feed(bad);
            assert!(parser.reply().is_err(), "{}", bad.escape_ascii());
        }
        let mut parser = ReplyParser::default();
        parser.feed(&[b'+'; LINE_MAX + 1]);
        assert!(parser.reply().is_err());
    }
}
