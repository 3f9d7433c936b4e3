//! Proves that nothing grows by what clients do, and that no command keeps the others waiting.

use super::super::model::{Meter, Rig, encode};
use super::super::table::{Cmd, Spec, TABLE, flag};
use super::super::{RespConfig, RespDoor};
use crate::base::limits::{
    CLIENTS_MEMORY_MAX, ITEM_ID_MAX, OPTIONS_MAX, PATTERN_MAX, SCAN_COUNT_MAX, WORK_ROUND, WORK_SLICE,
};
use crate::base::{ConnId, FileId, Prng, Seq};
use crate::doors::{Backend as _, Change, CommitWatermarks};

/// See [`lengths`].
pub(crate) type Lengths = [usize; 11];

/// Everything in the door that has a length.
fn lengths(door: &RespDoor) -> Lengths {
    let shared = &door.shared;
    [
        door.sessions.len(),
        shared.outputs.len(),
        shared.waiting.len(),
        shared.ready.len(),
        shared.congested.len(),
        shared.deadlines.len(),
        shared.locked.len(),
        shared.blocked,
        shared.memory,
        shared.roster.len(),
        usize::from(!shared.pile.is_empty()),
    ]
}

fn locked() -> Rig {
    let mut rig = Rig::new(RespConfig { password: Some("secret".to_owned()), ..RespConfig::default() });
    rig.open(1);
    rig
}

/// The commands that a client may try before it has given the password.
pub(crate) fn commands_of_strangers() -> impl Iterator<Item = &'static str> {
    let unlocked = TABLE.iter().filter(|spec| spec.has(flag::NO_AUTH) && spec.cmd != Cmd::Quit);
    unlocked.map(|spec| spec.name).chain(["ping", "nosuch", "multi", "watch"])
}

/// A door with a password, and clients that never give it.
pub(crate) struct Locked(Rig);

impl Locked {
    pub(crate) fn new() -> Self {
        Self(locked())
    }

    /// Sends a command so often, with and without an argument; gives all lengths in the door then.
    pub(crate) fn ask(&mut self, command: &str, times: usize) -> Lengths {
        const IN_A_PIECE: usize = 1000;
        let rig = &mut self.0;
        let piece = [format!("{command} 9"), command.to_owned()]
            .map(|command| encode(&vec![command; IN_A_PIECE / 2].join(";")))
            .concat();
        for _ in 0..times / IN_A_PIECE {
            // Time goes on, as it does.
            rig.now.mono = rig.now.mono.plus_ms(1);
            rig.write(1, &piece);
            rig.run(true);
            rig.got(1);
            rig.forget_written(1);
            // Wrong passwords end a connection: the next one comes.
            if rig.peers[&1].closed {
                rig.open(1);
            }
        }
        assert_eq!(rig.door.shared.locked.len(), 1, "one time to give the password");
        lengths(&rig.door)
    }

    /// So many connections come, say something or nothing, and go.
    pub(crate) fn connect(&mut self, times: usize) -> Lengths {
        let says =
            ["ping", "auth wrong", "hello 3; reset", "nosuch x", "reset; multi", "quit", "auth a; client id"];
        let says = [Vec::new()].into_iter().chain(says.map(encode)).collect::<Vec<_>>();
        let rig = &mut self.0;
        for n in 0..times {
            let client = 2 + n as u64;
            rig.now.mono = rig.now.mono.plus_ms(1);
            rig.open(client);
            rig.write(client, &says[n % says.len()]);
            rig.give(client, usize::MAX);
            if n % 3 == 0 {
                rig.complete(client);
            }
            rig.door.close(ConnId(client));
            rig.peers.remove(&client);
        }
        lengths(&rig.door)
    }
}

#[test]
fn a_time_to_give_the_password_that_runs_already_is_not_prolonged() {
    let mut rig = locked();
    let until = rig.door.deadline();
    rig.now.mono = rig.now.mono.plus_ms(1000);
    rig.ask("reset; reset");
    assert_eq!(rig.door.deadline(), until);
    rig.ask("auth secret");
    assert_eq!(rig.door.deadline(), None);
    rig.ask("reset");
    assert!(rig.door.deadline() > until, "one who had given it has the whole time again");
}

#[test]
fn who_connects_and_leaves_leaves_nothing_whatever_it_waited_for() {
    let mut rig = locked();
    rig.ask("auth secret");
    rig.ask(&format!(
        "mset {}",
        (0..3000).map(|n| format!("app,orders,{n} v")).collect::<Vec<_>>().join(" ")
    ));
    let keys: String = (0..3000).map(|n| format!(" app,orders,{n}")).collect();
    let left = [
        String::new(),
        "auth secret; wait 1 1000".to_owned(),
        "auth secret; incr app,orders,new".to_owned(),
        "auth secret; keys *,*,nothing*".to_owned(),
        format!("auth secret; watch{keys}; multi; mget{keys}; exec"),
        format!("auth secret; exists{keys}"),
        format!("auth secret; mget{keys}"),
        "reset; reset".to_owned(),
    ];
    for congested in [false, true] {
        let before = lengths(&rig.door);
        for client in 2..2000 {
            rig.model.congested = congested && client % 2 == 0;
            rig.open(client);
            let commands = &left[usize::try_from(client).unwrap() % left.len()];
            rig.write(client, &encode(commands));
            rig.give(client, usize::MAX);
            if client % 3 == 0 {
                rig.tick();
            }
            rig.door.close(ConnId(client));
            rig.peers.remove(&client);
            let [sessions, _, _, ready, stopped, ..] = lengths(&rig.door);
            assert!(ready <= sessions && stopped <= sessions, "{ready} and {stopped} wait of {sessions}");
        }
        rig.model.congested = false;
        rig.run(true);
        rig.got(1);
        assert_eq!(before, lengths(&rig.door), "congested: {congested}");
        assert!(rig.door.shared.changes.is_idle() && rig.door.shared.watches.is_empty());
        assert!(!rig.model.tells_changes());
    }
}

/// The worst that a client can ask of a command, by its line in the table: so a new command is asked, too.
fn worst(spec: &Spec, long: &str) -> Vec<String> {
    let many = |stride: usize| -> String {
        (0..60_000).map(|n| format!(" app,orders,{:05}{}", n % 50_000, " v".repeat(stride - 1))).collect()
    };
    let big = "app,items,big";
    let sets = "[".to_owned() + &"x".repeat(PATTERN_MAX - 3) + "*";
    let stars = "*".to_owned() + &"a".repeat(PATTERN_MAX / 2) + "*b";
    let patterns = [
        sets.clone(),
        stars.clone(),
        "*,*,".to_owned() + &sets[..PATTERN_MAX - 4],
        "*,*,".to_owned() + &stars,
    ];
    let name = spec.name;
    match spec.cmd {
        Cmd::Scan => patterns.iter().map(|p| format!("scan 0 match {p} count {SCAN_COUNT_MAX}")).collect(),
        Cmd::Keys => patterns.iter().map(|p| format!("keys {p}")).collect(),
        Cmd::Config => vec![format!("config get{}", format!(" {}", patterns[0]).repeat(OPTIONS_MAX - 2))],
        Cmd::Client => vec!["client list; ".repeat(500), "client kill type pubsub; ".repeat(500)],
        Cmd::Info => vec!["info; ".repeat(500)],
        Cmd::Append => vec![format!("append {big} {long}")],
        Cmd::GetRange => vec![format!("{name} {big} 0 -1")],
        Cmd::Exec => {
            let parts = [many(1), many(2)];
            vec![
                format!("multi; mget{}; del{}; exec", parts[0], parts[0]),
                format!("multi; mset{}; exists{}; exec", parts[1], parts[0]),
                format!("multi; {} keys *; dbsize; keys *,*,*; exec", "incr app,items,new; ".repeat(2000)),
                format!("multi; {} exec", "append app,items,big x; ".repeat(20_000)),
                format!("multi; {} exec", "getrange app,items,big 0 0; ".repeat(20_000)),
                format!(
                    "multi; {} exec",
                    (0..20_000).map(|n| format!("incr app,orders,n{n}; ")).collect::<String>()
                ),
            ]
        }
        _ if spec.takes_many_keys() && spec.keys[2] == 2 => vec![format!("{name}{}", many(2))],
        _ if spec.takes_many_keys() => {
            vec![format!("{name}{}", many(1)), format!("{name}{}", format!(" {big}").repeat(200))]
        }
        _ => {
            let count = usize::from(spec.arity.unsigned_abs());
            let key = if spec.keys[0] > 0 { big } else { long };
            let rest = format!(" {long}").repeat(count.saturating_sub(2));
            let alone =
                if count > 1 || spec.arity < 0 { format!("{name} {key}{rest}") } else { name.to_owned() };
            let options = format!("{name} {key}{}", " x".repeat(100_000));
            let times = if alone.len() > 1000 || !spec.has(flag::FAST) { 12 } else { 10_000 };
            let pipeline = format!("{alone}; ").repeat(times);
            vec![alone, options, pipeline]
        }
    }
}

/// A database with 50,000 items of long ids and one large one.
fn large() -> Rig {
    let mut rig = Rig::usual();
    for part in 0..50 {
        let items = (0..1000).map(|n| format!(" app,orders,{:05} v", part * 1000 + n)).collect::<String>();
        rig.ask(&format!("mset{items}"));
        let long = (0..100).map(|n| format!(" {:a<1$} v", part * 100 + n, ITEM_ID_MAX)).collect::<String>();
        rig.ask(&format!("mset{long}"));
    }
    rig.ask(&format!("set app,items,big {}", "b".repeat(1 << 20)));
    rig
}

/// Holds what one call of the door asked of the database, and what it cost, against the limits.
fn look(rig: &mut Rig, what: &str) {
    // A call may be the last of a round, and a command may be the last of its turn: each once more than its limit.
    const ITEMS_MAX: usize = 2 * WORK_ROUND / 500;
    const BYTES_MAX: usize = 2 * WORK_ROUND + (4 << 20);
    let Meter { items, bytes } = std::mem::take(&mut rig.model.meter);
    let spent = std::mem::take(&mut rig.door.shared.work.spent);
    assert!(items <= ITEMS_MAX, "{what}: {items} items in one turn");
    assert!(bytes <= BYTES_MAX, "{what}: {bytes} bytes in one turn");
    assert!(spent <= 2 * WORK_ROUND + (8 << 20), "{what}: {spent} units in one turn");
}

#[test]
fn no_command_of_the_table_costs_more_than_a_turn_may_whatever_is_asked_of_it() {
    let long = "x".repeat(200_000);
    let mut rig = large();
    for spec in TABLE {
        for commands in worst(spec, &long) {
            let what: String = commands.chars().take(60).collect();
            rig.open(2);
            rig.write(2, &encode(&commands));
            rig.model.meter = Meter::default();
            rig.door.shared.work.spent = 0;
            let (mut moved, mut turns) = (true, 0);
            while moved {
                moved = rig.give(2, usize::MAX);
                look(&mut rig, &what);
                moved |= rig.complete(2);
                look(&mut rig, &what);
                rig.model.settle();
                rig.release();
                look(&mut rig, &what);
                if rig.due() {
                    rig.tick();
                    look(&mut rig, &what);
                    moved = true;
                }
                rig.peer(2).got.clear();
                turns += 1;
                assert!(turns < 100_000, "{what} ends");
            }
            assert!(rig.unread(2) == 0 || rig.peer(2).closed, "{what} is carried out");
            rig.door.close(ConnId(2));
            rig.peers.remove(&2);
            assert!(rig.door.shared.memory < CLIENTS_MEMORY_MAX / 64, "{what} leaves nothing");
        }
        if matches!(spec.cmd, Cmd::Del | Cmd::Exec) {
            rig = large();
        }
    }
}

#[test]
fn another_client_is_served_between_the_turns_of_all_who_ask_for_very_much() {
    let mut rig = large();
    let keys: String = (0..50_000).map(|n| format!(" app,orders,{n:05}")).collect();
    let heavy = [
        format!("mget{keys}"),
        format!("exists{keys}"),
        format!("multi; exists{keys}; exec"),
        "keys *,*,*nothing".to_owned(),
        "getrange app,items,big 0 0; ".repeat(3000),
    ];
    for client in 10..110 {
        rig.open(client);
        let commands = encode(&heavy[usize::try_from(client).unwrap() % heavy.len()]);
        rig.write(client, &commands);
    }
    rig.open(2);
    let mut rounds = Vec::new();
    for n in 0..40 {
        rig.write(2, &encode(&format!("incr app,items,n{n}")));
        let mut round = 0;
        while rig.peer(2).got.is_empty() {
            for client in (10..110).chain([2]) {
                rig.give(client, usize::MAX);
                rig.complete(client);
            }
            rig.model.settle();
            rig.release();
            rig.tick();
            round += 1;
            assert!(round < 10, "the small one waits for ever");
        }
        assert_eq!(rig.got(2), ":1\r\n");
        rig.complete(2);
        rounds.push(round);
    }
    // At first the others are still sending what they ask for.
    assert!(rounds.iter().skip(1).all(|round| *round <= 2), "{rounds:?}");
    assert!(!rig.door.shared.ready.is_empty(), "the others are still at it");
}

/// Client 2 changes something in the middle of what client 1 asked for.
fn slip_in(rig: &mut Rig, commands: &str) {
    rig.write(2, &encode(commands));
    while rig.unread(2) > 0 {
        assert!(rig.give(2, usize::MAX));
    }
    rig.model.settle();
}

/// Carries out a command of many keys while another client changes some of them between its turns.
fn while_changed(rig: &mut Rig, command: &str, mut change: impl FnMut(&mut Rig)) -> String {
    rig.write(1, &encode(command));
    let mut turns = 0;
    while rig.unread(1) > 0 {
        assert!(rig.give(1, usize::MAX));
    }
    while rig.due() {
        change(rig);
        rig.tick();
        turns += 1;
        assert!(turns < 10_000, "{command:.20} ends");
    }
    assert!(turns > 3, "{command:.20} takes several turns");
    rig.run(true);
    rig.got(1)
}

#[test]
fn a_command_of_many_keys_is_as_one_at_its_end() {
    const COUNT: u64 = 20_000;
    let keys: String = (0..COUNT).map(|n| format!(" app,orders,{n:05}")).collect();
    let mut rig = Rig::usual();
    rig.open(2);
    for part in 0..20 {
        let items = (0..1000).map(|n| format!(" app,orders,{:05} 0", part * 1000 + n)).collect::<String>();
        rig.ask(&format!("mset{items}"));
    }
    // Two items that are always changed together, the first far in front of the second, are told as a pair that was.
    let mut prng = Prng::new(3);
    let mut n = 0;
    let told = while_changed(&mut rig, &format!("mget{keys}"), |rig| {
        if prng.percent(60) {
            n += 1;
            slip_in(rig, &format!("mset app,orders,00001 {n} app,orders,19999 {n}"));
        }
    });
    let values: Vec<&str> = told.lines().skip(2).step_by(2).collect();
    assert_eq!(values.len() as u64, COUNT);
    assert_eq!(values[1], values[19_999], "a state that was");
    assert!(values[1].parse::<u64>().unwrap() > 3, "a late one: {}", values[1]);
    let told = while_changed(&mut rig, &format!("exists{keys}"), |rig| {
        let n = prng.below(COUNT);
        slip_in(rig, &format!("del app,orders,{n:05}; set app,orders,{n:05} 1"));
    });
    assert_eq!(told, format!(":{COUNT}\r\n"), "what comes and goes at once was there throughout");
    let told = while_changed(&mut rig, &format!("del{keys}{keys}"), |rig| {
        let n = prng.below(COUNT);
        slip_in(rig, &format!("del app,orders,{n:05}; set app,orders,{n:05} 1"));
    });
    assert_eq!(told, format!(":{COUNT}\r\n"), "each is deleted and counted once");
    assert!(rig.model.batches.contains(&20_000), "in one batch");
    // However many turns it takes to put the updates together, that is no sign of others who change what was read.
    let many: String = (0..60_000).map(|n| format!(" app,orders,{n:05}")).collect();
    rig.ask(&format!("mset{}", many.replace(" app", " v app").trim_start_matches(" v").to_owned() + " v"));
    let told = while_changed(&mut rig, &format!("del{many}"), |rig| slip_in(rig, "incr app,items,other"));
    assert_eq!(told, ":60000\r\n");
    let left: String = (0..COUNT).map(|n| format!(" app,orders,{n:05}")).collect();
    rig.ask(&format!("del{left}"));
    let pairs: String = (0..COUNT).map(|n| format!(" app,orders,{n:05} new")).collect();
    let mut turns = 0;
    let told = while_changed(&mut rig, &format!("msetnx{pairs}"), |rig| {
        turns += 1;
        if turns == 30 {
            slip_in(rig, "set app,orders,00000 mine");
        }
    });
    assert_eq!(told, ":0\r\n", "an item that came meanwhile is there");
    assert_eq!(rig.ask("get app,orders,00000; exists app,orders,00001"), "$4\r\nmine\r\n:0\r\n");
}

#[test]
fn a_long_transaction_begins_anew_when_what_it_read_was_changed() {
    let mut rig = Rig::usual();
    rig.open(2);
    rig.ask("set a 0; set b 0");
    let fill = "exists app,orders,x; ".repeat(3000);
    let mut changes = 0;
    let told = while_changed(&mut rig, &format!("multi; incr a; {fill} incr b; exec"), |rig| {
        changes += 1;
        if changes == 3 || changes == 7 {
            slip_in(rig, "incr a");
        }
    });
    assert!(
        told.ends_with(":1\r\n") && told.contains("*3002\r\n:3\r\n:0\r\n"),
        "{:.300}",
        told.replace("+QUEUED\r\n", "")
    );
    assert_eq!(rig.ask("mget a b"), "*2\r\n$1\r\n3\r\n$1\r\n1\r\n", "no update of anybody is lost");
    let told = while_changed(&mut rig, &format!("multi; incr a; {}exec", fill.repeat(7)), |rig| {
        slip_in(rig, "incr a");
    });
    assert!(told.ends_with("-ERR what this command reads is changed faster than it can be read: nothing was done; try again or ask for less at once\r\n"));
    assert!(rig.door.shared.changes.is_idle());
}

#[test]
fn a_change_by_other_means_is_seen_in_the_middle_of_a_command() {
    let keys: String = (0..5_000).map(|n| format!(" app,orders,{n:05}")).collect();
    let mut rig = Rig::usual();
    let items = keys.replace(" app", " v app").trim_start_matches(" v").to_owned() + " v";
    rig.ask(&format!("mset{items}"));
    let mut turn = 0;
    let told = while_changed(&mut rig, &format!("exists{keys}"), |rig| {
        turn += 1;
        if turn == 3 {
            let file = FileId(4);
            rig.model.create(4, "app,orders", true);
            rig.model.changed(Change::File(file));
        }
    });
    assert_eq!(told, ":0\r\n", "the file was cleared meanwhile");
    assert_eq!(rig.model.next_change(), None);
}

#[test]
fn a_client_that_leaves_in_the_middle_costs_nothing_any_more() {
    let keys: String = (0..50_000).map(|n| format!(" app,orders,{n:05}")).collect();
    let mut rig = large();
    rig.write(1, &encode(&format!("mget{keys}")));
    while rig.give(1, usize::MAX) {}
    assert!(rig.due());
    rig.door.close(ConnId(1));
    rig.model.meter = Meter::default();
    rig.tick();
    assert_eq!((rig.model.meter.items, rig.door.deadline(), rig.door.shared.memory), (0, None, 0));
}

#[test]
fn a_slice_is_short_when_many_want_their_turn() {
    let mut work = super::super::work::Work::new();
    work.begin_slice(0, 1);
    work.spend(WORK_SLICE - 1);
    assert!(!work.slice_is_over());
    work.begin_slice(1000, 1);
    work.spend(WORK_SLICE / 20);
    assert!(work.slice_is_over() && !work.round_is_over());
}

#[test]
fn who_waits_is_looked_at_only_when_what_it_may_wait_for_has_moved() {
    const CLIENTS: u64 = 256;
    let mut rig = Rig::usual();
    (2..=CLIENTS).for_each(|client| rig.open(client));
    for client in 1..=CLIENTS {
        rig.write(client, &encode(&format!("set key{client} 1")));
        assert!(rig.give(client, usize::MAX));
    }
    rig.release();
    let before = rig.door.shared.looked_at;
    assert_eq!(before, usize::try_from(CLIENTS).unwrap(), "their updates are not safe yet");
    for _ in 0..100 {
        rig.release();
    }
    assert_eq!(rig.door.shared.looked_at, before, "nothing has moved");
    // One more that waits changes nothing for the others, and is answered with them.
    rig.open(CLIENTS + 1);
    rig.write(CLIENTS + 1, &encode("set last 1"));
    assert!(rig.give(CLIENTS + 1, usize::MAX));
    rig.release();
    assert_eq!(rig.door.shared.looked_at, before);
    assert_eq!(rig.door.shared.waiting.len(), usize::try_from(CLIENTS + 1).unwrap());
    // Who leaves is forgotten, also if nothing ever moves again.
    rig.door.close(ConnId(CLIENTS + 1));
    rig.release();
    assert_eq!(rig.door.shared.waiting.len(), usize::try_from(CLIENTS).unwrap());
    rig.model.settle();
    rig.release();
    for client in 1..=CLIENTS {
        assert_eq!(rig.got(client), "+OK\r\n");
    }
}

#[test]
fn who_began_to_wait_while_a_promise_was_raised_is_looked_at_when_it_is_lowered_again() {
    let mut rig = Rig::usual();
    let far = |seq| CommitWatermarks { durable: [Seq(seq); 2], replicated: [Seq(seq); 4] };
    rig.model.marks = far(100);
    rig.release();
    rig.model.marks = far(0);
    rig.write(1, &encode("set a 1"));
    assert!(rig.give(1, usize::MAX));
    assert_eq!(rig.got(1), "");
    rig.model.marks = far(100);
    rig.release();
    assert_eq!(rig.got(1), "+OK\r\n", "the same marks as when it was not there yet");
}

#[test]
fn a_reply_that_was_taken_makes_a_turn_due_only_if_somebody_can_go_on_by_it() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("ping"));
    assert!(rig.give(1, usize::MAX) && rig.peer(1).sending);
    assert!(!rig.door.sent(ConnId(1)), "all that came is answered");
    rig.peer(1).sending = false;
    // One that does not take what it is told is stopped.
    let piece = encode(&vec![format!("echo {}", "x".repeat(200)); 20].join(";"));
    let mut pieces = 0;
    loop {
        rig.write(1, &piece);
        if !rig.give(1, usize::MAX) {
            break;
        }
        pieces += 1;
        assert!(pieces < 100_000, "it is read on and on");
    }
    assert!(rig.door.sent(ConnId(1)), "it goes on with what it sent meanwhile");
}
