//! What one read command answers at a moment, line by line.

use super::{View, ViewBlocks, ViewOf};
use crate::base::{ConnId, Fault, FileId, Mono, Now, Seq};
use crate::doors::resp::RespConfig;
use crate::engine::effect::{ClientDoor, ClientEffect};
use crate::engine::event::ClientEvent;
use crate::format::compare::{Details, listed};
use crate::store::StoreSnapshot;
use crate::store::namespace::Namespace;
use bytes::Bytes;

/// Turns that a command may take, each of a few milliseconds.
const TURNS_MAX: usize = 100_000;
/// What an answer may have (bytes).
const ANSWER_MAX: usize = 64 << 20;
/// What is nested deeper is told as it is.
const DEPTH_MAX: usize = 8;

/// No volumes: no command reads any.
struct NoBlocks;

impl ViewBlocks for NoBlocks {
    fn read(&mut self, _: FileId, _: u64, _: usize) -> Result<Bytes, Fault> {
        Err(Fault::STALE)
    }

    fn write(&mut self, _: FileId, _: u64, _: &[u8]) -> Result<(), Fault> {
        Err(Fault::STALE)
    }

    fn zero(&mut self, _: FileId, _: u64, _: u64) -> Result<(), Fault> {
        Err(Fault::STALE)
    }

    fn allocation(&mut self, _: FileId, _: u64, _: u64) -> Result<Vec<(u64, bool)>, Fault> {
        Err(Fault::STALE)
    }
}

/// Carries out one command, its words between spaces, on items as they are at a moment.
///
/// # Errors
/// Why there is no answer, or the words of the one that is an error.
pub(super) fn listing<S: StoreSnapshot>(
    namespace: Namespace,
    items: S,
    query: &[u8],
) -> Result<Vec<Vec<u8>>, String> {
    let applied: [Seq; 2] = items.applied();
    let of = ViewOf { applied, epoch: 0, namespace, items, blocks: NoBlocks, writable: false };
    let mut view = View::new(of, RespConfig::default());
    let words: Vec<&[u8]> = query.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    let mut input = command(&words);
    // What comes behind its answer is known, and then the door hangs up.
    input.extend(command(&[b"QUIT"]));
    let answer = answered(&mut view, input)?;
    let answer = answer.strip_suffix(b"+OK\r\n").ok_or("the answer has no end")?;
    let mut lines = Vec::new();
    match lines_of(answer, 0, &mut lines) {
        Some([]) => {}
        _ => return Err("the answer is none of the protocol".to_owned()),
    }
    match answer.first() {
        Some(b'-') => {
            Err(lines.first().map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default())
        }
        _ => Ok(lines),
    }
}

/// The same as what a compare holds against the other node's.
///
/// # Errors
/// As `listing`, and that it has more lines than one answer takes.
pub fn listing_of<S: StoreSnapshot>(namespace: Namespace, items: S, query: &[u8]) -> Result<Details, String> {
    let lines = listing(namespace, items, query)?;
    listed(&lines).ok_or_else(|| "the answer has too many lines: ask for less".to_owned())
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Everything that the door sends before it hangs up.
fn answered<S: StoreSnapshot>(view: &mut View<S, NoBlocks>, input: Vec<u8>) -> Result<Vec<u8>, String> {
    let (conn, mut input, mut answer) = (ConnId(1), Some(input), Vec::new());
    let mut now = Now { mono: Mono(1_000_000), wall_ms: 0 };
    view.input(now, ClientEvent::Opened { conn, door: ClientDoor::Items { trusted: true } });
    for _ in 0..TURNS_MAX {
        now.mono = now.mono.plus_ms(1);
        view.pump(now);
        while let Some(effect) = view.output() {
            match effect {
                ClientEffect::Receive { conn, .. } => {
                    if let Some(bytes) = input.take() {
                        view.input(now, ClientEvent::Bytes { conn, bytes });
                    }
                }
                ClientEffect::Send { conn, bytes } => {
                    answer.extend_from_slice(&bytes);
                    if answer.len() > ANSWER_MAX {
                        return Err("the answer is too long: ask for less".to_owned());
                    }
                    view.input(now, ClientEvent::Sent { conn });
                }
                ClientEffect::Close { .. } => return Ok(answer),
                _ => {}
            }
        }
    }
    Err("the command does not come to its end".to_owned())
}

/// Takes one reply of RESP2 off the front, as lines; what is left, or none if it is no reply.
fn lines_of<'a>(bytes: &'a [u8], depth: usize, lines: &mut Vec<Vec<u8>>) -> Option<&'a [u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let (kind, text, rest) = (*bytes.first()?, bytes.get(1..end)?, bytes.get(end + 2..)?);
    let number = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    match kind {
        b'$' => match usize::try_from(number()?) {
            Err(_) => lines.push(b"(nil)".to_vec()),
            Ok(len) => {
                lines.push(rest.get(..len)?.to_vec());
                return rest.get(len..)?.strip_prefix(b"\r\n");
            }
        },
        b'*' if depth < DEPTH_MAX => {
            let mut rest = rest;
            for _ in 0..number()?.max(0) {
                rest = lines_of(rest, depth + 1, lines)?;
            }
            return Some(rest);
        }
        b'+' | b'-' | b':' => lines.push(text.to_vec()),
        _ => return None,
    }
    Some(rest)
}
