//! A client's side of RESP2: commands out, replies in. Written apart from the product's own parser on purpose.

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:n`
    Number(i64),
    /// `$n` or `$-1`
    Bulk(Option<Vec<u8>>),
    /// `*n` or `*-1`
    Array(Option<Vec<Reply>>),
}

/// Appends a command as an array of bulk strings.
pub(super) fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|w| w == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn number(bytes: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    text.parse().map_err(|_| format!("a number was expected, not {text:?}"))
}

/// Takes the reply at the front of `bytes`: the reply and its length, or none when it is not whole yet.
pub(super) fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    let Some((head, mut at)) = line(&bytes[1..]).map(|(h, n)| (h, n + 1)) else { return Ok(None) };
    let words = || String::from_utf8_lossy(head).into_owned();
    let value = match kind {
        b'+' => Reply::Simple(words()),
        b'-' => Reply::Error(words()),
        b':' => Reply::Number(number(head)?),
        b'$' => match usize::try_from(number(head)?) {
            Err(_) => Reply::Bulk(None),
            Ok(len) if bytes.len() < at + len + 2 => return Ok(None),
            Ok(len) => {
                let data = bytes[at..at + len].to_vec();
                at += len + 2;
                Reply::Bulk(Some(data))
            }
        },
        b'*' => match usize::try_from(number(head)?) {
            Err(_) => Reply::Array(None),
            Ok(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    let Some((item, len)) = reply(&bytes[at..])? else { return Ok(None) };
                    items.push(item);
                    at += len;
                }
                Reply::Array(Some(items))
            }
        },
        other => return Err(format!("a reply starts with byte {other:#04x}")),
    };
    Ok(Some((value, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_only_when_it_is_whole() {
        let bytes = b"*3\r\n+OK\r\n$5\r\nab\r\nc\r\n:-7\r\n$-1\r\n";
        let whole = 25;
        for cut in 0..whole {
            assert_eq!(reply(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let items =
            vec![Reply::Simple("OK".into()), Reply::Bulk(Some(b"ab\r\nc".to_vec())), Reply::Number(-7)];
        assert_eq!(reply(bytes), Ok(Some((Reply::Array(Some(items)), whole))));
        assert_eq!(reply(&bytes[whole..]), Ok(Some((Reply::Bulk(None), 5))));
    }
}
