//! Commands that report on the node: INFO, ROLE, COMMAND, CONFIG, TIME. Field names are Redis's.

use super::COMPATIBLE_WITH;
use super::connection::unknown_subcommand;
use super::glob::Pattern;
use super::refusal::Fail;
use super::table::{Cmd, Spec, TABLE};
use super::turn::{Turn, wrong_arity};
use crate::base::Prng;
use crate::base::limits::{CLIENTS_MAX, ITEM_VALUE_MAX, PATTERN_MAX};
use crate::doors::{Backend, ReplicationView};
use crate::format::resp::{self, Args};
use std::fmt::Write;

const SECTIONS: [&str; 7] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "keyspace"];

/// What CONFIG GET answers: what client libraries and benchmarks ask for, with what is true here.
fn settings() -> [(&'static str, String); 13] {
    [
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", CLIENTS_MAX.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", ITEM_VALUE_MAX.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("tcp-keepalive", "0".to_owned()),
        ("timeout", "0".to_owned()),
    ]
}

/// A name of 40 hexadecimal digits for the history that an epoch began; the same on both nodes.
fn history_name(epoch: u64) -> String {
    let mut prng = Prng::new(epoch);
    let mut name: String = (0..3).map(|_| format!("{:016x}", prng.next_u64())).collect();
    name.truncate(40);
    name
}

/// Appends one section. Writing to a `String` cannot fail.
macro_rules! field {
    ($out:expr, $($text:tt)*) => {{
        let _ = write!($out, $($text)*);
        $out.push_str("\r\n");
    }};
}

fn replication(out: &mut String, view: &ReplicationView) {
    field!(out, "role:{}", if view.primary { "master" } else { "slave" });
    if view.primary {
        field!(out, "connected_slaves:{}", u8::from(view.peer_connected));
        if view.peer_connected {
            let (host, port, [_, on_disk, _]) = (&view.peer_host, view.peer_port, view.peer);
            let lag = view.peer_silence_s;
            field!(out, "slave0:ip={host},port={port},state=online,offset={on_disk},lag={lag}");
        }
    } else {
        field!(out, "master_host:{}", view.peer_host);
        field!(out, "master_port:{}", view.peer_port);
        field!(out, "master_link_status:{}", if view.peer_connected { "up" } else { "down" });
        field!(out, "master_last_io_seconds_ago:{}", view.peer_silence_s);
        field!(out, "master_sync_in_progress:0");
        field!(out, "slave_read_repl_offset:{}", view.appended);
        field!(out, "slave_repl_offset:{}", view.applied);
        if !view.peer_connected {
            field!(out, "master_link_down_since_seconds:{}", view.peer_silence_s);
        }
        field!(out, "slave_priority:100");
        field!(out, "slave_read_only:1");
        field!(out, "replica_announced:1");
        field!(out, "connected_slaves:0");
    }
    field!(out, "master_failover_state:no-failover");
    field!(out, "master_replid:{}", history_name(view.epoch));
    field!(out, "master_replid2:{}", "0".repeat(40));
    field!(out, "master_repl_offset:{}", view.appended);
    field!(out, "second_repl_offset:-1");
    field!(out, "hot_backup_node:{}", view.name);
    field!(out, "hot_backup_epoch:{}", view.epoch);
    field!(out, "hot_backup_lag_seconds:{}", view.lag_s);
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn dispatch_report(&mut self, cmd: Cmd, args: Args<'_>) -> Result<(), Fail> {
        match cmd {
            Cmd::Info => self.info(args),
            Cmd::Role => self.role(),
            Cmd::Command => self.describe_commands(args),
            Cmd::Config => self.config(args),
            _ => self.time(),
        }
    }

    fn time(&mut self) -> Result<(), Fail> {
        let (seconds, micros) = (self.now.wall_ms / 1000, self.now.wall_ms % 1000 * 1000);
        resp::array(&mut self.client.out.bytes, 2);
        self.bulk(seconds.to_string().as_bytes())?;
        self.bulk(micros.to_string().as_bytes())
    }

    fn info(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let asked = |section: &str| {
            let names = |word: &[u8]| {
                let all = ["all", "default", "everything"].into_iter().chain([section]);
                all.into_iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
            };
            args.len() == 1 || args.tail(1).any(names)
        };
        let view = self.backend.view();
        let mut text = String::new();
        for section in SECTIONS.into_iter().filter(|section| asked(section)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let (first, rest) = section.split_at(1);
            field!(text, "# {}{rest}", first.to_ascii_uppercase());
            self.info_section(section, &mut text, &view);
        }
        resp::verbatim(&mut self.client.out.bytes, self.client.version, *b"txt", &text);
        Ok(())
    }

    fn info_section(&self, section: &str, out: &mut String, view: &ReplicationView) {
        let stats = &self.shared.stats;
        match section {
            "server" => {
                field!(out, "redis_version:{COMPATIBLE_WITH}");
                field!(out, "redis_mode:standalone");
                field!(out, "hot_backup_version:{}", self.shared.config.version);
                field!(out, "arch_bits:{}", usize::BITS);
                field!(out, "server_time_usec:{}", self.now.wall_ms * 1000);
                let uptime = self.now.mono.0 / 1_000_000;
                field!(out, "uptime_in_seconds:{uptime}");
                field!(out, "uptime_in_days:{}", uptime / 86_400);
            }
            "clients" => {
                field!(out, "connected_clients:{}", self.shared.clients);
                field!(out, "maxclients:{CLIENTS_MAX}");
                field!(out, "blocked_clients:{}", self.shared.blocked);
            }
            "memory" => {
                field!(out, "mem_clients_normal:{}", self.shared.memory);
                field!(out, "maxmemory:0");
                field!(out, "maxmemory_policy:noeviction");
            }
            "persistence" => {
                field!(out, "loading:0");
                field!(out, "aof_enabled:1");
                field!(out, "aof_last_write_status:ok");
            }
            "stats" => {
                field!(out, "total_connections_received:{}", stats.connections);
                field!(out, "rejected_connections:{}", stats.rejected);
                field!(out, "total_commands_processed:{}", stats.commands);
                field!(out, "total_net_input_bytes:{}", stats.input_bytes);
                field!(out, "total_net_output_bytes:{}", stats.output_bytes);
                field!(out, "total_error_replies:{}", stats.error_replies);
                field!(out, "expired_keys:0");
                field!(out, "evicted_keys:0");
                field!(out, "hot_backup_item_updates:{}", stats.updates);
                field!(out, "hot_backup_denied_passwords:{}", stats.denied);
                field!(out, "hot_backup_protocol_errors:{}", stats.protocol_errors);
            }
            "replication" => replication(out, view),
            // No count of items is kept, and a section that is asked for every second may not count them.
            _ => field!(out, "hot_backup_record_files:{}", self.backend.record_files().len()),
        }
    }

    fn role(&mut self) -> Result<(), Fail> {
        let view = self.backend.view();
        let out = &mut self.client.out.bytes;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if view.primary {
            resp::array(out, 3);
            resp::bulk(out, b"master");
            resp::integer(out, number(view.appended.0));
            resp::array(out, usize::from(view.peer_connected));
            if view.peer_connected {
                let [_, on_disk, _] = view.peer;
                resp::array(out, 3);
                resp::bulk(out, view.peer_host.as_bytes());
                resp::bulk(out, view.peer_port.to_string().as_bytes());
                resp::bulk(out, on_disk.to_string().as_bytes());
            }
        } else {
            resp::array(out, 5);
            resp::bulk(out, b"slave");
            resp::bulk(out, view.peer_host.as_bytes());
            resp::integer(out, i64::from(view.peer_port));
            resp::bulk(out, if view.peer_connected { b"connected" } else { b"connect" });
            resp::integer(out, number(view.appended.0));
        }
        Ok(())
    }

    fn describe_commands(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let sub = String::from_utf8_lossy(args.at(1)).to_ascii_lowercase();
        match (sub.as_str(), args.len()) {
            ("", 1) => {
                resp::array(&mut self.client.out.bytes, TABLE.len());
                TABLE.iter().for_each(|spec| self.describe(spec));
            }
            ("count", 2) => return self.integer(i64::try_from(TABLE.len()).unwrap_or(i64::MAX)),
            ("docs", _) => resp::map(&mut self.client.out.bytes, self.client.version, 0),
            ("list", 2) => {
                resp::array(&mut self.client.out.bytes, TABLE.len());
                TABLE.iter().for_each(|spec| resp::bulk(&mut self.client.out.bytes, spec.name.as_bytes()));
            }
            ("info", 2) => {
                resp::array(&mut self.client.out.bytes, TABLE.len());
                TABLE.iter().for_each(|spec| self.describe(spec));
            }
            ("info", _) => {
                resp::array(&mut self.client.out.bytes, args.len() - 2);
                for name in args.tail(2) {
                    match self.shared.lookup.find(name) {
                        Some(spec) => self.describe(spec),
                        None => resp::null(&mut self.client.out.bytes, self.client.version),
                    }
                }
            }
            ("getkeys", 4..) => return self.keys_of(args),
            ("count" | "list" | "getkeys", _) => return Err(wrong_arity(&format!("command|{sub}")).into()),
            _ => return Err(unknown_subcommand("COMMAND", args.at(1))),
        }
        Ok(())
    }

    /// One command in the shape of Redis 7: ten fields, the last three always empty.
    fn describe(&mut self, spec: &Spec) {
        let version = self.client.version;
        let out = &mut self.client.out.bytes;
        let words = |out: &mut Vec<u8>, words: &[&str]| {
            resp::set(out, version, words.len());
            words.iter().for_each(|word| resp::simple(out, word));
        };
        resp::array(out, 10);
        resp::bulk(out, spec.name.as_bytes());
        resp::integer(out, i64::from(spec.arity));
        words(out, &spec.flag_names());
        spec.keys.iter().for_each(|place| resp::integer(out, i64::from(*place)));
        words(out, &spec.categories());
        words(out, &[]);
        words(out, &[]);
        resp::array(out, 0);
    }

    fn keys_of(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let spec = self.shared.lookup.find(args.at(2)).ok_or(Fail::from("ERR Invalid command specified"))?;
        let count = args.len() - 2;
        if !spec.takes(count) {
            return Err("ERR Invalid number of arguments specified for command".into());
        }
        let places: Vec<usize> = spec.key_places(count).collect();
        if places.is_empty() {
            return Err("ERR The command has no key arguments".into());
        }
        resp::array(&mut self.client.out.bytes, places.len());
        places.iter().try_for_each(|place| self.bulk(args.at(place + 2)))
    }

    fn config(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let sub = String::from_utf8_lossy(args.at(1)).to_ascii_lowercase();
        match (sub.as_str(), args.len()) {
            ("get", 3..) => self.config_get(args),
            ("resetstat", 2) => {
                self.shared.stats = super::Stats::default();
                self.ok()
            }
            ("set", 4..) | ("rewrite", 2) => Err(
                "ERR the configuration cannot be changed here: edit the node's config file and restart it"
                    .into(),
            ),
            ("get" | "set" | "resetstat" | "rewrite", _) => Err(wrong_arity(&format!("config|{sub}")).into()),
            _ => Err(unknown_subcommand("CONFIG", args.at(1))),
        }
    }

    fn config_get(&mut self, args: Args<'_>) -> Result<(), Fail> {
        if args.tail(2).any(|pattern| pattern.len() > PATTERN_MAX) {
            return Err(format!("ERR a pattern has at most {PATTERN_MAX} bytes").into());
        }
        let patterns: Vec<_> = args.tail(2).map(|text| Pattern::parse(&text.to_ascii_lowercase())).collect();
        let asked = |name: &str| patterns.iter().any(|pattern| pattern.matches(name.as_bytes()));
        let found: Vec<_> = settings().into_iter().filter(|(name, _)| asked(name)).collect();
        resp::map(&mut self.client.out.bytes, self.client.version, found.len());
        for (name, value) in found {
            self.bulk(name.as_bytes())?;
            self.bulk(value.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_a_name_of_forty_hexadecimal_digits() {
        let name = history_name(4);
        assert!(name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(name, history_name(4));
        assert_ne!(name, history_name(5));
    }

    #[test]
    fn settings_are_in_order_and_named_once() {
        assert!(settings().windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
