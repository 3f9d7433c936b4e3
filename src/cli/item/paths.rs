//! Ids as relative paths that stay within their directory, and back.
//!
//! A slash in an id makes a directory. Within a name, these are written as `%XX`: `%` itself, control characters,
//! bytes that are not UTF-8, a backslash, a slash that would leave a name empty, a name of only dots, and the name
//! of the marker file. A name that would grow too long goes on in a directory below: it then ends in a lone `%`.
//! Decoding undoes exactly that, so two ids never share a path.

use std::fmt::Write as _;

/// The file at the root of an exported tree, by which import knows that names are encoded.
pub(super) const MARKER: &str = ".hot-backup-export";

/// No file system of Linux takes more than 255 bytes; room is left for one more escape and the lone `%`.
const NAME_LEN_MAX: usize = 240;

/// The path of an id.
pub(super) fn encode(id: &[u8]) -> String {
    encode_with(id, true)
}

/// Another path of the same id, for when a part of the first one is taken by another item: all of these are below a
/// directory `%`, which no first path goes through, and have no directories but for length.
pub(super) fn encode_flat(id: &[u8]) -> String {
    format!("%/{}", encode_with(id, false))
}

fn encode_with(id: &[u8], directories: bool) -> String {
    let mut path = String::with_capacity(id.len() + 8);
    let mut slash_may_divide = false;
    let mut chunks = id.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            let last = chars.peek().is_none() && chunk.invalid().is_empty() && chunks.peek().is_none();
            if c == '/' && directories && slash_may_divide && !last {
                path.push('/');
                slash_may_divide = false;
                continue;
            }
            slash_may_divide = true;
            if is_plain(c) {
                path.push(c);
            } else {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_escape(&mut path, byte));
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_escape(&mut path, byte));
        slash_may_divide |= !chunk.invalid().is_empty();
    }
    let safe: Vec<String> = split_long(&path).split('/').map(safe_name).collect();
    if directories { marker_escaped(safe.join("/")) } else { safe.join("/") }
}

fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '%' | '/' | '\\')
}

fn push_escape(path: &mut String, byte: u8) {
    let _ = write!(path, "%{byte:02X}");
}

/// A name of only dots means a directory to the file system.
fn safe_name(name: &str) -> String {
    if name == "." || name == ".." { name.replace('.', "%2E") } else { name.to_owned() }
}

fn marker_escaped(path: String) -> String {
    match path.strip_prefix(MARKER) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            format!("%2E{}", path.trim_start_matches('.'))
        }
        _ => path,
    }
}

/// Breaks names that are too long, never within an escape or a character.
fn split_long(path: &str) -> String {
    let mut split = String::with_capacity(path.len());
    let mut name_len = 0;
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let unit_len = if c == '%' { rest.len().min(3) } else { c.len_utf8() };
        let (unit, after) = rest.split_at(unit_len);
        rest = after;
        if c == '/' {
            name_len = 0;
        } else if name_len + unit_len > NAME_LEN_MAX {
            split.push_str("%/");
            name_len = unit_len;
        } else {
            name_len += unit_len;
        }
        split.push_str(unit);
    }
    split
}

/// The id of a path in an exported tree; nothing if export cannot have written it.
pub(super) fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut id = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            id.push(byte);
        } else if let Some(after) = rest.strip_prefix(b"/") {
            rest = after;
        } else {
            let (digits, after) = rest.split_at_checked(2)?;
            // The parser of numbers would also take a sign.
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            id.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        }
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use std::path::{Component, Path};

    fn is_safe(path: &str) -> bool {
        !path.is_empty()
            && path != MARKER
            && !path.ends_with('/')
            && !path.contains("//")
            && !path.bytes().any(|b| b < 32)
            && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
            && path.split('/').all(|name| !name.is_empty() && name.len() <= 255)
    }

    fn check(id: &[u8]) {
        for path in [encode(id), encode_flat(id)] {
            assert!(is_safe(&path), "{id:?} became {path:?}");
            assert_eq!(decode(path.as_bytes()).as_deref(), Some(id), "{path:?}");
        }
    }

    #[test]
    fn ids_that_try_to_leave_the_directory_stay_in_it() {
        for id in
            ["..", ".", "/", "//", "../x", "/etc/passwd", "a/../../b", "a/./b", "a//b", "a/", "%", "%2F"]
        {
            check(id.as_bytes());
        }
        check(format!("{}.", "x".repeat(240)).as_bytes());
        for id in ["%/", "a\\b", "\0", "a\nb", "..%", ".../x", MARKER, ".hot-backup-export/x", "/..", "../"] {
            check(id.as_bytes());
        }
        assert_eq!(encode(b"../etc"), "%2E%2E/etc");
        assert_eq!(encode(b"/etc/passwd"), "%2Fetc/passwd");
        assert_eq!(encode(b"a//b/"), "a/%2Fb%2F");
    }

    #[test]
    fn plain_ids_read_as_they_are() {
        assert_eq!(encode(b"src/main.rs"), "src/main.rs");
        assert_eq!(encode("größe 1,5".as_bytes()), "größe 1,5");
        assert_eq!(encode(b"100%"), "100%25");
    }

    #[test]
    fn every_id_of_random_bytes_comes_back_and_two_never_share_a_path() {
        let mut prng = Prng::new(11);
        let alphabet = b"aA.%/\\\x00\xff\xc3\xa9-2F";
        let mut seen = std::collections::HashMap::new();
        for _ in 0..20_000 {
            let long = prng.percent(10);
            let len = 1 + prng.below(if long { 255 } else { 6 });
            let id: Vec<u8> = (0..len)
                .map(|_| alphabet[usize::try_from(prng.below(alphabet.len() as u64)).unwrap()])
                .collect();
            check(&id);
            for path in [encode(&id), encode_flat(&id)] {
                let owner = seen.entry(path).or_insert_with(|| id.clone());
                assert_eq!(*owner, id);
            }
        }
    }

    #[test]
    fn the_other_path_of_an_id_differs_from_the_first() {
        for id in [&b"a"[..], b"a/b", b"/a", b"\x00", &[0xff; 255], &[b'x'; 255]] {
            check(id);
        }
        assert_eq!(encode_flat(b"a/b"), "%/a%2Fb");
        for id in [&b"a"[..], b"\x00", b"%"] {
            assert_ne!(encode(id), encode_flat(id));
        }
    }

    #[test]
    fn any_path_is_decoded_without_a_panic() {
        for path in ["%", "%1", "%zz", "%+1", "a%/b", "%%%", "%\u{e9}"] {
            let _ = decode(path.as_bytes());
        }
        assert_eq!(decode(b"%zz"), None);
        assert_eq!(decode(b"%+1"), None);
        assert_eq!(decode(b"a%/b"), Some(b"ab".to_vec()));
    }
}
