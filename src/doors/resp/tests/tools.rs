//! Proves what tools are told: connections, commands, counts of items.

use super::super::model::{Rig, encode};
use super::super::{ClientPlace, DoorOutput, docs, subcommands, table};
use crate::base::ConnId;
use crate::base::limits::{COUNT_PAUSE_MS, COUNT_STEP};

fn place(port: u16) -> ClientPlace {
    ClientPlace { remote: format!("10.0.0.9:{port}"), local: "10.0.0.1:6379".to_owned(), fd: 5, unix: false }
}

/// Three clients: 1 asks, 2 is in a transaction, 3 came over a Unix socket.
fn three() -> Rig {
    let mut rig = Rig::usual();
    rig.open(2);
    rig.open(3);
    rig.door.placed(ConnId(1), place(1001));
    rig.door.placed(ConnId(2), place(1002));
    let path = "/run/resp.sock:0".to_owned();
    rig.door.placed(ConnId(3), ClientPlace { remote: path.clone(), local: path, fd: 7, unix: true });
    rig.ask_as(2, "client setname two; watch a b; multi; set a 1");
    rig
}

#[test]
fn a_list_of_very_many_clients_is_told_in_several_turns() {
    let mut rig = Rig::usual();
    for client in 2..=3000 {
        rig.open(client);
    }
    rig.write(1, &encode("client list"));
    assert!(rig.give(1, usize::MAX));
    assert!(rig.got(1).is_empty() && rig.due(), "its turn is over before all were looked at");
    // One that leaves meanwhile is not told; nor does it disturb.
    rig.door.close(ConnId(2500));
    rig.peers.remove(&2500);
    let mut list = String::new();
    while list.is_empty() || rig.due() {
        rig.tick();
        rig.complete(1);
        list += &rig.got(1);
    }
    assert_eq!(list.matches("id=").count(), 2999);
}

/// The values of a field in the lines of a reply.
fn field(reply: &str, name: &str) -> Vec<String> {
    let start = format!("{name}=");
    let words = reply.split([' ', '\n', '\r']).filter_map(|word| word.strip_prefix(start.as_str()));
    words.map(str::to_owned).collect()
}

#[test]
fn client_list_shows_every_connection_with_the_fields_of_redis() {
    let mut rig = three();
    rig.now.mono = rig.now.mono.plus_ms(9_000);
    let list = rig.ask("client list");
    let of_redis = "id addr laddr fd name age idle flags db sub psub ssub multi watch qbuf qbuf-free argv-mem multi-mem rbs rbp \
                    obl oll omem tot-mem events cmd user redir resp lib-name lib-ver";
    let line = list.lines().nth(1).unwrap();
    let names: Vec<&str> = line.split(' ').map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(names.join(" "), of_redis);
    for (name, values) in [
        ("id", ["1", "2", "3"]),
        ("addr", ["10.0.0.9:1001", "10.0.0.9:1002", "/run/resp.sock:0"]),
        ("laddr", ["10.0.0.1:6379", "10.0.0.1:6379", "/run/resp.sock:0"]),
        ("fd", ["5", "5", "7"]),
        ("name", ["", "two", ""]),
        ("age", ["9", "9", "9"]),
        ("idle", ["0", "9", "9"]),
        ("flags", ["N", "x", "U"]),
        ("multi", ["-1", "1", "-1"]),
        ("watch", ["0", "2", "0"]),
        ("cmd", ["client|list", "set", "NULL"]),
        ("resp", ["2", "2", "2"]),
    ] {
        assert_eq!(field(&list, name), values, "{name}");
    }
    let info = rig.ask_as(3, "hello 3 setname three; client no-evict on; client info");
    assert_eq!(
        (field(&info, "name").remove(0), field(&info, "flags").remove(0)),
        ("three".into(), "Ue".into())
    );
    rig.ask("set a 2");
    rig.ask_as(2, "get a; get b");
    assert_eq!(field(&rig.ask("client list id 2"), "multi"), ["1"], "what is void anyway is not kept");
    rig.ask_as(2, "nosuch");
    assert_eq!(field(&rig.ask("client list id 2"), "multi"), ["1"], "and what was kept still counts");
    let list = rig.ask("client list id 2 99 3");
    assert_eq!(field(&list, "flags"), ["xd", "Ue"], "a watched key was changed");
    assert_eq!(field(&list, "resp"), ["2", "3"]);
    for unknown in ["nosuch", "client nosuch"] {
        rig.ask_as(3, unknown);
        assert_eq!(field(&rig.ask("client list id 3"), "cmd"), ["NULL"], "{unknown}");
    }
    rig.ask_as(3, "reset");
    rig.door.close(ConnId(2));
    let list = rig.ask("client list");
    assert_eq!(
        (field(&list, "id"), field(&list, "name")),
        (vec!["1".into(), "3".into()], vec![String::new(); 2])
    );
}

#[test]
fn filters_choose_whom_client_list_shows() {
    let mut rig = three();
    for (filter, ids) in [
        ("type normal", "1 2 3"),
        ("type PUBSUB", ""),
        ("type master", ""),
        ("id 3 1", "1 3"),
        ("addr 10.0.0.9:1002", "2"),
        ("laddr 10.0.0.1:6379", "1 2"),
        ("laddr 10.0.0.1:6379 skipme yes", "2"),
        ("user default", "1 2 3"),
        ("user nobody", ""),
    ] {
        assert_eq!(field(&rig.ask(&format!("client list {filter}")), "id").join(" "), ids, "{filter}");
    }
    for (wrong, told) in [
        ("type x", "-ERR Unknown client type 'x'\r\n"),
        ("id x", "-ERR Invalid client ID\r\n"),
        ("id", "-ERR syntax error\r\n"),
        ("skipme maybe", "-ERR syntax error\r\n"),
    ] {
        assert_eq!(rig.ask(&format!("client list {wrong}")), told, "{wrong}");
    }
}

#[test]
fn client_kill_ends_the_connections_that_are_meant_and_tells_how_many() {
    let mut rig = three();
    assert_eq!(rig.ask("client kill 10.0.0.9:7"), "-ERR No such client\r\n");
    assert_eq!(rig.ask("client kill id 2"), ":1\r\n");
    assert!(rig.peer(2).closed && !rig.peer(1).closed && !rig.peer(3).closed);
    assert!(rig.door.shared.watches.is_empty());
    assert_eq!(
        rig.ask("client kill id 2; client kill id 0"),
        ":0\r\n-ERR client-id should be greater than 0\r\n"
    );
    assert_eq!(
        rig.ask("multi; client kill addr /run/resp.sock:0 type normal; exec"),
        "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"
    );
    assert!(rig.peer(3).closed);
    assert_eq!(rig.ask("client kill type normal"), ":0\r\n", "the caller is spared");
    assert_eq!(rig.ask("client kill 10.0.0.9:1001; ping"), "+OK\r\n", "but may end itself");
    assert!(rig.peer(1).closed);
    assert_eq!(rig.door.clients(), 0);
}

#[test]
fn a_client_that_was_ended_by_another_carries_out_nothing_more() {
    let mut rig = three();
    rig.write(3, &encode("set late 1"));
    rig.write(1, &encode("client kill id 3"));
    assert!(rig.give(1, usize::MAX));
    assert!(rig.peer(3).closed);
    rig.give(3, usize::MAX);
    rig.run(true);
    assert_eq!(rig.got(3), "");
    assert_eq!(rig.ask("get late"), ":1\r\n$-1\r\n");
    assert!(
        std::iter::from_fn(|| rig.door.output()).all(|output| !matches!(output, DoorOutput::Close { .. }))
    );
}

#[test]
fn an_unknown_subcommand_voids_a_transaction_like_an_unknown_command() {
    let mut rig = Rig::usual();
    let replies = rig.ask("multi; client nosuch; exec; multi; config get; exec; client; multi; exec x; exec");
    let expected = "+OK\r\n-ERR unknown subcommand 'nosuch'. Try CLIENT HELP.\r\n\
                    -EXECABORT Transaction discarded because of previous errors.\r\n\
                    +OK\r\n-ERR wrong number of arguments for 'config|get' command\r\n\
                    -EXECABORT Transaction discarded because of previous errors.\r\n\
                    -ERR wrong number of arguments for 'client' command\r\n\
                    +OK\r\n-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n\
                    -ERR EXEC without MULTI\r\n";
    assert_eq!(replies, expected);
}

/// How many words an argument list needs at least, and whether it may have more: `[x]` may be left out, of `(a|b)` one is
/// chosen.
fn words_of(usage: &str) -> (usize, bool) {
    let (mut words, mut more, mut optional, mut choice) = (0, false, 0_usize, 0_usize);
    for word in usage.split_whitespace() {
        more |= word.contains('[') || word.contains("...");
        if word == "<full-command>" {
            // A command and what it takes.
            (words, more) = (words + 2, true);
            continue;
        }
        words += usize::from(optional == 0 && !word.starts_with('[') && choice == 0);
        optional += word.matches('[').count();
        optional -= word.matches(']').count();
        choice += word.matches('(').count();
        choice -= word.matches(')').count();
    }
    (words, more)
}

/// Holds HELP of a container against what else is told of its subcommands, and what they take.
fn check_help(rig: &mut Rig, container: &str, help: &str) {
    let spec = table::TABLE.iter().find(|spec| spec.name == container).unwrap();
    let lines: Vec<&str> = help.lines().skip(2).map(|line| line.strip_prefix('+').unwrap()).collect();
    let docs = rig.ask(&format!("command docs {container}"));
    assert_eq!(lines.len(), 2 * subcommands::of(spec).count(), "{help}");
    for pair in lines.chunks(2) {
        let (word, usage) = pair[0].split_once(' ').unwrap_or((pair[0], ""));
        let sub = subcommands::find(spec, word.as_bytes()).unwrap();
        let summary = pair[1].strip_prefix("    ").unwrap();
        assert!(summary.ends_with('.') && word == sub.word().to_uppercase(), "{pair:?}");
        assert!(
            summary == "Print this help." || !help.replacen(summary, "", 1).contains(summary),
            "{pair:?}"
        );
        let told = docs.split_once(&format!("{}\r\n", sub.name)).unwrap().1;
        assert!(told.lines().take(6).any(|line| line == summary), "{pair:?}: {told}");
        let (words, more) = words_of(usage);
        let takes = sub.takes(2 + words) && (words == 0 || !sub.takes(1 + words));
        assert!(takes && sub.takes(9 + words) == more, "{pair:?} takes other arguments");
    }
}

#[test]
fn every_command_and_subcommand_is_listed_and_explained() {
    let mut rig = Rig::usual();
    for container in ["client", "command", "config", "memory"] {
        let help = rig.ask(&format!("{container} help"));
        assert!(help.contains(&format!("+{} <subcommand>", container.to_uppercase())), "{help}");
        assert!(help.ends_with("+HELP\r\n+    Print this help.\r\n"), "{help}");
        check_help(&mut rig, container, &help);
    }
    let docs = rig.ask("command docs");
    for spec in table::TABLE {
        let key_use = docs::key_use(spec, false);
        let changes = key_use[0] != "RO";
        assert_eq!(changes, spec.has(table::flag::WRITE) && spec.keys[0] > 0, "{}: {key_use:?}", spec.name);
        assert!(!docs::of(spec).1.is_empty() && docs.contains(docs::of(spec).1), "{}", spec.name);
        assert!(subcommands::of(spec).all(|sub| docs.contains(sub.name)));
    }
    assert_eq!(rig.ask("command list filterby pattern GETR*"), "*1\r\n$8\r\ngetrange\r\n");
    assert_eq!(rig.ask("command list filterby pattern client|k*"), "*1\r\n$11\r\nclient|kill\r\n");
    assert_eq!(
        rig.ask("command list filterby aclcat nosuch; command list filterby module x"),
        "*0\r\n*0\r\n"
    );
    assert!(rig.ask("command list filterby aclcat write").contains("$6\r\nappend\r\n"));
    assert_eq!(rig.ask("command list x; command list filterby x y"), "-ERR syntax error\r\n".repeat(2));
    assert_eq!(
        rig.ask("command getkeysandflags set k v; command getkeys memory usage k"),
        "*1\r\n*2\r\n$1\r\nk\r\n*2\r\n+OW\r\n+update\r\n*1\r\n$1\r\nk\r\n"
    );
    assert_eq!(rig.ask("set a 1234; memory usage a; memory usage b"), "+OK\r\n:5\r\n$-1\r\n");
}

fn keys(rig: &mut Rig) -> u64 {
    let info = rig.ask("info keyspace");
    let told = info.lines().find_map(|line| line.strip_prefix("db0:keys="));
    told.map_or(0, |told| told.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn info_tells_how_many_items_the_default_file_has_without_a_walk_for_each_question() {
    let mut rig = Rig::usual();
    assert_eq!(keys(&mut rig), 0);
    rig.ask("mset a 1 b 2 app,orders,x 1");
    assert_eq!(keys(&mut rig), 2, "a small count is of the moment");
    let many = COUNT_STEP * 3 + 5;
    for n in 2..many {
        rig.model.put(2, format!("k{n:06}").as_bytes());
    }
    assert_eq!(keys(&mut rig), 2, "the last whole count, while the next is under way");
    let steps = rig.model.scans;
    assert_eq!(keys(&mut rig), 2);
    assert_eq!(rig.model.scans, steps, "a question alone counts nothing");
    for _ in 0..3 {
        rig.now.mono = rig.door.deadline().unwrap();
        rig.tick();
    }
    assert_eq!(rig.door.deadline(), None, "no count goes on that nobody asks for");
    assert_eq!(keys(&mut rig), many as u64);
    rig.ask("del a");
    assert_eq!(keys(&mut rig), many as u64, "a long count rests for a while");
    rig.now.mono = rig.now.mono.plus_ms(COUNT_PAUSE_MS * 3 * 20);
    keys(&mut rig);
    while let Some(due) = rig.door.deadline() {
        rig.now.mono = due;
        rig.tick();
    }
    assert_eq!(keys(&mut rig), many as u64 - 1);
}
