//! What the loop does for clients, operators and the disk, on both drivers.

use super::super::inbox::Message;
use super::super::segment_source;
use super::testing::{DRIVERS, Setting, TIMEOUT, start};
use super::*;
use crate::base::{AlignedBuf, ConnId, Fault, JournalKind, SegmentIndex};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use crate::engine::{
    ClientEffect, ClientEvent, FileEffect, FileEvent, JournalEffect, JournalEvent, PrepareSegment,
    ReadSegment, RemoveSegment,
};
use crate::io::IoChoice;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

/// Sends back what comes; ends at once when told to.
fn echo(event: Event, effects: &mut VecDeque<Effect>) {
    match event {
        Event::Client(ClientEvent::Opened { conn, .. }) => {
            effects.push_back(Effect::Client(ClientEffect::Proven { conn }));
            effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: Vec::new() }));
        }
        Event::Client(ClientEvent::Bytes { conn, bytes }) => {
            effects.push_back(Effect::Client(ClientEffect::Send {
                conn,
                bytes: Bytes::copy_from_slice(&bytes),
            }));
            effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: bytes }));
        }
        Event::Client(ClientEvent::Ended { conn, drained: true }) => {
            effects.push_back(Effect::Client(ClientEffect::Close { conn, stuck: false }));
        }
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

#[test]
fn many_clients_get_back_exactly_what_they_sent() {
    for choice in DRIVERS {
        let Some(node) = start(Setting::of(choice), echo) else { continue };
        let clients: Vec<_> = (0..20_u8)
            .map(|number| {
                let mut writer = node.client();
                thread::spawn(move || {
                    let mut reader = writer.try_clone().unwrap();
                    let sent: Vec<u8> = (0..=250).map(|at| at ^ number).cycle().take(300_000).collect();
                    let expected = sent.clone();
                    let reading = thread::spawn(move || {
                        let mut found = vec![0; expected.len()];
                        reader.read_exact(&mut found).unwrap();
                        assert!(found == expected);
                    });
                    sent.chunks(7919).for_each(|piece| writer.write_all(piece).unwrap());
                    reading.join().unwrap();
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn every_send_is_answered_once_and_every_client_is_closed_once() {
    for choice in DRIVERS {
        let (count, counts) = channel();
        let mut sends: HashMap<ConnId, (u32, u32, u32)> = HashMap::new();
        let node = start(Setting::of(choice), move |event, effects| {
            match &event {
                Event::Client(ClientEvent::Opened { conn, .. }) => {
                    assert!(sends.insert(*conn, (0, 0, 0)).is_none())
                }
                Event::Client(ClientEvent::Bytes { conn, .. }) => sends.get_mut(conn).unwrap().0 += 1,
                Event::Client(ClientEvent::Sent { conn }) => sends.get_mut(conn).unwrap().1 += 1,
                Event::Client(ClientEvent::Closed { conn }) => {
                    let client = sends.get_mut(conn).unwrap();
                    client.2 += 1;
                    count.send(*client).unwrap();
                }
                _ => {}
            }
            echo(event, effects);
        });
        let Some(node) = node else { continue };
        for _ in 0..30 {
            let mut client = node.client();
            for _ in 0..10 {
                client.write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            // Only now has the last answer been taken for certain.
            client.write_all(b"y").unwrap();
            client.read_exact(&mut [0]).unwrap();
            drop(client);
            let (sent, answered, closed) = counts.recv_timeout(TIMEOUT).unwrap();
            assert_eq!((sent, closed), (11, 1));
            assert!((10..=11).contains(&answered), "{answered}");
        }
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_is_cut_in_the_end() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let mut taken = 0;
        let mut slow = None;
        let node = start(Setting::of(choice), move |event, effects| match event {
            Event::Client(ClientEvent::Opened { conn, .. }) if slow.is_none() => {
                slow = Some(conn);
                effects.push_back(Effect::Client(ClientEffect::Send {
                    conn,
                    bytes: Bytes::from(vec![0; 1 << 20]),
                }));
            }
            // As the engine does: no more than a megabyte is ever outstanding.
            Event::Client(ClientEvent::Sent { conn }) if Some(conn) == slow => {
                taken += 1;
                effects.push_back(Effect::Client(ClientEffect::Send {
                    conn,
                    bytes: Bytes::from(vec![0; 1 << 20]),
                }));
            }
            Event::Client(ClientEvent::Bytes { conn, bytes }) if bytes == b"cut" => {
                effects.push_back(Effect::Client(ClientEffect::Close { conn: slow.unwrap(), stuck: false }));
                echo(Event::Client(ClientEvent::Bytes { conn, bytes }), effects);
            }
            Event::Client(ClientEvent::Closed { conn }) if Some(conn) == slow => tell.send(taken).unwrap(),
            event => echo(event, effects),
        });
        let Some(node) = node else { continue };
        let mut slow = node.client();
        slow.read_exact(&mut [0]).unwrap();
        let mut other = node.client();
        for _ in 0..100 {
            other.write_all(b"ping").unwrap();
            other.read_exact(&mut [0; 4]).unwrap();
        }
        other.write_all(b"cut").unwrap();
        let taken = told.recv_timeout(TIMEOUT).unwrap();
        assert!(taken < 32, "{taken} MiB were taken by the operating system");
        // The rest comes, and then the end: an error or an end of stream, but never silence.
        slow.set_read_timeout(Some(TIMEOUT)).unwrap();
        thread::sleep(Duration::from_millis(400));
        let mut left = 0_usize;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match slow.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => left += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    break;
                }
            }
        }
        assert!(left <= (taken + 2) << 20, "{left} bytes for a client that was cut");
        assert_eq!(node.stop(), Ending::Clean);
    }
}

/// Sends this much to each client, which is more than the operating system takes by itself.
const MUCH: usize = 64 << 20;

fn send_much(conn: ConnId, effects: &mut VecDeque<Effect>) {
    let part = Bytes::from(vec![0; 256 << 10]);
    (0..MUCH / part.len())
        .for_each(|_| effects.push_back(Effect::Client(ClientEffect::Send { conn, bytes: part.clone() })));
}

#[test]
fn what_waits_for_a_client_that_is_stuck_is_dropped_at_once() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let node = start(Setting::of(choice), move |event, effects| match event {
            Event::Client(ClientEvent::Opened { conn, .. }) => {
                send_much(conn, effects);
                effects.push_back(Effect::Client(ClientEffect::Close { conn, stuck: true }));
            }
            Event::Client(ClientEvent::Closed { .. }) => tell.send(()).unwrap(),
            event => echo(event, effects),
        });
        let Some(node) = node else { continue };
        let mut client = node.client();
        told.recv_timeout(TIMEOUT).unwrap();
        let mut all = Vec::new();
        let _ = client.read_to_end(&mut all);
        assert!(all.len() < MUCH, "{} bytes for a client that was cut", all.len());
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn what_a_slow_client_takes_is_told_while_more_waits_for_it() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let node = start(Setting::of(choice), move |event, effects| match event {
            Event::Client(ClientEvent::Opened { conn, .. }) => send_much(conn, effects),
            Event::Client(ClientEvent::Sent { .. }) => tell.send(()).unwrap(),
            event => echo(event, effects),
        });
        let Some(node) = node else { continue };
        let mut client = node.client();
        client.read_exact(&mut vec![0; 1 << 20]).unwrap();
        (0..4).for_each(|_| told.recv_timeout(TIMEOUT).unwrap());
        drop(client);
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn one_client_too_many_is_told_so_and_a_place_that_is_free_is_given_again() {
    for choice in DRIVERS {
        let mut few = Setting::of(choice);
        few.clients_max = 3;
        let Some(node) = start(few, echo) else { continue };
        let talk = |client: &mut TcpStream| {
            client.write_all(b"hello").unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
        };
        let mut clients: Vec<_> = (0..3).map(|_| node.client()).collect();
        clients.iter_mut().for_each(talk);
        let mut words = String::new();
        node.client().read_to_string(&mut words).unwrap();
        assert_eq!(words, "-ERR max number of clients reached\r\n");
        drop(clients.pop());
        // When the place is free again is the kernel's business.
        let begin = Instant::now();
        loop {
            let mut client = node.client();
            let _ = client.write_all(b"hello");
            let mut answer = [0; 5];
            if client.read_exact(&mut answer).is_ok() && &answer == b"hello" {
                break;
            }
            assert!(begin.elapsed() < TIMEOUT);
        }
        clients.iter_mut().for_each(talk);
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn what_was_sent_before_a_close_arrives_before_the_end() {
    for choice in DRIVERS {
        let node = start(Setting::of(choice), |event, effects| match event {
            Event::Client(ClientEvent::Opened { conn, .. }) => {
                for _ in 0..2000 {
                    effects.push_back(Effect::Client(ClientEffect::Send {
                        conn,
                        bytes: Bytes::from_static(b"goodbye "),
                    }));
                }
                effects.push_back(Effect::Client(ClientEffect::Close { conn, stuck: false }));
            }
            event => echo(event, effects),
        });
        let Some(node) = node else { continue };
        let mut all = Vec::new();
        node.client().read_to_end(&mut all).unwrap();
        assert!(all == b"goodbye ".repeat(2000), "{} bytes", all.len());
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answer() {
    for choice in DRIVERS {
        let Some(node) = start(Setting::of(choice), echo) else { continue };
        let mut client = node.client();
        client.write_all(b"last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"last words");
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn an_engine_that_does_not_stop_is_left_when_its_time_is_over() {
    for choice in DRIVERS {
        let Some(node) = start(Setting::of(choice), |_, _| {}) else { continue };
        let begin = Instant::now();
        assert_eq!(node.stop(), Ending::OutOfTime);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_stopping_node_takes_no_more_clients() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let node = start(Setting::of(choice), move |event, _| match event {
            Event::Stop => tell.send("stop").unwrap(),
            Event::Client(ClientEvent::Opened { .. }) => tell.send("opened").unwrap(),
            _ => {}
        });
        let Some(node) = node else { continue };
        node.inbox.send(Message::Stop).unwrap();
        assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), "stop");
        let _ = TcpStream::connect(node.resp);
        assert_eq!(node.core.join().unwrap(), Ending::OutOfTime);
        assert!(told.try_recv().is_err());
    }
}

#[test]
fn operators_get_answers_and_too_many_at_once_are_refused() {
    let play = |event, effects: &mut VecDeque<Effect>| match event {
        Event::Admin { token, request: AdminRequest::Status } => {
            let status = Status { refused: 1, ..Status::default() };
            let reply = AdminReply::Ok { value: status.into() };
            effects.push_back(Effect::Admin { token, reply });
        }
        event => echo(event, effects),
    };
    let Some(node) = start(Setting::of(IoChoice::Epoll), play) else { return };
    let ask = |request: AdminRequest| {
        let (reply, answer) = sync_channel(1);
        node.inbox.send(Message::Admin { request, reply }).unwrap();
        answer
    };
    let answer = ask(AdminRequest::Status).recv_timeout(TIMEOUT).unwrap();
    assert!(
        matches!(&answer, AdminReply::Ok { value: AdminAnswer::Status(status) } if status.refused == 1),
        "{answer:?}"
    );
    let waiting: Vec<_> =
        (0..crate::base::limits::ADMIN_PENDING_MAX).map(|_| ask(AdminRequest::StartAlone)).collect();
    let refused = ask(AdminRequest::Status).recv_timeout(TIMEOUT).unwrap();
    assert!(matches!(refused, AdminReply::Error { .. }), "{refused:?}");
    assert_eq!(node.stop(), Ending::Clean);
    assert!(waiting.iter().all(|answer| answer.recv().is_err()), "no answer is not kept waiting for ever");
}

const BLOCK: usize = crate::base::limits::BLOCK;

fn blocks(fill: u8, count: usize) -> Bytes {
    let mut buffer = AlignedBuf::with_capacity(count * BLOCK);
    buffer.extend_from_slice(&vec![fill; count * BLOCK]);
    Bytes::from_owner(buffer)
}

fn segment(journal: JournalKind, index: u64) -> Effect {
    Effect::Journal(JournalEffect::Prepare(PrepareSegment {
        journal,
        index: SegmentIndex(index),
        bytes: 64 * BLOCK as u64,
    }))
}

fn write(write: u64, journal: JournalKind, segment: u64, bytes: Bytes) -> Effect {
    let segment = SegmentIndex(segment);
    Effect::Journal(JournalEffect::Write {
        write,
        journal,
        segment,
        offset: BLOCK as u64,
        parts: vec![bytes],
    })
}

fn read(read: u64, journal: JournalKind, segment: u64, offset: usize, len: usize) -> Effect {
    Effect::Journal(JournalEffect::Read(ReadSegment {
        read,
        journal,
        segment: SegmentIndex(segment),
        offset: offset as u64,
        len,
    }))
}

/// Carries out one list of effects after the other, each when the answers to the one before are there.
fn scenes(
    mut scenes: VecDeque<(Vec<Effect>, usize)>,
    tell: Sender<Vec<Event>>,
) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    let mut answers = Vec::new();
    let mut wanted = 0;
    move |event, effects| {
        match event {
            Event::Stop => effects.push_back(Effect::Stopped),
            Event::Tick => {}
            event => answers.push(event),
        }
        if answers.len() == wanted {
            if wanted > 0 {
                tell.send(std::mem::take(&mut answers)).unwrap();
            }
            wanted = usize::MAX;
            if let Some((next, answers)) = scenes.pop_front() {
                effects.extend(next);
                wanted = answers;
            }
        }
    }
}

#[test]
fn segments_are_made_written_read_back_and_removed() {
    use JournalKind::{Local, Replicated};
    for choice in DRIVERS {
        let (tell, told) = channel();
        let script = VecDeque::from([
            (vec![segment(Local, 1), segment(Replicated, 1), segment(Replicated, 2)], 3),
            (vec![write(10, Replicated, 1, blocks(7, 3)), write(11, Local, 1, blocks(8, 1))], 2),
            // Not sealed yet: read from the disk itself.
            (vec![read(20, Replicated, 1, 0, 2 * BLOCK), read(21, Local, 1, BLOCK, 5)], 2),
            (vec![write(12, Replicated, 2, blocks(9, 1))], 1),
            // Sealed now: read from its map, also beyond its end.
            (
                vec![
                    read(22, Replicated, 1, 3 * BLOCK, 2 * BLOCK),
                    read(23, Replicated, 1, 62 * BLOCK, 99 * BLOCK),
                    read(24, Replicated, 1, 64 * BLOCK, BLOCK),
                    read(25, Replicated, 77, 0, BLOCK),
                    Effect::Journal(JournalEffect::Remove(RemoveSegment {
                        journal: Replicated,
                        index: SegmentIndex(1),
                        reuse: true,
                    })),
                    Effect::File(FileEffect::WriteControl { write: 30, bytes: b"control".to_vec() }),
                ],
                5,
            ),
            (vec![segment(Replicated, 2), write(13, Replicated, 5, blocks(1, 1))], 2),
        ]);
        let Some(node) = start(Setting::of(choice), scenes(script, tell)) else { continue };
        let next = || told.recv_timeout(TIMEOUT).unwrap();
        assert!(
            next().iter().all(|event| matches!(event, Event::Journal(JournalEvent::SegmentReady { .. })))
        );
        assert!(
            next()
                .iter()
                .all(|event| matches!(event, Event::Journal(JournalEvent::Written { write: 10 | 11 })))
        );
        let answers = format!("{:?}", next());
        let [unwritten, written] = [0, 7].map(|fill| format!("{:?}", blocks(fill, 1)));
        let joined = format!("{}{}", unwritten.trim_end_matches('"'), written.trim_start_matches("b\""));
        assert!(answers.contains(&joined), "{answers}");
        assert!(answers.contains("read: 21, result: Ok(b\"\\x08\\x08\\x08\\x08\\x08\")"), "{answers}");
        assert!(matches!(next()[..], [Event::Journal(JournalEvent::Written { write: 12 })]));
        for event in next() {
            match event {
                Event::Journal(JournalEvent::Read { read: 22, result }) => {
                    assert!(result.as_ref().unwrap()[..] == [vec![7; BLOCK], vec![0; BLOCK]].concat()[..])
                }
                Event::Journal(JournalEvent::Read { read: 23, result }) => {
                    assert!(result.unwrap()[..] == vec![0; 2 * BLOCK][..])
                }
                Event::Journal(JournalEvent::Read { read: 24, result }) => {
                    assert_eq!(result, Ok(Bytes::new()))
                }
                Event::Journal(JournalEvent::Read { read: 25, result }) => {
                    assert_eq!(result, Err(Fault::Errno(2)))
                }
                Event::File(FileEvent::ControlWritten { write: 30 }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(std::fs::read(node.layout.control()).unwrap(), b"control");
        assert_eq!(segment_source::list(&node.layout, Replicated).unwrap(), [(SegmentIndex(2), 64 * 4096)]);
        let failed = format!("{:?}", next());
        assert!(failed.contains("WriteFailed { write: 13, fault: Errno(2) }"), "{failed}");
        // A name that is taken is not made again; what has it is kept.
        assert!(failed.contains("SegmentFailed"), "{failed}");
        let kept = std::fs::read(node.layout.segment(Replicated, SegmentIndex(2))).unwrap();
        assert!(kept[BLOCK..2 * BLOCK] == vec![9; BLOCK][..]);
        assert_eq!(node.stop(), Ending::Clean);
    }
}

#[test]
fn diverged_entries_are_appended_and_a_first_append_begins_the_file_anew() {
    let (tell, told) = channel();
    let save = |save, file: &str, first, bytes: &'static [u8]| {
        Effect::File(FileEffect::SaveDiverged {
            save,
            file: file.to_owned(),
            first,
            bytes: Bytes::from_static(bytes),
        })
    };
    let script = VecDeque::from([
        (vec![Effect::File(FileEffect::WriteControl { write: 1, bytes: Vec::new() })], 1),
        (vec![save(1, "e3", true, b"one "), save(2, "e3", false, b"two")], 2),
        // Outside the directory, and never begun.
        (vec![save(3, "../e4", true, b"out"), save(4, "e5", false, b"lost")], 2),
    ]);
    let play = scenes(script, tell);
    let Some(node) = start(Setting::of(IoChoice::Epoll), play) else { return };
    let dir = node.layout.diverged();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("e3"), b"an attempt that was cut short").unwrap();
    let next = || told.recv_timeout(TIMEOUT).unwrap();
    next();
    assert!(matches!(
        next()[..],
        [
            Event::File(FileEvent::DivergedSaved { save: 1 }),
            Event::File(FileEvent::DivergedSaved { save: 2 })
        ]
    ));
    let failed = |save, errno| format!("File(DivergedFailed {{ save: {save}, fault: Errno({errno}) }})");
    let answers: Vec<_> = next().iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(answers, [failed(3, 22), failed(4, 2)]);
    assert_eq!(std::fs::read(dir.join("e3")).unwrap(), b"one two");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(node.stop(), Ending::Clean);
}
