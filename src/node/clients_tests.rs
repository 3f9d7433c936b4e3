//! Connections that end, and those that come in numbers, at a loop with a script in the engine's place.

use super::super::core::testing::{DRIVERS, Node, Setting, TIMEOUT, connect, start};
use super::super::inbox::Message;
use super::*;
use crate::base::limits::GUESS_FREE;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use crate::engine::{ClientEffect, ClientEvent, Effect};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Reads nothing, and tells of what ends.
fn deaf(tell: Sender<&'static str>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    move |event, effects| match event {
        Event::Client(ClientEvent::Opened { .. }) => tell.send("opened").unwrap(),
        Event::Client(ClientEvent::Ended { drained: false, .. }) => tell.send("ended").unwrap(),
        Event::Client(ClientEvent::Ended { drained: true, .. }) => tell.send("drained").unwrap(),
        Event::Client(ClientEvent::Closed { .. }) => tell.send("closed").unwrap(),
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

fn next(told: &Receiver<&'static str>) -> &'static str {
    told.recv_timeout(TIMEOUT).unwrap()
}

#[test]
fn the_end_of_a_client_is_told_though_nothing_is_received_from_it() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let Some(node) = start(Setting::of(choice), deaf(tell)) else { continue };
        for (address, words) in [(node.resp, "ended"), (node.nbd, "closed")] {
            let mut client = connect(address);
            client.write_all(b"something that nobody reads").unwrap();
            assert_eq!(next(&told), "opened");
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it is there");
            drop(client);
            assert_eq!(next(&told), words);
        }
        // One that may still read is there until patience ends.
        assert_eq!(next(&told), "closed");
        let client = connect(node.resp);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!([next(&told), next(&told), next(&told)], ["opened", "ended", "closed"]);
        node.stop();
    }
}

#[test]
fn what_is_left_of_a_stream_that_ended_is_handed_over_before_its_end() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let mut count = 0;
        let node = start(Setting::of(choice), move |event, effects| match event {
            Event::Client(ClientEvent::Opened { conn, .. }) => {
                effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: Vec::new() }));
            }
            Event::Client(ClientEvent::Bytes { conn, bytes }) => {
                count += bytes.len();
                effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: bytes }));
            }
            Event::Client(ClientEvent::Ended { conn, drained: true }) => {
                tell.send(count).unwrap();
                effects.push_back(Effect::Client(ClientEffect::Close { conn, stuck: false }));
            }
            Event::Stop => effects.push_back(Effect::Stopped),
            _ => {}
        });
        let Some(node) = node else { continue };
        let mut client = node.client();
        client.write_all(&vec![7; 1 << 20]).unwrap();
        drop(client);
        assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), 1 << 20);
        node.stop();
    }
}

/// Answers whoever says something, who has then proved who it is.
fn answers(event: Event, effects: &mut VecDeque<Effect>) {
    match event {
        Event::Client(ClientEvent::Opened { conn, .. }) => {
            effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: Vec::new() }));
        }
        Event::Client(ClientEvent::Bytes { conn, bytes }) => {
            effects.push_back(Effect::Client(ClientEffect::Proven { conn }));
            effects.push_back(Effect::Client(ClientEffect::Send { conn, bytes: Bytes::from_static(b"yes") }));
            effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: bytes }));
        }
        Event::Client(ClientEvent::Ended { conn, .. }) => {
            effects.push_back(Effect::Client(ClientEffect::Close { conn, stuck: false }))
        }
        Event::Admin { token, .. } => {
            let reply = AdminReply::Ok { value: Status::default().into() };
            effects.push_back(Effect::Admin { token, reply });
        }
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

fn talks(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 3]).expect("it is answered");
}

/// Clients refused, as a status tells them: at the RESP and at the NBD door, and on the link.
fn refused(node: &Node) -> [u64; 3] {
    let (reply, answer) = sync_channel(1);
    node.inbox.send(Message::Admin { request: AdminRequest::Status, reply }).unwrap();
    match answer.recv_timeout(TIMEOUT).unwrap() {
        AdminReply::Ok { value: AdminAnswer::Status(status) } => {
            [status.resp_refused, status.nbd_refused, status.refused]
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn silent_strangers_shut_out_nobody_and_are_told_once() {
    for choice in DRIVERS {
        let mut few = Setting::of(choice);
        few.clients_max = 64;
        let Some(node) = start(few, answers) else { continue };
        let mut proven = connect(node.public);
        talks(&mut proven);
        // 28 of 56 places are for those that prove nothing.
        let silent: Vec<_> = (0..200).map(|_| connect(node.public)).collect();
        let before = Instant::now();
        while refused(&node) != [200 - 28, 0, 0] {
            assert!(before.elapsed() < TIMEOUT, "{:?}", refused(&node));
        }
        [node.resp, node.public, node.nbd].map(connect).iter_mut().for_each(talks);
        talks(&mut proven);
        let told = node.incidents.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(told.kind, "client-refused");
        assert!(told.text.contains("127.0.0.1:") && told.text.contains("the RESP door"), "{}", told.text);
        assert_eq!(node.incidents.try_iter().count(), 0);
        drop(silent);
        node.stop();
    }
}

#[test]
fn clients_from_elsewhere_leave_places_for_those_on_this_machine() {
    for choice in DRIVERS {
        let mut few = Setting::of(choice);
        few.clients_max = 64;
        let Some(node) = start(few, answers) else { continue };
        let mut all = Vec::new();
        // An eighth is for those of this machine, and another for the node's own user.
        for _ in 0..56 - 7 - 7 {
            let mut client = connect(node.public);
            talks(&mut client);
            all.push(client);
        }
        let mut words = String::new();
        connect(node.public).read_to_string(&mut words).unwrap();
        assert_eq!(words, "-ERR max number of clients reached\r\n");
        talks(&mut connect(node.resp));
        talks(&mut connect(node.nbd));
        assert_eq!(refused(&node), [1, 0, 0]);
        node.stop();
    }
}

#[test]
fn places_of_clients_that_left_are_free_again_whatever_they_did() {
    for choice in DRIVERS {
        let mut few = Setting::of(choice);
        few.clients_max = 16;
        let Some(node) = start(few, answers) else { continue };
        for round in 0..200 {
            let mut client = connect(if round % 2 == 0 { node.public } else { node.nbd });
            if round % 3 == 0 {
                talks(&mut client);
            }
            if round % 5 == 0 {
                client.shutdown(Shutdown::Write).unwrap();
                client.read_to_end(&mut Vec::new()).unwrap();
            }
        }
        let before = Instant::now();
        let mut client = connect(node.public);
        while client.write_all(b"hello").is_err() || client.read_exact(&mut [0; 3]).is_err() {
            assert!(before.elapsed() < TIMEOUT);
            client = connect(node.public);
        }
        node.stop();
    }
}

#[test]
fn wrong_passwords_slow_down_their_address_and_nobody_who_gave_the_right_one() {
    for choice in DRIVERS {
        let node = start(Setting::of(choice), |event, effects| match event {
            Event::Client(ClientEvent::Bytes { conn, bytes }) if bytes == b"wrong" => {
                effects.push_back(Effect::Client(ClientEffect::Guessed { conn }));
                effects.push_back(Effect::Client(ClientEffect::Send {
                    conn,
                    bytes: Bytes::from_static(b"no!"),
                }));
                effects.push_back(Effect::Client(ClientEffect::Receive { conn, buffer: bytes }));
            }
            event => answers(event, effects),
        });
        let Some(node) = node else { continue };
        let mut good = node.client();
        talks(&mut good);
        let begin = Instant::now();
        let guess = |client: &mut TcpStream| {
            client.write_all(b"wrong").unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
        };
        let mut bad = node.client();
        (0..GUESS_FREE + 2).for_each(|_| guess(&mut bad));
        // On a connection of its own it waits as well: 100 ms, and then 200.
        guess(&mut node.client());
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(290), "{took:?}");
        let told = node.incidents.recv_timeout(TIMEOUT).unwrap();
        assert!(told.text.contains("127.0.0.1:") && told.text.contains("a wrong password"), "{}", told.text);
        assert_eq!(refused(&node), [u64::from(GUESS_FREE) + 3, 0, 0]);
        assert_eq!(node.incidents.try_iter().count(), 0, "one line for all");
        // 400 ms for others; none for who is known.
        let before = Instant::now();
        (0..100).for_each(|_| talks(&mut good));
        drop(bad);
        if before.elapsed() < Duration::from_millis(300) {
            talks(&mut node.client());
            assert!(begin.elapsed() >= took + Duration::from_millis(300));
        }
        node.stop();
    }
}
