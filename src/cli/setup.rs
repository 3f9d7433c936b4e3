//! `init`, `identity`, `trust`, `serve` and `start`: from an empty directory to a running node.

use super::failure::{Answer, Done, Failure};
use super::glue::{InitOptions, KeyPlace};
use super::out::say;
use super::values::{self, IoArg, PeerLossArg, RoleArg};
use super::wait::WaitArgs;
use super::{Context, ask, glue};
use crate::base::limits::ANSWER_MAX;
use crate::base::{AckLevel, text_at_most};
use crate::engine::admin::AdminRequest;
use crate::format::PairId;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

const INIT_EXAMPLES: &str = "\
Example, the two nodes of a pair:
  hot-backup init --dir /var/lib/hot-backup --name a --role primary \\
      --link-listen 10.0.0.1:2000 --peer 10.0.0.2:2000 --resp 127.0.0.1:6379
  hot-backup init --dir /var/lib/hot-backup --name b --role standby \\
      --link-listen 10.0.0.2:2000 --peer 10.0.0.1:2000 --resp 127.0.0.1:6379
Then let each node know the other's identity: see hot-backup trust --help.

What the ack levels promise, once a client has heard \"ok\":
  local      the update is on this node's disk; no answer waits for the peer, and the
             last moments may be lost with the primary (they are counted and listed)
  received   .. and in the standby's memory
  durable    .. and on the standby's disk: nothing is lost when the primary is
  applied    .. and a reader on the standby sees it";

/// Makes a node: its directory, keys and config
#[derive(Debug, Args)]
#[command(after_long_help = INIT_EXAMPLES)]
pub(crate) struct InitArgs {
    /// The node's name, as status and messages show it
    #[arg(long, value_parser = values::account_name)]
    name: String,
    /// What it is at first; a takeover changes it
    #[arg(long, value_enum)]
    role: RoleArg,
    /// Where this node listens for its peer: an address of this machine, and a port
    #[arg(long, value_name = "IP:PORT")]
    link_listen: String,
    /// Where the peer listens: a name or an address, and a port; a name is looked up each time it is needed
    #[arg(long, value_name = "HOST:PORT")]
    peer: String,
    /// Where applications connect (RESP): an address or the path of a Unix socket; may be given again
    #[arg(long, value_name = "ADDR|PATH")]
    resp: Vec<String>,
    /// Where clients of volumes connect (NBD): an address or the path of a Unix socket; may be given again
    #[arg(long, value_name = "ADDR|PATH")]
    nbd: Vec<String>,
    /// The file for keys without two commas, so that unmodified Redis programs run
    #[arg(long, value_name = "ACCOUNT,FILE", value_parser = values::file_name)]
    resp_default: Option<String>,
    /// A file whose first line is the password of the RESP door; needed to listen beyond loopback
    #[arg(long, value_name = "PATH")]
    resp_password_file: Option<PathBuf>,
    /// How far an update must be before the client hears "ok" [default: local]
    #[arg(long, value_name = "LEVEL", value_parser = values::ack_parser())]
    ack_level: Option<AckLevel>,
    /// With a level above local, when the peer is away: block, degrade or degrade:TIME [default: degrade:5s]
    ///
    /// block: clients wait until the peer is back. degrade: after TIME updates are answered at level local, which is
    /// an incident and shown in status. [default: degrade:5s]
    #[arg(long, value_name = "POLICY", value_parser = values::peer_loss)]
    on_peer_loss: Option<PeerLossArg>,
    /// Encryption of the link; "none" is for a private wire, must be said on both sides, and still authenticates
    /// [default: tls]
    #[arg(long, value_enum)]
    encryption: Option<Encryption>,
    /// How this node does its I/O [default: auto]
    #[arg(long, value_enum)]
    io: Option<IoArg>,
    /// Size of a journal segment (64K to 4G) [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    segment_bytes: Option<u64>,
    /// What the replicated journal may take on disk; at least four segments [default: 8G]
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    journal_quota_bytes: Option<u64>,
    /// What a restarted primary does while its peer is silent [default: wait]
    ///
    /// wait: it serves nobody until the peer answers or you say "start --alone". serve: it serves at once; if the peer
    /// took over meanwhile, both serve, and the updates of one of them are not kept.
    #[arg(long, value_enum)]
    on_restart_alone: Option<Alone>,
    /// Any key of config.toml by its name, for example --set checkpoint_ms=5000; may be given again
    ///
    /// The file that init writes explains every key. Keys that have a flag of their own can be set by either.
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::setting)]
    set: Vec<(String, String)>,
    /// The pair to join, for a node that replaces a lost one; identity shows it
    #[arg(long, value_name = "ID", value_parser = pair_id)]
    pair_id: Option<PairId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encryption {
    /// TLS 1.3, both sides pinned to the peer's key
    Tls,
    /// None, but authenticated
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Alone {
    /// Wait for the peer or the operator
    Wait,
    /// Serve at once, at the risk of two primaries
    Serve,
}

/// Prints the line by which the peer will know this node
#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {}

/// Lets this node accept its peer, by the peer's identity
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example, with both directories on one machine:
  hot-backup trust --dir A \"$(hot-backup identity --dir B)\"
With two machines, carry the line over a way that you trust, for example ssh:
  ssh standby hot-backup identity --dir /var/lib/hot-backup | hot-backup trust --dir /var/lib/hot-backup -")]
pub(crate) struct TrustArgs {
    /// What `hot-backup identity` printed for the peer, or - to read it from stdin
    identity: String,
}

/// Runs the node until SIGTERM or SIGINT
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  hot-backup serve --dir /var/lib/hot-backup
As a systemd service, use Type=notify: readiness is told when the doors are open.")]
pub(crate) struct ServeArgs {
    /// How this node does its I/O, instead of what its config says
    #[arg(long, value_enum)]
    io: Option<IoArg>,
    /// End when the process of this id, which started this one, ends
    #[arg(long, hide = true, value_name = "PID")]
    die_with_parent: Option<i32>,
}

/// Lets a primary that waits for its peer serve without it
#[derive(Debug, Args)]
#[command(after_long_help = "\
A primary that was restarted first asks its peer whether it may still serve: the peer may have taken over. When the
peer does not answer, only a person can know. Say this only if you are sure that the peer did not take over.
Example:
  hot-backup start --alone --dir /var/lib/hot-backup")]
pub(crate) struct StartArgs {
    /// Your word that the peer did not take over and does not serve
    #[arg(long, required = true)]
    alone: bool,
    /// Your word that the peer is lost for good, and that what only it has may be given up
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

fn pair_id(text: &str) -> Result<PairId, String> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(id) if digits => Ok(PairId(id.to_be_bytes())),
        _ => Err("a pair id has 32 hexadecimal digits".to_owned()),
    }
}

/// `init`.
pub(crate) fn init(context: &mut Context, args: InitArgs) -> Done {
    let dir = context.dir()?.to_owned();
    let options = init_options(&dir, &args)?;
    glue::init(&options)?;
    glue::loose_parents(&dir).iter().for_each(say);
    if let Some(room) = glue::journal_room(&dir).filter(|room| !room.advice.is_empty()) {
        say(format_args!("note: {}", room.advice));
    }
    let InitArgs { name, role, .. } = &args;
    if context.json {
        let role = if *role == RoleArg::Primary { "primary" } else { "standby" };
        context.out.json(&serde_json::json!({ "name": name, "role": role, "dir": dir }))?;
    } else {
        context.out.line(format_args!("made node {name} in {}", dir.display()))?;
        say(format_args!(
            "next: let it know its peer, hot-backup trust --dir {} IDENTITY-OF-THE-PEER",
            dir.display()
        ));
    }
    for doubt in glue::doubts(&args.peer, &args.link_listen) {
        say(doubt);
    }
    Ok(Answer::Yes)
}

/// The settings; each is left to the config's default unless it was given.
fn init_options(dir: &Path, args: &InitArgs) -> Result<InitOptions, Failure> {
    let role = if args.role == RoleArg::Primary { "primary" } else { "standby" };
    let mut options = InitOptions::new(dir, &args.name, role, &args.link_listen, &args.peer);
    options.pair_id = args.pair_id;
    options.resp = args.resp.iter().map(|text| absolute_socket(text)).collect::<Result<_, _>>()?;
    options.nbd = args.nbd.iter().map(|text| absolute_socket(text)).collect::<Result<_, _>>()?;
    let password = args.resp_password_file.as_deref().map(absolute).transpose()?;
    let peer_loss =
        args.on_peer_loss.map(|policy| if policy == PeerLossArg::Block { "block" } else { "degrade" });
    let grace = match args.on_peer_loss {
        Some(PeerLossArg::Degrade(after_ms)) => after_ms,
        _ => None,
    };
    options = args.set.iter().try_fold(options, |options, (key, value)| {
        let value = match glue::key_place(key) {
            KeyPlace::Path => absolute(Path::new(value))?,
            KeyPlace::Socket => absolute_socket(value)?,
            KeyPlace::Neither => value.clone(),
        };
        Ok::<_, Failure>(options.with(key, Some(value)))
    })?;
    Ok(options
        .with("resp_default", args.resp_default.as_ref())
        .with("resp_password_file", password)
        .with("ack_level", args.ack_level.map(AckLevel::name))
        .with("on_peer_loss", peer_loss)
        .with("degrade_after_ms", grace)
        .with("encryption", args.encryption.map(word))
        .with("io", args.io.map(word))
        .with("segment_bytes", args.segment_bytes)
        .with("journal_quota_bytes", args.journal_quota_bytes)
        .with("on_restart_alone", args.on_restart_alone.map(word)))
}

/// The word by which a value is chosen.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The config resolves relative paths from the node's directory; on a command line they start where the user is.
fn absolute(path: &Path) -> Result<String, Failure> {
    let failed = |why: String| Failure::error(format!("resolving {}: {why}", path.display()), "");
    let absolute = std::path::absolute(path).map_err(|e| failed(e.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| failed("the path is not UTF-8".to_owned()))
}

/// An address as it is, the path of a socket absolute.
fn absolute_socket(text: &str) -> Result<String, Failure> {
    if text.contains('/') { absolute(Path::new(text)) } else { Ok(text.to_owned()) }
}

/// `identity`.
pub(crate) fn identity(context: &mut Context) -> Done {
    let identity = glue::identity(context.dir()?)?;
    if context.json {
        context.out.json(&serde_json::json!({ "identity": identity }))?;
    } else {
        context.out.line(identity)?;
    }
    Ok(Answer::Yes)
}

/// `trust`.
pub(crate) fn trust(context: &mut Context, args: &TrustArgs) -> Done {
    let mut identity = args.identity.clone();
    if identity == "-" {
        identity = text_at_most(std::io::stdin(), ANSWER_MAX)
            .map_err(|e| Failure::io("reading the peer's identity from stdin", &e))?;
    }
    let dir = context.dir()?;
    let peer = glue::trust(dir, identity.trim())?;
    glue::loose_parents(dir).iter().for_each(say);
    if context.json {
        context.out.json(&serde_json::json!({ "trusted": peer }))?;
    } else {
        say(format_args!("{peer} is trusted as the peer, from the next connection on"));
    }
    Ok(Answer::Yes)
}

/// `serve`.
pub(crate) fn serve(context: &mut Context, args: &ServeArgs) -> Done {
    if let Some(parent) = args.die_with_parent {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
            .map_err(|e| Failure::error(format!("tying this process to its parent: {e}"), ""))?;
        // It may have ended before the signal was asked for.
        if nix::unistd::getppid().as_raw() != parent {
            return Err(Failure::error(format!("starting the node for process {parent}: it ended"), ""));
        }
    }
    glue::serve(context.dir()?, args.io)?;
    Ok(Answer::Yes)
}

/// `start --alone`.
pub(crate) fn start(context: &mut Context, args: &StartArgs) -> Done {
    debug_assert!(args.alone, "clap requires it");
    args.wait.note(context);
    let request =
        if args.accept_loss { AdminRequest::StartAloneAcceptLoss } else { AdminRequest::StartAlone };
    let value = ask::ask(context, &request)?;
    if context.json {
        context.out.json(&value)?;
    } else {
        context.out.line(
            "this node serves alone; its peer is caught up when it is back, as long as the journal reaches",
        )?;
    }
    Ok(Answer::Yes)
}

/// Lets this primary give its peer a copy of everything, or this diverged node be rewound, where the config says to ask
#[derive(Debug, Args)]
#[command(after_long_help = "\
A peer that the journal does not reach any more needs a copy of everything that is replicated. It goes over the
link while users work; `hot-backup status` shows it on both nodes. Until it is whole the peer is `incomplete`: it
cannot take over, and what it acknowledges keeps no promise.

By itself a primary gives a copy if the config says full_sync = \"auto\", which is the default. It never writes
over entries that only the peer has.

A node that has diverged is rewound by itself if its config says on_diverged = \"rewind\", which is the default. With
\"wait\" it is rewound when you say this on it.

Example:
  hot-backup resync --dir A")]
pub(crate) struct ResyncArgs {
    #[command(flatten)]
    wait: WaitArgs,
}

/// `resync`.
pub(crate) fn resync(context: &mut Context, args: &ResyncArgs) -> Done {
    args.wait.note(context);
    let value = ask::ask(context, &AdminRequest::Resync)?;
    if context.json {
        context.out.json(&value)?;
    } else {
        context.out.line("the copy or the rewind begins, if one is needed; see `hot-backup status`")?;
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_id_reads_as_it_is_shown() {
        let id = PairId([0x0a; 16]);
        assert_eq!(pair_id(&id.to_string()), Ok(id));
        for bad in ["", "0a", &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert!(pair_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_not_said_is_left_to_the_config() {
        use clap::Parser;
        let line =
            "hot-backup init --dir A --name a --role master --link-listen 127.0.0.1:1 --peer 127.0.0.1:2";
        let parse = |more: &str| {
            let words = format!("{line} {more}");
            let cli = super::super::Cli::try_parse_from(words.split_whitespace()).expect("valid");
            let super::super::Command::Init(args) = cli.command else { panic!("init") };
            init_options(Path::new("A"), &args).expect("valid")
        };
        let bare = parse("");
        assert_eq!((bare.role.as_str(), bare.settings.len()), ("primary", 0));
        let said =
            parse("--on-peer-loss degrade:2s --encryption none --on-restart-alone serve --resp x/r.sock");
        let expected = [
            ("on_peer_loss", "degrade"),
            ("degrade_after_ms", "2000"),
            ("encryption", "none"),
            ("on_restart_alone", "serve"),
        ];
        assert!(said.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{said:?}");
        assert!(Path::new(&said.resp[0]).is_absolute());
        let set =
            parse("--set heartbeat_ms=100 --set nbd=x/n.sock --set nbd=[::1]:1 --set resp_default=a,b=c");
        let set: Vec<_> = set.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            (set[0], set[2], set[3]),
            (("heartbeat_ms", "100"), ("nbd", "[::1]:1"), ("resp_default", "a,b=c"))
        );
        assert!(set[1].0 == "nbd" && set[1].1.starts_with('/'), "paths start where the user is: {set:?}");
    }
}
