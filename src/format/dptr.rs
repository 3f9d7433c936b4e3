//! D-pointers: what defines an account or a file; the value of the entries that create and change them.
//!
//! | size | field | rule |
//! |---|---|---|
//! | 1 | `version` | 1 |
//! | 1 | `kind` | 0 account, 1 record file, 2 block file |
//! | 1 | `flags` | bits L 1, X 2, Y 4, T 8 |
//! | 1 | `state` | 0 whole, 1 copying (content follows), 2 stale (changed while logging was paused) |
//! | 4 | `generation` | grows when a file is cleared; part of the key of its items |
//! | 8 | `account` | the account of a file; 0 for an account |
//! | 8 | `blocks` | 4 KiB blocks of a block file; else 0 |
//! | 1 | `ack` | 0 as the database, 1 local, 2 received, 3 durable, 4 applied |
//! | 2 + n | `name` | UTF-8, at most 128 bytes, no control characters, no comma |

use super::{DecodeError, Reader, Writer};
use crate::base::limits::{BLOCK_U64, NAME_MAX, VOLUME_MAX};
use crate::base::{AckLevel, FileId};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// What a D-pointer defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DptrKind {
    /// An account: a name for files.
    Account,
    /// A file of items.
    Records,
    /// A file of 4 KiB blocks.
    Blocks,
}

/// The D3 flags of an account or file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Logged and replicated.
    pub const L: Self = Self(1);
    /// Never saved nor logged.
    pub const X: Self = Self(2);
    /// Definition saved, content not; not logged.
    pub const Y: Self = Self(4);
    /// Never logged.
    pub const T: Self = Self(8);

    /// No flag.
    pub const NONE: Self = Self(0);

    /// Flags from bits.
    ///
    /// # Errors
    /// [`DecodeError::Field`] for an unknown bit.
    pub fn from_bits(bits: u8) -> Result<Self, DecodeError> {
        if bits > 15 {
            return Err(DecodeError::Field { what: "D-pointer flags", expected: 15, found: u64::from(bits) });
        }
        Ok(Self(bits))
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether any flag of `other` is set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// With the flags of `other` set.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With the flags of `other` cleared.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Parses letters such as `L` or `lx`; empty means none.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self::NONE, |flags, letter| {
            Some(flags.with(match letter.to_ascii_uppercase() {
                'L' => Self::L,
                'X' => Self::X,
                'Y' => Self::Y,
                'T' => Self::T,
                _ => return None,
            }))
        })
    }
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (flag, letter) in [(Self::L, "L"), (Self::X, "X"), (Self::Y, "Y"), (Self::T, "T")] {
            if self.has(flag) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// Whether a file's content on this node is what the journal says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// Complete.
    #[default]
    Whole,
    /// Its content is being copied into the journal; a standby holds a part of it.
    Copying,
    /// It is DL, but was changed while logging was paused: the standby misses those changes.
    Stale,
}

/// What the journal mode of the database lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoggingMode {
    /// Files flagged L.
    #[default]
    DlOnly,
    /// Every file without X, Y or T.
    All,
    /// Nothing: DL files go stale until logging resumes.
    Paused,
}

impl LoggingMode {
    /// The byte in an entry.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::DlOnly => 0,
            Self::All => 1,
            Self::Paused => 2,
        }
    }

    /// From the byte in an entry.
    ///
    /// # Errors
    /// [`DecodeError::Field`].
    pub fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            0 => Ok(Self::DlOnly),
            1 => Ok(Self::All),
            2 => Ok(Self::Paused),
            other => Err(DecodeError::Field { what: "logging mode", expected: 2, found: u64::from(other) }),
        }
    }
}

/// A D-pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dptr {
    /// Account, record file or block file.
    pub kind: DptrKind,
    /// L, X, Y, T.
    pub flags: Flags,
    /// Whether the content is complete.
    pub state: FileState,
    /// Part of the key of the file's items; grows when the file is cleared.
    pub generation: u32,
    /// The account of a file; 0 for an account.
    pub account: FileId,
    /// Size of a block file (4 KiB blocks).
    pub blocks: u64,
    /// The file's own ack level, if it has one.
    pub ack: Option<AckLevel>,
    /// The name.
    pub name: String,
}

impl Dptr {
    /// The bytes in an entry's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(32 + self.name.len());
        w.u8(VERSION);
        w.u8(match self.kind {
            DptrKind::Account => 0,
            DptrKind::Records => 1,
            DptrKind::Blocks => 2,
        });
        w.u8(self.flags.bits());
        w.u8(match self.state {
            FileState::Whole => 0,
            FileState::Copying => 1,
            FileState::Stale => 2,
        });
        w.u32(self.generation).u64(self.account.0).u64(self.blocks);
        w.u8(match self.ack {
            None => 0,
            Some(AckLevel::Local) => 1,
            Some(AckLevel::Received) => 2,
            Some(AckLevel::Durable) => 3,
            Some(AckLevel::Applied) => 4,
        });
        w.text(&self.name);
        w.into_bytes()
    }

    /// Reads a D-pointer.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("D-pointer", bytes);
        let version = r.u8()?;
        r.expect("D-pointer version", u64::from(VERSION), u64::from(version))?;
        let field = |what, found: u8| DecodeError::Field { what, expected: 0, found: u64::from(found) };
        let kind = match r.u8()? {
            0 => DptrKind::Account,
            1 => DptrKind::Records,
            2 => DptrKind::Blocks,
            other => return Err(field("D-pointer kind", other)),
        };
        let flags = Flags::from_bits(r.u8()?)?;
        let state = match r.u8()? {
            0 => FileState::Whole,
            1 => FileState::Copying,
            2 => FileState::Stale,
            other => return Err(field("D-pointer state", other)),
        };
        let generation = r.u32()?;
        let account = FileId(r.number("D-pointer account")?);
        let blocks = r.u64()?;
        if blocks > VOLUME_MAX / BLOCK_U64 {
            let limit = VOLUME_MAX / BLOCK_U64;
            return Err(DecodeError::Limit { what: "D-pointer blocks", limit, found: blocks });
        }
        let ack = match r.u8()? {
            0 => None,
            1 => Some(AckLevel::Local),
            2 => Some(AckLevel::Received),
            3 => Some(AckLevel::Durable),
            4 => Some(AckLevel::Applied),
            other => return Err(field("D-pointer ack level", other)),
        };
        let name = r.text(NAME_MAX)?;
        if !name_is_valid(name) {
            return Err(DecodeError::Text { what: "D-pointer name" });
        }
        r.expect("bytes after the D-pointer", 0, r.rest().len() as u64)?;
        Ok(Self { kind, flags, state, generation, account, blocks, ack, name: name.to_owned() })
    }
}

/// Whether `name` may name an account or file: 1-128 bytes, printable, no comma, no slash, not starting with a dash.
#[must_use]
pub fn name_is_valid(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !name.starts_with('-')
        && !name.chars().any(|c| c.is_control() || c == ',' || c == '/')
}

/// Decodes any bytes as a D-pointer.
pub fn fuzz_dptr(bytes: &[u8]) {
    if let Ok(dptr) = Dptr::decode(bytes) {
        assert_eq!(dptr.encode(), bytes, "decode and encode are inverse");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn sample() -> Dptr {
        Dptr {
            kind: DptrKind::Records,
            flags: Flags::L.with(Flags::T),
            state: FileState::Copying,
            generation: 3,
            account: FileId(8),
            blocks: 0,
            ack: Some(AckLevel::Durable),
            name: "orders".to_owned(),
        }
    }

    #[test]
    fn a_d_pointer_reads_back_as_it_was_written() {
        assert_eq!(Dptr::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn the_golden_d_pointer_is_byte_for_byte_what_version_1_wrote() {
        let golden = include_bytes!("../../tests/data/dptr-v1.bin");
        let dptr = Dptr {
            kind: DptrKind::Blocks,
            state: FileState::Stale,
            blocks: 256,
            name: "disk1".to_owned(),
            ..sample()
        };
        assert_eq!(dptr.encode(), golden);
        assert_eq!(Dptr::decode(golden), Ok(dptr));
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic() {
        let mut prng = Prng::new(2);
        let good = sample().encode();
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(prng.below(256)).unwrap();
            bytes.truncate(usize::try_from(prng.below(bytes.len() as u64 + 1)).unwrap());
            fuzz_dptr(&bytes);
        }
    }

    #[test]
    fn flags_are_written_as_letters() {
        assert_eq!(Flags::parse("lT"), Some(Flags::L.with(Flags::T)));
        assert_eq!(Flags::parse("Q"), None);
        assert_eq!(Flags::L.with(Flags::Y).to_string(), "LY");
    }

    #[test]
    fn names_that_would_confuse_a_key_or_a_command_line_are_refused() {
        for bad in ["", "a,b", "a/b", "-x", "a\nb"] {
            assert!(!name_is_valid(bad), "{bad:?}");
        }
        assert!(name_is_valid("orders 2026"));
    }
}
