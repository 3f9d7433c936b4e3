//! What a node keeps of compares: the certificate of the last one, and when everything was compared last.
//!
//! | size | field |
//! |---|---|
//! | 4, 4 | `magic` `HBd2`, CRC32C of all that follows |
//! | 2 | `version` 1 |
//! | 8 | `everything_ms`: when the last compare of everything that came to its end did (milliseconds since 1970); 0: none did |
//! | n | a certificate ([`super::compare`]) |
//!
//! A certificate alone, which is what nodes kept before that, is read as well.
//!
//! Golden file: `tests/data/compared-v1.bin`.

use super::compare::{CERTIFICATE_MAX, Certificate};
use super::{DecodeError, Reader, Writer};
use crate::base::crc32c;

const MAGIC: u32 = u32::from_le_bytes(*b"HBd2");
const VERSION: u16 = 1;
const HEAD: usize = 18;
/// Stands in a certificate for everything that is replicated.
const EVERYTHING: &str = "everything";
/// What a certificate of a listing is of begins so.
const LISTING: &str = "the listing ";

/// The most that it takes (bytes).
pub const COMPARED_MAX: usize = HEAD + CERTIFICATE_MAX;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Of the last compare.
    pub last: Certificate,
    /// When the last compare of everything that came to its end did (milliseconds since 1970); 0: none did.
    pub everything_ms: u64,
}

/// What a certificate is of, for an account or `account,file`, or everything if it is empty.
#[must_use]
pub fn what_of(name: &str) -> String {
    match name {
        "" => EVERYTHING.to_owned(),
        // An account may have any name.
        _ if name == EVERYTHING || name.starts_with(LISTING) => format!("account {name}"),
        _ => name.to_owned(),
    }
}

/// The same for what a read command lists.
#[must_use]
pub fn what_is_listed(command: &str) -> String {
    format!("{LISTING}{command}")
}

impl Certificate {
    /// Whether it is of all that is replicated.
    #[must_use]
    pub fn is_of_everything(&self) -> bool {
        self.what == EVERYTHING
    }

    /// Whether it is of a listing, which is no compare.
    #[must_use]
    pub fn is_of_listing(&self) -> bool {
        is_listing(&self.what)
    }
}

/// Whether these words of a certificate are of a listing.
#[must_use]
pub fn is_listing(what: &str) -> bool {
    what.starts_with(LISTING)
}

impl Compared {
    /// A compare began, or ended.
    pub fn take(&mut self, certificate: Certificate) {
        if certificate.whole && certificate.is_of_everything() {
            self.everything_ms = certificate.ended_ms;
        }
        self.last = certificate;
    }

    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(256);
        w.u16(VERSION).u64(self.everything_ms).put(&self.last.encode());
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(8 + body.len());
        w.u32(MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// From any bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is known of earlier compares then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "what is kept of compares";
        let mut r = Reader::new(what, bytes);
        if r.u32()? != MAGIC {
            let mut this = Self::default();
            this.take(Certificate::decode(bytes)?);
            return Ok(this);
        }
        let found = r.u32()?;
        let computed = crc32c(r.rest());
        if found != computed {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        let version = r.u16()?;
        r.expect("version of what is kept of compares", u64::from(VERSION), u64::from(version))?;
        let everything_ms = r.u64()?;
        Ok(Self { last: Certificate::decode(r.rest())?, everything_ms })
    }
}

/// Decodes any bytes, as they are and with checksums that fit.
pub fn fuzz_compared(bytes: &[u8]) {
    let sealed = |bytes: &[u8], from: usize| {
        let mut whole = bytes.to_vec();
        let sum = crc32c(bytes.get(from + 8..)?);
        whole.get_mut(from + 4..from + 8)?.copy_from_slice(&sum.to_le_bytes());
        Some(whole)
    };
    let inner = sealed(bytes, HEAD).unwrap_or_else(|| bytes.to_vec());
    for bytes in [Some(bytes.to_vec()), sealed(bytes, 0), sealed(&inner, 0)].into_iter().flatten() {
        if let Ok(found) = Compared::decode(&bytes) {
            assert_eq!(Compared::decode(&found.encode()), Ok(found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seq;

    fn certificate() -> Certificate {
        Certificate {
            whole: true,
            began_ms: 1_700_000_000_000,
            ended_ms: 1_700_000_001_500,
            from: Seq(130),
            to: Seq(140),
            ranges: 9,
            items: 1000,
            bytes: 1 << 20,
            digest: [9; 32],
            what: what_of("app,orders"),
            ..Certificate::default()
        }
    }

    fn kept() -> Compared {
        Compared { last: certificate(), everything_ms: 1_699_000_000_000 }
    }

    #[test]
    fn what_is_kept_reads_back_and_no_cut_or_change_of_it_panics_or_goes_unnoticed() {
        let good = kept().encode();
        assert_eq!(Compared::decode(&good), Ok(kept()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Compared::decode(&bad).is_err(), "bit {bit} went unnoticed");
            fuzz_compared(&bad);
            assert!(Compared::decode(&good[..bit / 8]).is_err(), "cut at {}", bit / 8);
            fuzz_compared(&good[..bit / 8]);
        }
    }

    #[test]
    fn the_golden_file_is_byte_for_byte_what_this_version_keeps() {
        let golden = include_bytes!("../../tests/data/compared-v1.bin");
        let found = kept().encode();
        let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(found == golden, "it differs: {hex}");
    }

    #[test]
    fn a_certificate_alone_is_read_and_tells_of_everything_only_if_it_is_of_that() {
        assert_eq!(
            Compared::decode(&certificate().encode()),
            Ok(Compared { last: certificate(), everything_ms: 0 })
        );
        let all = Certificate { what: what_of(""), ..certificate() };
        let found = Compared::decode(&all.encode()).unwrap();
        assert_eq!(found.everything_ms, all.ended_ms);
    }

    #[test]
    fn only_the_end_of_a_compare_of_everything_is_one_of_everything_whatever_accounts_are_called() {
        let mut kept = Compared::default();
        let all = Certificate { what: what_of(""), ..certificate() };
        let cut = Certificate { whole: false, ended_ms: 7, ..all.clone() };
        let named = |name: &str| Certificate { what: what_of(name), ended_ms: 8, ..certificate() };
        kept.take(all.clone());
        for other in [cut, named("app"), named("everything"), named("the listing KEYS *")] {
            assert!(!other.is_of_listing());
            kept.take(other.clone());
            assert_eq!((kept.everything_ms, &kept.last), (all.ended_ms, &other));
        }
        assert!(Certificate { what: what_is_listed("KEYS *"), ..all }.is_of_listing());
    }
}
