//! A node's settings: `config.toml`, read once at the start.

pub use super::config_file::DoorAddress;
use super::config_file::{ConfigError, ConfigErrors, Settings};
use super::layout::Layout;
use super::peer_address::PeerAddress;
use crate::base::{AckLevel, Ordinal, plainly};
use crate::engine::{EngineConfig, PeerLoss};
use crate::format::PairId;
use crate::format::control::Role;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest password (bytes).
const PASSWORD_MAX: usize = 512;

/// How the link is protected. The nodes prove their keys to each other either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// TLS 1.3.
    Tls,
    /// Plain bytes after the proof; for a private wire.
    None,
}

impl Encryption {
    /// The word in the config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::None => "none",
        }
    }
}

/// How disk and network are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// A secret text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A node's settings, all checked. Each field is the key of the same name in
/// [`KEYS`](super::config_file::KEYS), which gives its unit, default and range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub name: String,
    /// Which of the two it is.
    pub ordinal: Ordinal,
    /// The role it was set up with; the present one is in the control file.
    pub initial_role: Role,
    /// The pair.
    pub pair_id: PairId,
    /// Where the peer connects to.
    pub link_listen: SocketAddr,
    /// Where the peer listens.
    pub peer: PeerAddress,
    /// How the link is protected.
    pub encryption: Encryption,
    /// Where Redis clients connect, besides [`Layout::resp_socket`]. Paths are not yet resolved.
    pub resp: Vec<DoorAddress>,
    /// Where NBD clients connect, besides [`Layout::nbd_socket`]. Paths are not yet resolved.
    pub nbd: Vec<DoorAddress>,
    /// `account,file` of keys without two commas.
    pub resp_default: Option<String>,
    /// Where the password is.
    pub resp_password_file: Option<PathBuf>,
    /// The password itself; [`Config::load`] reads it.
    pub resp_password: Option<Secret>,
    /// The database's ack level.
    pub ack_level: AckLevel,
    /// What becomes of a promise above `local` when the peer is away.
    pub on_peer_loss: PeerLoss,
    /// Whether a restarted primary serves although its peer is silent.
    pub serve_alone: bool,
    /// Interval of heartbeats (milliseconds).
    pub heartbeat_ms: u64,
    /// Silence after which the link is closed (milliseconds).
    pub peer_timeout_ms: u64,
    /// Size of a segment (bytes).
    pub segment_bytes: u64,
    /// What the replicated journal may take (bytes).
    pub journal_quota_bytes: u64,
    /// Longest time between checkpoints while the store changes (milliseconds).
    pub checkpoint_ms: u64,
    /// Most that is applied between checkpoints (bytes).
    pub checkpoint_bytes: u64,
    /// How disk and network are driven.
    pub io: IoChoice,
    /// What is logged.
    pub log: tracing::Level,
}

impl Config {
    /// Reads and checks `config.toml` of the node in `dir`, and the password file that it names.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once. Nothing is changed.
    pub fn load(dir: impl Into<PathBuf>) -> Result<Self, ConfigErrors> {
        let layout = Layout::new(dir);
        let path = layout.config();
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ConfigErrors::whole(
                &path,
                format!("{} is not a node's directory: no config.toml in it", layout.dir().display()),
            ),
            std::io::ErrorKind::NotADirectory => {
                ConfigErrors::whole(&path, format!("{} is not a directory", layout.dir().display()))
            }
            _ => ConfigErrors::whole(&path, format!("reading the file: {}", plainly(&error))),
        })?;
        let mut settings = Settings::read(&text);
        let mut config = Self::take(&mut settings);
        if let Some(file) = &config.resp_password_file {
            match read_password(&layout.resolve(file)) {
                Ok(password) => config.resp_password = Some(password),
                Err(what) => {
                    let line = settings.line_of("resp_password_file");
                    settings.record(line, what);
                }
            }
        }
        finish(&path, settings, config)
    }

    /// Checks a config text; `path` is for messages. The password file is not read.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let mut settings = Settings::read(text);
        let config = Self::take(&mut settings);
        finish(path, settings, config)
    }

    fn take(s: &mut Settings) -> Self {
        let config = Self {
            name: s.text("name").unwrap_or_default(),
            ordinal: Ordinal(u8::try_from(s.number("ordinal")).unwrap_or_default()),
            initial_role: if s.word("initial_role") == "primary" { Role::Primary } else { Role::Standby },
            pair_id: s.pair("pair_id"),
            link_listen: s.address("link_listen"),
            peer: s.peer("peer"),
            encryption: if s.word("encryption") == "none" { Encryption::None } else { Encryption::Tls },
            resp: s.listen("resp"),
            nbd: s.listen("nbd"),
            resp_default: s.text("resp_default"),
            resp_password_file: s.text("resp_password_file").map(PathBuf::from),
            resp_password: None,
            ack_level: ack_level(s.word("ack_level")),
            on_peer_loss: match (s.word("on_peer_loss"), s.number("degrade_after_ms")) {
                ("block", _) => PeerLoss::Block,
                (_, after_ms) => PeerLoss::Degrade { after_ms },
            },
            serve_alone: s.word("on_restart_alone") == "serve",
            heartbeat_ms: s.number("heartbeat_ms"),
            peer_timeout_ms: s.number("peer_timeout_ms"),
            segment_bytes: s.number("segment_bytes"),
            journal_quota_bytes: s.number("journal_quota_bytes"),
            checkpoint_ms: s.number("checkpoint_ms"),
            checkpoint_bytes: s.number("checkpoint_bytes"),
            io: match s.word("io") {
                "uring" => IoChoice::Uring,
                "epoll" => IoChoice::Epoll,
                _ => IoChoice::Auto,
            },
            log: log_level(s.word("log")),
        };
        config.check_together(s);
        config
    }

    /// What concerns several keys; keys that are bad by themselves raise nothing more.
    fn check_together(&self, s: &mut Settings) {
        let mut wrong = |keys: &[&str], bad: bool, what: String| {
            if bad && s.are_good(keys) {
                let line = keys.first().and_then(|key| s.line_of(key));
                s.record(line, what);
            }
        };
        let (beat, timeout) = (self.heartbeat_ms, self.peer_timeout_ms);
        wrong(
            &["peer_timeout_ms", "heartbeat_ms"],
            timeout < 3 * beat,
            format!(
                "`peer_timeout_ms` is {timeout}: at least three times `heartbeat_ms` ({beat}) is allowed"
            ),
        );
        let (segment, quota) = (self.segment_bytes, self.journal_quota_bytes);
        wrong(
            &["journal_quota_bytes", "segment_bytes"],
            quota / 4 < segment,
            format!(
                "`journal_quota_bytes` is {quota}: at least four times `segment_bytes` ({segment}) is allowed"
            ),
        );
        let expected = u8::from(self.initial_role != Role::Primary);
        wrong(
            &["ordinal", "initial_role"],
            self.ordinal.0 != expected,
            format!("`ordinal` is {}: {expected} goes with this `initial_role`", self.ordinal.0),
        );
        wrong(
            &["peer"],
            self.peer.port() == 0,
            "`peer` has port 0: the port of the peer's `link_listen` is needed".to_owned(),
        );
        wrong(
            &["peer", "link_listen"],
            self.peer.literal() == Some(self.link_listen) && self.peer.port() != 0,
            format!("`peer` is {}: that is this node's own `link_listen`", self.peer),
        );
        if let Some(public) = self.resp.iter().find(|address| !address.is_private()) {
            wrong(
                &["resp", "resp_password_file"],
                self.resp_password_file.is_none(),
                format!(
                    "`resp` opens {public} to other machines: set `resp_password_file`, or use a loopback address"
                ),
            );
        }
    }

    /// What clients of volumes may call this node: its name and the addresses of its NBD door.
    pub(crate) fn door_names(&self) -> Vec<String> {
        let addresses = self.nbd.iter().filter_map(|place| match place {
            DoorAddress::Tcp(address) => Some(address.ip().to_string()),
            DoorAddress::Unix(_) => None,
        });
        let names = [self.name.clone(), "localhost".to_owned()];
        let mut all: Vec<String> = names.into_iter().chain(addresses).collect();
        all.dedup();
        all
    }

    /// The engine's settings; `seed` is for jitter.
    #[must_use]
    pub fn engine_config(&self, seed: u64) -> EngineConfig {
        EngineConfig {
            name: self.name.clone(),
            ordinal: self.ordinal,
            pair: self.pair_id,
            segment_bytes: self.segment_bytes,
            quota_bytes: self.journal_quota_bytes,
            ack_level: self.ack_level,
            on_peer_loss: self.on_peer_loss,
            serve_alone: self.serve_alone,
            heartbeat_ms: self.heartbeat_ms,
            peer_timeout_ms: self.peer_timeout_ms,
            checkpoint_ms: self.checkpoint_ms,
            checkpoint_bytes: self.checkpoint_bytes,
            resp_default: self.resp_default.clone(),
            resp_password: self.resp_password.as_ref().map(|secret| secret.0.clone()),
            resp_doors: self.resp.iter().filter_map(DoorAddress::tcp).collect(),
            peer_host: self.peer.host().to_owned(),
            peer_port: self.peer.port(),
            seed,
        }
    }
}

fn finish(path: &Path, settings: Settings, config: Config) -> Result<Config, ConfigErrors> {
    if settings.is_clean() {
        return Ok(config);
    }
    let errors: Vec<ConfigError> = settings.finish();
    Err(ConfigErrors { file: path.to_owned(), errors })
}

fn ack_level(word: &str) -> AckLevel {
    [AckLevel::Received, AckLevel::Durable, AckLevel::Applied]
        .into_iter()
        .find(|level| level.name() == word)
        .unwrap_or_default()
}

fn log_level(word: &str) -> tracing::Level {
    word.parse().unwrap_or(tracing::Level::INFO)
}

/// The first line of a password file that nobody else may read.
fn read_password(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("reading the password from {shown}: {error}");
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(format!(
            "reading the password from {shown}: everybody may read it; `chmod 600 {shown}` first"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let password = text.lines().next().unwrap_or_default();
    match password.len() {
        0 => Err(format!("reading the password from {shown}: its first line is empty")),
        1..=PASSWORD_MAX => Ok(Secret(password.to_owned())),
        more => Err(format!(
            "reading the password from {shown}: {more} bytes, at most {PASSWORD_MAX} are allowed"
        )),
    }
}

/// Reads any text as a config.
pub fn fuzz_config(text: &str) {
    if let Err(errors) = Config::parse(Path::new("config.toml"), text) {
        assert!(!errors.errors.is_empty(), "a refusal names a reason");
        assert!(!errors.to_string().is_empty(), "and can be printed");
    }
}

#[cfg(test)]
mod tests {
    use super::super::config_file::{KEYS, Kind, render};
    use super::*;
    use crate::base::Prng;

    const PAIR: &str = "000102030405060708090a0b0c0d0e0f";

    fn required() -> Vec<(&'static str, String)> {
        [
            ("name", "\"a\""),
            ("ordinal", "0"),
            ("initial_role", "\"primary\""),
            ("pair_id", "\"000102030405060708090a0b0c0d0e0f\""),
            ("link_listen", "\"127.0.0.1:2001\""),
            ("peer", "\"127.0.0.1:2000\""),
        ]
        .map(|(key, literal)| (key, literal.to_owned()))
        .to_vec()
    }

    fn parse(text: &str) -> Result<Config, ConfigErrors> {
        Config::parse(Path::new("config.toml"), text)
    }

    fn plain(given: &[(&str, String)]) -> String {
        given.iter().map(|(key, literal)| format!("{key} = {literal}\n")).collect()
    }

    fn errors_of(text: &str) -> Vec<(Option<usize>, String)> {
        let errors = parse(text).expect_err("a bad config");
        errors.errors.into_iter().map(|error| (error.line, error.what)).collect()
    }

    #[test]
    fn the_written_file_reads_back_with_every_default() {
        let text = render(&required());
        let config = parse(&text).expect("what init writes is good");
        assert_eq!(config, parse(&plain(&required())).expect("defaults need not be written"));
        assert_eq!(config.pair_id.to_string(), PAIR);
        assert_eq!(config.segment_bytes, 64 << 20);
        assert_eq!(config.on_peer_loss, PeerLoss::Degrade { after_ms: 5000 });
        assert_eq!(
            (config.encryption, config.io, config.log),
            (Encryption::Tls, IoChoice::Auto, tracing::Level::INFO)
        );
        // A commented-out default really is the default: switching it on changes nothing.
        let on: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if ![" ", "resp", "nbd"].iter().any(|other| rest.starts_with(other)) => {
                    format!("{rest}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(on, text);
        assert_eq!(parse(&on), Ok(config));
    }

    #[test]
    fn every_word_and_range_of_the_table_is_accepted_and_told_apart() {
        for key in KEYS {
            let literals: Vec<String> = match key.kind {
                Kind::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
                Kind::Number { least, most } => vec![least.to_string(), most.to_string()],
                Kind::Size { least, most, .. } => vec![least.to_string(), format!("\"{most}B\"")],
                _ => continue,
            };
            let mut seen = Vec::new();
            for literal in literals {
                let mut given = required();
                given.retain(|(name, _)| *name != key.name);
                given.push((key.name, literal.clone()));
                // Keys that are compared with this one follow it.
                match key.name {
                    "ordinal" => given.retain(|(name, _)| *name != "initial_role"),
                    "initial_role" => given.retain(|(name, _)| *name != "ordinal"),
                    "heartbeat_ms" => given.push(("peer_timeout_ms", "600000".to_owned())),
                    "peer_timeout_ms" => given.push(("heartbeat_ms", "10".to_owned())),
                    "segment_bytes" => given.push(("journal_quota_bytes", "\"1P\"".to_owned())),
                    "journal_quota_bytes" => given.push(("segment_bytes", "\"64K\"".to_owned())),
                    _ => {}
                }
                let config = match parse(&plain(&given)) {
                    Ok(config) => format!("{config:?}"),
                    Err(errors) => {
                        let missing = errors.errors.iter().all(|error| error.what.contains("is missing"));
                        assert!(missing, "{} = {literal}: {errors}", key.name);
                        continue;
                    }
                };
                assert!(!seen.contains(&config), "{} = {literal} changes something", key.name);
                seen.push(config);
            }
        }
    }

    #[test]
    fn all_errors_come_at_once_each_with_its_line() {
        let text = "name = \"a b\"\n\
                    ordinal = 2\n\
                    initial_role = \"master\"\n\
                    # a comment\n\
                    pair_id = \"12\"\n\
                    link_listen = \"localhost:1\"\n\
                    segment_byts = 5\n\
                    segment_bytes = \"65K\"\n\
                    heartbeat_ms = 1.5\n\
                    peer_timeout_ms = -1\n\
                    resp = [\"127.0.0.1:1\", 7]\n\
                    resp_default = \"app\"\n\
                    journal_quota_bytes = 99999999999999999999\n\
                    log = true\n\
                    [link]\n\
                    zzz = 1\n";
        let errors = errors_of(text);
        let lines: Vec<_> = errors.iter().map(|(line, _)| *line).collect();
        let expected: Vec<Option<usize>> =
            [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map(Some).into_iter().chain([None]).collect();
        assert_eq!(lines, expected, "{errors:#?}");
        for (at, needle) in [
            (1, "`ordinal` is 2: allowed are 0 to 1"),
            (2, "allowed are \"primary\", \"standby\""),
            (5, "unknown key `segment_byts`: did you mean `segment_bytes`?"),
            (6, "a multiple of 4096"),
            (7, "a number with a fraction"),
            (8, "is negative"),
            (9, "a list with 7"),
            (13, "unknown key `link`"),
            (14, "`peer` is missing"),
        ] {
            assert!(errors[at].1.contains(needle), "{:?} should say {needle}", errors[at]);
        }
        let printed = parse(text).expect_err("bad").to_string();
        assert!(printed.contains("config.toml:7: unknown key"), "{printed}");
    }

    #[test]
    fn keys_are_compared_with_each_other() {
        let with = |more: &[(&'static str, &str)]| {
            let mut given = required();
            given.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
            given.extend(more.iter().map(|(key, literal)| (*key, (*literal).to_owned())));
            parse(&plain(&given)).map_err(|errors| errors.to_string())
        };
        for (more, needle) in [
            (vec![("peer_timeout_ms", "900"), ("heartbeat_ms", "301")], "at least three times"),
            (vec![("journal_quota_bytes", "\"255M\"")], "at least four times"),
            (vec![("ordinal", "1")], "0 goes with this"),
            (vec![("peer", "\"127.0.0.1:2001\"")], "own `link_listen`"),
            (vec![("peer", "\"127.0.0.1:0\"")], "port 0"),
            (vec![("resp", "\"0.0.0.0:7001\"")], "set `resp_password_file`"),
            (vec![("resp", "[\"127.0.0.1:1\", \"[::]:7001\"]")], "opens [::]:7001"),
        ] {
            let error = with(&more).expect_err("they do not fit");
            assert!(error.contains(needle) && !error.contains('\n'), "{error}");
        }
        let good = with(&[("resp", "[\"0.0.0.0:7001\", \"/run/x.sock\"]"), ("resp_password_file", "\"p\"")]);
        assert_eq!(good.expect("a password opens the door").resp.len(), 2);
        with(&[("resp", "\"[::ffff:127.0.0.1]:7001\"")]).expect("a mapped loopback address is loopback");
    }

    #[test]
    fn a_syntax_error_does_not_hide_the_others_nor_invent_missing_keys() {
        let errors = errors_of("name = \"a\"\nordinal = = 1\nheartbeat_ms = \"x\"\nname = \"b\"\n");
        let lines: Vec<_> = errors.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [Some(2), Some(3), Some(4)], "{errors:#?}");
    }

    #[test]
    fn a_password_is_read_from_a_private_file_only_and_never_printed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut given = required();
        given.push(("resp_password_file", "\"pw\"".to_owned()));
        std::fs::write(dir.path().join("config.toml"), plain(&given)).expect("write");
        let errors = Config::load(dir.path()).expect_err("no password file");
        assert_eq!(errors.errors[0].line, Some(7), "{errors}");
        let pw = dir.path().join("pw");
        std::fs::write(&pw, "hush hush\nmore\n").expect("write");
        std::fs::set_permissions(&pw, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(Config::load(dir.path()).expect_err("open to all").to_string().contains("chmod 600"));
        std::fs::set_permissions(&pw, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let config = Config::load(dir.path()).expect("good");
        assert!(!format!("{config:?}").contains("hush"));
        let engine = config.engine_config(7);
        assert_eq!(engine.resp_password.as_deref(), Some("hush hush"));
        assert_eq!((engine.peer_host.as_str(), engine.peer_port, engine.seed), ("127.0.0.1", 2000, 7));
    }

    #[test]
    fn a_directory_without_config_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().expect("temp dir");
        let errors = Config::load(dir.path()).expect_err("nothing there");
        assert!(errors.next().contains("`hot-backup init` makes one"), "{}", errors.next());
        let error = errors.to_string();
        assert!(error.contains("is not a node's directory"), "{error}");
    }

    #[test]
    fn any_text_is_taken_without_a_panic() {
        let mut rng = Prng::new(11);
        let good = render(&required());
        let pieces = [
            "[", "]", "{", "}", "\"", "'", "\"\"\"", "=", ".", ",", "\n", "#", "\\u", "é", "\0", "-",
            "1e999", "inf", "0x",
        ];
        for _ in 0..3000 {
            let mut text = if rng.percent(50) { good.clone() } else { plain(&required()) };
            for _ in 0..=rng.below(8) {
                let at = usize::try_from(rng.below(text.len() as u64 + 1)).expect("fits");
                let at = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
                let piece = pieces[usize::try_from(rng.below(pieces.len() as u64)).expect("fits")];
                if rng.percent(70) {
                    text.insert_str(at, piece);
                } else {
                    text.truncate(at);
                }
            }
            fuzz_config(&text);
        }
        for deep in ["[", "{a=", "a.", "a=[", "[[a", "x=\"\\"] {
            fuzz_config(&deep.repeat(20_000));
            fuzz_config(&format!("resp = {}", deep.repeat(1000)));
        }
        fuzz_config(&"a=1\n".repeat(300_000));
        fuzz_config(&(0..20_000).map(|i| format!("k{i} = {i}\n")).collect::<String>());
        fuzz_config("\u{feff}name = 1");
    }
}
