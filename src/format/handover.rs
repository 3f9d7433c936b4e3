//! What two nodes say to each other while they change roles: payloads of one kind of link frame ([`super::frame`]).
//!
//! | size | field |
//! |---|---|
//! | 1 | 1 ask, 2 told, 3 give, 4 taken |
//! | 1 | ask: 1 for a dry run |
//! | 8 | told: the expected pause (microseconds) |
//! | 1 | told: number of conditions, at most 16, then for each: 1 if it holds, and its text |
//! | 2, n | told: what to do next |
//! | 24 | give: epoch, seq, chain of the last entry that both nodes have |
//! | 8 | give, taken: for how long the sender's doors have been closed (microseconds) |
//!
//! The epoch that was taken stands in the header of the frame. A text has at most 512 bytes.

use super::{DecodeError, Reader, Writer};
use crate::base::limits::{HANDOVER_CONDITIONS_MAX, HANDOVER_TEXT_MAX};
use crate::base::{Chain, Epoch, Position, Seq};

const ASK: u8 = 1;
const TOLD: u8 = 2;
const GIVE: u8 = 3;
const TAKEN: u8 = 4;

/// One step of a change of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// A standby asks its primary to hand over.
    Ask {
        /// Whether it only shall tell what would happen.
        dry_run: bool,
    },
    /// The primary tells what would happen, or why nothing did.
    Told(Report),
    /// The primary gives its role away. From here on it accepts nothing until it has heard what became of that.
    Give {
        /// The end of its history, which the receiver has too.
        at: Position,
        /// For how long its doors have been closed (microseconds).
        paused_us: u64,
    },
    /// The receiver serves in the epoch that stands in the frame's header.
    Taken {
        /// From when the old primary closed its doors until the new one could answer (microseconds), but for the way of
        /// the word between the nodes.
        paused_us: u64,
    },
}

/// Whether a switchover is possible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What it depends on.
    pub conditions: Vec<Condition>,
    /// For how long nobody would be answered (microseconds).
    pub expected_us: u64,
    /// What to do next where a condition does not hold.
    pub next: String,
}

/// Something that a switchover depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is so.
    pub holds: bool,
    /// What is so, or what is in the way, in words.
    pub text: String,
}

impl Handover {
    /// The payload's bytes. Texts are cut to their limit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64);
        match self {
            Self::Ask { dry_run } => {
                w.u8(ASK).u8(u8::from(*dry_run));
            }
            Self::Told(report) => report.encode(w.u8(TOLD)),
            Self::Give { at, paused_us } => {
                w.u8(GIVE).u64(at.epoch.0).u64(at.seq.0).u64(at.chain.0).u64(*paused_us);
            }
            Self::Taken { paused_us } => {
                w.u8(TAKEN).u64(*paused_us);
            }
        }
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("handover", bytes);
        let step = match r.u8()? {
            ASK => Self::Ask { dry_run: flag(&mut r)? },
            TOLD => Self::Told(Report::decode(&mut r)?),
            GIVE => {
                let epoch = Epoch(r.number("epoch of a handover")?);
                let seq = Seq(r.number("entry of a handover")?);
                let at = Position { epoch, seq, chain: Chain(r.u64()?) };
                Self::Give { at, paused_us: r.u64()? }
            }
            TAKEN => Self::Taken { paused_us: r.u64()? },
            other => {
                let found = u64::from(other);
                return Err(DecodeError::Field { what: "step of a handover", expected: TAKEN.into(), found });
            }
        };
        r.expect("bytes after a handover", 0, r.rest().len() as u64)?;
        Ok(step)
    }
}

impl Report {
    /// Whether every condition holds.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.conditions.iter().all(|condition| condition.holds)
    }

    fn encode(&self, w: &mut Writer) {
        let told = self.conditions.get(..HANDOVER_CONDITIONS_MAX).unwrap_or(&self.conditions);
        w.u64(self.expected_us).u8(u8::try_from(told.len()).unwrap_or(u8::MAX));
        for condition in told {
            w.u8(u8::from(condition.holds)).text(cut(&condition.text));
        }
        w.text(cut(&self.next));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (expected_us, count) = (r.u64()?, usize::from(r.u8()?));
        if count > HANDOVER_CONDITIONS_MAX {
            let (limit, found) = (HANDOVER_CONDITIONS_MAX as u64, count as u64);
            return Err(DecodeError::Limit { what: "conditions of a handover", limit, found });
        }
        let mut conditions = Vec::with_capacity(count);
        for _ in 0..count {
            let holds = flag(r)?;
            conditions.push(Condition { holds, text: r.text(HANDOVER_TEXT_MAX)?.to_owned() });
        }
        Ok(Self { conditions, expected_us, next: r.text(HANDOVER_TEXT_MAX)?.to_owned() })
    }
}

fn flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Field { what: "flag of a handover", expected: 1, found: u64::from(other) }),
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(HANDOVER_TEXT_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Decodes any bytes; what is taken reads back as it was.
///
/// # Panics
/// If it does not.
pub fn fuzz_handover(bytes: &[u8]) {
    if let Ok(step) = Handover::decode(bytes) {
        assert_eq!(Handover::decode(&step.encode()), Ok(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn all() -> Vec<Handover> {
        let condition = |holds, text: &str| Condition { holds, text: text.to_owned() };
        vec![
            Handover::Ask { dry_run: true },
            Handover::Told(Report {
                conditions: vec![condition(true, "this node serves"), condition(false, "the peer is away")],
                expected_us: 25_000,
                next: "start the peer".to_owned(),
            }),
            Handover::Give {
                at: Position { epoch: Epoch(2), seq: Seq(80), chain: Chain(5) },
                paused_us: 3000,
            },
            Handover::Taken { paused_us: 12_000 },
        ]
    }

    #[test]
    fn the_golden_steps_are_byte_for_byte_what_this_version_sends_and_read_back() {
        let golden = include_bytes!("../../tests/data/handover-v1.bin");
        let mut found = Vec::new();
        for step in all() {
            let bytes = step.encode();
            assert_eq!(Handover::decode(&bytes), Ok(step));
            found.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_le_bytes());
            found.extend_from_slice(&bytes);
        }
        assert!(found == golden, "it differs");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_any_bytes_without_a_panic() {
        let told = |bytes: &[u8]| Handover::decode(bytes).unwrap_err().to_string();
        assert!(told(&[9]).starts_with("step of a handover"));
        assert!(told(&[ASK, 2]).starts_with("flag of a handover"));
        assert!(told(&[ASK, 0, 0]).starts_with("bytes after a handover"));
        assert!(
            told(&[&[TOLD][..], &[0; 8], &[17]].concat()).starts_with("conditions of a handover: 17 is over")
        );
        let mut prng = Prng::new(5);
        for step in all().iter().cycle().take(20_000) {
            let mut bytes = step.encode();
            let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(prng.below(256)).unwrap();
            fuzz_handover(&bytes);
            fuzz_handover(&bytes[..at]);
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character_and_what_is_most_fits_a_frame() {
        let conditions = vec![Condition { holds: false, text: "ä".repeat(400) }; 40];
        let told = Handover::Told(Report { conditions, expected_us: 1, next: "x".repeat(600) });
        let bytes = told.encode();
        assert!(bytes.len() <= crate::base::limits::HANDOVER_PAYLOAD_MAX);
        let Ok(Handover::Told(report)) = Handover::decode(&bytes) else { panic!("it reads back") };
        assert_eq!((report.conditions.len(), report.next.len()), (16, 512));
        assert_eq!(report.conditions[0].text, "ä".repeat(256));
    }
}
