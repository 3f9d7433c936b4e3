//! Whether this node may replicate, as far as its licence goes; asked only where a distributor's key is in the config.
//!
//! Pure: the text of the licence, whether its signature fits, the keys of both nodes and the day come in. A node without a
//! good licence goes on as ever for a grace of `LICENCE_GRACE_DAYS`, and says so each day. After that it does one thing
//! less: as a primary it begins no new stream to its standby. A stream that goes on is not cut. Nothing else asks for a
//! licence: not reads and writes, not a start, a takeover, a save or a restore.
//!
//! Time is the latest day that the clock ever told, so turning it back gains nothing. A clock that was ahead by mistake is
//! forgotten with the next licence that is issued.

use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use crate::base::limits::{LICENCE_GRACE_DAYS, LICENCE_REMIND_DAYS};
use crate::format::licence::{Day, Licence, LicenceError, LicenceRecord};
use crate::store::StoreRead;

/// What is there of a licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paper {
    /// No file.
    Missing,
    /// A file that cannot be read.
    Unreadable(String),
    /// A file without a licence in it, or with a damaged one.
    Damaged(LicenceError),
    /// One that the key in the config did not sign as it is.
    NotSigned,
    /// One that it did.
    Signed(Licence),
}

/// What else the test depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The fingerprint of this node's key.
    pub own: [u8; 32],
    /// Those of the peer that are accepted; none if no peer is known yet.
    pub peers: Vec<[u8; 32]>,
    /// What the clock tells.
    pub today: Day,
    /// What is known of earlier tests.
    pub record: LicenceRecord,
}

/// What a test found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// No licence is asked for.
    #[default]
    NotAsked,
    /// It holds.
    Good,
    /// It holds, and ends so soon (days, the least of the reminders that cover it).
    Ends(u64),
    /// There is none that holds, and the grace lasts for so many days more, this one included.
    Grace(u64),
    /// There is none that holds, and the grace is over.
    Over,
}

/// The result of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tested {
    /// What it means.
    pub standing: Standing,
    /// The same for people.
    pub text: String,
    /// The day that the clock should have reached, if it was turned back.
    pub clock_back: Option<Day>,
    /// What is to be kept.
    pub record: LicenceRecord,
}

impl Tested {
    /// Whether there is a licence that holds, or none is asked for.
    #[must_use]
    pub fn holds(&self) -> bool {
        !matches!(self.standing, Standing::Grace(_) | Standing::Over)
    }
}

/// Tests a licence.
#[must_use]
pub fn test(paper: &Paper, at: &Circumstances) -> Tested {
    let granted = match paper {
        Paper::Signed(licence) => fits(licence, at).map(|()| licence),
        Paper::Missing => Err("there is no licence".to_owned()),
        Paper::Unreadable(why) => Err(format!("the licence cannot be read: {why}")),
        Paper::Damaged(error) => Err(format!("the licence is damaged: {error}")),
        Paper::NotSigned => Err(
            "the licence was altered, or signed by another than the distributor whose key is in the config"
                .to_owned(),
        ),
    };
    let newer = granted.as_ref().is_ok_and(|licence| licence.issued > at.record.issued);
    let seen = if newer { at.today } else { at.record.seen.max(at.today) };
    let issued = granted.as_ref().map_or(at.record.issued, |licence| licence.issued.max(at.record.issued));
    let day = seen.max(granted.as_ref().map_or(Day(0), |licence| licence.issued));
    let record = LicenceRecord { seen, issued, since: None };
    // The nodes, and who signed, may be in other time zones: a day is no sign of anything.
    let clock_back = Some(day).filter(|day| *day > at.today.plus(1));
    let (text, since) = match granted {
        Ok(licence) if day <= licence.expires => {
            let (standing, text) = holds(licence, day);
            return Tested { standing, text, clock_back, record };
        }
        Ok(Licence { customer, expires, .. }) => {
            (format!("the licence for {customer} ended with {expires}"), expires.plus(1))
        }
        Err(why) => (why, day),
    };
    let since = at.record.since.map_or(since, |before| before.min(since));
    let record = LicenceRecord { since: Some(since), ..record };
    let (standing, then) = match LICENCE_GRACE_DAYS.saturating_sub(day.since(since)) {
        0 => (Standing::Over, "no new link to the standby is begun; all else goes on".to_owned()),
        left => (
            Standing::Grace(left),
            format!("all goes on as ever until {}", since.plus(LICENCE_GRACE_DAYS - 1)),
        ),
    };
    Tested { standing, text: format!("{text}; {then}"), clock_back, record }
}

fn holds(licence: &Licence, day: Day) -> (Standing, String) {
    let Licence { customer, expires, .. } = licence;
    let left = expires.since(day);
    match LICENCE_REMIND_DAYS.into_iter().find(|days| left <= *days) {
        Some(days) => {
            let within = if days == 1 { "within a day".to_owned() } else { format!("within {days} days") };
            (Standing::Ends(days), format!("the licence for {customer} ends with {expires}, {within}"))
        }
        None => (Standing::Good, format!("the licence for {customer} holds until {expires}")),
    }
}

/// Whether it names both nodes.
fn fits(licence: &Licence, at: &Circumstances) -> Result<(), String> {
    let others: Vec<_> = licence.nodes.iter().filter(|node| **node != at.own).collect();
    match others.as_slice() {
        [_] if at.peers.is_empty() => Ok(()),
        [other] if at.peers.contains(other) => Ok(()),
        [_] => Err(format!("the licence for {} names another peer than this node's", licence.customer)),
        _ => Err(format!("the licence for {} is one of other nodes than this", licence.customer)),
    }
}

/// Those of which one at most lasts, by what each test finds.
const MATTERS: [Matter; 3] = [Matter::LicenceEnds, Matter::LicenceBad, Matter::LicenceOver];

impl<S: StoreRead> Core<S> {
    /// The licence was tested.
    pub(super) fn licence_tested(&mut self, tested: Tested) {
        let Tested { standing, text, clock_back, .. } = tested;
        let matter = match standing {
            Standing::NotAsked | Standing::Good => None,
            Standing::Ends(_) => Some(Matter::LicenceEnds),
            Standing::Grace(_) => Some(Matter::LicenceBad),
            Standing::Over => Some(Matter::LicenceOver),
        };
        let lasted = MATTERS.into_iter().find(|matter| self.incidents.lasts(*matter));
        match (matter, lasted) {
            (None, Some(before)) => self.incident_over(before, "licence-good", text),
            (None, None) => {}
            (Some(matter), before) => {
                self.settled(before.filter(|before| *before != matter).as_slice());
                self.incident_once(matter.row().severity, matter, text);
            }
        }
        match clock_back {
            Some(day) => {
                let text =
                    format!("the clock is before {day}, which it once told: the licence is held to that day");
                self.incident_once(Severity::Warning, Matter::ClockBack, text);
            }
            None => {
                self.incident_over(Matter::ClockBack, "clock-right", "the clock is right again".to_owned())
            }
        }
        self.licence = standing;
        self.dirty = true;
    }

    /// Why no stream to the peer may begin now, if that is so.
    pub(super) fn unlicensed(&self) -> Option<&'static str> {
        (self.licence == Standing::Over)
            .then_some("no new link is begun without a licence (`hot-backup license show`); all else goes on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 32] = [1; 32];
    const PEER: [u8; 32] = [2; 32];

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    fn licence() -> Licence {
        let (issued, expires) = (day("2026-01-01"), day("2026-12-31"));
        Licence { customer: "Example".to_owned(), nodes: [PEER, OWN], issued, expires }
    }

    fn on(today: &str) -> Circumstances {
        Circumstances {
            own: OWN,
            peers: vec![[9; 32], PEER],
            today: day(today),
            record: LicenceRecord::default(),
        }
    }

    fn standing(paper: &Paper, at: &Circumstances) -> Standing {
        test(paper, at).standing
    }

    #[test]
    fn a_good_licence_holds_through_its_last_day_and_reminds_before() {
        let good = Paper::Signed(licence());
        let found = ["2026-01-01", "2026-11-30", "2026-12-01", "2026-12-24", "2026-12-30", "2026-12-31"]
            .map(|today| standing(&good, &on(today)));
        use Standing::{Ends, Good};
        assert_eq!(found, [Good, Good, Ends(30), Ends(7), Ends(1), Ends(1)]);
        // Before a peer is trusted, the own key is all that can be held to it.
        let alone = Circumstances { peers: Vec::new(), ..on("2026-05-05") };
        assert_eq!(standing(&good, &alone), Standing::Good);
    }

    #[test]
    fn each_licence_that_does_not_hold_says_why_and_has_its_grace() {
        let foreign = Licence { nodes: [PEER, [3; 32]], ..licence() };
        let other_peer = Licence { nodes: [OWN, [3; 32]], ..licence() };
        let cases = [
            (Paper::Missing, "there is no licence; all goes on as ever until 2026-06-30"),
            (Paper::Unreadable("denied".to_owned()), "the licence cannot be read: denied; "),
            (Paper::Damaged(LicenceError::TooLong), "the licence is damaged: it has more lines"),
            (Paper::NotSigned, "the licence was altered, or signed by another"),
            (Paper::Signed(foreign), "the licence for Example is one of other nodes than this; "),
            (Paper::Signed(other_peer), "the licence for Example names another peer than this node's; "),
        ];
        for (paper, words) in cases {
            let mut at = on("2026-06-01");
            let tested = test(&paper, &at);
            assert!(tested.text.starts_with(words), "{paper:?}: {}", tested.text);
            assert_eq!(tested.standing, Standing::Grace(30));
            at.record = tested.record;
            at.today = day("2026-06-30");
            assert_eq!(standing(&paper, &at), Standing::Grace(1));
            at.today = day("2026-07-01");
            let over = test(&paper, &at);
            assert_eq!(over.standing, Standing::Over);
            assert!(
                over.text.ends_with("no new link to the standby is begun; all else goes on"),
                "{}",
                over.text
            );
            // Another reason is no new grace; a good licence is.
            at.record = over.record;
            assert_eq!(standing(&Paper::Missing, &at), Standing::Over);
            at.record = test(&Paper::Signed(licence()), &at).record;
            assert_eq!(standing(&paper, &at), Standing::Grace(30));
        }
    }

    #[test]
    fn the_grace_of_a_licence_that_ended_begins_with_its_end() {
        let ended = Paper::Signed(licence());
        let found = ["2027-01-01", "2027-01-30", "2027-01-31", "2029-01-01"]
            .map(|today| standing(&ended, &on(today)));
        use Standing::{Grace, Over};
        assert_eq!(found, [Grace(30), Grace(1), Over, Over]);
        assert!(
            test(&ended, &on("2027-01-01"))
                .text
                .contains("ended with 2026-12-31; all goes on as ever until 2027-01-30")
        );
    }

    #[test]
    fn turning_the_clock_back_gains_nothing_and_is_told_and_a_new_licence_forgets_a_clock_that_was_ahead() {
        let paper = Paper::Signed(licence());
        let mut at = on("2027-02-15");
        assert_eq!(standing(&paper, &at), Standing::Over);
        at.record = test(&paper, &at).record;
        at.today = day("2026-06-01");
        let back = test(&paper, &at);
        assert_eq!((back.standing, back.clock_back), (Standing::Over, Some(day("2027-02-15"))));
        // Before it was issued: judged as on that day.
        let early = test(&paper, &on("2025-06-01"));
        assert_eq!((early.standing, early.clock_back), (Standing::Good, Some(day("2026-01-01"))));
        assert_eq!(test(&paper, &on("2025-12-31")).clock_back, None, "it may be a time zone");
        // The same licence again forgets nothing, a newer one does.
        at.record = back.record;
        assert_eq!(standing(&paper, &at), Standing::Over);
        let newer = Licence { issued: day("2026-06-01"), ..licence() };
        let after = test(&Paper::Signed(newer), &at);
        assert_eq!(
            (after.standing, after.clock_back, after.record.seen),
            (Standing::Good, None, day("2026-06-01"))
        );
    }
}
