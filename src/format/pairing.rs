//! What two machines say to each other while they are introduced by a code that a person types, see
//! `src/node/pairing.rs`.
//!
//! | size | field | rule |
//! |---|---|---|
//! | 4 | `magic` | `HBk1` |
//! | 1 | `version` | 1 |
//! | 1 | kind | 1 greet, 2 identify, 3 reached |
//! | 2 | length of what follows | at most 600 |
//! | 33 | greet: the message of SPAKE2 | |
//! | 32, n | identify: the proof, and the line that `hot-backup identity` prints | at most 512 of the line |
//! | 1 | reached: 1 if the other machine came in at this one's own port, 0 if not | |

use super::{DecodeError, Reader, Writer};

const MAGIC: u32 = u32::from_le_bytes(*b"HBk1");
const VERSION: u8 = 1;
const GREET: u8 = 1;
const IDENTIFY: u8 = 2;
const REACHED: u8 = 3;
/// Bytes before what follows.
pub const PAIRING_HEAD: usize = 8;
/// Longest of what follows (bytes).
pub const PAIRING_MAX: usize = 600;
/// Longest identity (bytes).
const LINE_MAX: usize = 512;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairingMessage {
    /// The first of each side.
    Greet([u8; 33]),
    /// Who the sender is.
    Identify {
        /// That it knows the code.
        proof: [u8; 32],
        /// Its identity.
        line: String,
    },
    /// Whether the other machine came in at the sender's own port.
    Reached(bool),
}

impl PairingMessage {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::with_capacity(PAIRING_MAX);
        let kind = match self {
            Self::Greet(message) => {
                body.put(message);
                GREET
            }
            Self::Identify { proof, line } => {
                body.put(proof).put(line.as_bytes().get(..LINE_MAX).unwrap_or(line.as_bytes()));
                IDENTIFY
            }
            Self::Reached(yes) => {
                body.u8(u8::from(*yes));
                REACHED
            }
        };
        let body = body.into_bytes();
        let mut w = Writer::with_capacity(PAIRING_HEAD + body.len());
        w.u32(MAGIC).u8(VERSION).u8(kind).u16(u16::try_from(body.len()).unwrap_or(u16::MAX)).put(&body);
        w.into_bytes()
    }

    /// How many bytes follow these first ones.
    ///
    /// # Errors
    /// [`DecodeError`]; the sender is something else.
    pub fn body_len(head: &[u8; PAIRING_HEAD]) -> Result<usize, DecodeError> {
        let mut r = Reader::new("introduction", head);
        let magic = r.u32()?;
        r.expect("magic of an introduction", u64::from(MAGIC), u64::from(magic))?;
        let version = r.u8()?;
        r.expect("version of an introduction", u64::from(VERSION), u64::from(version))?;
        r.u8()?;
        let len = usize::from(r.u16()?);
        if len > PAIRING_MAX {
            let (limit, found) = (PAIRING_MAX as u64, len as u64);
            return Err(DecodeError::Limit { what: "length of an introduction", limit, found });
        }
        Ok(len)
    }

    /// From any bytes: one whole message.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "introduction";
        let mut r = Reader::new(what, bytes);
        let head = r.take(PAIRING_HEAD)?.try_into().map_err(|_| DecodeError::Text { what })?;
        let len = Self::body_len(head)?;
        let body = r.take(len)?;
        r.expect("bytes behind an introduction", 0, (bytes.len() - PAIRING_HEAD - len) as u64)?;
        let mut r = Reader::new(what, body);
        let array = |bytes: &[u8]| bytes.try_into().map_err(|_| DecodeError::Text { what });
        let kind = head[5];
        match kind {
            GREET if len == 33 => Ok(Self::Greet(body.try_into().map_err(|_| DecodeError::Text { what })?)),
            IDENTIFY if len <= 32 + LINE_MAX => {
                let proof = array(r.take(32)?)?;
                let line = std::str::from_utf8(r.take(len - 32)?).map_err(|_| DecodeError::Text { what })?;
                if line.chars().any(char::is_control) {
                    return Err(DecodeError::Text { what });
                }
                Ok(Self::Identify { proof, line: line.to_owned() })
            }
            REACHED if len == 1 => Ok(Self::Reached(match r.u8()? {
                0 => false,
                1 => true,
                found => {
                    return Err(DecodeError::Field {
                        what: "answer of an introduction",
                        expected: 1,
                        found: u64::from(found),
                    });
                }
            })),
            found => Err(DecodeError::Field {
                what: "kind of an introduction",
                expected: 1,
                found: u64::from(found),
            }),
        }
    }
}

/// Decodes any bytes as a message of an introduction.
pub fn fuzz_pairing(bytes: &[u8]) {
    if let Ok(message) = PairingMessage::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn all() -> Vec<PairingMessage> {
        let line = "hb1:a:0:00000000000000000000000000000000:11:22".to_owned();
        vec![
            PairingMessage::Greet([7; 33]),
            PairingMessage::Identify { proof: [9; 32], line },
            PairingMessage::Reached(true),
            PairingMessage::Reached(false),
        ]
    }

    #[test]
    fn the_golden_messages_are_byte_for_byte_what_version_1_sent() {
        let bytes = all().iter().map(PairingMessage::encode).collect::<Vec<_>>().concat();
        assert_eq!(bytes, include_bytes!("../../tests/data/pairing-v1.bin"));
        for message in all() {
            let bytes = message.encode();
            assert_eq!(PairingMessage::decode(&bytes), Ok(message));
            for end in 0..bytes.len() {
                assert!(PairingMessage::decode(&bytes[..end]).is_err());
            }
            assert!(PairingMessage::decode(&[&bytes[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        let mut prng = Prng::new(3);
        for _ in 0..20_000 {
            for message in all() {
                let mut bytes = message.encode();
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
                fuzz_pairing(&bytes);
            }
        }
        let far = [&b"HBk1\x01\x02"[..], &601u16.to_le_bytes(), &[b'x'; 601]].concat();
        assert!(PairingMessage::decode(&far).unwrap_err().to_string().contains("over the limit"));
    }
}
