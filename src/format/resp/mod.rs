//! The Redis serialisation protocol (RESP), versions 2 and 3: requests in, replies out, and the client's side of both.
//!
//! # Requests
//! A request is an array of bulk strings, `*<count>\r\n` and then `count` times `$<len>\r\n<len bytes>\r\n`, or an
//! inline command: a line of words, in quotes where a word holds blanks (`"` with the escapes of C, or `'`).
//! Lengths are decimal. A count of zero or less, or an empty line, is nothing at all.
//!
//! # Replies
//! | first byte | type | version 2 writes instead |
//! |---|---|---|
//! | `+` | simple text, ends with the line | |
//! | `-` | error, ends with the line; its first word is the prefix that programs look at | |
//! | `:` | integer | |
//! | `$` | bulk: length, line end, bytes, line end | |
//! | `*` | array: count, then so many replies | |
//! | `_` | null | `$-1`, or `*-1` where an array was to be expected |
//! | `%` | map: count of pairs | array of twice the count |
//! | `~` | set | array |
//! | `>` | push | array |
//! | `,` | double | bulk |
//! | `#` | boolean, `t` or `f` | integer 1 or 0 |
//! | `=` | verbatim: a bulk whose first four bytes are a format and a colon | bulk without them |
//! | `(` | big number; read, never written | |

mod reply;
mod request;
mod value;

pub use reply::{
    Version, array, attribute, boolean, bulk, double, error, integer, map, null, null_array, push, set,
    simple, verbatim,
};
pub use request::{Args, RequestLimits, RequestParser, Span};
pub use value::{ReplyParser, Value, command};

/// Why bytes are not RESP. The connection cannot go on: where the next request or reply starts is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A count of arguments that is no number or over the limit.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// A length that is no number or over the limit.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// More arguments than a client may send before it has authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    LockedCount,
    /// A longer argument than a client may send before it has authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    LockedLength,
    /// Something else where an argument must begin.
    #[error("Protocol error: expected '$', got '{}'", found.escape_ascii())]
    Dollar {
        /// What stands there.
        found: u8,
    },
    /// A line or a bulk string that does not end with `\r\n`.
    #[error("Protocol error: expected the end of a line")]
    LineEnd,
    /// An inline command that does not end.
    #[error("Protocol error: too big inline request")]
    Inline,
    /// A quote that is not closed, or closed in the middle of a word.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// All arguments together are over the limit.
    #[error("Protocol error: too big request")]
    Request,
    /// A reply's type or content is not of RESP, or nested too deep.
    #[error("reading a reply: {0}")]
    Reply(&'static str),
}

/// Reads a decimal number and its line end from the front of `bytes`.
///
/// Returns the number and how many bytes it took, or `None` when the line is not all there. The digits are limited,
/// so a line that never ends costs nothing.
fn number_line(bytes: &[u8], wrong: &ProtocolError) -> Result<Option<(i64, usize)>, ProtocolError> {
    const DIGITS_MAX: usize = 18;
    let negative = bytes.first() == Some(&b'-');
    let signs = usize::from(negative);
    let mut number = 0_i64;
    for (at, &byte) in bytes.iter().enumerate().skip(signs) {
        match byte {
            b'0'..=b'9' if at - signs < DIGITS_MAX => number = number * 10 + i64::from(byte - b'0'),
            b'\r' if at > signs => {
                let number = if negative { -number } else { number };
                return match bytes.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((number, at + 2))),
                    Some(_) => Err(ProtocolError::LineEnd),
                };
            }
            _ => return Err(wrong.clone()),
        }
    }
    Ok(None)
}

/// Reads any bytes as requests and as replies, whole and in pieces.
pub fn fuzz_resp(bytes: &[u8]) {
    let limits = RequestLimits { args: 64, bulk: 4096, request: 8192, inline: 256, locked: false };
    let whole = request::fuzz_requests(bytes, bytes.len().max(1), limits);
    for step in [1, 3, 7] {
        assert_eq!(whole, request::fuzz_requests(bytes, step, limits), "requests do not depend on the cut");
    }
    let whole = value::fuzz_replies(bytes, bytes.len().max(1));
    for step in [1, 5] {
        assert_eq!(whole, value::fuzz_replies(bytes, step), "replies do not depend on the cut");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic() {
        let seeds: [&[u8]; 6] = [
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nxy\r\n*1\r\n$4\r\nPING\r\n",
            b"PING\r\nset a \"x\\x41 y\" 'it''s'\r\n\r\n*0\r\n*-1\r\nGET a\n",
            b"+OK\r\n-ERR no\r\n:-12\r\n$3\r\nabc\r\n$-1\r\n*-1\r\n*2\r\n:1\r\n$1\r\nx\r\n",
            b"%1\r\n+a\r\n~1\r\n#t\r\n_\r\n,1.5\r\n,inf\r\n=7\r\ntxt:abc\r\n(123\r\n>1\r\n+x\r\n",
            b"*2\r\n*1\r\n*1\r\n*1\r\n:1\r\n:2\r\n*99999999\r\n$99999999999\r\n",
            b"*999999999999999999999\r\n$-9\r\n*2\r\n$5\r\nab",
        ];
        let mut prng = Prng::new(7);
        for _ in 0..6_000 {
            let pick = usize::try_from(prng.below(6)).unwrap();
            let mut bytes = seeds[pick].to_vec();
            for _ in 0..prng.below(5) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                match prng.below(3) {
                    0 => bytes[at] = u8::try_from(prng.below(256)).unwrap(),
                    1 => drop(bytes.drain(at..(at + 3).min(bytes.len()))),
                    _ => bytes.insert(at, b"*$0\r\n-\"'"[usize::try_from(prng.below(8)).unwrap()]),
                }
                if bytes.is_empty() {
                    bytes.push(b'*');
                }
            }
            fuzz_resp(&bytes);
        }
    }

    #[test]
    fn a_number_line_that_never_ends_is_refused_early() {
        assert_eq!(number_line(&[b'1'; 40], &ProtocolError::Length), Err(ProtocolError::Length));
        assert_eq!(number_line(b"12", &ProtocolError::Length), Ok(None));
        assert_eq!(number_line(b"-12\r\n", &ProtocolError::Length), Ok(Some((-12, 5))));
        assert_eq!(number_line(b"\r\n", &ProtocolError::Length), Err(ProtocolError::Length));
        assert_eq!(number_line(b"1\rx", &ProtocolError::Length), Err(ProtocolError::LineEnd));
    }
}
