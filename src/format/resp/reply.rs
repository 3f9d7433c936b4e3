//! The writers of replies. All append.

/// Which version of the protocol a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// What every client knows.
    #[default]
    V2,
    /// Asked for by `HELLO 3`.
    V3,
}

impl Version {
    /// 2 or 3.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

const LINE_END: &[u8] = b"\r\n";

/// Writes `prefix`, a decimal number and a line end.
fn number(out: &mut Vec<u8>, prefix: u8, number: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        let digit = u8::try_from(rest % 10).unwrap_or(0);
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + digit;
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(prefix);
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(LINE_END);
}

fn count(out: &mut Vec<u8>, prefix: u8, count: usize) {
    number(out, prefix, i64::try_from(count).unwrap_or(i64::MAX));
}

/// Text without its line ends: they would end the reply.
fn line(out: &mut Vec<u8>, prefix: u8, text: &str) {
    out.push(prefix);
    out.extend(text.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
    out.extend_from_slice(LINE_END);
}

/// `+text`.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// `-text`; the text begins with the prefix, such as `ERR`.
pub fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', text);
}

/// `:value`.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    number(out, b':', value);
}

/// A string of any bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    count(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(LINE_END);
}

/// Nothing, where a string could be.
pub fn null(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::V2 => b"$-1\r\n",
        Version::V3 => b"_\r\n",
    });
}

/// Nothing, where an array could be.
pub fn null_array(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::V2 => b"*-1\r\n",
        Version::V3 => b"_\r\n",
    });
}

/// The head of an array; `len` replies follow.
pub fn array(out: &mut Vec<u8>, len: usize) {
    count(out, b'*', len);
}

/// The head of a map; `pairs` times a key and a value follow.
pub fn map(out: &mut Vec<u8>, version: Version, pairs: usize) {
    match version {
        Version::V2 => count(out, b'*', pairs * 2),
        Version::V3 => count(out, b'%', pairs),
    }
}

/// The head of an attribute of the reply that follows it (RESP3 alone); `pairs` times a key and a value come first.
pub fn attribute(out: &mut Vec<u8>, pairs: usize) {
    count(out, b'|', pairs);
}

/// The head of a set; `len` replies follow.
pub fn set(out: &mut Vec<u8>, version: Version, len: usize) {
    count(out, if version == Version::V3 { b'~' } else { b'*' }, len);
}

/// The head of a push; `len` replies follow.
pub fn push(out: &mut Vec<u8>, version: Version, len: usize) {
    count(out, if version == Version::V3 { b'>' } else { b'*' }, len);
}

/// A floating-point number, in the shortest form that reads back as the same.
pub fn double(out: &mut Vec<u8>, version: Version, value: f64) {
    let text = if value.is_nan() { "nan".to_owned() } else { value.to_string() };
    match version {
        Version::V2 => bulk(out, text.as_bytes()),
        Version::V3 => line(out, b',', &text),
    }
}

/// Yes or no.
pub fn boolean(out: &mut Vec<u8>, version: Version, value: bool) {
    match version {
        Version::V2 => integer(out, i64::from(value)),
        Version::V3 => out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
    }
}

/// Text for people; `format` is `txt` or `mkd`.
pub fn verbatim(out: &mut Vec<u8>, version: Version, format: [u8; 3], text: &str) {
    match version {
        Version::V2 => bulk(out, text.as_bytes()),
        Version::V3 => {
            count(out, b'=', text.len() + 4);
            out.extend_from_slice(&format);
            out.push(b':');
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(LINE_END);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>, Version)) -> [String; 2] {
        [Version::V2, Version::V3].map(|version| {
            let mut out = Vec::new();
            write(&mut out, version);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn both_versions_write_what_redis_writes() {
        assert_eq!(written(|o, _| simple(o, "OK")), ["+OK\r\n"; 2]);
        assert_eq!(written(|o, _| error(o, "ERR a\r\nb")), ["-ERR a  b\r\n"; 2]);
        assert_eq!(written(|o, _| integer(o, 0)), [":0\r\n"; 2]);
        assert_eq!(written(|o, _| integer(o, i64::MIN)), [":-9223372036854775808\r\n"; 2]);
        assert_eq!(written(|o, _| integer(o, i64::MAX)), [":9223372036854775807\r\n"; 2]);
        assert_eq!(written(|o, _| bulk(o, b"")), ["$0\r\n\r\n"; 2]);
        assert_eq!(written(|o, _| bulk(o, b"a\r\nb")), ["$4\r\na\r\nb\r\n"; 2]);
        assert_eq!(written(null), ["$-1\r\n", "_\r\n"]);
        assert_eq!(written(null_array), ["*-1\r\n", "_\r\n"]);
        assert_eq!(written(|o, _| array(o, 12)), ["*12\r\n"; 2]);
        assert_eq!(written(|o, v| map(o, v, 3)), ["*6\r\n", "%3\r\n"]);
        assert_eq!(written(|o, v| set(o, v, 3)), ["*3\r\n", "~3\r\n"]);
        assert_eq!(written(|o, v| push(o, v, 3)), ["*3\r\n", ">3\r\n"]);
        assert_eq!(written(|o, v| double(o, v, 1.5)), ["$3\r\n1.5\r\n", ",1.5\r\n"]);
        assert_eq!(written(|o, v| double(o, v, f64::NEG_INFINITY)), ["$4\r\n-inf\r\n", ",-inf\r\n"]);
        assert_eq!(written(|o, v| boolean(o, v, true)), [":1\r\n", "#t\r\n"]);
        assert_eq!(written(|o, v| verbatim(o, v, *b"txt", "hi")), ["$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"]);
    }
}
