//! Proves that each field of INFO tells what it says.

use super::super::Memory;
use super::super::info::hex_name;
use super::super::model::{Rig, encode};
use crate::base::limits::CLIENTS_MAX;
use crate::base::{ConnId, Mono, Seq};

/// A node in its third day with five connections that came, of which one waits, one was ended for what it sent, and one is
/// gone; after a hundred commands in two seconds.
fn busy() -> (Rig, [u64; 3]) {
    const DAYS: u64 = 2 * 86_400_000_000;
    let mut rig = Rig::usual();
    rig.now.mono = Mono(DAYS + 7_000_000);
    rig.door.measured(Memory { resident: 6 << 20, anonymous: 4 << 20, peak: 9 << 20 });
    (2..=5).for_each(|client| rig.open(client));
    let asked = [
        (1, encode("mset a 1 b 2 c 3; incr a; nosuch; auth nobody x; set app,orders,x 1")),
        (2, encode("set z 1; wait 2 0")),
        (3, b"*x\r\n".to_vec()),
        (1, encode("info stats")),
        (1, encode(&vec!["ping"; 99].join(";"))),
    ];
    let (mut input, mut output) = (0, 0);
    for (client, bytes) in asked {
        input += bytes.len() as u64;
        rig.write(client, &bytes);
        rig.run(true);
        output += rig.peers.get_mut(&client).unwrap().got.len() as u64;
        rig.got(client);
    }
    rig.door.close(ConnId(4));
    rig.peers.remove(&4);
    rig.door.close(ConnId(3));
    rig.peers.remove(&3);
    rig.now.mono = rig.now.mono.plus_ms(2000);
    let held = rig.door.shared.memory as u64;
    (rig, [input, output, held])
}

/// The lines of a section, or of all.
fn info(rig: &mut Rig, section: &str) -> Vec<String> {
    rig.ask(&format!("info {section}"))
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn section(rig: &mut Rig, name: &str, expected: &[&str]) {
    assert_eq!(info(rig, name), expected, "{name}");
}

#[test]
fn each_field_of_info_about_clients_tells_what_it_says() {
    let (mut rig, [input, output, held]) = busy();
    let came = input + encode("info stats").len() as u64;
    let (received, sent) =
        (format!("total_net_input_bytes:{came}"), format!("total_net_output_bytes:{output}"));
    section(
        &mut rig,
        "stats",
        &[
            "# Stats",
            "total_connections_received:5",
            "total_commands_processed:108",
            "instantaneous_ops_per_sec:50",
            &received,
            &sent,
            "rejected_connections:0",
            "expired_keys:0",
            "evicted_keys:0",
            "pubsub_channels:0",
            "pubsub_patterns:0",
            "total_error_replies:2",
            "hot_backup_item_updates:6",
            "hot_backup_denied_passwords:1",
            "hot_backup_protocol_errors:1",
        ],
    );
    let most = format!("maxclients:{CLIENTS_MAX}");
    section(
        &mut rig,
        "clients",
        &[
            "# Clients",
            "connected_clients:3",
            "cluster_connections:0",
            &most,
            "blocked_clients:1",
            "tracking_clients:0",
        ],
    );
    let told = info(&mut rig, "memory");
    let mut told: Vec<&str> = told.iter().map(String::as_str).collect();
    let of_clients =
        told.remove(told.iter().position(|line| line.starts_with("mem_clients_normal:")).unwrap());
    let of_clients: u64 = of_clients.split_once(':').unwrap().1.parse().unwrap();
    assert!(of_clients.abs_diff(held) < 4096, "{of_clients} {held}");
    assert_eq!(
        told,
        [
            "# Memory",
            "used_memory:4194304",
            "used_memory_human:4.00M",
            "used_memory_rss:6291456",
            "used_memory_rss_human:6.00M",
            "used_memory_peak:9437184",
            "used_memory_peak_human:9.00M",
            "mem_fragmentation_ratio:1.50",
            "maxmemory:0",
            "maxmemory_human:0B",
            "maxmemory_policy:noeviction",
        ]
    );
}

#[test]
fn each_field_of_info_about_the_node_tells_what_it_says() {
    let (mut rig, _) = busy();
    let run = format!("run_id:{}", hex_name(7));
    section(
        &mut rig,
        "server",
        &[
            "# Server",
            "redis_version:7.2.0",
            "redis_mode:standalone",
            "hot_backup_version:0.1.0",
            "arch_bits:64",
            &run,
            "tcp_port:7001",
            "server_time_usec:1700000000123000",
            "uptime_in_seconds:172809",
            "uptime_in_days:2",
        ],
    );
    section(&mut rig, "cluster", &["# Cluster", "cluster_enabled:0"]);
    section(
        &mut rig,
        "keyspace",
        &[
            "# Keyspace",
            "db0:keys=4,expires=0,avg_ttl=0",
            "hot_backup_keys_are_estimate:0",
            "hot_backup_record_files:3",
        ],
    );
    let persistence = [
        "# Persistence",
        "loading:0",
        "async_loading:0",
        "rdb_bgsave_in_progress:0",
        "aof_enabled:1",
        "aof_rewrite_in_progress:0",
        "aof_last_write_status:ok",
    ];
    section(&mut rig, "persistence", &persistence);
}

#[test]
fn each_field_of_the_pair_in_info_tells_what_it_says_on_either_side() {
    let (mut rig, _) = busy();
    let history = format!("master_replid:{}", hex_name(2));
    let common = [
        "master_failover_state:no-failover",
        &history,
        "master_replid2:0000000000000000000000000000000000000000",
        "master_repl_offset:6",
        "second_repl_offset:-1",
        "hot_backup_node:a",
        "hot_backup_epoch:2",
        "hot_backup_lag_seconds:0",
    ];
    let expect = |own: &[&str]| -> Vec<String> {
        let all = ["# Replication"].into_iter().chain(own.iter().copied()).chain(common);
        all.map(str::to_owned).collect()
    };
    let told = info(&mut rig, "replication");
    let slave = "slave0:ip=10.0.0.2,port=7002,state=online,offset=6,lag=1";
    assert_eq!(told, expect(&["role:master", "connected_slaves:1", slave]));
    rig.model.connected = false;
    let told = info(&mut rig, "replication");
    assert_eq!(told, expect(&["role:master", "connected_slaves:0"]));
    rig.model.primary = false;
    let standby = |up: &str| {
        let mut own = vec![
            "role:slave",
            "master_host:10.0.0.2",
            "master_port:7002",
            "master_link_status:UP",
            "master_last_io_seconds_ago:1",
            "master_sync_in_progress:0",
            "slave_read_repl_offset:6",
            "slave_repl_offset:6",
            "master_link_down_since_seconds:1",
            "slave_priority:100",
            "slave_read_only:1",
            "replica_announced:1",
            "connected_slaves:0",
        ];
        let status = format!("master_link_status:{up}");
        if up == "up" {
            own.remove(8);
        }
        own.into_iter()
            .map(|line| if line.ends_with(":UP") { status.clone() } else { line.to_owned() })
            .collect::<Vec<_>>()
    };
    for (connected, up) in [(false, "down"), (true, "up")] {
        rig.model.connected = connected;
        let own = standby(up);
        assert_eq!(
            info(&mut rig, "replication"),
            expect(&own.iter().map(String::as_str).collect::<Vec<_>>())
        );
    }
}

#[test]
fn what_programs_read_of_an_entrys_number_has_digits_only() {
    let mut rig = Rig::usual();
    (rig.model.ends[0], rig.model.peer) = (Seq(1_234_567), [Seq(1_234_567); 3]);
    for primary in [true, false] {
        rig.model.primary = primary;
        let told = [rig.ask("info replication"), rig.ask("role")].concat();
        let times = told.matches("1234567").count();
        assert!(times >= 3 && !told.contains("1,234"), "{told}");
    }
}
