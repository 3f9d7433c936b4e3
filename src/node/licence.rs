//! The licence of a node: its file, the test at the start and each day, and how one is installed. What a test means is
//! decided by [`crate::engine::licence`].

use super::config::Config;
use super::identity::Peers;
use super::inbox::{CoreEnded, Inbox};
use super::layout::{Layout, OwnName};
use super::setup::{SetupError, identity, replace};
use crate::base::limits::{LICENCE_FILE_MAX, LICENCE_LOOK_MS, LICENCE_TEST_MS};
use crate::engine::Event;
pub use crate::engine::licence::Paper;
use crate::engine::licence::{Circumstances, Tested, test};
use crate::format::licence::{Day, LICENCE_RECORD, LicenceRecord, SignedLicence};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A licence that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// What was found.
    pub paper: Paper,
    /// What it means.
    pub tested: Tested,
}

/// Why a licence was not installed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Nobody asks for one.
    #[error("installing a licence: the config names no `licence_key`, so none is asked for")]
    NotAsked,
    /// It does not hold.
    #[error("installing a licence: {0}")]
    NotGood(String),
    /// The node's directory or config.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// A paper, judged by the key alone.
#[must_use]
pub fn paper_of(text: &str, key: &[u8; 32]) -> Paper {
    match SignedLicence::parse(text) {
        Err(error) => Paper::Damaged(error),
        Ok(SignedLicence { licence, signature }) => {
            let signed = licence.signed_text();
            match UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature) {
                Ok(()) => Paper::Signed(licence),
                Err(_) => Paper::NotSigned,
            }
        }
    }
}

fn installed(layout: &Layout, key: &[u8; 32]) -> Paper {
    match layout.read_text(&layout.licence(), false, LICENCE_FILE_MAX) {
        Ok(text) => paper_of(&text, key),
        Err(distrust) if distrust.kind() == Some(std::io::ErrorKind::NotFound) => Paper::Missing,
        Err(distrust) => Paper::Unreadable(distrust.to_string()),
    }
}

fn today() -> Day {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Day::of_wall(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

fn circumstances(layout: &Layout) -> Result<Circumstances, SetupError> {
    let own = identity(layout.dir())?.fingerprint.0;
    let peers = Peers::load(layout)?.identities.iter().map(|peer| peer.fingerprint.0).collect();
    // What cannot be read is begun anew: that it was changed by hand is nothing that could be prevented.
    let record = layout.read(&layout.licence_record(), false, LICENCE_RECORD).ok();
    let record = record.and_then(|bytes| LicenceRecord::decode(&bytes).ok()).unwrap_or_default();
    Ok(Circumstances { own, peers, today: today(), record })
}

/// Looks at the licence of the node in `dir`, or at the one in `text`, without changing anything; `None` if none is asked for.
///
/// # Errors
/// [`SetupError`] if `dir` is no node's.
pub fn examine(dir: &Path, text: Option<&str>) -> Result<Option<Examined>, SetupError> {
    let layout = Layout::new(dir);
    let Some(key) = Config::load(dir)?.licence_key else { return Ok(None) };
    let paper = text.map_or_else(|| installed(&layout, &key), |text| paper_of(text, &key));
    let tested = test(&paper, &circumstances(&layout)?);
    Ok(Some(Examined { paper, tested }))
}

/// Puts the licence in `text` in the place of the one before, if it holds. A running node notices it within seconds.
///
/// # Durability
/// When it returns, the file is synced.
///
/// # Errors
/// [`InstallError`]; the licence before stays.
pub fn install(dir: &Path, text: &str) -> Result<Examined, InstallError> {
    let layout = Layout::new(dir);
    super::owner::check_owner(&layout, "license install FILE")?;
    let Some(examined) = examine(dir, Some(text))? else { return Err(InstallError::NotAsked) };
    if !examined.tested.holds() {
        return Err(InstallError::NotGood(examined.tested.text));
    }
    // Only the licence is kept, not the mail around it.
    let plain = SignedLicence::parse(text).map_err(|error| InstallError::NotGood(error.to_string()))?;
    replace(&layout, OwnName::Licence, plain.to_string().as_bytes())?;
    Ok(examined)
}

/// When the licence has to be tested again.
#[derive(Debug, Default)]
struct Rhythm {
    last: Option<(Instant, Option<(u64, i64, i64)>)>,
}

impl Rhythm {
    /// A day is over, or the file is another.
    fn is_due(&mut self, layout: &Layout) -> bool {
        let file = std::fs::symlink_metadata(layout.licence()).ok();
        let seen = file.map(|file| (file.ino(), file.mtime(), file.mtime_nsec()));
        let due = self.last.as_ref().is_none_or(|(at, before)| {
            *before != seen || at.elapsed() >= Duration::from_millis(LICENCE_TEST_MS)
        });
        if due {
            self.last = Some((Instant::now(), seen));
        }
        due
    }
}

/// The tests of a node's licence, while it runs.
pub(crate) struct Tester {
    layout: Layout,
    key: [u8; 32],
    inbox: Inbox,
    rhythm: Rhythm,
}

impl Tester {
    /// Tests it for the first time: what was found is the first thing that the core hears, before it dials.
    pub(crate) fn begin(layout: &Layout, key: [u8; 32], inbox: &Inbox) -> Self {
        let (layout, inbox) = (layout.clone(), inbox.clone());
        let mut tester = Self { layout, key, inbox, rhythm: Rhythm::default() };
        // The core has not ended before it began.
        let _ = tester.look();
        tester
    }

    /// Tests it each day, and when there is another one, until the other end of `ended` is gone.
    pub(crate) fn run(mut self, ended: &Receiver<()>) {
        let pause = Duration::from_millis(LICENCE_LOOK_MS);
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) && self.look().is_ok() {}
    }

    fn look(&mut self) -> Result<(), CoreEnded> {
        if self.rhythm.is_due(&self.layout) { tell(&self.layout, &self.key, &self.inbox) } else { Ok(()) }
    }
}

fn tell(layout: &Layout, key: &[u8; 32], inbox: &Inbox) -> Result<(), CoreEnded> {
    let at = match circumstances(layout) {
        Ok(at) => at,
        // The link has no keys then either, and says so.
        Err(error) => {
            tracing::warn!("testing the licence: {error}");
            return Ok(());
        }
    };
    let tested = test(&installed(layout, key), &at);
    if tested.record != at.record
        && let Err(error) = replace(layout, OwnName::LicenceRecord, &tested.record.encode())
    {
        tracing::warn!("testing the licence: {error}");
    }
    tracing::info!("licence: {}", super::log::one_line(&tested.text));
    inbox.event(Event::Licence(Box::new(tested)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::licence::Standing;
    use crate::format::licence::Licence;
    use crate::node::setup::{InitOptions, init, trust};
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    fn signer(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn node(dir: &Path, name: &str, role: &str) -> Layout {
        let key: String = signer(7).public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let options = InitOptions::new(dir.join(name), name, role, "127.0.0.1:1", "127.0.0.1:2");
        init(&options.with("licence_key", Some(key))).unwrap()
    }

    fn signed(nodes: [&Layout; 2], signer: &Ed25519KeyPair, days: u64) -> String {
        let nodes = nodes.map(|node| identity(node.dir()).unwrap().fingerprint.0);
        let (issued, expires) = (today(), today().plus(days));
        let licence = Licence { customer: "Example".to_owned(), nodes, issued, expires };
        let signature = signer.sign(licence.signed_text().as_bytes()).as_ref().try_into().unwrap();
        SignedLicence { licence, signature }.to_string()
    }

    #[test]
    fn only_a_licence_that_the_distributor_signed_for_these_nodes_is_installed_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = [("a", "primary"), ("b", "standby"), ("c", "standby")]
            .map(|(name, role)| node(dir.path(), name, role));
        trust(a.dir(), &identity(b.dir()).unwrap().to_string()).unwrap();
        let missing = examine(a.dir(), None).unwrap().unwrap();
        assert_eq!((missing.paper, missing.tested.standing), (Paper::Missing, Standing::Grace(30)));
        let good = signed([&b, &a], &signer(7), 400);
        let altered = good.replace("Example", "Examples");
        for (text, why) in [
            (signed([&b, &a], &signer(8), 400), "signed by another"),
            (altered, "it was altered"),
            (signed([&b, &c], &signer(7), 400), "other nodes than this"),
            (signed([&a, &c], &signer(7), 400), "another peer"),
            ("hello".to_owned(), "it has no line"),
        ] {
            let error = install(a.dir(), &text).unwrap_err().to_string();
            assert!(error.contains(why) || error.contains("was altered"), "{why}: {error}");
            assert!(!a.licence().exists());
        }
        let mail = format!("Dear customer,\n> {}\nYours", good.replace('\n', "\n> "));
        let installed = install(a.dir(), &mail).unwrap();
        assert_eq!(installed.tested.standing, Standing::Good);
        assert_eq!(std::fs::read_to_string(a.licence()).unwrap(), good);
        assert_eq!(examine(a.dir(), None).unwrap().unwrap().tested.standing, Standing::Good);
        assert!(!a.licence_record().exists(), "a look changes nothing");
    }

    #[test]
    fn without_a_key_nothing_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions::new(dir.path().join("a"), "a", "primary", "127.0.0.1:1", "127.0.0.1:2");
        let a = init(&options).unwrap();
        assert_eq!(examine(a.dir(), None).unwrap(), None);
        assert!(matches!(install(a.dir(), "x"), Err(InstallError::NotAsked)));
    }

    #[test]
    fn it_is_tested_at_the_start_and_when_the_file_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let a = node(dir.path(), "a", "primary");
        let mut rhythm = Rhythm::default();
        assert_eq!([rhythm.is_due(&a), rhythm.is_due(&a)], [true, false]);
        for text in ["one", "two"] {
            replace(&a, OwnName::Licence, text.as_bytes()).unwrap();
            assert_eq!([rhythm.is_due(&a), rhythm.is_due(&a)], [true, false], "{text}");
        }
        std::fs::remove_file(a.licence()).unwrap();
        assert_eq!([rhythm.is_due(&a), rhythm.is_due(&a)], [true, false]);
        let (at, seen) = rhythm.last.unwrap();
        rhythm.last = Some((at.checked_sub(Duration::from_millis(LICENCE_TEST_MS)).unwrap(), seen));
        assert!(rhythm.is_due(&a), "a day is over");
    }
}
