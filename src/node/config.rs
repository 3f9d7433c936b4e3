//! A node's settings: `config.toml`, read once at the start.

pub use super::config_file::DoorAddress;
use super::config_file::{ConfigError, ConfigErrors, Settings};
use super::layout::Layout;
use super::notify::target::Target;
use super::peer_address::PeerAddress;
use crate::base::limits::{CONFIG_FILE_MAX, PASSWORD_FILE_MAX};
use crate::engine::EngineConfig;
use crate::format::control::Role;
use crate::io::{Demand, read_trusted_text};
use std::fmt;
use std::net::SocketAddr;
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

/// A node's settings, all checked. Each key in [`KEYS`](super::config_file::KEYS) says where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the engine is told, but for what [`Config::engine_config`] adds.
    pub engine: EngineConfig,
    /// The role it was set up with; the present one is in the control file.
    pub initial_role: Role,
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
    /// The group whose members may look by [`Config::admin_group_socket`].
    pub admin_group: Option<String>,
    /// Where they connect. Not yet resolved.
    pub admin_group_socket: Option<PathBuf>,
    /// Where figures are served over HTTP.
    pub http_listen: Option<SocketAddr>,
    /// Where the password is.
    pub resp_password_file: Option<PathBuf>,
    /// The password itself; [`Config::load`] reads it.
    pub resp_password: Option<Secret>,
    /// Whose licences hold; without it none is asked for.
    pub licence_key: Option<[u8; 32]>,
    /// How disk and network are driven.
    pub io: IoChoice,
    /// What is logged.
    pub log: tracing::Level,
    /// Who is told of incidents.
    pub notify: Vec<Target>,
}

impl Config {
    /// Reads and checks `config.toml` of the node in `dir`, and the password file that it names.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once. Nothing is changed.
    pub fn load(dir: impl Into<PathBuf>) -> Result<Self, ConfigErrors> {
        Self::load_with_warnings(dir).map(|(config, _)| config)
    }

    /// The same, and what to warn people of.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(in crate::node) fn load_with_warnings(
        dir: impl Into<PathBuf>,
    ) -> Result<(Self, Vec<String>), ConfigErrors> {
        let layout = Layout::new(dir);
        let path = layout.config();
        let text = layout.read_text(&path, false, CONFIG_FILE_MAX).map_err(|distrust| {
            let shown = layout.dir().display();
            let what = match distrust.kind() {
                Some(std::io::ErrorKind::NotFound) => {
                    format!("{shown} is not a node's directory: no config.toml in it")
                }
                Some(std::io::ErrorKind::NotADirectory) => format!("{shown} is not a directory"),
                _ => format!("reading the file: {distrust}"),
            };
            ConfigErrors::whole(&path, what)
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
        for target in &config.notify {
            if let Err(what) = target.check_secrets(layout.dir()) {
                settings.record(None, what);
            }
        }
        let warning = settings.warning().map(|warning| format!("{}: {warning}", path.display()));
        Ok((finish(&path, settings, config)?, warning.into_iter().collect()))
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

    fn take(settings: &mut Settings) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Self {
            engine: EngineConfig::default(),
            initial_role: Role::Standby,
            link_listen: nowhere,
            peer: nowhere.into(),
            encryption: Encryption::Tls,
            resp: Vec::new(),
            nbd: Vec::new(),
            admin_group: None,
            admin_group_socket: None,
            http_listen: None,
            resp_password_file: None,
            resp_password: None,
            licence_key: None,
            io: IoChoice::Auto,
            log: tracing::Level::INFO,
            notify: Vec::new(),
        };
        settings.fill(&mut config);
        config.check_together(settings);
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
        let (beat, timeout) = (self.engine.heartbeat_ms, self.engine.peer_timeout_ms);
        wrong(
            &["peer_timeout_ms", "heartbeat_ms"],
            timeout < 3 * beat,
            format!(
                "`peer_timeout_ms` is {timeout}: at least three times `heartbeat_ms` ({beat}) is allowed"
            ),
        );
        let (segment, quota) = (self.engine.segment_bytes, self.engine.quota_bytes);
        wrong(
            &["journal_quota_bytes", "segment_bytes"],
            quota / 4 < segment,
            format!(
                "`journal_quota_bytes` is {quota}: at least four times `segment_bytes` ({segment}) is allowed"
            ),
        );
        // A standby that took a lost node's place has that one's number, whichever it was.
        wrong(
            &["ordinal", "initial_role"],
            self.initial_role == Role::Primary && self.engine.ordinal.0 != 0,
            format!("`ordinal` is {}: 0 goes with this `initial_role`", self.engine.ordinal.0),
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
        wrong(
            &["admin_group", "admin_group_socket"],
            self.admin_group.is_some() != self.admin_group_socket.is_some(),
            "`admin_group` and `admin_group_socket` go together: set both, or neither".to_owned(),
        );
        if let Some(address) = self.http_listen.filter(|a| !a.ip().to_canonical().is_loopback()) {
            wrong(
                &["http_listen"],
                true,
                format!(
                    "`http_listen` is {address}: only loopback is allowed, as whoever reaches it may look; let a proxy with \
                     a password stand before it"
                ),
            );
        }
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
        let names = [self.engine.name.clone(), "localhost".to_owned()];
        let mut all: Vec<String> = names.into_iter().chain(addresses).collect();
        all.dedup();
        all
    }

    /// The engine's settings; `seed` is for jitter.
    #[must_use]
    pub fn engine_config(&self, seed: u64) -> EngineConfig {
        EngineConfig {
            resp_password: self.resp_password.as_ref().map(|secret| secret.0.clone()),
            resp_doors: self.resp.iter().filter_map(DoorAddress::tcp).collect(),
            peer_host: self.peer.host().to_owned(),
            peer_port: self.peer.port(),
            seed,
            ..self.engine.clone()
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

/// The first line of a password file that nobody else may read.
fn read_password(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    // Systems that hand secrets to programs do so by links.
    let demand = Demand { most: PASSWORD_FILE_MAX, secret: true, linked: true };
    let text = read_trusted_text(path, demand)
        .map_err(|distrust| format!("reading the password from {shown}: {distrust}"))?;
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
    use crate::base::{Ordinal, Prng};
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(config.engine.pair.to_string(), PAIR);
        let told = EngineConfig {
            name: "a".to_owned(),
            ordinal: Ordinal(0),
            pair: config.engine.pair,
            ..EngineConfig::default()
        };
        assert_eq!(config.engine, told, "the engine's own defaults are those of the table");
        assert_eq!(
            (config.encryption, config.io, config.log),
            (Encryption::Tls, IoChoice::Auto, tracing::Level::INFO)
        );
        // A commented-out default really is the default: switching it on changes nothing.
        let on: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest)
                    if ![" ", "resp", "nbd", "licence_key", "http", "admin_group"]
                        .iter()
                        .any(|other| rest.starts_with(other)) =>
                {
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
                Kind::Word(words, _) => words.iter().map(|word| format!("\"{word}\"")).collect(),
                Kind::Number { least, most, .. } => vec![least.to_string(), most.to_string()],
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
        std::fs::set_permissions(&pw, PermissionsExt::from_mode(0o644)).expect("chmod");
        assert!(Config::load(dir.path()).expect_err("open to all").to_string().contains("chmod 600"));
        std::fs::set_permissions(&pw, PermissionsExt::from_mode(0o600)).expect("chmod");
        let config = Config::load(dir.path()).expect("good");
        assert!(!format!("{config:?}").contains("hush"));
        let engine = config.engine_config(7);
        assert_eq!(engine.resp_password.as_deref(), Some("hush hush"));
        assert_eq!((engine.peer_host.as_str(), engine.peer_port, engine.seed), ("127.0.0.1", 2000, 7));
    }

    #[test]
    fn a_password_is_read_only_from_a_file_that_its_owner_alone_may_touch() {
        let dir = tempfile::tempdir().expect("temp dir");
        let pw = dir.path().join("pw");
        std::fs::write(&pw, "hush").expect("write");
        for (mode, advice) in [(0o640, "chmod 600"), (0o604, "chmod 600"), (0o620, "chmod 600")] {
            std::fs::set_permissions(&pw, PermissionsExt::from_mode(mode)).expect("chmod");
            let error = read_password(&pw).expect_err("others may touch it");
            assert!(error.contains(advice), "{mode:o}: {error}");
        }
        std::fs::set_permissions(&pw, PermissionsExt::from_mode(0o600)).expect("chmod");
        std::fs::write(&pw, vec![b'x'; PASSWORD_FILE_MAX + 1]).expect("write");
        assert!(read_password(&pw).expect_err("too large").contains("more than"));
    }

    #[test]
    fn a_config_that_was_cut_off_anywhere_is_refused_or_still_whole() {
        let mut given = required();
        given.push(("resp", "[\"127.0.0.1:7001\", \"/run/x.sock\"]".to_owned()));
        given.push(("nbd", "\"127.0.0.1:10809\"".to_owned()));
        given.push(("ack_level", "\"durable\"".to_owned()));
        given.push(("log", "\"debug\"".to_owned()));
        let text = render(&given);
        let whole = parse(&text).expect("good");
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            match parse(&text[..end]) {
                Ok(config) => assert_eq!(config, whole, "cut at {end}"),
                Err(errors) => {
                    let told = errors.to_string();
                    let named = ["cut off", "is missing"].iter().any(|word| told.contains(word));
                    assert!(named, "cut at {end}: {told}");
                }
            }
        }
    }

    #[test]
    fn a_config_without_its_end_is_of_version_0_1_and_warned_of() {
        let dir = tempfile::tempdir().expect("temp dir");
        let write = |text: &str| std::fs::write(dir.path().join("config.toml"), text).expect("write");
        let warnings = || Config::load_with_warnings(dir.path()).expect("good").1;
        write(&plain(&required()));
        assert!(warnings()[0].contains("make \"# hot-backup config 1"), "{:?}", warnings());
        write(&render(&required()));
        assert_eq!(warnings(), [""; 0]);
        write(&format!("{}log = \"debug\"\n", render(&required())));
        assert!(warnings()[0].contains("stands behind the line \"# end\""), "{:?}", warnings());
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
