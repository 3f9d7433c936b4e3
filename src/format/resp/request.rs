//! The incremental reader of requests.

use super::{ProtocolError, number_line};
use crate::base::limits::{
    RESP_ARGS_MAX, RESP_BULK_MAX, RESP_INLINE_MAX, RESP_LOCKED_ARGS_MAX, RESP_LOCKED_MAX, RESP_REQUEST_MAX,
};

/// What a client may send in one request; looked at before anything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Arguments.
    pub args: usize,
    /// One argument (bytes).
    pub bulk: usize,
    /// The whole request (bytes).
    pub request: usize,
    /// An inline request, without its line end (bytes).
    pub inline: usize,
    /// Whether the limits are this low only because the client has not authenticated: names the error.
    pub locked: bool,
}

impl RequestLimits {
    /// For a client that may use the door.
    pub const OPEN: Self = Self {
        args: RESP_ARGS_MAX,
        bulk: RESP_BULK_MAX,
        request: RESP_REQUEST_MAX,
        inline: RESP_INLINE_MAX,
        locked: false,
    };
    /// For a client that has still to give its password.
    pub const LOCKED: Self = Self {
        args: RESP_LOCKED_ARGS_MAX,
        bulk: RESP_LOCKED_MAX,
        request: RESP_LOCKED_MAX,
        inline: RESP_LOCKED_MAX,
        locked: true,
    };
}

/// Where an argument stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// The `len` bytes from `start`; both are below [`RESP_REQUEST_MAX`].
    ///
    /// # Panics
    /// If they are not: the maker has looked.
    #[must_use]
    pub fn new(start: usize, len: usize) -> Self {
        let fits = "a request is far below 4 GiB";
        Self { start: u32::try_from(start).expect(fits), len: u32::try_from(len).expect(fits) }
    }
}

/// The arguments of one request, the command's name first, borrowed from where they were received.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl std::fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Args({} arguments)", self.spans.len())
    }
}

impl<'a> Args<'a> {
    /// Arguments that stand in `bytes` at `spans`.
    #[must_use]
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self { bytes, spans }
    }

    /// How many, the name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is not even a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`; empty when there is none.
    #[must_use]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.spans.get(index).map_or(&[], |span| self.slice(*span))
    }

    /// The arguments from `index` on.
    pub fn tail(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let this = *self;
        self.spans.get(index..).unwrap_or_default().iter().map(move |span| this.slice(*span))
    }

    fn slice(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.len as usize).unwrap_or_default()
    }
}

/// Reads requests from bytes that arrive in pieces, without copying arguments and without looking at a byte of a
/// partial argument twice.
#[derive(Debug, Default)]
pub struct RequestParser {
    spans: Vec<Span>,
    unquoted: Vec<u8>,
    state: State,
    at: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At the first byte of a request.
    #[default]
    Start,
    /// In a line, looked through up to the position.
    Inline,
    /// Before the header of an argument; so many are missing.
    Header { missing: usize },
    /// In an argument of this length; so many are missing, this one included.
    Bulk { missing: usize, len: usize },
    /// A request was given out; the next call starts anew.
    Done { inline: bool },
}

impl RequestParser {
    /// Goes on reading the request whose first byte is the first of `input`, which holds all that was there at
    /// the last call and perhaps more. Once the request is complete, returns its length in bytes; its arguments are
    /// then at [`Self::args`], none if it asks for nothing. The next call starts with the byte after it.
    ///
    /// # Errors
    /// Any [`ProtocolError`]; the parser is of no further use then. Never panics.
    pub fn parse(&mut self, input: &[u8], limits: RequestLimits) -> Result<Option<usize>, ProtocolError> {
        if let State::Done { .. } = self.state {
            self.state = State::Start;
        }
        loop {
            match self.state {
                State::Start => match input.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        self.spans.clear();
                        match self.count(input, limits)? {
                            None => return Ok(None),
                            Some(0) => return Ok(Some(self.done(false))),
                            Some(missing) => self.state = State::Header { missing },
                        }
                    }
                    Some(_) => {
                        self.at = 0;
                        self.state = State::Inline;
                    }
                },
                State::Inline => return self.line(input, limits),
                State::Header { missing } => match self.header(input, limits)? {
                    None => return Ok(None),
                    Some(len) => self.state = State::Bulk { missing, len },
                },
                State::Bulk { missing, len } => {
                    let end = self.at + len;
                    match input.get(end..end + 2) {
                        None => return Ok(None),
                        Some(b"\r\n") => {}
                        Some(_) => return Err(ProtocolError::LineEnd),
                    }
                    self.spans.push(Span::new(self.at, len));
                    self.at = end + 2;
                    if missing == 1 {
                        return Ok(Some(self.done(false)));
                    }
                    self.state = State::Header { missing: missing - 1 };
                }
                State::Done { .. } => return Ok(None),
            }
        }
    }

    /// The arguments of the request that [`Self::parse`] has just returned from this `input`.
    #[must_use]
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        match self.state {
            State::Done { inline: true } => Args::new(&self.unquoted, &self.spans),
            _ => Args::new(input, &self.spans),
        }
    }

    /// Bytes that the argument being received still lacks; 0 when that is unknown.
    #[must_use]
    pub fn missing(&self, input_len: usize) -> usize {
        match self.state {
            State::Bulk { len, .. } => (self.at + len + 2).saturating_sub(input_len),
            _ => 0,
        }
    }

    /// Memory held (bytes).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.unquoted.capacity()
    }

    /// Gives back memory that an unusually large request needed.
    pub fn shrink(&mut self) {
        const KEPT: usize = 1024;
        if self.spans.capacity() > KEPT {
            self.spans = Vec::new();
        }
        if self.unquoted.capacity() > KEPT * 4 {
            self.unquoted = Vec::new();
        }
    }

    fn done(&mut self, inline: bool) -> usize {
        self.state = State::Done { inline };
        self.at
    }

    fn count(&mut self, input: &[u8], limits: RequestLimits) -> Result<Option<usize>, ProtocolError> {
        let digits = input.get(1..).unwrap_or_default();
        let Some((count, taken)) = number_line(digits, &ProtocolError::Count)? else { return Ok(None) };
        self.at = 1 + taken;
        let count = usize::try_from(count).unwrap_or(0);
        if count > limits.args {
            return Err(if limits.locked { ProtocolError::LockedCount } else { ProtocolError::Count });
        }
        Ok(Some(count))
    }

    fn header(&mut self, input: &[u8], limits: RequestLimits) -> Result<Option<usize>, ProtocolError> {
        match input.get(self.at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&found) => return Err(ProtocolError::Dollar { found }),
        }
        let digits = input.get(self.at + 1..).unwrap_or_default();
        let Some((len, taken)) = number_line(digits, &ProtocolError::Length)? else { return Ok(None) };
        let len = usize::try_from(len).map_err(|_| ProtocolError::Length)?;
        if len > limits.bulk {
            return Err(if limits.locked { ProtocolError::LockedLength } else { ProtocolError::Length });
        }
        self.at += 1 + taken;
        if self.at + len > limits.request {
            return Err(ProtocolError::Request);
        }
        Ok(Some(len))
    }

    fn line(&mut self, input: &[u8], limits: RequestLimits) -> Result<Option<usize>, ProtocolError> {
        let unseen = input.get(self.at..).unwrap_or_default();
        let end = unseen.iter().position(|&byte| byte == b'\n').map(|found| self.at + found);
        // The line end is not counted, and a '\r' may be the first half of it.
        if end.unwrap_or(input.len().saturating_sub(1)) > limits.inline + 1 {
            return Err(ProtocolError::Inline);
        }
        let Some(end) = end else {
            self.at = input.len();
            return Ok(None);
        };
        let line = input.get(..end).unwrap_or_default();
        self.unquoted.clear();
        self.spans.clear();
        words(line.strip_suffix(b"\r").unwrap_or(line), &mut self.unquoted, &mut self.spans)?;
        if self.spans.len() > limits.args {
            return Err(if limits.locked { ProtocolError::LockedCount } else { ProtocolError::Count });
        }
        self.at = end + 1;
        Ok(Some(self.done(true)))
    }
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0)
}

/// Splits a line at blanks and takes off quotes, as Redis does.
fn words(mut line: &[u8], out: &mut Vec<u8>, spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    loop {
        while let Some((first, rest)) = line.split_first() {
            if !blank(*first) {
                break;
            }
            line = rest;
        }
        if line.is_empty() {
            return Ok(());
        }
        let start = out.len();
        line = word(line, out)?;
        spans.push(Span::new(start, out.len() - start));
    }
}

fn word<'a>(mut line: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    while let Some((&first, rest)) = line.split_first() {
        match first {
            b'"' | b'\'' => {
                let after = quoted(first, rest, out)?;
                return match after.first() {
                    Some(&next) if !blank(next) => Err(ProtocolError::Quotes),
                    _ => Ok(after),
                };
            }
            _ if blank(first) => return Ok(line),
            _ => out.push(first),
        }
        line = rest;
    }
    Ok(line)
}

fn quoted<'a>(quote: u8, mut line: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match line {
            [] => return Err(ProtocolError::Quotes),
            [first, rest @ ..] if *first == quote => return Ok(rest),
            [b'\\', b'\'', rest @ ..] if quote == b'\'' => {
                out.push(b'\'');
                line = rest;
            }
            [b'\\', b'x', high, low, rest @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let nibble = |digit: u8| (digit as char).to_digit(16).and_then(|n| u8::try_from(n).ok());
                out.push(nibble(*high).unwrap_or(0) << 4 | nibble(*low).unwrap_or(0));
                line = rest;
            }
            [b'\\', escaped, rest @ ..] if quote == b'"' => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                line = rest;
            }
            [first, rest @ ..] => {
                out.push(*first);
                line = rest;
            }
        }
    }
}

/// All requests in `bytes` when they arrive `step` bytes at a time, and the error they end with.
pub(super) fn fuzz_requests(
    bytes: &[u8],
    step: usize,
    limits: RequestLimits,
) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut parser = RequestParser::default();
    let (mut start, mut found) = (0, Vec::new());
    for end in (0..bytes.len()).step_by(step).map(|at| (at + step).min(bytes.len())) {
        loop {
            let input = bytes.get(start..end).unwrap_or_default();
            match parser.parse(input, limits) {
                Ok(None) => break,
                Ok(Some(taken)) => {
                    assert!(taken > 0 && taken <= input.len(), "a request is part of the input");
                    let args = parser.args(input);
                    assert!(args.len() <= limits.args, "limits hold");
                    found.push(args.tail(0).map(<[u8]>::to_vec).collect());
                    start += taken;
                }
                Err(why) => return (found, Some(why)),
            }
        }
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let whole = fuzz_requests(bytes, bytes.len(), RequestLimits::OPEN);
        assert_eq!(whole, fuzz_requests(bytes, 1, RequestLimits::OPEN));
        whole
    }

    fn texts(bytes: &[u8]) -> Vec<Vec<String>> {
        let (found, why) = all(bytes);
        assert_eq!(why, None);
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        found.iter().map(|args| args.iter().map(text).collect()).collect()
    }

    #[test]
    fn arrays_and_lines_may_follow_each_other() {
        let found = texts(b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\nPING\r\n*0\r\n*-1\r\n\r\nset k v\n");
        let expected: [&[&str]; 6] = [&["GET", "a\r\n"], &["PING"], &[], &[], &[], &["set", "k", "v"]];
        assert_eq!(found, expected);
    }

    #[test]
    fn quotes_in_lines_are_taken_off_as_redis_does() {
        let found = texts(b"set \"a b\" 'it\\'s' \"\\x41\\n\\q\" x\"y z\"\r\n");
        assert_eq!(found, [["set", "a b", "it's", "A\nq", "xy z"]]);
        for bad in [&b"get \"a\r\n"[..], b"get 'a'b\r\n", b"get \"a\"b\r\n", b"get 'a\r\n"] {
            assert_eq!(all(bad), (vec![], Some(ProtocolError::Quotes)));
        }
    }

    #[test]
    fn what_is_over_a_limit_is_refused_at_its_header() {
        let cases: [(&[u8], ProtocolError); 8] = [
            (b"*1048577\r\n", ProtocolError::Count),
            (b"*x\r\n", ProtocolError::Count),
            (b"*1\r\n$16781313\r\n", ProtocolError::Length),
            (b"*1\r\n$-1\r\n", ProtocolError::Length),
            (b"*1\r\n:1\r\n", ProtocolError::Dollar { found: b':' }),
            (b"*1\r\n$1\r\nab\r\n", ProtocolError::LineEnd),
            (&[b'x'; RESP_INLINE_MAX + 3], ProtocolError::Inline),
            (b"*1\r\n$99999999999999999999\r\n", ProtocolError::Length),
        ];
        for (bytes, expected) in cases {
            assert_eq!(all(bytes), (vec![], Some(expected)));
        }
    }

    #[test]
    fn a_request_over_the_sum_of_its_parts_is_refused() {
        let limits = RequestLimits { request: 64, ..RequestLimits::OPEN };
        let (found, why) =
            fuzz_requests(b"*2\r\n$40\r\n0123456789012345678901234567890123456789\r\n$20\r\n", 5, limits);
        assert_eq!((found.len(), why), (0, Some(ProtocolError::Request)));
    }

    #[test]
    fn a_client_without_password_may_only_send_little() {
        let locked = |bytes: &[u8]| fuzz_requests(bytes, bytes.len(), RequestLimits::LOCKED).1;
        assert_eq!(locked(b"*11\r\n"), Some(ProtocolError::LockedCount));
        assert_eq!(locked(b"*2\r\n$4\r\nAUTH\r\n$5000\r\n"), Some(ProtocolError::LockedLength));
        assert_eq!(locked(b"*2\r\n$4\r\nAUTH\r\n$4096\r\n"), Some(ProtocolError::Request));
        assert_eq!(locked(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"), None);
    }

    #[test]
    fn a_large_value_in_pieces_costs_one_look_at_each_piece() {
        let len = 16 << 20;
        let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${len}\r\n").into_bytes();
        bytes.resize(bytes.len() + len, b'v');
        bytes.extend_from_slice(b"\r\n");
        let mut parser = RequestParser::default();
        let mut calls = 0;
        for end in (0..bytes.len()).step_by(16 << 10).skip(1) {
            assert_eq!(parser.parse(&bytes[..end], RequestLimits::OPEN), Ok(None));
            assert_eq!(parser.missing(end), bytes.len() - end);
            // The position stands at the value's start and only the end is looked for, whatever the length.
            assert_eq!(parser.state, State::Bulk { missing: 1, len });
            calls += 1;
        }
        assert_eq!(calls, 1024);
        assert_eq!(parser.parse(&bytes, RequestLimits::OPEN), Ok(Some(bytes.len())));
        assert_eq!(parser.args(&bytes).at(2).len(), len);
    }

    #[test]
    fn a_line_in_pieces_is_not_looked_through_again() {
        let mut parser = RequestParser::default();
        assert_eq!(parser.parse(b"PI", RequestLimits::OPEN), Ok(None));
        assert_eq!(parser.at, 2);
        assert_eq!(parser.parse(b"PING\r\nrest", RequestLimits::OPEN), Ok(Some(6)));
        assert_eq!(parser.args(b"PING\r\nrest").at(0), b"PING");
        assert_eq!(parser.args(b"PING\r\nrest").at(9), b"");
    }
}
