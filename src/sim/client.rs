//! Clients of the RESP door: what they send, what they make of the answers.

use super::resp::{Reply, command, reply};
use crate::base::{ConnId, Prng};
use std::collections::VecDeque;

/// A file that clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum File {
    /// Replicated, at the database's ack level.
    Main,
    /// Replicated, always at level `durable`.
    Safe,
    /// Node 0's own.
    OwnA,
    /// Node 1's own.
    OwnB,
    /// Node 0's own at first; may become replicated with content in it.
    Mixed,
    /// Replicated; cleared, deleted and made anew by the operator.
    Churn,
    /// The replicated volume.
    Volume,
}

impl File {
    /// `account,file`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Main => "app,main",
            Self::Safe => "app,safe",
            Self::OwnA => "owna,f",
            Self::OwnB => "ownb,f",
            Self::Mixed => "mixed,f",
            Self::Churn => "app,churn",
            Self::Volume => "app,vol",
        }
    }
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// SET, or MSET of several items.
    Set,
    /// MULTI, several SETs, EXEC.
    Transaction,
    /// DEL of an item that only this client uses.
    Delete,
    /// GET.
    Get,
    /// WAIT 1 with a time limit.
    Wait,
    /// A write to a volume.
    BlockWrite,
    /// Anything else asked of a volume.
    BlockOther,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not yet.
    Open,
    /// Done.
    Ok,
    /// Told that it was not done.
    Refused(String),
    /// No answer: it may have been done.
    Unknown,
}

/// A command.
#[derive(Clone, Debug)]
pub(super) struct Op {
    /// What.
    pub(super) kind: Kind,
    /// Where.
    pub(super) file: File,
    /// Its items.
    pub(super) items: Vec<Vec<u8>>,
    /// Asked of this node.
    pub(super) node: usize,
    /// Asked at.
    pub(super) at: u64,
    /// Answered at.
    pub(super) done_at: u64,
    /// How it ended.
    pub(super) ending: Ending,
    /// For a deletion: whether something was there.
    pub(super) found: bool,
}

/// An item's key.
fn key(file: File, item: &[u8]) -> Vec<u8> {
    let mut key = file.name().as_bytes().to_vec();
    key.push(b',');
    key.extend_from_slice(item);
    key
}

impl Op {
    /// The command's bytes; `number` makes its values unique, `pad` their length.
    pub(super) fn encode(&self, number: usize, pad: &[usize], out: &mut Vec<u8>) {
        let keys: Vec<Vec<u8>> = self.items.iter().map(|item| key(self.file, item)).collect();
        let value = |part: usize| {
            let mut value = format!("v{number}.{part}~").into_bytes();
            value.resize(value.len() + pad.get(part).copied().unwrap_or(0), b'x');
            value
        };
        match self.kind {
            Kind::Set if keys.len() == 1 => command(out, &[b"SET", &keys[0], &value(0)]),
            Kind::Set => {
                let values: Vec<Vec<u8>> = (0..keys.len()).map(value).collect();
                let mut args: Vec<&[u8]> = vec![b"MSET"];
                for (key, value) in keys.iter().zip(&values) {
                    args.extend([key.as_slice(), value.as_slice()]);
                }
                command(out, &args);
            }
            Kind::Transaction => {
                command(out, &[b"MULTI"]);
                for (part, key) in keys.iter().enumerate() {
                    command(out, &[b"SET", key, &value(part)]);
                }
                command(out, &[b"EXEC"]);
            }
            Kind::Delete => command(out, &[b"DEL", &keys[0]]),
            Kind::Get => command(out, &[b"GET", &keys[0]]),
            Kind::Wait => command(out, &[b"WAIT", b"1", b"200"]),
            Kind::BlockWrite | Kind::BlockOther => {}
        }
    }

    /// How many replies it gets.
    fn replies(&self) -> usize {
        if self.kind == Kind::Transaction { self.items.len() + 2 } else { 1 }
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its connection and the node it goes to.
    pub(super) conn: Option<(usize, ConnId)>,
    /// Counts connections, so that a late time-out is known to be one.
    pub(super) session: u64,
    /// Commands without an answer, oldest first, and how many replies each still gets.
    open: VecDeque<(usize, usize)>,
    inbox: Vec<u8>,
    /// The node it believes to be primary.
    pub(super) believes: usize,
}

impl Client {
    /// A client that was never connected.
    pub(super) fn new() -> Self {
        Self { conn: None, session: 0, open: VecDeque::new(), inbox: Vec::new(), believes: 0 }
    }

    /// Expects the answers to a command.
    pub(super) fn expect(&mut self, number: usize, op: &Op) {
        self.open.push_back((number, op.replies()));
    }

    /// Whether every command was answered.
    pub(super) fn idle(&self) -> bool {
        self.open.is_empty()
    }

    /// The commands without an answer.
    pub(super) fn unanswered(&self) -> Vec<usize> {
        self.open.iter().map(|(number, _)| *number).collect()
    }

    /// The connection is over: gives the commands that will get no answer.
    pub(super) fn hang_up(&mut self) -> Vec<usize> {
        self.conn = None;
        self.session += 1;
        self.inbox.clear();
        self.open.drain(..).map(|(number, _)| number).collect()
    }

    /// Takes bytes from the node: commands and their last reply.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<(usize, Reply)>, String> {
        self.inbox.extend_from_slice(bytes);
        let mut done = Vec::new();
        let mut at = 0;
        while let Some((reply, len)) = reply(&self.inbox[at..])? {
            at += len;
            let Some((number, left)) = self.open.front_mut() else {
                return Err(format!("a reply to nothing: {reply:?}"));
            };
            *left -= 1;
            if *left == 0 {
                done.push((*number, reply));
                self.open.pop_front();
            }
        }
        self.inbox.drain(..at);
        Ok(done)
    }
}

/// Makes a command for a client of `node`. `mixed` and `churn`: whether those files may be used.
pub(super) fn invent(prng: &mut Prng, client: usize, node: usize, mixed: bool, churn: bool) -> Op {
    let file = match prng.below(20) {
        0..=2 => File::Safe,
        3..=4 => {
            if node == 0 {
                File::OwnA
            } else {
                File::OwnB
            }
        }
        5..=6 if mixed => File::Mixed,
        7 if churn => File::Churn,
        _ => File::Main,
    };
    let kind = match prng.below(20) {
        0..=3 => Kind::Get,
        4..=5 => Kind::Transaction,
        6..=7 => Kind::Delete,
        8 => Kind::Wait,
        _ => Kind::Set,
    };
    let count = match kind {
        Kind::Transaction => 1 + prng.below(3),
        Kind::Set if prng.percent(25) => 2 + prng.below(2),
        _ => 1,
    };
    let first = prng.below(5);
    let mut items: Vec<Vec<u8>> = (0..count).map(|i| format!("i{}", (first + i) % 5).into_bytes()).collect();
    // Items that only one client uses, so that a deletion can be told from every other one.
    if kind == Kind::Delete || (matches!(kind, Kind::Set | Kind::Get) && count == 1 && prng.percent(25)) {
        items = vec![format!("d{client}{file:?}").into_bytes()];
    }
    Op { kind, file, items, node, at: 0, done_at: 0, ending: Ending::Open, found: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_answered_by_its_last_reply() {
        let mut op = invent(&mut Prng::new(1), 0, 0, false, false);
        op.kind = Kind::Transaction;
        op.items = vec![b"a".to_vec()];
        let mut client = Client::new();
        client.expect(7, &op);
        assert_eq!(client.receive(b"+OK\r\n+QUEUED\r\n*1\r\n"), Ok(vec![]));
        let done = client.receive(b"+OK\r\n").unwrap();
        assert_eq!(done, [(7, Reply::Array(Some(vec![Reply::Simple("OK".into())])))]);
        assert!(client.idle());
        assert!(client.receive(b"+OK\r\n").is_err());
    }
}
