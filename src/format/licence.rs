//! A licence as people mail it, and what a node keeps of its tests.
//!
//! ```text
//! BEGIN HOT-BACKUP LICENCE
//! version: 1
//! customer: Example Ltd.
//! node: 0f5c..  (64 hexadecimal digits: the fingerprint of a node's key, as `hot-backup identity` prints it)
//! node: 93ab..
//! issued: 2026-11-30
//! expires: 2027-11-30
//! signature: ..  (64 of 128 hexadecimal digits)
//! signature: ..  (the others)
//! END HOT-BACKUP LICENCE
//! ```
//!
//! The lines stand in this order, each once but for the two of a kind. What stands before and after the marks is not
//! looked at, nor are empty lines, ends of lines, blanks at both ends of a line, how many of them stand in a row, `>`
//! before a line, or the case of hexadecimal digits: mail changes these. No line is longer than 76 characters, and all
//! are ASCII. The signature (Ed25519, RFC 8032) is of the lines from `version` to `expires` as [`Licence::signed_text`]
//! writes them. Days are of UTC; a licence holds through the day on which it expires.
//!
//! What a node keeps:
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBn1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 40 |
//! | 8 | 2 | `version` | 1 |
//! | 10 | 6 | reserved | 0 |
//! | 16 | 8 | `seen` | the latest day that the clock told (days since 1970) |
//! | 24 | 8 | `since` | since which day there is no good licence; 0: there is one |
//! | 32 | 8 | `issued` | the day on which the newest good licence was issued; 0: there was none |

use super::{DecodeError, Reader, Writer};
use crate::base::crc32c;
use crate::base::limits::{LICENCE_CUSTOMER_MAX, LICENCE_DAY_MAX};
use std::fmt;

const BEGIN: &str = "BEGIN HOT-BACKUP LICENCE";
const END: &str = "END HOT-BACKUP LICENCE";
const MAGIC: u32 = u32::from_le_bytes(*b"HBn1");
const VERSION: u16 = 1;
/// The size of what a node keeps (bytes).
pub const LICENCE_RECORD: usize = 40;

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u64);

impl Day {
    /// The day of a moment (milliseconds since 1970).
    #[must_use]
    pub fn of_wall(wall_ms: u64) -> Self {
        Self((wall_ms / 86_400_000).min(LICENCE_DAY_MAX))
    }

    /// So many days later.
    #[must_use]
    pub fn plus(self, days: u64) -> Self {
        Self(self.0.saturating_add(days).min(LICENCE_DAY_MAX))
    }

    /// Days from an earlier day to this one; 0 if that one is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// From `2026-11-30`, if there is such a day in the years 1970 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u64>().ok()).flatten()
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        if parts.next().is_some() || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Years begin in March here, so that the day that comes and goes is the last of one.
        let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let (era, of_era) = (years / 400, years % 400);
        let of_year = (153 * months + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        let found = Self(days.checked_sub(719_468)?);
        (found.to_string() == text).then_some(found)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.min(LICENCE_DAY_MAX) + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * years + years / 4 - years / 100);
        let months = (5 * of_year + 2) / 153;
        let day = of_year - (153 * months + 2) / 5 + 1;
        let month = if months < 10 { months + 3 } else { months - 9 };
        let year = era * 400 + years + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Why a text is no licence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LicenceError {
    /// A mark is missing.
    #[error("it has no line \"{mark}\"")]
    NoMark {
        /// The line.
        mark: &'static str,
    },
    /// It is of a later version.
    #[error("it is of another version than 1; use the version of hot-backup that it was made for")]
    Version,
    /// A line is not what should stand there.
    #[error("line {line} should be \"{field}: ..\", {expected}")]
    Line {
        /// Counted from the one after the first mark, from 1, without those that are empty.
        line: usize,
        /// What should stand there.
        field: &'static str,
        /// What it may hold.
        expected: &'static str,
    },
    /// There is more before the second mark than belongs to it.
    #[error("it has more lines than a licence has")]
    TooLong,
    /// It names one node twice.
    #[error("it names the same node twice")]
    OneNode,
    /// It ends before it begins.
    #[error("it expires before it was issued")]
    Backwards,
}

/// What a distributor grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licence {
    /// To whom: printable ASCII, words with one blank between them.
    pub customer: String,
    /// The fingerprints of both nodes' keys.
    pub nodes: [[u8; 32]; 2],
    /// When it was signed.
    pub issued: Day,
    /// The last day on which it holds.
    pub expires: Day,
}

/// A licence, and what should be its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLicence {
    /// What is granted.
    pub licence: Licence,
    /// Of [`Licence::signed_text`].
    pub signature: [u8; 64],
}

/// Whether `text` can name a customer: it has to come through mail unchanged.
#[must_use]
pub fn is_customer(text: &str) -> bool {
    (1..=LICENCE_CUSTOMER_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        && words(text) == text
}

/// With one blank between words and none around them.
fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn hex(f: &mut impl fmt::Write, name: &str, bytes: &[u8]) {
    // Writing to a text does not fail.
    let _ = write!(f, "{name}: ");
    bytes.iter().for_each(|byte| {
        let _ = write!(f, "{byte:02x}");
    });
    let _ = writeln!(f);
}

fn bytes_of(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// 32 bytes from 64 hexadecimal digits of either case: a fingerprint, or a public key.
#[must_use]
pub fn key_bytes(text: &str) -> Option<[u8; 32]> {
    bytes_of(text)
}

impl Licence {
    /// What is signed.
    #[must_use]
    pub fn signed_text(&self) -> String {
        let mut text = format!("version: 1\ncustomer: {}\n", self.customer);
        self.nodes.iter().for_each(|node| hex(&mut text, "node", node));
        text.push_str(&format!("issued: {}\nexpires: {}\n", self.issued, self.expires));
        text
    }
}

impl fmt::Display for SignedLicence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{BEGIN}\n{}", self.licence.signed_text());
        self.signature.chunks(32).for_each(|half| hex(&mut text, "signature", half));
        write!(f, "{text}{END}\n")
    }
}

/// The lines between the marks, without what mail does to them.
struct Lines<'a> {
    lines: Box<dyn Iterator<Item = &'a str> + 'a>,
    at: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Result<Self, LicenceError> {
        let plain =
            |line: &'a str| line.trim_start_matches(|c: char| c == '>' || c.is_whitespace()).trim_end();
        let is = move |mark: &'static str| move |line: &&str| words(line) == mark;
        let lines = text.lines().map(plain).filter(|line| !line.is_empty());
        let mut rest = lines.skip_while(move |line| !is(BEGIN)(line));
        rest.next().ok_or(LicenceError::NoMark { mark: BEGIN })?;
        if !text.lines().map(plain).skip_while(move |line| !is(BEGIN)(line)).any(|line| is(END)(&line)) {
            return Err(LicenceError::NoMark { mark: END });
        }
        Ok(Self { lines: Box::new(rest.take_while(move |line| !is(END)(line))), at: 0 })
    }

    /// The value of the next line, which has to be this field.
    fn value<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, LicenceError> {
        self.at += 1;
        let line = self.lines.next();
        let value = line.and_then(|line| line.split_once(':')).filter(|(name, _)| name.trim() == field);
        let value = value.and_then(|(_, value)| read(value.trim()));
        value.ok_or(LicenceError::Line { line: self.at, field, expected })
    }
}

impl SignedLicence {
    /// Finds a licence in any text. The signature is not looked at.
    ///
    /// # Errors
    /// [`LicenceError`]; the first that is wrong.
    pub fn parse(text: &str) -> Result<Self, LicenceError> {
        const HEX: &str = "64 hexadecimal digits";
        const DATE: &str = "a day as 2027-11-30";
        let mut lines = Lines::of(text)?;
        let version = lines.value("version", "1", |value| value.parse::<u32>().ok())?;
        if version != 1 {
            return Err(LicenceError::Version);
        }
        let name = |value: &str| Some(words(value)).filter(|name| is_customer(name));
        let customer = lines.value("customer", "1 to 60 printable ASCII characters", name)?;
        let nodes = [lines.value("node", HEX, bytes_of)?, lines.value("node", HEX, bytes_of)?];
        let issued = lines.value("issued", DATE, Day::parse)?;
        let expires = lines.value("expires", DATE, Day::parse)?;
        let mut signature = [0; 64];
        for half in signature.chunks_mut(32) {
            half.copy_from_slice(&lines.value("signature", HEX, bytes_of)?);
        }
        if lines.lines.next().is_some() {
            return Err(LicenceError::TooLong);
        }
        if nodes[0] == nodes[1] {
            return Err(LicenceError::OneNode);
        }
        if expires < issued {
            return Err(LicenceError::Backwards);
        }
        Ok(Self { licence: Licence { customer, nodes, issued, expires }, signature })
    }
}

/// What a node keeps of its tests, see the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LicenceRecord {
    /// The latest day that the clock told.
    pub seen: Day,
    /// Since which day there is no good licence.
    pub since: Option<Day>,
    /// When the newest good licence was issued.
    pub issued: Day,
}

impl LicenceRecord {
    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(LICENCE_RECORD);
        w.u16(VERSION).put(&[0; 6]).u64(self.seen.0).u64(self.since.unwrap_or_default().0).u64(self.issued.0);
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(LICENCE_RECORD);
        w.u32(MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// From any bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is known of earlier tests then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "record of the licence";
        let mut r = Reader::new(what, bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of the record of the licence", u64::from(MAGIC), u64::from(magic))?;
        let body = r.take(LICENCE_RECORD - 8)?;
        let computed = crc32c(body);
        if found != computed {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        let mut r = Reader::new(what, body);
        let version = r.u16()?;
        r.expect("version of the record of the licence", u64::from(VERSION), u64::from(version))?;
        r.take(6)?;
        let mut day = || match r.u64()? {
            found if found > LICENCE_DAY_MAX => Err(DecodeError::Limit {
                what: "day of the record of the licence",
                limit: LICENCE_DAY_MAX,
                found,
            }),
            day => Ok(Day(day)),
        };
        let (seen, since, issued) = (day()?, day()?, day()?);
        Ok(Self { seen, since: Some(since).filter(|since| since.0 > 0), issued })
    }
}

/// Reads any bytes as a licence and as what is kept of one.
pub fn fuzz_licence(bytes: &[u8]) {
    if let Some(signed) = std::str::from_utf8(bytes).ok().and_then(|text| SignedLicence::parse(text).ok()) {
        assert_eq!(SignedLicence::parse(&signed.to_string()), Ok(signed));
    }
    if let Ok(record) = LicenceRecord::decode(bytes) {
        assert_eq!(LicenceRecord::decode(&record.encode()), Ok(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    const GOLDEN: &str = include_str!("../../tests/data/licence-v1.txt");

    fn licence() -> SignedLicence {
        let mut signature = [0; 64];
        (0u8..).zip(&mut signature).for_each(|(n, byte)| *byte = n);
        let (issued, expires) = (Day::parse("2026-11-30").unwrap(), Day::parse("2027-11-30").unwrap());
        let (customer, nodes) = ("Example Ltd., Store 7".to_owned(), [[0x0f; 32], [0xa5; 32]]);
        SignedLicence { licence: Licence { customer, nodes, issued, expires }, signature }
    }

    #[test]
    fn the_golden_licence_is_byte_for_byte_what_version_1_wrote_and_fits_into_a_mail() {
        assert_eq!(licence().to_string(), GOLDEN);
        assert_eq!(SignedLicence::parse(GOLDEN), Ok(licence()));
        assert!(GOLDEN.lines().all(|line| line.len() <= 76 && line.is_ascii() && line.trim_end() == line));
    }

    #[test]
    fn what_mail_does_to_a_licence_changes_nothing() {
        let quoted: String = GOLDEN.lines().map(|line| format!("> > {line} \r\n")).collect();
        let spread =
            GOLDEN.replace('\n', "\n\n").replace(": ", " :   ").replace("Ltd., Store", "Ltd.,  Store");
        let upper = GOLDEN.replace("a5a5", "A5A5");
        let within = format!("Dear customer,\n\nBEGIN\n{GOLDEN}\nYours\n{GOLDEN}");
        for text in [quoted, spread, upper, within] {
            assert_eq!(SignedLicence::parse(&text), Ok(licence()), "{text}");
        }
    }

    #[test]
    fn every_line_that_is_missing_doubled_or_moved_is_named() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        for at in 0..lines.len() {
            let mut less = lines.clone();
            less.remove(at);
            let mut more = lines.clone();
            more.insert(at, lines[at]);
            for (text, whole) in [(less.join("\n"), false), (more.join("\n"), at == lines.len() - 1)] {
                let found = SignedLicence::parse(&text);
                assert_eq!(found.is_ok(), whole, "{text}");
                if let Err(error) = found {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        let replaced = |from: &str, to: &str| SignedLicence::parse(&GOLDEN.replace(from, to)).unwrap_err();
        assert_eq!(replaced("version: 1", "version: 2"), LicenceError::Version);
        assert_eq!(replaced("a5a5", "0f0f"), LicenceError::OneNode);
        assert_eq!(replaced("2027", "2025"), LicenceError::Backwards);
        let error = replaced("2027-11-30", "2027-11-31");
        assert_eq!(error.to_string(), "line 6 should be \"expires: ..\", a day as 2027-11-30");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, day) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("2026-11-30", 20_787),
            ("9999-12-31", LICENCE_DAY_MAX),
        ] {
            assert_eq!((Day::parse(text), Day(day).to_string().as_str()), (Some(Day(day)), text));
        }
        for bad in [
            "1969-12-31",
            "2026-02-29",
            "2026-13-01",
            "2026-1-01",
            "10000-01-01",
            "2026-01-01-01",
            "+026-01-01",
            "",
        ] {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
        let mut prng = Prng::new(5);
        for _ in 0..10_000 {
            let day = Day(prng.below(LICENCE_DAY_MAX + 1));
            assert_eq!(Day::parse(&day.to_string()), Some(day));
        }
    }

    #[test]
    fn the_golden_record_is_byte_for_byte_what_version_1_wrote() {
        let record = LicenceRecord { seen: Day(20_787), since: Some(Day(20_700)), issued: Day(20_000) };
        let golden = include_bytes!("../../tests/data/licence-record-v1.bin");
        assert_eq!(record.encode(), golden);
        assert_eq!(LicenceRecord::decode(golden), Ok(record));
        for bit in 0..golden.len() * 8 {
            let mut bad = golden.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(LicenceRecord::decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
        let far = LicenceRecord { seen: Day(LICENCE_DAY_MAX + 1), ..record };
        assert!(LicenceRecord::decode(&far.encode()).unwrap_err().to_string().contains("over the limit"));
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        let mut prng = Prng::new(11);
        for _ in 0..20_000 {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            for _ in 0..1 + prng.below(3) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
            }
            fuzz_licence(&bytes);
        }
    }
}
