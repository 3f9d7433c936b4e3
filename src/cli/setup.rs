//! `init`, `identity`, `trust`, `serve` and `start`: from an empty directory to a running node.

use super::failure::{Answer, Done, Failure};
use super::out::say;
use super::values::{self, IoArg, PeerLossArg, RoleArg};
use super::{Context, ask, glue};
use crate::base::AckLevel;
use crate::base::limits::{SEGMENT_MAX, SEGMENT_MIN};
use crate::engine::admin::AdminRequest;
use clap::{Args, ValueEnum};
use std::io::Read;
use std::path::PathBuf;

const INIT_EXAMPLES: &str = "\
Example, the two nodes of a pair:
  hot-backup init --dir /var/lib/hot-backup --name a --role primary \\
      --link-listen 10.0.0.1:2000 --peer 10.0.0.2:2000 --resp 127.0.0.1:6379
  hot-backup init --dir /var/lib/hot-backup --name b --role standby \\
      --link-listen 10.0.0.2:2000 --peer 10.0.0.1:2000 --resp 127.0.0.1:6379
Then let each node know the other's identity: see hot-backup trust --help.

What the ack levels promise, once a client has heard \"ok\":
  local      the update is on this node's disk; the peer never delays a user, and the
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
    /// Where this node listens for its peer
    #[arg(long, value_name = "ADDR")]
    link_listen: String,
    /// Where the peer listens
    #[arg(long, value_name = "ADDR")]
    peer: String,
    /// Where applications connect (RESP): an address or the path of a Unix socket; may be given again
    #[arg(long, value_name = "ADDR|PATH")]
    resp: Vec<String>,
    /// The file for keys without two commas, so that unmodified Redis programs run
    #[arg(long, value_name = "ACCOUNT,FILE", value_parser = values::file_name)]
    resp_default: Option<String>,
    /// A file whose first line is the password of the RESP door; needed to listen beyond loopback
    #[arg(long, value_name = "PATH")]
    resp_password_file: Option<PathBuf>,
    /// How far an update must be before the client hears "ok"
    #[arg(long, value_name = "LEVEL", default_value = "local", value_parser = values::ack_parser())]
    ack_level: AckLevel,
    /// With a level above local, when the peer is away: block, degrade or degrade:TIME
    ///
    /// block: clients wait until the peer is back. degrade: after TIME (5s unless given) updates are answered at level
    /// local, which is an incident and shown in status.
    #[arg(long, value_name = "POLICY", default_value = "degrade", value_parser = values::peer_loss)]
    on_peer_loss: PeerLossArg,
    /// Encryption of the link; "none" is for a private wire, must be said on both sides, and still authenticates
    #[arg(long, value_enum, default_value_t = Encryption::Tls)]
    encryption: Encryption,
    /// How this node does its I/O
    #[arg(long, value_enum, default_value_t = IoArg::Auto)]
    io: IoArg,
    /// Size of a journal segment (64K to 4G) [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = segment_size)]
    segment_bytes: Option<u64>,
    /// What the replicated journal may take on disk
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    journal_quota_bytes: Option<u64>,
    /// What a restarted primary does while its peer is silent
    ///
    /// wait: it serves nobody until the peer answers or you say "start --alone". serve: it serves at once; if the peer
    /// took over meanwhile, both serve, and the updates of one of them are not kept.
    #[arg(long, value_enum, default_value_t = Alone::Wait)]
    on_restart_alone: Alone,
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
}

fn segment_size(text: &str) -> Result<u64, String> {
    let size = values::byte_size(text)?;
    if (SEGMENT_MIN..=SEGMENT_MAX).contains(&size) && size % crate::base::limits::BLOCK_U64 == 0 {
        Ok(size)
    } else {
        Err("a segment has 64K to 4G, in whole blocks of 4K".to_owned())
    }
}

/// `init`.
pub(crate) fn init(context: &mut Context, args: InitArgs) -> Done {
    let dir = context.dir()?.to_owned();
    let InitArgs { name, role, link_listen, peer, resp, resp_default, resp_password_file, ack_level, .. } =
        args;
    glue::init(&glue::Init {
        dir: dir.clone(),
        name: name.clone(),
        role,
        link_listen,
        peer,
        resp,
        resp_default,
        resp_password_file,
        ack_level,
        on_peer_loss: args.on_peer_loss,
        encrypted: args.encryption == Encryption::Tls,
        io: args.io,
        segment_bytes: args.segment_bytes,
        journal_quota_bytes: args.journal_quota_bytes,
        serve_alone: args.on_restart_alone == Alone::Serve,
    })?;
    if context.json {
        let role = if role == RoleArg::Primary { "primary" } else { "standby" };
        context.out.json(&serde_json::json!({ "name": name, "role": role, "dir": dir }))?;
    } else {
        context.out.line(format_args!("made node {name} in {}", dir.display()))?;
        say(format_args!(
            "next: let it know its peer, hot-backup trust --dir {} IDENTITY-OF-THE-PEER",
            dir.display()
        ));
    }
    Ok(Answer::Yes)
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
        identity.clear();
        // An identity is one short line; whatever is longer is not one.
        std::io::stdin()
            .take(64 << 10)
            .read_to_string(&mut identity)
            .map_err(|e| Failure::io("reading the peer's identity from stdin", &e))?;
    }
    glue::trust(context.dir()?, identity.trim())?;
    if context.json {
        context.out.json(&serde_json::json!({ "trusted": identity.trim() }))?;
    } else {
        say("the peer is trusted; a running node takes this in at its next start");
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
    let value = ask::ask(context, &AdminRequest::StartAlone)?;
    if context.json {
        context.out.json(&value)?;
    } else {
        context.out.line("this node serves alone; its peer will be caught up when it is back")?;
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_whole_blocks_between_the_limits() {
        assert_eq!(segment_size("64M"), Ok(64 << 20));
        for bad in ["1K", "8G", "65537", "x"] {
            assert!(segment_size(bad).is_err(), "{bad}");
        }
    }
}
