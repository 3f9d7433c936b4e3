//! `watch`: holds a lease in etcd for a node, so that the other one takes over by itself when this one is gone.

use super::Context;
use super::failure::{Done, Failure};
use super::out::{say, visible};
use crate::node::watch::{EtcdPlace, Hook, Told, WatchOrder, watch};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Holds a lease in etcd for this node; the other node takes over when it is lost
#[derive(Debug, Args)]
#[command(after_long_help = "\
One watch runs beside each node, on the same machine. Whichever holds the lease lets its node accept updates, a moment
at a time; a primary whose watch is cut off, hangs or is gone stops by itself before the lease is over, and only then
the other watch can get it, and its node takes over. No machine decides alone: etcd does, with a majority of members.

A standby takes over only if it has all that was acknowledged at the level that was promised. If it may lack something,
its watch says so, and waits for the old primary; --allow-loss takes over all the same.

Both nodes need decider = \"lease\" in config.toml: without a lease such a node accepts no updates. It prints a line
whenever something changes, and runs until it is ended; ended and started again, it goes on where it was.

Examples:
  hot-backup watch --dir /var/lib/hot-backup --etcd http://127.0.0.1:2379
  hot-backup watch --etcd https://e1:2379,https://e2:2379,https://e3:2379 --ca ca.pem --cert node.pem --key node.key
  hot-backup watch --etcd https://e1:2379 --fence /usr/local/sbin/fence-peer --fence-arg --off

See docs/automatic-takeover.md for the rule of times, and what to do when a takeover is refused.")]
pub(crate) struct WatchArgs {
    /// Members of etcd, version 3: their client addresses
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL", value_parser = url)]
    etcd: Vec<String>,
    /// Certificates that sign those of the members; else the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A client certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A user of etcd
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The file with the user's password in its first line
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// What the keys begin with
    #[arg(long, value_name = "TEXT", default_value = "/hot-backup")]
    prefix: String,
    /// How long the lease lasts without being renewed
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=600))]
    ttl: u64,
    /// How long a node keeps the lease after its process has ended, in which it may be started again
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    release_after: f64,
    /// A program that must end with exit code 0 before this node takes over: it fences the other one
    #[arg(long, value_name = "PROGRAM")]
    fence: Option<String>,
    /// An argument of it; may be given several times
    #[arg(long, value_name = "ARG", requires = "fence", allow_hyphen_values = true)]
    fence_arg: Vec<String>,
    /// It is ended after this, and there is no takeover
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    fence_limit: f64,
    /// Take over also when updates may be lost that were acknowledged at the promised level
    #[arg(long)]
    allow_loss: bool,
}

fn url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') => Ok(text.to_owned()),
        Some(_) => Err("no host in it, or a password, which belongs in --password-file".to_owned()),
        None => Err("it begins with neither http:// nor https://".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0 to 3600".to_owned()),
    }
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    wall_ms: u64,
    #[serde(flatten)]
    told: &'a Told,
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs `watch`.
pub(crate) fn run(context: &mut Context, args: WatchArgs) -> Done {
    let fence = args.fence.map(|program| {
        let argv = std::iter::once(program).chain(args.fence_arg).collect();
        Hook { argv, limit: Duration::from_secs_f64(args.fence_limit) }
    });
    let order = WatchOrder {
        dir: context.dir()?.to_owned(),
        place: EtcdPlace {
            urls: args.etcd,
            ca: args.ca,
            cert: args.cert.zip(args.key),
            user: args.user.zip(args.password_file),
        },
        prefix: args.prefix.trim_end_matches('/').to_owned(),
        ttl: args.ttl,
        release_after: Duration::from_secs_f64(args.release_after),
        allow_loss: args.allow_loss,
        fence,
    };
    let json = context.json;
    let out = &mut context.out;
    let mut told = |told: &Told| {
        // Whoever read this may be gone; the lease is still held.
        let _ = if json {
            out.json(&Line { wall_ms: wall_ms(), told }).and_then(|()| out.flush())
        } else {
            say(format_args!("{}: {}", told.what, visible(&told.text)));
            Ok(())
        };
    };
    match watch(&order, &mut told) {
        Ok(never) => match never {},
        Err(error) => Err(Failure::error(error.to_string(), "see: hot-backup watch --help")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_members_have_a_scheme_a_host_and_no_password() {
        for good in ["http://127.0.0.1:2379", "https://e1:2379"] {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for bad in ["e1:2379", "https://", "https://root:secret@e1:2379", "ftp://e1"] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(seconds("0.5").is_ok() && seconds("-1").is_err() && seconds("x").is_err());
    }
}
