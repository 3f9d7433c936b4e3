//! What a sender keeps and sends again, rule by rule; tokens. Whole machines stand in `tests/tape_socket.rs`.

use super::send::{Kept, Wrong};
use super::sink::{Opened, Sink};
use super::{Refusal, Side, SocketKeys};
use crate::base::{Epoch, Ordinal, Seq};
use crate::format::set::{PartHeader, SetId};
use crate::format::socket::{Refused, StreamKind, StreamOpen};
use crate::format::spool::PartTrailer;
use crate::node::spool::SpoolDir;
use crate::node::spool::tests as parts;
use crate::node::tls::SecureLink;
use crate::tape::Key;
use bytes::Bytes;
use std::fs;
use std::io::Write;
use std::path::Path;

fn kept(window: u64) -> Kept {
    let mut kept = Kept::default();
    kept.resume(0, window).unwrap();
    (0..4).for_each(|byte| kept.push(Bytes::from(vec![byte; 10])));
    kept
}

/// Sends all that may be sent; where each block stood.
fn send(kept: &mut Kept) -> Vec<(u64, usize)> {
    let mut all = Vec::new();
    while let Some((offset, bytes)) = kept.may_send() {
        kept.was_sent();
        all.push((offset, bytes.len()));
    }
    all
}

#[test]
fn what_does_not_count_is_kept_and_no_more_is_sent_than_the_window_allows() {
    let mut kept = kept(25);
    assert_eq!(send(&mut kept), [(0, 10), (10, 10)]);
    kept.counts(5).unwrap();
    assert_eq!(send(&mut kept), [(20, 10)]);
    // A word that is older takes nothing back, and one for what was not sent is refused.
    kept.counts(0).unwrap();
    assert_eq!(kept.counts(31), Err(Wrong::Beyond(31)));
    kept.counts(30).unwrap();
    assert_eq!(send(&mut kept), [(30, 10)]);
    assert_eq!(kept.may_send(), None);
}

#[test]
fn a_window_that_is_smaller_than_a_block_lets_one_block_through_at_a_time() {
    let mut kept = kept(1);
    for at in 0..4 {
        assert_eq!(send(&mut kept), [(at * 10, 10)]);
        kept.counts(at * 10 + 10).unwrap();
    }
}

#[test]
fn after_a_cut_it_goes_on_where_the_receiver_says_and_nothing_is_sent_twice() {
    let mut kept = kept(100);
    assert_eq!(send(&mut kept).len(), 4);
    kept.counts(10).unwrap();
    // The receiver has a part of the third block.
    kept.resume(23, 100).unwrap();
    assert_eq!(send(&mut kept), [(23, 7), (30, 10)]);
    // It was killed, and has no more than what counted.
    kept.resume(10, 100).unwrap();
    assert_eq!(send(&mut kept), [(10, 10), (20, 3), (23, 7), (30, 10)]);
    // It has all.
    kept.resume(40, 100).unwrap();
    assert_eq!(send(&mut kept), []);
    kept.counts(25).unwrap();
    assert_eq!(kept.resume(24, 100), Err(Wrong::Lost { from: 24, counts: 25 }));
    assert_eq!(kept.resume(41, 100), Err(Wrong::Beyond(41)));
}

/// Carries what both sides say until neither says anything more; whether both believe the other.
fn meet(sender: &SocketKeys, listener: &SocketKeys) -> bool {
    let mut dial = SecureLink::dial(&sender.identity(Side::Send).unwrap()).unwrap();
    let mut accept = SecureLink::accept(&listener.identity(Side::Listen).unwrap()).unwrap();
    for _ in 0..8 {
        for part in dial.take_wire() {
            let _ = accept.wire_input(&part);
        }
        for part in accept.take_wire() {
            let _ = dial.wire_input(&part);
        }
    }
    dial.is_established() && accept.is_established()
}

#[test]
fn a_token_lets_in_who_has_it_and_nobody_else() {
    let keys = |digit: &str| SocketKeys::Token(Key::parse(&digit.repeat(64)).unwrap());
    assert!(meet(&keys("a"), &keys("a")));
    assert!(!meet(&keys("a"), &keys("b")));
    assert_eq!(keys("a").pair().unwrap(), None);
    assert!(!format!("{:?}", keys("a")).contains("aaaa"));
}

const SET: &[u8] = include_bytes!("../../../tests/data/set-v1.hbs");

fn open() -> StreamOpen {
    let header = PartHeader::decode(&SET[..64]).unwrap();
    let (name, node) = ("x".to_owned(), "a".to_owned());
    let kind = StreamKind::Set;
    StreamOpen { kind, stream: header.set, pair: header.pair, epoch: Epoch(1), seq: Seq(1), name, node }
}

/// With a window of 400 bytes, each hundred counts.
fn sink(path: &Path, open: &StreamOpen) -> Result<Sink, Refusal> {
    match Sink::file(path, open, 400)? {
        Opened::Sink(sink) => Ok(sink),
        Opened::Whole(bytes) => panic!("it is there with {bytes} bytes"),
    }
}

#[test]
fn a_file_is_gone_on_with_behind_what_counts_and_gets_its_name_with_its_trailer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.hbs");
    let mut file = sink(&path, &open()).unwrap();
    file.put(&SET[..250]).unwrap();
    file.put(&SET[250..300]).unwrap();
    assert_eq!((file.received(), file.counts().unwrap()), (300, 250));
    // Two at once would mix.
    assert_eq!(sink(&path, &open()).err().map(|refusal| refusal.why), Some(Refused::InUse));
    drop(file);
    // What did not count may be anything after a power failure.
    let mut part = fs::OpenOptions::new().append(true).open(dir.path().join("x.hbs.part")).unwrap();
    part.write_all(b"rubbish").unwrap();
    let mut file = sink(&path, &open()).unwrap();
    assert_eq!(file.received(), 250);
    file.put(&SET[250..SET.len() - 16]).unwrap();
    let refusal = file.close().unwrap_err();
    assert!(refusal.why == Refused::Unfit && refusal.message.contains("trailer"), "{refusal:?}");
    assert!(!path.exists());
    file.put(&SET[SET.len() - 16..]).unwrap();
    file.close().unwrap();
    assert!(fs::read(&path).unwrap() == SET);
    let names = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names(), 1, "nothing else is left");
    assert!(matches!(Sink::file(&path, &open(), 400), Ok(Opened::Whole(bytes)) if bytes == SET.len() as u64));
    let other = StreamOpen { stream: SetId([1; 16]), ..open() };
    assert_eq!(sink(&path, &other).err().map(|refusal| refusal.why), Some(Refused::Exists));
    assert_eq!(names(), 1);
    let parts = StreamOpen { kind: StreamKind::Spool(Ordinal(0)), ..open() };
    assert_eq!(sink(&path, &parts).err().map(|refusal| refusal.why), Some(Refused::Unfit));
}

#[test]
fn what_is_said_to_count_is_synced_before_the_note_that_says_so() {
    use crate::io::calls::{Act, assert_durable, record};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.hbs");
    let mut file = sink(&path, &open()).unwrap();
    let ((), acts) = record(None, || {
        SET.chunks(90).for_each(|bytes| file.put(bytes).unwrap());
        file.close().unwrap();
    });
    assert_durable(&acts);
    let part = dir.path().join("x.hbs.part");
    let mut dirty = false;
    let mut notes = 0;
    for act in &acts {
        match act {
            Act::Wrote(of, _) if *of == part => dirty = true,
            Act::Synced(of) if *of == part => dirty = false,
            Act::Renamed(_, to) if to.ends_with("x.hbs.part-note") => {
                notes += 1;
                assert!(!dirty, "the note says more than is synced: {acts:?}");
            }
            _ => {}
        }
    }
    assert!(notes > 3, "{acts:?}");
}

#[test]
fn another_stream_of_the_same_name_begins_anew_and_a_set_that_came_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.hbs");
    sink(&path, &open()).unwrap().put(&SET[..200]).unwrap();
    let other = StreamOpen { stream: SetId([1; 16]), ..open() };
    assert_eq!(sink(&path, &other).unwrap().received(), 0);
    // What it was is gone with the note.
    let mut file = sink(&path, &open()).unwrap();
    assert_eq!(file.received(), 0);
    file.put(SET).unwrap();
    fs::write(&path, b"of somebody else").unwrap();
    assert_eq!(file.close().unwrap_err().why, Refused::Exists);
    assert_eq!(fs::read(&path).unwrap(), b"of somebody else");
    // A set under the number of another one is refused.
    let strange = dir.path().join("y.hbs");
    let mut file = sink(&strange, &other).unwrap();
    file.put(SET).unwrap();
    assert_eq!(file.close().unwrap_err().why, Refused::Unfit);
    assert!(!strange.exists());
}

/// The bytes of a part, and how it is opened.
fn part() -> (Vec<u8>, StreamOpen) {
    let (header, segment) = parts::segment(3, parts::start(), 4);
    let trailer = PartTrailer { bytes: header.bytes, digest: [0; 32] };
    let mut digest = blake3::Hasher::new();
    digest.update(&header.encode()).update(&segment);
    let trailer = PartTrailer { digest: *digest.finalize().as_bytes(), ..trailer };
    let open = StreamOpen {
        kind: StreamKind::Part(header.ordinal),
        stream: SetId([3; 16]),
        pair: header.pair,
        epoch: header.base.epoch,
        seq: header.base.seq,
        name: header.file_name(),
        node: "ordinal 0".to_owned(),
    };
    ([header.encode(), segment, trailer.encode().to_vec()].concat(), open)
}

#[test]
fn a_part_of_a_spool_counts_under_its_name_when_all_of_it_is_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, open) = part();
    let sink = |open: &StreamOpen| match Sink::part(dir.path(), open, Ordinal(0), 400) {
        Ok(Opened::Sink(sink)) => sink,
        Ok(Opened::Whole(_)) => panic!("it is not there"),
        Err(refusal) => panic!("{refusal:?}"),
    };
    let spool = SpoolDir::below(dir.path(), parts::PAIR, Ordinal(0));
    let listed = || spool.list().unwrap();
    // Damaged in the middle, cut off, another one: it gets no name.
    let mut bad = bytes.clone();
    bad[bytes.len() / 2] ^= 1;
    let other = StreamOpen { name: format!("0{}", &open.name[1..].replace('3', "4")), ..open.clone() };
    for (open, bytes) in [(&open, &bad[..]), (&open, &bytes[..bytes.len() - 1]), (&other, &bytes[..])] {
        let mut file = sink(&StreamOpen { stream: SetId([bytes[9]; 16]), ..open.clone() });
        file.put(bytes).unwrap();
        let refusal = file.close().unwrap_err();
        assert!(refusal.why == Refused::Unfit && refusal.message.contains("is not that part"), "{refusal:?}");
        assert!(listed().parts.is_empty() && listed().damaged.is_empty());
    }
    let mut file = sink(&open);
    file.put(&bytes[..5000]).unwrap();
    drop(file);
    let mut file = sink(&open);
    assert_eq!(file.received(), 5000, "what counted is not taken again");
    file.put(&bytes[5000..]).unwrap();
    file.close().unwrap();
    assert_eq!(
        listed().parts.iter().map(|part| part.file_name()).collect::<Vec<_>>(),
        std::slice::from_ref(&open.name)
    );
    // The same segment once more takes its place.
    let again = StreamOpen { stream: SetId([4; 16]), ..open.clone() };
    let mut file = sink(&again);
    file.put(&bytes).unwrap();
    file.close().unwrap();
    assert_eq!(listed().parts.len(), 1);
    let path = StreamOpen { name: "x.hbs".to_owned(), ..open };
    let refused = Sink::part(dir.path(), &path, Ordinal(0), 400).err().map(|refusal| refusal.why);
    assert_eq!(refused, Some(Refused::Unfit));
}
