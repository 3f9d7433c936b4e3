//! Making a node's directory, introducing two nodes to each other, and the lock that keeps a second daemon out.

use super::config::Config;
use super::config_file::{ConfigErrors, Key, Kind, quoted, quoted_list, render, unknown_key};
use super::identity::{Identity, IdentityError, NewKey, NodeKey, PEER_KEYS_MAX, random};
pub use super::layout::Layout;
use super::layout::OwnName;
use super::owner::check_owner;
pub use super::trust::{TrustOutcome, trust, trust_in_place};
use crate::base::limits::CONTROL_FILE_MAX;
use crate::base::{JournalKind, plainly};
use crate::format::control::{Control, Role};
use crate::format::{DecodeError, PairId};
use crate::io::{Access, DirLock, Distrust, LockError, check_dir, lock_dir, sync_dir};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a node cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The directory is a node already. Nothing was changed.
    #[error("initialising {}: it is a node already", dir.display())]
    AlreadyANode {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds an initialisation that was interrupted. Nothing was changed.
    #[error("initialising {}: it holds an initialisation that was interrupted", dir.display())]
    Unfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds something else. Nothing was changed.
    #[error("initialising {}: the directory is not empty", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// What `init` was given is bad. Nothing was changed.
    #[error("initialising {}: {}", dir.display(), given(errors))]
    Given {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        errors: ConfigErrors,
    },
    /// The settings are bad. Nothing was changed.
    #[error("{0}")]
    Settings(#[from] ConfigErrors),
    /// An identity is bad. Nothing was changed.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The identity is this node's own. Nothing was changed.
    #[error("trusting a peer: this is the identity of this very node")]
    OwnIdentity,
    /// Both nodes were initialised in the same role. Nothing was changed.
    #[error("trusting {peer}: both nodes were initialised as {role}")]
    SameOrdinal {
        /// The peer's name.
        peer: String,
        /// The role of both.
        role: &'static str,
    },
    /// The node that takes a lost one's place is not of this node's pair yet. Nothing was changed.
    #[error("trusting {peer} in a lost node's place: it does not belong to this node's pair yet")]
    NotJoined {
        /// The new node's name.
        peer: String,
    },
    /// There are enough keys. Nothing was changed.
    #[error("trusting {peer}: {} already lists {PEER_KEYS_MAX} keys", file.display())]
    TooManyKeys {
        /// The peer's name.
        peer: String,
        /// The list.
        file: PathBuf,
    },
    /// The standby holds data of another pair. Nothing was changed.
    #[error("trusting {peer}: this node holds data of pair {own}, the peer belongs to pair {theirs}")]
    OtherPair {
        /// The peer's name.
        peer: String,
        /// This node's pair.
        own: PairId,
        /// The peer's.
        theirs: PairId,
    },
    /// A restore into the directory has not ended. Nothing was changed.
    #[error("using {}: a restore into it is not finished ({from}), so it is no whole node", dir.display())]
    Restoring {
        /// The directory.
        dir: PathBuf,
        /// What is restored.
        from: String,
    },
    /// Somebody else holds the directory's lock. Nothing was changed.
    #[error("locking {}: {}", dir.display(), holder_text(*.holder))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, if it told.
        holder: Option<u32>,
    },
    /// Root works in the directory of another user's node. Nothing was changed.
    #[error("using {} as root: it belongs to user {user}", dir.display())]
    NotRoots {
        /// The directory.
        dir: PathBuf,
        /// Its owner.
        user: String,
        /// What was to be done, as on the command line.
        verb: &'static str,
    },
    /// Config and control file are not of the same pair. Nothing was changed.
    #[error("reading {}: the control file is of pair {control}, the config of pair {config}", dir.display())]
    PairMismatch {
        /// The directory.
        dir: PathBuf,
        /// In the control file.
        control: PairId,
        /// In the config.
        config: PairId,
    },
    /// The control file is damaged. Nothing was changed.
    #[error("reading {}: {source}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// A directory or file of the node is another user's, or others may write to it. Nothing was changed.
    #[error("using {}: {source}", path.display())]
    Distrusted {
        /// The directory or file.
        path: PathBuf,
        /// Why it is not believed.
        source: Distrust,
    },
    /// The file system refused. What was made before it did is still there.
    #[error("{what} {}: {}", path.display(), plainly(source))]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn holder_text(holder: Option<u32>) -> String {
    match holder {
        Some(pid) => format!("process {pid} uses it"),
        None => "another process uses it".to_owned(),
    }
}

/// The errors of settings that stand in no file yet.
fn given(errors: &ConfigErrors) -> String {
    errors.errors.iter().map(|error| error.what.as_str()).collect::<Vec<_>>().join("; ")
}

impl SetupError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::AlreadyANode { .. } => {
                "choose another directory, or start this node with `hot-backup serve`".to_owned()
            }
            Self::Unfinished { dir } => format!("remove {} and initialise again", dir.display()),
            Self::NotEmpty { .. } => "choose a directory that is empty or not there yet".to_owned(),
            Self::Given { .. } => {
                "correct the flag of that name or what --set gives it; `hot-backup init --help` explains each".to_owned()
            }
            Self::Settings(errors) => errors.next(),
            Self::Identity(IdentityError::NotAnIdentity | IdentityError::Damaged { .. }) => {
                "copy the whole line that `hot-backup identity` prints on the other node".to_owned()
            }
            Self::Identity(IdentityError::Version { .. }) => "use the same version on both nodes".to_owned(),
            Self::Identity(_) => "check the directory given with --dir".to_owned(),
            Self::OwnIdentity => {
                "give it the line that `hot-backup identity` prints on the other node".to_owned()
            }
            Self::SameOrdinal { .. } => {
                "initialise one node with --role primary and the other with --role standby".to_owned()
            }
            Self::NotJoined { .. } => {
                "if this node stays: on the new machine say first: hot-backup trust --replace IDENTITY-OF-THIS-NODE, and give \
                 this node the line that `hot-backup identity` prints there then; if this is the new machine: it holds data, \
                 make another directory with `hot-backup init`"
                    .to_owned()
            }
            Self::TooManyKeys { file, .. } => {
                format!("if one of them is lost for good: hot-backup trust --replace IDENTITY; else remove the line of the key that is no longer used from {}", file.display())
            }
            Self::OtherPair { own, .. } => format!(
                "if this node's data is not needed, initialise a new directory; if it is, initialise the other \
                 node again with --pair-id {own}"
            ),
            Self::Restoring { dir, .. } => format!(
                "run `hot-backup restore --from SET --dir {}` again: it begins anew; or make a new directory",
                dir.display()
            ),
            Self::Locked { .. } => {
                "stop that process first (a running node: SIGTERM), then run this again".to_owned()
            }
            Self::NotRoots { dir, user, verb } => format!(
                "run it as that user, who could not read what root leaves there: runuser -u '{user}' -- hot-backup {verb} \
                 --dir {}; in a systemd unit say User={user}",
                dir.display()
            ),
            Self::PairMismatch { .. } => {
                "a `hot-backup trust` was interrupted: run it again with the peer's identity".to_owned()
            }
            Self::Control { .. } => {
                "the disk or a hand has damaged it; set this node up anew from its peer".to_owned()
            }
            Self::Distrusted { .. } => {
                "a node's directory and files belong to the user that runs it, and nobody else may write to them"
                    .to_owned()
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path".to_owned(),
                io::ErrorKind::PermissionDenied => {
                    "run it as the user that owns the directory; root makes one for USER with: install -d -o USER -m 700 DIR"
                        .to_owned()
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk".to_owned(),
                io::ErrorKind::ReadOnlyFilesystem => "choose a directory on a disk that can be written".to_owned(),
                _ => "check the path, its owner and the free space".to_owned(),
            },
        }
    }
}

/// What `init` is told, as on the command line; [`KEYS`](super::config_file::KEYS) says what is allowed.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// The directory to make.
    pub dir: PathBuf,
    /// The node's name.
    pub name: String,
    /// primary or standby; master and slave mean the same.
    pub role: String,
    /// Where this node receives from its peer.
    pub link_listen: String,
    /// Where the peer does.
    pub peer: String,
    /// The pair to join, for a node that replaces a lost one; normally none.
    pub pair_id: Option<PairId>,
    /// Where Redis clients connect.
    pub resp: Vec<String>,
    /// Where NBD clients connect.
    pub nbd: Vec<String>,
    /// Any other key of the config with its value as text, such as `("ack_level", "durable")`. A key that holds addresses
    /// may be given again.
    pub settings: Vec<(String, String)>,
}

impl InitOptions {
    /// With what must be given.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, name: &str, role: &str, link_listen: &str, peer: &str) -> Self {
        Self {
            dir: dir.into(),
            name: name.to_owned(),
            role: role.to_owned(),
            link_listen: link_listen.to_owned(),
            peer: peer.to_owned(),
            ..Self::default()
        }
    }

    /// The same with one more setting; `None` leaves it at its default.
    #[must_use]
    pub fn with(mut self, key: &str, value: Option<impl ToString>) -> Self {
        self.settings.extend(value.map(|value| (key.to_owned(), value.to_string())));
        self
    }

    /// Every setting as a TOML literal; none may be `taken` already. Addresses may be given again, and make a list.
    fn literals(&self, taken: &[(&str, String)]) -> Result<Vec<(&'static str, String)>, String> {
        let mut found: Vec<(&'static Key, Vec<String>)> = Vec::new();
        for (name, value) in &self.settings {
            let key = Key::named(name).ok_or_else(|| unknown_key(name))?;
            match found.iter_mut().find(|(other, _)| other.name == key.name) {
                Some((_, values)) if matches!(key.kind, Kind::Listen(_)) => values.push(value.clone()),
                None if taken.iter().all(|(other, _)| other != name) => {
                    found.push((key, vec![value.clone()]))
                }
                _ => return Err(format!("`{name}` is given twice")),
            }
        }
        let literal = |(key, values): (&'static Key, Vec<String>)| {
            let number = matches!(key.kind, Kind::Number { .. } | Kind::Size { .. });
            let plain = values.first().and_then(|value| value.parse::<u64>().ok()).filter(|_| number);
            (key.name, plain.map_or_else(|| quoted_list(&values), |number| number.to_string()))
        };
        Ok(found.into_iter().map(literal).collect())
    }

    /// The config text, checked.
    fn config_text(&self, pair: PairId) -> Result<(String, Config), ConfigErrors> {
        let role = match self.role.as_str() {
            "master" => "primary",
            "slave" => "standby",
            other => other,
        };
        let mut given: Vec<(&str, String)> = vec![
            ("name", quoted(&self.name)),
            ("ordinal", if role == "primary" { "0" } else { "1" }.to_owned()),
            ("initial_role", quoted(role)),
            ("pair_id", quoted(&pair.to_string())),
            ("link_listen", quoted(&self.link_listen)),
            ("peer", quoted(&self.peer)),
        ];
        for (key, places) in [("resp", &self.resp), ("nbd", &self.nbd)] {
            if !places.is_empty() {
                given.push((key, quoted_list(places)));
            }
        }
        let file = Layout::new(&self.dir).config();
        given.extend(self.literals(&given).map_err(|what| ConfigErrors::whole(&file, what))?);
        let text = render(&given);
        let config = Config::parse(&file, &text)?;
        Ok((text, config))
    }
}

/// Makes a node: its directory (mode 0700), config, key, empty journals and store, control file.
///
/// # Durability
/// When it returns, all of it is synced. The control file comes last: without it the directory is no node.
///
/// # Errors
/// [`SetupError`]; a directory that is not empty is never touched.
pub fn init(options: &InitOptions) -> Result<Layout, SetupError> {
    let pair = match options.pair_id {
        Some(pair) => pair,
        None => {
            let mut bytes = [0; 16];
            random(&mut bytes)?;
            PairId(bytes)
        }
    };
    let (text, config) =
        options.config_text(pair).map_err(|errors| SetupError::Given { dir: options.dir.clone(), errors })?;
    let key = NewKey::generate(&config.engine.name)?;
    let layout = Layout::new(&options.dir);
    make_dir(&layout)?;
    let dirs = [
        layout.dir().join("journal"),
        layout.journal(JournalKind::Replicated),
        layout.journal(JournalKind::Local),
        layout.store(),
        layout.diverged(),
    ];
    for dir in &dirs {
        DirBuilder::new().mode(0o700).create(dir).map_err(io_error("creating", dir))?;
    }
    replace(&layout, OwnName::Config, text.as_bytes())?;
    replace(&layout, OwnName::IdentityKey, key.key_pem.as_bytes())?;
    replace(&layout, OwnName::IdentityCertificate, key.certificate_pem.as_bytes())?;
    synced(&layout.dir().join("journal"))?;
    let control = Control::new(config.initial_role, pair);
    replace(&layout, OwnName::Control, &control.encode())?;
    if let Some(parent) = std::path::absolute(layout.dir()).ok().as_deref().and_then(Path::parent) {
        synced(parent)?;
    }
    Ok(layout)
}

/// The line that introduces the node in `dir` to its peer.
///
/// # Errors
/// [`SetupError::Settings`] or [`SetupError::Identity`].
pub fn identity(dir: impl Into<PathBuf>) -> Result<Identity, SetupError> {
    let layout = Layout::new(dir);
    let config = Config::load(layout.dir())?;
    let key = NodeKey::load(&layout)?;
    Ok(Identity {
        name: config.engine.name,
        ordinal: config.engine.ordinal,
        pair: config.engine.pair,
        fingerprint: key.fingerprint,
    })
}

/// Reads the control file.
///
/// # Errors
/// [`SetupError::Io`] or [`SetupError::Control`].
pub fn read_control(layout: &Layout) -> Result<Control, SetupError> {
    let path = layout.control();
    let bytes = layout.read(&path, false, CONTROL_FILE_MAX).map_err(distrusted(&path))?;
    Control::decode(&bytes).map_err(|source| SetupError::Control { path, source })
}

/// Reads the control file of the node that `config` belongs to, and tests that both are of one pair.
///
/// # Errors
/// As [`read_control`], and [`SetupError::PairMismatch`].
pub fn load_control(layout: &Layout, config: &Config) -> Result<Control, SetupError> {
    let control = read_control(layout)?;
    if control.pair != config.engine.pair {
        let (dir, config) = (layout.dir().to_owned(), config.engine.pair);
        return Err(SetupError::PairMismatch { dir, control: control.pair, config });
    }
    Ok(control)
}

/// Checks that the directory of a node, and those in it, belong to this process's user and that nobody else may write to
/// them. What is missing is not looked at.
///
/// # Errors
/// [`SetupError::Distrusted`].
pub fn check_own(layout: &Layout) -> Result<(), SetupError> {
    let dirs = [
        layout.dir().to_owned(),
        layout.dir().join("journal"),
        layout.journal(JournalKind::Replicated),
        layout.journal(JournalKind::Local),
        layout.store(),
        layout.volumes(),
        layout.diverged(),
    ];
    dirs.iter().try_for_each(|dir| check_dir(dir, Access::Change).map_err(distrusted(dir)))
}

/// Takes the directory's lock without waiting.
///
/// # Errors
/// [`SetupError::Locked`] if another process has it, [`SetupError::Io`].
pub fn lock(layout: &Layout) -> Result<DirLock, SetupError> {
    let file = layout.own(OwnName::Lock);
    lock_dir(&file).map_err(|error| match error {
        LockError::Held { holder } => SetupError::Locked { dir: layout.dir().to_owned(), holder },
        LockError::Io(source) => io_error("locking", file.path())(source),
    })
}

/// Replaces a file of the node; see [`crate::io::Own::replace`].
pub(super) fn replace(layout: &Layout, name: OwnName, bytes: &[u8]) -> Result<(), SetupError> {
    let file = layout.own(name);
    file.replace(bytes).map_err(io_error("writing", file.path()))
}

fn synced(dir: &Path) -> Result<(), SetupError> {
    sync_dir(dir).map_err(io_error("syncing", dir))
}

/// Makes the directory, or takes one that is empty.
fn make_dir(layout: &Layout) -> Result<(), SetupError> {
    let dir = layout.dir();
    check_owner(layout, "init ..")?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(io_error("creating", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(io_error("creating", dir)),
    }
    must_be_empty(layout)?;
    // It was somebody's before: whoever made it could still change it.
    let open = |distrust: &Distrust| matches!(distrust, Distrust::Writable { .. });
    match check_dir(dir, Access::Change) {
        Err(distrust) if !open(&distrust) => return Err(distrusted(dir)(distrust)),
        _ => {}
    }
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, private).map_err(io_error("setting the mode of", dir))?;
    // From now on nobody can put anything in; until now somebody could.
    must_be_empty(layout)
}

fn must_be_empty(layout: &Layout) -> Result<(), SetupError> {
    let dir = layout.dir();
    let mut entries = std::fs::read_dir(dir).map_err(io_error("listing", dir))?;
    if entries.next().is_some() {
        let dir = dir.to_owned();
        return Err(match (layout.control().exists(), layout.config().exists()) {
            (true, _) => SetupError::AlreadyANode { dir },
            (false, true) => SetupError::Unfinished { dir },
            (false, false) => SetupError::NotEmpty { dir },
        });
    }
    Ok(())
}

pub(super) fn distrusted(path: &Path) -> impl FnOnce(Distrust) -> SetupError {
    let path = path.to_owned();
    move |distrust| match distrust {
        Distrust::Io(source) => SetupError::Io { what: "reading", path, source },
        source => SetupError::Distrusted { path, source },
    }
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_owned();
    move |source| SetupError::Io { what, path, source }
}

/// The role of that name: `primary` or `master`, `standby` or `slave`.
#[must_use]
pub fn parse_role(text: &str) -> Option<Role> {
    match text {
        "primary" | "master" => Some(Role::Primary),
        "standby" | "slave" => Some(Role::Standby),
        _ => None,
    }
}

#[cfg(test)]
#[path = "setup_ownership_tests.rs"]
mod ownership_tests;
#[cfg(test)]
mod tests {
    use super::super::identity::Peers;
    use super::*;
    use crate::base::{AckLevel, Epoch, SegmentIndex};

    pub(super) fn make(dir: &Path, name: &str, role: &str) -> Layout {
        let (own, other) = if role == "primary" {
            ("127.0.0.1:2001", "127.0.0.1:2000")
        } else {
            ("127.0.0.1:2000", "127.0.0.1:2001")
        };
        init(&InitOptions::new(dir.join(name), name, role, own, other)).expect("init")
    }

    pub(super) fn line(layout: &Layout) -> String {
        identity(layout.dir()).expect("identity").to_string()
    }

    pub(super) fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn a_new_node_has_private_files_and_no_history() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut options = InitOptions::new(dir.path().join("x/a"), "a", "master", "[::1]:2001", "[::1]:2000")
            .with("ack_level", Some("durable"))
            .with("segment_bytes", Some("1M"))
            .with("heartbeat_ms", Some(100))
            .with("io", None::<String>);
        options.resp = vec!["127.0.0.1:7001".to_owned(), "door.sock".to_owned()];
        assert!(
            init(&options)
                .expect_err("a path needs a slash")
                .to_string()
                .contains("a list with \"door.sock\"")
        );
        assert!(!dir.path().join("x").exists(), "bad settings make nothing");
        options.resp[1] = "./door.sock".to_owned();
        let layout = init(&options).expect("init");
        let config = Config::load(layout.dir()).expect("config");
        assert_eq!((config.initial_role, config.engine.ordinal.0), (Role::Primary, 0));
        assert_eq!(
            (config.engine.ack_level, config.engine.segment_bytes, config.engine.heartbeat_ms),
            (AckLevel::Durable, 1 << 20, 100)
        );
        assert_eq!(config.resp.len(), 2);
        let control = load_control(&layout, &config).expect("control");
        assert_eq!((control.role, control.epoch, control.table.len()), (Role::Primary, Epoch(0), 0));
        assert_eq!(mode(layout.dir()), 0o700);
        for file in [layout.identity_key(), layout.config(), layout.control()] {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        for journal in JournalKind::ALL {
            assert_eq!(std::fs::read_dir(layout.journal(journal)).expect("there").count(), 0);
        }
        assert!(layout.store().is_dir() && layout.diverged().is_dir());
        assert!(matches!(init(&options), Err(SetupError::AlreadyANode { .. })));
        std::fs::remove_file(layout.control()).expect("remove");
        assert!(matches!(init(&options), Err(SetupError::Unfinished { .. })));
    }

    #[test]
    fn a_directory_with_something_in_it_is_not_touched() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        std::fs::write(dir.path().join("letter"), "dear").expect("write");
        let options = InitOptions::new(dir.path(), "a", "primary", "127.0.0.1:1", "127.0.0.1:2");
        assert!(matches!(init(&options), Err(SetupError::NotEmpty { .. })));
        assert_eq!((std::fs::read_dir(dir.path()).expect("there").count(), mode(dir.path())), (1, 0o755));
        std::fs::remove_file(dir.path().join("letter")).expect("remove");
        init(&options).expect("an empty one is taken");
        assert_eq!(mode(dir.path()), 0o700);
    }

    #[test]
    fn settings_of_init_are_checked_by_the_table() {
        let dir = tempfile::tempdir().expect("temp dir");
        let options = InitOptions::new(dir.path().join("a"), "a", "boss", "here", "127.0.0.1:2");
        let errors = init(&options).expect_err("bad");
        let SetupError::Given { errors, .. } = errors else { panic!("{errors}") };
        assert_eq!(errors.errors.len(), 2, "{errors}");
        let shown = SetupError::Given { dir: "a".into(), errors }.to_string();
        assert!(!shown.contains("config.toml"), "there is no file yet: {shown}");
        let options = InitOptions::new(dir.path().join("b"), "b", "primary", "127.0.0.1:1", "127.0.0.1:2")
            .with("nbd", Some("127.0.0.1:3"))
            .with("nbd", Some("/run/x.sock"))
            .with("checkpoint_bytes", Some("256M"))
            .with("serve", None::<String>);
        let config = Config::load(init(&options).expect("any key can be set").dir()).expect("config");
        assert_eq!((config.nbd.len(), config.engine.checkpoint_bytes), (2, 256 << 20));
        for (key, needle) in [
            ("colour", "unknown key `colour`"),
            ("heartbeat", "did you mean `heartbeat_ms`"),
            ("name", "given twice"),
            ("log", "allowed are"),
        ] {
            let options =
                InitOptions::new(dir.path().join("a"), "a", "primary", "127.0.0.1:1", "127.0.0.1:2");
            let error = init(&options.with(key, Some("x"))).expect_err("bad").to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn both_orders_of_trust_end_in_one_pair() {
        for primary_first in [true, false] {
            let dir = tempfile::tempdir().expect("temp dir");
            let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
            let pair = Config::load(a.dir()).expect("config").engine.pair;
            let to_a = || trust(a.dir(), &line(&b)).expect("primary trusts");
            let to_b = || trust(b.dir(), &format!(" {}\n", line(&a))).expect("standby trusts");
            let (at_a, at_b) = if primary_first {
                (to_a(), to_b())
            } else {
                let b = to_b();
                (to_a(), b)
            };
            assert_eq!((at_a.joined, at_a.added, at_a.keys), (false, true, 1));
            assert_eq!((at_b.joined, at_b.added, at_b.keys), (true, true, 1));
            for node in [&a, &b] {
                let config = Config::load(node.dir()).expect("config");
                assert_eq!(config.engine.pair, pair);
                assert_eq!(load_control(node, &config).expect("one pair").pair, pair);
            }
            assert!(
                std::fs::read_to_string(b.config()).expect("text").contains("# The pair."),
                "comments stay"
            );
            let again = to_b();
            assert_eq!((again.joined, again.added, again.keys), (false, false, 1));
        }
    }

    #[test]
    fn an_interrupted_trust_is_noticed_and_can_be_done_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
        let config = Config::load(b.dir()).expect("config");
        let before = std::fs::read_to_string(b.config()).expect("text");
        let control = std::fs::read(b.control()).expect("bytes");
        trust(b.dir(), &line(&a)).expect("trust");
        // As if it had stopped after the control file.
        std::fs::write(b.config(), before).expect("write");
        assert!(matches!(load_control(&b, &config), Err(SetupError::PairMismatch { .. })));
        assert!(trust(b.dir(), &line(&a)).expect("again").joined);
        load_control(&b, &Config::load(b.dir()).expect("config")).expect("one pair now");
        // Or the other way round, by an old control file put back.
        std::fs::write(b.control(), control).expect("write");
        assert!(trust(b.dir(), &line(&a)).expect("again").joined);
        load_control(&b, &Config::load(b.dir()).expect("config")).expect("one pair now");
    }

    #[test]
    fn a_node_trusts_neither_itself_nor_its_like_nor_a_third_key() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
        let other = make(dir.path(), "other", "primary");
        assert!(matches!(trust(a.dir(), &line(&a)), Err(SetupError::OwnIdentity)));
        let error = trust(a.dir(), &line(&other)).expect_err("two primaries");
        assert!(error.to_string().contains("both nodes were initialised as primary"), "{error}");
        assert!(error.next().contains("--role standby"));
        trust(a.dir(), &line(&b)).expect("first key");
        trust(a.dir(), &line(&make(dir.path(), "b2", "standby"))).expect("next key");
        let third = line(&make(dir.path(), "b3", "standby"));
        assert!(matches!(trust(a.dir(), &third), Err(SetupError::TooManyKeys { .. })));
        assert_eq!(Peers::load(&a).expect("peers").identities.len(), 2);
        assert!(matches!(trust(a.dir(), "hb1:x"), Err(SetupError::Identity(_))));
    }

    #[test]
    fn a_standby_with_data_keeps_its_pair_and_says_what_to_do() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
        let segment = b.segment(JournalKind::Local, SegmentIndex(1));
        std::fs::write(&segment, "x").expect("write");
        let error = trust(b.dir(), &line(&a)).expect_err("it has data");
        assert!(matches!(error, SetupError::OtherPair { .. }), "{error}");
        assert_eq!(Peers::load(&b).expect("peers"), Peers::default(), "nothing was changed");
        // What the error proposes works.
        let own = Config::load(b.dir()).expect("config").engine.pair;
        assert!(error.next().contains(&format!("--pair-id {own}")));
        let mut options =
            InitOptions::new(dir.path().join("a2"), "a2", "primary", "127.0.0.1:1", "127.0.0.1:2");
        options.pair_id = Some(own);
        let joined = init(&options).expect("init");
        assert!(!trust(b.dir(), &line(&joined)).expect("same pair").joined);
        // A history without segments is data too.
        std::fs::remove_file(segment).expect("remove");
        let mut control = read_control(&b).expect("control");
        control.epoch = Epoch(2);
        replace(&b, OwnName::Control, &control.encode()).expect("write");
        assert!(matches!(trust(b.dir(), &line(&a)), Err(SetupError::OtherPair { .. })));
    }

    #[test]
    fn the_lock_keeps_a_second_holder_out_and_names_the_first() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
        let held = lock(&b).expect("free");
        let error = lock(&b).expect_err("held");
        assert!(error.to_string().contains(&format!("process {} uses it", std::process::id())), "{error}");
        assert!(
            matches!(trust(b.dir(), &line(&a)), Err(SetupError::Locked { .. })),
            "the pair cannot change now"
        );
        drop(held);
        lock(&b).expect("free again");
    }

    #[test]
    fn a_private_key_that_others_may_read_and_a_damaged_control_file_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let a = make(dir.path(), "a", "primary");
        std::fs::set_permissions(a.identity_key(), std::fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(identity(a.dir()).expect_err("open").to_string().contains("chmod 600"));
        std::fs::write(a.control(), "rubbish").expect("write");
        assert!(matches!(read_control(&a), Err(SetupError::Control { .. })));
    }
}
