//! Proves that commands answer as Redis does, and what transactions, refusals and reports do.

use super::super::model::Rig;
use super::super::{Memory, RespConfig, table, vectors};
use crate::base::{ConnId, FileId};
use crate::doors::{Backend as _, Change, Refusal};

#[test]
fn replies_are_byte_for_byte_those_of_redis_7() {
    for (commands, expected) in vectors::REPLIES {
        assert_eq!(Rig::usual().ask(commands), *expected, "{commands}");
    }
}

#[test]
fn keys_name_account_file_and_item_or_an_item_of_the_default_file() {
    let mut rig = Rig::usual();
    assert_eq!(
        rig.ask("set app,orders,a,b,c 1; get app,orders,a,b,c; get app,items,a"),
        "+OK\r\n$1\r\n1\r\n$-1\r\n"
    );
    assert_eq!(rig.ask("set a,b 2; get app,items,a,b"), "+OK\r\n$1\r\n2\r\n");
    assert_eq!(rig.ask("get no,file,x"), "-ERR no such file no,file\r\n");
    let long = "x".repeat(256);
    assert_eq!(
        rig.ask(&format!("get {long}")),
        "-ERR item id of 256 bytes: an item id has 1 to 255 bytes\r\n"
    );
    assert_eq!(rig.ask("set app,orders, 1"), "-ERR item id of 0 bytes: an item id has 1 to 255 bytes\r\n");
    let mut rig = Rig::new(RespConfig::default());
    rig.open(1);
    let expected = "-ERR key must be account,file,item-id (no default file is configured)\r\n";
    assert_eq!(rig.ask("get a; get a,b"), expected.repeat(2));
    assert_eq!(rig.ask("set app,orders,a 1"), "+OK\r\n");
}

#[test]
fn refusals_become_errors_and_change_nothing() {
    let mut rig = Rig::usual();
    rig.model.primary = false;
    let read_only = "-READONLY You can't write against a read only replica.\r\n";
    assert_eq!(rig.ask("set a 1; get a; set tmp,cache,a 1"), format!("{read_only}$-1\r\n+OK\r\n"));
    assert_eq!(
        rig.ask("multi; set a 1; exec; getset a 2; incr a"),
        format!("+OK\r\n+QUEUED\r\n{}", read_only.repeat(3))
    );
    rig.model.primary = true;
    rig.model.refuse = Some(Refusal::NoSpace);
    assert!(rig.ask("set a 1").starts_with("-OOM no space left"));
    rig.model.refuse = None;
    assert!(rig.ask("mset a 1 tmp,cache,b 2").starts_with("-CROSSSLOT "));
    assert!(rig.ask("multi; set a 1; set tmp,cache,b 2; exec").contains("-CROSSSLOT "));
    assert_eq!(rig.ask("get a; get tmp,cache,b"), "$-1\r\n$-1\r\n");
    assert!(
        rig.ask("flushall; flushdb")
            .starts_with("-ERR flushall is not possible here: use `hot-backup file clear")
    );
    for expires in [
        "set a 1 EX 5",
        "set a 1 pxat 99",
        "setex a 5 1",
        "psetex a 5 1",
        "getex a ex 5",
        "getex a PXAT 5",
        "expire a 5",
        "pexpire a 5",
        "expireat a 5 NX",
        "pexpireat a 5",
    ] {
        let told = rig.ask(expires);
        assert!(
            told.starts_with("-ERR items do not expire: ") && told.contains("delete the item"),
            "{expires}: {told}"
        );
    }
    assert_eq!(
        rig.ask("get a; getex a; getex a persist; getex a foo"),
        "$-1\r\n$-1\r\n$-1\r\n-ERR syntax error\r\n"
    );
}

#[test]
fn a_transaction_is_one_batch_and_sees_itself() {
    let mut rig = Rig::usual();
    rig.ask("set n 5; set gone x");
    rig.model.batches.clear();
    let replies = rig.ask(
        "multi; incr n; incr n; get n; del gone; exists gone; set gone y; append gone z; mget n gone; exec",
    );
    assert!(
        replies
            .ends_with("*8\r\n:6\r\n:7\r\n$1\r\n7\r\n:1\r\n:0\r\n+OK\r\n:2\r\n*2\r\n$1\r\n7\r\n$2\r\nyz\r\n"),
        "{replies}"
    );
    assert_eq!(rig.model.batches, [2], "two items, one batch");
    assert_eq!(rig.ask("mset a 1 b 2 c 3"), "+OK\r\n");
    assert_eq!(rig.model.batches, [2, 3]);
    assert!(rig.ask("multi; get a; exec").ends_with("*1\r\n$1\r\n1\r\n"));
    assert_eq!(rig.model.batches, [2, 3], "a transaction that only reads makes no batch");
}

#[test]
fn a_watched_key_voids_the_transaction_whoever_changes_it() {
    let mut rig = Rig::usual();
    rig.open(2);
    for (change, void) in [
        ("set k 2", true),
        ("del k", true),
        ("mset x 1 k 2", true),
        ("set other 2", false),
        ("set app,orders,k 2", false),
        ("set k 9 NX", false),
        ("get k", false),
    ] {
        rig.ask("set k 1; watch k; multi; get other");
        rig.ask_as(2, change);
        let replies = rig.ask("exec");
        assert_eq!(replies == "*-1\r\n", void, "{change}: {replies}");
    }
    rig.ask("watch k; multi; get k");
    rig.model.changed(Change::File(FileId(2)));
    assert_eq!(rig.ask("exec"), "*-1\r\n", "changed by other means");
    rig.ask("watch k; multi; get k");
    let item = rig.model.item_hash(FileId(2), b"k");
    rig.model.changed(Change::Item(item));
    rig.model.changed(Change::File(FileId(4)));
    assert_eq!(rig.ask("exec"), "*-1\r\n");
    rig.ask("set k 1; watch k");
    rig.ask("watch k; multi; get k");
    rig.model.changed(Change::All);
    assert_eq!(rig.ask("exec"), "*-1\r\n", "perhaps changed");
    rig.ask("watch k");
    assert!(rig.model.tells_changes());
    rig.door.close(ConnId(1));
    rig.tick();
    assert!(rig.door.shared.watches.is_empty() && !rig.model.tells_changes());
}

#[test]
fn info_and_role_speak_redis_of_either_role() {
    let mut rig = Rig::usual();
    rig.ask("set a 1");
    rig.door.measured(Memory { resident: 4 << 20, anonymous: 3 << 20, peak: 5 << 20 });
    let info = rig.ask("info");
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap();
    assert!(run_id.len() == 40 && run_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    for line in [
        "# Server",
        "redis_version:7.2.0",
        "hot_backup_version:0.1.0",
        "tcp_port:7001",
        "used_memory:3145728",
        "used_memory_human:3.00M",
        "used_memory_rss:4194304",
        "maxmemory:0",
        "cluster_enabled:0",
        "instantaneous_ops_per_sec:2",
        "total_commands_processed:2",
        "total_connections_received:1",
        "db0:keys=1,expires=0,avg_ttl=0",
        "# Clients",
        "connected_clients:1",
        "# Replication",
        "role:master",
        "connected_slaves:1",
        "slave0:ip=10.0.0.2,port=7002,state=online,offset=1,lag=1",
        "master_repl_offset:1",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{line}");
    }
    assert!(!rig.ask("info server").contains("# Clients"));
    assert!(rig.ask("info nosuch") == "$0\r\n\r\n");
    assert_eq!(
        rig.ask("role"),
        "*3\r\n$6\r\nmaster\r\n:1\r\n*1\r\n*3\r\n$8\r\n10.0.0.2\r\n$4\r\n7002\r\n$1\r\n1\r\n"
    );
    rig.model.primary = false;
    rig.model.connected = false;
    let info = rig.ask("info replication server");
    for line in [
        "role:slave",
        "master_host:10.0.0.2",
        "master_port:7002",
        "master_link_status:down",
        "slave_repl_offset:1",
        "slave_read_only:1",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{line}");
    }
    assert_eq!(rig.ask("role"), "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.2\r\n:7002\r\n$7\r\nconnect\r\n:1\r\n");
}

#[test]
fn a_peer_whose_door_is_not_known_is_given_no_address() {
    let mut rig = Rig::usual();
    rig.model.peer_door = None;
    let info = rig.ask("info replication");
    assert!(info.contains("connected_slaves:1\r\nslave0:state=online,offset=0,lag=1\r\n"), "{info}");
    assert_eq!(rig.ask("role"), "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    rig.model.primary = false;
    let info = rig.ask("info replication");
    assert!(
        info.contains("role:slave\r\n") && !info.contains("master_host") && !info.contains("master_port")
    );
    assert_eq!(rig.ask("role"), "*5\r\n$5\r\nslave\r\n$0\r\n\r\n:0\r\n$9\r\nconnected\r\n:0\r\n");
}

#[test]
fn what_client_libraries_send_on_connect_is_answered() {
    let mut rig = Rig::usual();
    assert_eq!(rig.ask("client setinfo lib-name redis-py; client setinfo lib-ver 5.0"), "+OK\r\n+OK\r\n");
    assert!(rig.ask("client setinfo x y").starts_with("-ERR Unrecognized option 'x'"));
    assert!(rig.ask("client info").contains("lib-name=redis-py lib-ver=5.0"));
    assert_eq!(
        rig.ask("client id; readonly; readwrite; command docs nosuch; config get appendfsync"),
        ":1\r\n+OK\r\n+OK\r\n*0\r\n*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n"
    );
    assert!(rig.ask("command").starts_with(&format!(
        "*{}\r\n*10\r\n$6\r\nappend\r\n:3\r\n*2\r\n+write\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n",
        table::TABLE.len()
    )));
    assert!(rig.ask("config set save x").starts_with("-ERR the configuration cannot be changed here"));
    assert_eq!(rig.ask("time"), "*2\r\n$10\r\n1700000000\r\n$6\r\n123000\r\n");
}
