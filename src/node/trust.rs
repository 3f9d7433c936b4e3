//! Introducing two nodes to each other, and a new one in place of one that is lost.

use super::adopt::join;
use super::identity::{Identity, PEER_KEYS_MAX, Peers};
use super::layout::{Layout, OwnName};
use super::owner::check_owner;
use super::setup::{SetupError, check_own, distrusted, identity, io_error, read_control, replace};
use crate::base::limits::KEY_FILE_MAX;
use crate::io::{Demand, lock_file, open_trusted};
use std::path::PathBuf;

/// What a [`trust`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustOutcome {
    /// The peer.
    pub peer: Identity,
    /// Whether its key was not accepted before.
    pub added: bool,
    /// Whether this node joined the peer's pair as its standby.
    pub joined: bool,
    /// Those whose keys were accepted before, and are not any more.
    pub replaced: Vec<Identity>,
    /// How many keys are accepted now.
    pub keys: usize,
}

/// Accepts the key of the identity in `text` as the peer's. A standby that holds no data yet joins its pair.
/// Doing it again changes nothing.
///
/// # Durability
/// When it returns, the change is synced. Interrupted, it can be done again.
///
/// # Errors
/// [`SetupError`].
pub fn trust(dir: impl Into<PathBuf>, text: &str) -> Result<TrustOutcome, SetupError> {
    introduce(dir, text, false)
}

/// The same when one of the two takes a lost node's place: a node that holds no data becomes the peer's standby, whatever it
/// was made as; one that holds data accepts no other key any more.
///
/// # Durability
/// As [`trust`].
///
/// # Errors
/// [`SetupError`].
pub fn trust_in_place(dir: impl Into<PathBuf>, text: &str) -> Result<TrustOutcome, SetupError> {
    introduce(dir, text, true)
}

fn introduce(dir: impl Into<PathBuf>, text: &str, in_place: bool) -> Result<TrustOutcome, SetupError> {
    let peer: Identity = text.parse()?;
    let layout = Layout::new(dir);
    check_owner(&layout, if in_place { "trust --replace IDENTITY" } else { "trust IDENTITY" })?;
    check_own(&layout)?;
    let own = identity(layout.dir())?;
    if peer.fingerprint == own.fingerprint {
        return Err(SetupError::OwnIdentity);
    }
    if peer.ordinal == own.ordinal && !in_place {
        let role = if own.ordinal.0 == 0 { "primary" } else { "standby" };
        return Err(SetupError::SameOrdinal { peer: peer.name, role });
    }
    // Two of these at once must not lose each other's line; the certificate is a file that always exists.
    let certificate = layout.identity_certificate();
    let demand = Demand { most: KEY_FILE_MAX, secret: false, linked: false };
    let guard = open_trusted(&certificate, demand).map_err(distrusted(&certificate))?;
    let _guard = lock_file(guard).map_err(io_error("locking", &certificate))?;
    let mut peers = Peers::load(&layout)?;
    let known = peers.identities.iter().any(|known| known.fingerprint == peer.fingerprint);
    if !known && peers.identities.len() >= PEER_KEYS_MAX && !in_place {
        return Err(SetupError::TooManyKeys { peer: peer.name, file: layout.peers() });
    }
    let control = read_control(&layout)?;
    let apart = peer.pair != own.pair || peer.pair != control.pair || peer.ordinal == own.ordinal;
    // The primary keeps its pair: the standby is the one that has nothing yet.
    let joined = apart && (in_place || own.ordinal.0 == 1);
    if joined {
        join(&layout, &own, &peer).map_err(|error| match error {
            SetupError::OtherPair { peer, .. } if in_place => SetupError::NotJoined { peer },
            other => other,
        })?;
    }
    let lost = |other: &Identity| in_place && other.fingerprint != peer.fingerprint;
    let replaced: Vec<Identity> = peers.identities.extract_if(.., |other| lost(other)).collect();
    if !known {
        peers.identities.push(peer.clone());
    }
    if !known || !replaced.is_empty() {
        replace(&layout, OwnName::Peers, peers.text().as_bytes())?;
    }
    let keys = peers.identities.len();
    Ok(TrustOutcome { added: !known, joined, replaced, keys, peer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, Ordinal};
    use crate::format::control::Role;
    use crate::node::setup::{InitOptions, init};
    use std::path::Path;

    fn make(dir: &Path, name: &str, role: &str) -> Layout {
        init(&InitOptions::new(dir.join(name), name, role, "127.0.0.1:1", "127.0.0.1:2")).unwrap()
    }

    fn line(node: &Layout) -> String {
        identity(node.dir()).unwrap().to_string()
    }

    /// A node that has served: it keeps its pair and its number.
    fn has_served(node: &Layout) {
        let mut control = read_control(node).unwrap();
        control.epoch = Epoch(control.epoch.0 + 3);
        replace(node, OwnName::Control, &control.encode()).unwrap();
    }

    #[test]
    fn a_new_node_takes_the_place_of_the_lost_one_whichever_that_was_and_whatever_it_was_made_as() {
        for (lost, role) in [("a", "standby"), ("a", "primary"), ("b", "standby"), ("b", "primary")] {
            let dir = tempfile::tempdir().unwrap();
            let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
            trust(b.dir(), &line(&a)).unwrap();
            trust(a.dir(), &line(&b)).unwrap();
            let (survivor, other) = if lost == "a" { (&b, &a) } else { (&a, &b) };
            has_served(survivor);
            let c = make(dir.path(), "c", role);
            // The wrong way round: nothing is changed, and the way is named.
            let error = trust_in_place(survivor.dir(), &line(&c)).unwrap_err();
            assert!(matches!(error, SetupError::NotJoined { .. }), "{error}");
            assert!(error.next().contains("trust --replace"), "{}", error.next());
            assert_eq!(Peers::load(survivor).unwrap().identities.len(), 1);
            let at_c = trust_in_place(c.dir(), &line(survivor)).unwrap();
            assert!(at_c.joined && at_c.replaced.is_empty(), "{at_c:?}");
            let at_survivor = trust_in_place(survivor.dir(), &line(&c)).unwrap();
            assert_eq!(at_survivor.replaced, [identity(other.dir()).unwrap()]);
            assert_eq!((at_survivor.joined, at_survivor.keys), (false, 1));
            let (place, kept) = (identity(c.dir()).unwrap(), identity(survivor.dir()).unwrap());
            assert_eq!((place.pair, place.ordinal), (kept.pair, identity(other.dir()).unwrap().ordinal));
            assert_eq!(kept.ordinal, Ordinal(u8::from(lost == "a")));
            let control = read_control(&c).unwrap();
            assert_eq!((control.role, control.pair), (Role::Standby, kept.pair));
            // Again: nothing changes.
            assert!(!trust_in_place(c.dir(), &line(survivor)).unwrap().joined);
            assert!(trust_in_place(survivor.dir(), &line(&c)).unwrap().replaced.is_empty());
        }
    }

    #[test]
    fn a_node_with_data_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let (a, c) = (make(dir.path(), "a", "primary"), make(dir.path(), "c", "standby"));
        has_served(&c);
        let before = std::fs::read(c.config()).unwrap();
        assert!(matches!(trust_in_place(c.dir(), &line(&a)), Err(SetupError::NotJoined { .. })));
        assert_eq!(std::fs::read(c.config()).unwrap(), before);
        assert_eq!(Peers::load(&c).unwrap(), Peers::default());
    }
}
