//! Random commands to a real Redis and to a real node with a default file: the same replies, byte for byte.
//!
//! What it proves: a program that knows nothing of files sees in the default file a Redis with its keys, as far as the
//! door's table of commands goes. What may differ is listed, with reasons, in [`same`] and [`commands`]; a command of
//! the table that is neither compared nor listed fails the test.

mod commands;
mod same;

use crate::support::{Node, Plan, RawClient, RedisServer, Reply, memory, missing, some, tier};
use commands::{LEFT_OUT, Maker, Step, TAKES, What};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CLIENTS: usize = 3;
/// Different faults that one run looks for before it fails.
const FAULTS_MAX: usize = 8;

/// Redis, or the node.
struct Side {
    socket: PathBuf,
    control: RawClient,
    clients: Vec<RawClient>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Reply(Reply),
    /// What was said before the connection ended.
    End(Vec<Reply>),
}

impl Side {
    fn new(socket: PathBuf) -> Self {
        let mut control = RawClient::connect(&socket).unwrap();
        assert_eq!(control.ask(&[b"client", b"setname", b"control"]).head, b"+OK");
        let clients = (0..CLIENTS).map(|_| RawClient::connect(&socket).unwrap()).collect();
        Self { socket, control, clients }
    }

    /// No items, and clients that have done nothing.
    fn clean(&mut self) {
        for client in 0..CLIENTS {
            if self.clients[client].send(b"*1\r\n$5\r\nRESET\r\n").is_err()
                || self.clients[client].reply().is_err()
            {
                self.renew(client);
            }
        }
        let keys = self.control.ask(&[b"KEYS", b"*"]);
        let mut del: Vec<&[u8]> = vec![b"DEL"];
        del.extend(keys.members.iter().filter_map(|key| key.body.as_deref()));
        if del.len() > 1 {
            self.control.ask(&del);
        }
        assert_eq!(self.control.ask(&[b"DBSIZE"]).text(), "0", "everything was deleted");
    }

    /// Connects again in place of a client that was hung up on, once the server has forgotten that.
    fn renew(&mut self, client: usize) {
        self.clients[client] = RawClient::connect(&self.socket).unwrap();
        let mut gone = || {
            let list = self.control.ask(&[b"CLIENT", b"LIST"]).text();
            (list.lines().count() <= CLIENTS + 1).then_some(())
        };
        // Nearly always it is gone at once.
        if !(0..100).any(|_| gone().is_some()) {
            crate::support::wait_until("the old connection to be gone", gone);
        }
    }

    fn run(&mut self, steps: &[Step]) -> Vec<Outcome> {
        self.clean();
        let mut outcomes = Vec::new();
        let mut at = 0;
        while at < steps.len() {
            let client = steps[at].client;
            if let What::Walk(options) = &steps[at].what {
                outcomes.push(self.walk(client, options));
                at += 1;
                continue;
            }
            let joins = |step: &&Step| step.client == client && !matches!(step.what, What::Walk(_));
            let mut count = 1;
            while steps[at + count - 1].piped
                && !steps[at + count - 1].ends()
                && steps.get(at + count).as_ref().is_some_and(joins)
            {
                count += 1;
            }
            let group = &steps[at..at + count];
            let bytes: Vec<u8> = group.iter().flat_map(Step::bytes).collect();
            // If it was hung up on before, the first reply will not come either.
            let _ = self.clients[client].send(&bytes);
            let mut ended = false;
            for step in group {
                let outcome = match step.ends() || ended {
                    true if ended => Outcome::End(Vec::new()),
                    true => self.end(client),
                    false => self.reply(client),
                };
                ended |= matches!(outcome, Outcome::End(_));
                outcomes.push(outcome);
            }
            at += count;
        }
        outcomes
    }

    fn reply(&mut self, client: usize) -> Outcome {
        match self.clients[client].reply() {
            Ok(reply) => Outcome::Reply(reply),
            Err(_) => self.end(client),
        }
    }

    fn end(&mut self, client: usize) -> Outcome {
        let mut said = Vec::new();
        while let Ok(reply) = self.clients[client].reply() {
            said.push(reply);
        }
        self.renew(client);
        Outcome::End(said)
    }

    /// A whole SCAN as one reply.
    fn walk(&mut self, client: usize, options: &[Vec<u8>]) -> Outcome {
        let mut cursor = b"0".to_vec();
        let mut all = Reply::line("*");
        loop {
            let mut words = vec![b"scan".to_vec(), cursor];
            words.extend_from_slice(options);
            let step = Step { client, what: What::Command(words), piped: false };
            let _ = self.clients[client].send(&step.bytes());
            let Outcome::Reply(reply) = self.reply(client) else { return Outcome::End(Vec::new()) };
            let [next, keys] = reply.members.as_slice() else { return Outcome::Reply(reply) };
            all.members.extend(keys.members.iter().cloned());
            cursor = next.body.clone().unwrap_or_default();
            if cursor == b"0" {
                break;
            }
        }
        all.members.sort();
        // Redis may tell a key twice.
        all.members.dedup();
        Outcome::Reply(all)
    }
}

/// Both sides, and what was compared.
struct Trial {
    redis: Side,
    node: Side,
    compared: usize,
}

impl Trial {
    /// Where the replies first differ, and how.
    fn differs(&mut self, steps: &[Step]) -> Option<(usize, String)> {
        let (redis, node) = (self.redis.run(steps), self.node.run(steps));
        let mut rules = same::Rules::default();
        for (at, step) in steps.iter().enumerate() {
            let (right, found) = (&redis[at], &node[at]);
            if !rules.same(step, right, found) {
                return Some((at, format!("  Redis: {}\n  node:  {}", same::show(right), same::show(found))));
            }
            self.compared += 1;
        }
        None
    }

    /// The fewest steps that still differ, as far as leaving some out finds them.
    fn shrink(&mut self, mut steps: Vec<Step>, (mut at, mut how): (usize, String)) -> (Vec<Step>, String) {
        steps.truncate(at + 1);
        match self.differs(&steps) {
            Some(again) => (at, how) = again,
            None => return (steps, how + "\n  (only after what other sequences left behind)"),
        }
        steps.truncate(at + 1);
        let mut size = steps.len().div_ceil(2);
        let mut tries = 400;
        while size > 0 && tries > 0 {
            let mut from = 0;
            while from < steps.len() && tries > 0 {
                let mut fewer = steps.clone();
                fewer.drain(from..(from + size).min(steps.len()));
                tries -= 1;
                match self.differs(&fewer) {
                    Some((place, now)) => {
                        fewer.truncate(place + 1);
                        (steps, at, how) = (fewer, place, now);
                    }
                    None => from += size,
                }
            }
            size /= 2;
        }
        steps.truncate(at + 1);
        (steps, how)
    }
}

/// Compares for so long, from a seed on, and tells what was found.
fn compare(first_seed: u64, time: Duration) {
    let server = RedisServer::start();
    let root = memory();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick().init(&["--resp-default", "app,items"]));
    node.start_alone();
    node.done(&["account", "create", "app"]);
    node.done(&["file", "create", "app,items", "--records"]);
    // A program that knows short keys only sees nothing of other files.
    node.done(&["file", "create", "app,aside", "--records"]);
    let aside = [b"app,aside,a", b"app,aside,b"];
    let mut trial = Trial {
        redis: Side::new(server.socket.clone()),
        node: Side::new(node.dir.join("resp.sock")),
        compared: 0,
    };
    for key in aside {
        assert_eq!(trial.node.control.ask(&[b"SET", key, b"1"]).head, b"+OK");
    }
    every_command_takes_part(&mut trial.node.control);
    let start = Instant::now();
    let (mut seed, mut faults) = (first_seed, Vec::<(String, String)>::new());
    while start.elapsed() < time && faults.len() < FAULTS_MAX {
        let steps = Maker::new(seed).sequence();
        if let Some((at, how)) = trial.differs(&steps)
            && !faults.iter().any(|(name, _)| *name == steps[at].name())
        {
            let (steps, how) = trial.shrink(steps, (at, how));
            let list: String = steps.iter().map(|step| format!("  {step}\n")).collect();
            let name = steps.last().map_or(String::new(), Step::name);
            faults.push((name, format!("seed {seed}:\n{list}{how}\n")));
        }
        seed += 1;
    }
    let (sequences, compared) = (seed - first_seed, trial.compared);
    println!("compared {compared} replies in {sequences} sequences, seeds {first_seed}..{seed}");
    let texts: Vec<String> = faults.into_iter().map(|(_, text)| text).collect();
    assert!(texts.is_empty(), "{} differences:\n{}", texts.len(), texts.join("\n"));
    assert!(compared > 500, "only {compared} replies were compared");
}

/// A command or subcommand that is added to the door's tables is compared, or listed as left out.
fn every_command_takes_part(node: &mut RawClient) {
    let listed = node.ask(&[b"COMMAND", b"LIST"]);
    let names: Vec<String> = listed.members.iter().map(Reply::text).collect();
    assert!(!names.is_empty());
    let left_out = |name: &str| LEFT_OUT.iter().filter(|(known, _)| *known == name).count();
    for name in &names {
        let compared = match name.split_once('|') {
            None => TAKES.iter().filter(|(known, _)| known == name).count(),
            Some((parent, sub)) => {
                let (_, takes) =
                    TAKES.iter().find(|(known, _)| *known == parent).expect("its command is compared");
                usize::from(takes.split('|').any(|way| way.split(':').next() == Some(sub)))
            }
        };
        assert_eq!(compared + left_out(name), 1, "{name} must be in TAKES, or in LEFT_OUT with a reason");
    }
    for (name, _) in TAKES.iter().chain(LEFT_OUT) {
        assert!(names.iter().any(|there| there == name), "{name} is not in the door's table");
    }
}

fn first_seed(otherwise: u64) -> u64 {
    std::env::var("HB_REDIS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn the_door_answers_random_commands_as_a_real_redis_does() {
    let name = crate::support::here!();
    if missing(name, &["redis-server", "setpriv"]) {
        return;
    }
    compare(first_seed(1), Duration::from_secs(10));
}

#[test]
fn tier_the_door_answers_ever_new_commands_as_a_real_redis_does() {
    tier!("redis-server", "setpriv");
    compare(first_seed(some(1_000_000)), Duration::from_secs(40));
}
