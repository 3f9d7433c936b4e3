//! INFO and ROLE. Field names are Redis's; what only this program knows begins with `hot_backup_`.

use super::COMPATIBLE_WITH;
use super::count::Keys;
use super::refusal::Fail;
use super::turn::Turn;
use crate::base::limits::{CLIENTS_MAX, WORK_WALKED};
use crate::base::{FileId, Mono, Prng};
use crate::doors::{Backend, ReplicationView};
use crate::format::resp::{self, Args};
use std::fmt::Write;

const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cluster", "keyspace"];

/// What the process takes of the machine's memory, as the driver measured it last (bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All pages that are in memory.
    pub resident: u64,
    /// Those of them that belong to no file.
    pub anonymous: u64,
    /// The most that was ever resident at a measurement.
    pub peak: u64,
}

/// How many commands there were one to two seconds ago.
#[derive(Debug, Default)]
pub(super) struct Rate {
    older: (Mono, u64),
    newer: (Mono, u64),
}

impl Rate {
    /// Takes a sample if the last one is a second old.
    pub(super) fn look(&mut self, now: Mono, commands: u64) {
        const EVERY_MS: u64 = 1000;
        if now >= self.newer.0.plus_ms(EVERY_MS) {
            self.older = std::mem::replace(&mut self.newer, (now, commands));
        }
    }

    /// Commands a second, from the older sample to now.
    fn per_second(&self, now: Mono, commands: u64) -> u64 {
        let micros = u128::from(now.since(self.older.0).max(1));
        let more = u128::from(commands.saturating_sub(self.older.1));
        u64::try_from(more * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

/// A name of 40 hexadecimal digits that is given by a number.
pub(super) fn hex_name(seed: u64) -> String {
    let mut prng = Prng::new(seed);
    let mut name: String = (0..3).map(|_| format!("{:016x}", prng.next_u64())).collect();
    name.truncate(40);
    name
}

/// A size in Redis's form, such as `1.50M`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes}B");
    }
    let hundredths = u128::from(bytes) * 100 / u128::from(scale);
    format!("{}.{:02}{}", hundredths / 100, hundredths % 100, UNITS[unit])
}

/// Appends one line. Writing to a `String` cannot fail.
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
            let ([_, on_disk, _], lag) = (view.peer, view.peer_silence_s);
            let place = view.peer_door.as_ref().map(|(host, port)| format!("ip={host},port={port},"));
            field!(out, "slave0:{}state=online,offset={},lag={lag}", place.unwrap_or_default(), on_disk.0);
        }
    } else {
        if let Some((host, port)) = &view.peer_door {
            field!(out, "master_host:{host}");
            field!(out, "master_port:{port}");
        }
        field!(out, "master_link_status:{}", if view.peer_connected { "up" } else { "down" });
        field!(out, "master_last_io_seconds_ago:{}", view.peer_silence_s);
        field!(out, "master_sync_in_progress:0");
        field!(out, "slave_read_repl_offset:{}", view.appended.0);
        field!(out, "slave_repl_offset:{}", view.applied.0);
        if !view.peer_connected {
            field!(out, "master_link_down_since_seconds:{}", view.peer_silence_s);
        }
        field!(out, "slave_priority:100");
        field!(out, "slave_read_only:1");
        field!(out, "replica_announced:1");
        field!(out, "connected_slaves:0");
    }
    field!(out, "master_failover_state:no-failover");
    field!(out, "master_replid:{}", hex_name(view.epoch));
    field!(out, "master_replid2:{}", "0".repeat(40));
    field!(out, "master_repl_offset:{}", view.appended.0);
    field!(out, "second_repl_offset:-1");
    field!(out, "hot_backup_node:{}", view.name);
    field!(out, "hot_backup_epoch:{}", view.epoch);
    field!(out, "hot_backup_lag_seconds:{}", view.lag_s);
}

fn memory(out: &mut String, memory: Memory, clients: usize) {
    let Memory { resident, anonymous, peak } = memory;
    for (name, bytes) in
        [("used_memory", anonymous), ("used_memory_rss", resident), ("used_memory_peak", peak)]
    {
        field!(out, "{name}:{bytes}");
        field!(out, "{name}_human:{}", human(bytes));
    }
    let hundredths = resident * 100 / anonymous.max(1);
    field!(out, "mem_fragmentation_ratio:{}.{:02}", hundredths / 100, hundredths % 100);
    field!(out, "mem_clients_normal:{clients}");
    field!(out, "maxmemory:0");
    field!(out, "maxmemory_human:0B");
    field!(out, "maxmemory_policy:noeviction");
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn info(&mut self, args: Args<'_>) -> Result<(), Fail> {
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
        self.verbatim(&text)
    }

    fn info_section(&mut self, section: &str, out: &mut String, view: &ReplicationView) {
        match section {
            "server" => self.info_server(out),
            "clients" => {
                field!(out, "connected_clients:{}", self.shared.clients);
                field!(out, "cluster_connections:0");
                field!(out, "maxclients:{CLIENTS_MAX}");
                field!(out, "blocked_clients:{}", self.shared.blocked);
                field!(out, "tracking_clients:0");
            }
            "memory" => memory(out, self.shared.process, self.shared.memory),
            "persistence" => {
                field!(out, "loading:0");
                field!(out, "async_loading:0");
                field!(out, "rdb_bgsave_in_progress:0");
                field!(out, "aof_enabled:1");
                field!(out, "aof_rewrite_in_progress:0");
                field!(out, "aof_last_write_status:ok");
            }
            "stats" => self.info_stats(out),
            "replication" => replication(out, view),
            "cluster" => field!(out, "cluster_enabled:0"),
            _ => {
                let keys = self.count_keys();
                if keys.count > 0 {
                    field!(out, "db0:keys={},expires=0,avg_ttl=0", keys.count);
                }
                field!(out, "hot_backup_keys_are_estimate:{}", u8::from(keys.is_estimate));
                field!(out, "hot_backup_record_files:{}", self.backend.record_files().len());
            }
        }
    }

    fn info_server(&self, out: &mut String) {
        let config = &self.shared.config;
        field!(out, "redis_version:{COMPATIBLE_WITH}");
        field!(out, "redis_mode:standalone");
        field!(out, "hot_backup_version:{}", config.version);
        field!(out, "arch_bits:{}", usize::BITS);
        field!(out, "run_id:{}", hex_name(config.run));
        field!(out, "tcp_port:{}", config.tcp_port);
        field!(out, "server_time_usec:{}", self.now.wall_ms * 1000);
        let uptime = self.now.mono.0 / 1_000_000;
        field!(out, "uptime_in_seconds:{uptime}");
        field!(out, "uptime_in_days:{}", uptime / 86_400);
    }

    fn info_stats(&mut self, out: &mut String) {
        let commands = self.shared.stats.commands;
        self.shared.rate.look(self.now.mono, commands);
        let stats = &self.shared.stats;
        field!(out, "total_connections_received:{}", stats.connections);
        field!(out, "total_commands_processed:{commands}");
        field!(out, "instantaneous_ops_per_sec:{}", self.shared.rate.per_second(self.now.mono, commands));
        field!(out, "total_net_input_bytes:{}", stats.input_bytes);
        field!(out, "total_net_output_bytes:{}", stats.output_bytes);
        field!(out, "rejected_connections:{}", stats.rejected);
        field!(out, "expired_keys:0");
        field!(out, "evicted_keys:0");
        field!(out, "pubsub_channels:0");
        field!(out, "pubsub_patterns:0");
        field!(out, "total_error_replies:{}", stats.error_replies);
        field!(out, "hot_backup_item_updates:{}", stats.updates);
        field!(out, "hot_backup_denied_passwords:{}", stats.denied);
        field!(out, "hot_backup_protocol_errors:{}", stats.protocol_errors);
    }

    /// Items of the default file; without one, of all files.
    fn count_keys(&mut self) -> Keys {
        let files: Vec<FileId> = match &self.shared.config.default_file {
            Some(file) => self.backend.resolve(file.as_bytes()).into_iter().collect(),
            None => self.backend.record_files().into_iter().map(|(file, _)| file).collect(),
        };
        let (keys, looked) = self.shared.count.ask(self.now, self.backend, files);
        self.shared.work.spend(looked * WORK_WALKED);
        keys
    }

    pub(super) fn role(&mut self) -> Result<(), Fail> {
        let view = self.backend.view();
        let out = &mut self.client.out.bytes;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if view.primary {
            // A standby whose door is not known cannot be connected to: it is not listed.
            let standby = view.peer_door.filter(|_| view.peer_connected);
            resp::array(out, 3);
            resp::bulk(out, b"master");
            resp::integer(out, number(view.appended.0));
            resp::array(out, usize::from(standby.is_some()));
            if let Some((host, port)) = standby {
                let [_, on_disk, _] = view.peer;
                resp::array(out, 3);
                resp::bulk(out, host.as_bytes());
                resp::bulk(out, port.to_string().as_bytes());
                resp::bulk(out, on_disk.0.to_string().as_bytes());
            }
        } else {
            let (host, port) = view.peer_door.unwrap_or_default();
            resp::array(out, 5);
            resp::bulk(out, b"slave");
            resp::bulk(out, host.as_bytes());
            resp::integer(out, i64::from(port));
            resp::bulk(out, if view.peer_connected { b"connected" } else { b"connect" });
            resp::integer(out, number(view.appended.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_and_a_run_have_names_of_forty_hexadecimal_digits() {
        let name = hex_name(4);
        assert!(name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(name, hex_name(4));
        assert_ne!(name, hex_name(5));
    }

    #[test]
    fn sizes_are_written_as_redis_writes_them() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (1_572_864, "1.50M"),
            (5 << 30, "5.00G"),
            (1 << 50, "1024.00T"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn the_rate_is_of_the_last_seconds_and_fades_when_nothing_comes() {
        let mut rate = Rate::default();
        rate.look(Mono(1_000_000), 0);
        rate.look(Mono(2_000_000), 500);
        rate.look(Mono(2_500_000), 600);
        assert_eq!(rate.per_second(Mono(3_000_000), 1000), 500);
        rate.look(Mono(62_000_000), 1000);
        assert_eq!(rate.per_second(Mono(62_000_000), 1000), 8);
    }
}
