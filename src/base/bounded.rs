//! Reading to the end of something that others made: never without a bound.

use std::io::{self, BufRead, Read};

/// All bytes to the end of `source`, if there are at most `most`.
///
/// # Errors
/// `FileTooLarge` when there are more, as soon as one byte more was read; else those of the source.
pub fn read_at_most(source: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(one_more(most)).read_to_end(&mut bytes)?;
    if bytes.len() > most { Err(too_large(most)) } else { Ok(bytes) }
}

/// The same as text.
///
/// # Errors
/// As [`read_at_most`], and `InvalidData` for what is not UTF-8.
pub fn text_at_most(source: impl Read, most: usize) -> io::Result<String> {
    let bytes = read_at_most(source, most)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// What [`next_line`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// What stands behind the last end of a line.
    Unended(Vec<u8>),
    /// A line of more bytes than allowed; it was thrown away up to its end.
    TooLong,
    /// The source has no more.
    End,
}

/// The next line of `source`, if it has at most `most` bytes without its end.
///
/// # Errors
/// Those of the source.
pub fn next_line(source: &mut impl BufRead, most: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    source.take(one_more(most)).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        Ok(Line::Whole(line))
    } else if line.len() > most {
        source.skip_until(b'\n')?;
        Ok(Line::TooLong)
    } else if line.is_empty() {
        Ok(Line::End)
    } else {
        Ok(Line::Unended(line))
    }
}

/// One byte more than allowed tells what is too large.
fn one_more(most: usize) -> u64 {
    u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)
}

fn too_large(most: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than the {most} bytes that are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_read_whole_and_one_byte_more_is_refused() {
        assert_eq!(read_at_most(&b"1234"[..], 4).unwrap(), b"1234");
        assert_eq!(read_at_most(&b""[..], 0).unwrap(), b"");
        let refused = read_at_most(&b"12345"[..], 4).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(text_at_most(&b"\xff"[..], 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_source_without_an_end_is_left_after_the_limit() {
        let mut endless = io::repeat(b'x').take(1 << 30);
        assert!(read_at_most(&mut endless, 1000).is_err());
        assert_eq!(endless.limit(), (1 << 30) - 1001);
    }

    #[test]
    fn lines_come_without_their_end_and_those_that_are_too_long_are_passed_over() {
        let mut source = &b"ab\n\nabc\nx\ncd"[..];
        let mut next = || next_line(&mut source, 2).unwrap();
        assert_eq!(
            (next(), next(), next()),
            (Line::Whole(b"ab".to_vec()), Line::Whole(vec![]), Line::TooLong)
        );
        assert_eq!((next(), next()), (Line::Whole(b"x".to_vec()), Line::Unended(b"cd".to_vec())));
        assert_eq!((next(), next()), (Line::End, Line::End));
        assert_eq!(next_line(&mut &b"abc"[..], 2).unwrap(), Line::TooLong);
    }
}
