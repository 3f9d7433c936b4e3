//! Two loops on loopback with scripts in the engines' places: what they hear of each other, and of strangers.

use super::super::config::Encryption;
use super::super::core::testing::{DRIVERS, Node, Setting, TIMEOUT, connect_from, identities, start};
use super::super::inbox::Message;
use super::super::peer_address::PeerAddress;
use super::super::tls::LinkIdentity;
use crate::base::limits::{LINKS_PEER_UNKNOWN_MAX, LINKS_UNKNOWN_MAX};
use crate::base::{AlignedBuf, ConnId};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use crate::engine::{ClientEvent, Effect, Event, Incident, LinkEffect, LinkEvent};
use crate::io::IoChoice;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

const CONN: ConnId = ConnId(1);

/// Sends back what the peer sends; tells of everything else.
fn echo(tell: Sender<String>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    move |event, effects| match event {
        Event::Link(LinkEvent::Bytes { conn, bytes }) => {
            let middle = bytes.len() / 2;
            let parts = vec![bytes.slice(..middle), bytes.slice(middle..)];
            effects.push_back(Effect::Link(LinkEffect::Send { conn, parts }));
        }
        Event::Link(LinkEvent::Accepted { conn, .. }) => {
            assert_eq!(conn.0 >> 63, 1, "a number from the driver's range");
            tell.send("accepted".to_owned()).unwrap();
        }
        Event::Link(LinkEvent::Closed { why, .. }) => tell.send(why).unwrap(),
        Event::Stop => effects.push_back(Effect::Stopped),
        Event::Admin { token, .. } => {
            let reply = AdminReply::Ok { value: Status::default().into() };
            effects.push_back(Effect::Admin { token, reply });
        }
        _ => {}
    }
}

/// Connects at once, sends `bytes` as one when connected, and hands on what happens.
fn dialler(bytes: Bytes, tell: Sender<Event>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    let mut begun = false;
    let mut left = bytes.len();
    move |event, effects| match event {
        Event::Tick if !std::mem::replace(&mut begun, true) => {
            effects.push_back(Effect::Link(LinkEffect::Connect { conn: CONN }));
        }
        Event::Link(LinkEvent::Connected { conn }) => {
            let parts = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
            effects.push_back(Effect::Link(LinkEffect::Send { conn, parts }));
            tell.send(event).unwrap();
        }
        Event::Link(LinkEvent::Bytes { conn, bytes }) => {
            left -= bytes.len();
            if left == 0 {
                effects.push_back(Effect::Link(LinkEffect::Close { conn, abort: false }));
            }
            tell.send(Event::Link(LinkEvent::Bytes { conn, bytes })).unwrap();
        }
        Event::Link(LinkEvent::Sent { .. }) | Event::Link(LinkEvent::Closed { .. }) => {
            tell.send(event).unwrap()
        }
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

/// Takes what the peer sends in buffers of its own, each of them until it is full, with some bytes as they come between;
/// hands on all of it, in order.
fn filler(tell: Sender<Vec<u8>>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    let mut until = 200_000;
    move |event, effects| match event {
        Event::Link(LinkEvent::Bytes { conn, bytes }) => {
            tell.send(bytes.to_vec()).unwrap();
            let mut buffer = AlignedBuf::with_capacity(until);
            buffer.extend_from_slice(b"head");
            effects.push_back(Effect::Link(LinkEffect::Fill { conn, buffer, until }));
        }
        Event::Link(LinkEvent::Filled { conn, buffer }) if buffer.len() < until => {
            effects.push_back(Effect::Link(LinkEffect::Fill { conn, buffer, until }));
        }
        Event::Link(LinkEvent::Filled { buffer, .. }) => {
            assert_eq!((buffer.len(), &buffer.as_ref()[..4]), (until, &b"head"[..]));
            tell.send(buffer.as_ref()[4..].to_vec()).unwrap();
            until += 50_001;
        }
        Event::Link(LinkEvent::Closed { why, .. }) => tell.send(why.into_bytes()).unwrap(),
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

fn setting(choice: IoChoice, identity: LinkIdentity, peer: Option<SocketAddr>) -> Setting {
    let mut setting = Setting::of(choice);
    setting.identity = identity;
    setting.peer = peer.map_or(setting.peer, PeerAddress::from);
    setting
}

fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(TIMEOUT).unwrap()
}

#[test]
fn two_nodes_prove_their_keys_and_exchange_megabytes_in_order() {
    for encryption in [Encryption::Tls, Encryption::None] {
        for choice in DRIVERS {
            let (a, b) = identities(encryption);
            let (tell, heard) = channel();
            let Some(far) = start(setting(choice, b, None), echo(tell)) else { continue };
            let sent: Bytes = (0..3_000_000_u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
            let (tell, told) = channel();
            let near = start(setting(choice, a, Some(far.link)), dialler(sent.clone(), tell)).unwrap();
            assert!(matches!(next(&told), Event::Link(LinkEvent::Connected { conn: CONN })));
            assert_eq!(next(&heard), "accepted");
            let mut back = Vec::new();
            let mut sent_told = 0;
            while back.len() < sent.len() {
                match next(&told) {
                    Event::Link(LinkEvent::Bytes { bytes, .. }) => back.extend_from_slice(&bytes),
                    Event::Link(LinkEvent::Sent { conn: CONN }) => sent_told += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert!(back[..] == sent[..], "what came back is what was sent");
            assert_eq!(sent_told, 1, "one word for all that was given");
            assert!(next(&heard).contains("the peer closed the link"));
            near.stop();
            far.stop();
            assert!(!told.try_iter().any(|event| matches!(event, Event::Link(LinkEvent::Closed { .. }))));
        }
    }
}

/// Takes what comes, and tells when so much has come.
fn sink(total: usize, tell: Sender<()>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    let mut left = total;
    move |event, effects| match event {
        Event::Link(LinkEvent::Bytes { bytes, .. }) => {
            left -= bytes.len();
            if left == 0 {
                tell.send(()).unwrap();
            }
        }
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

#[test]
fn what_is_sent_at_once_is_secured_in_steps_between_which_the_loop_goes_on() {
    const BYTES: usize = 64 << 20;
    // Processor time of the loop alone. Securing all of it in one round takes several times as long.
    const ROUND_MAX_MS: f64 = 25.0;
    for choice in DRIVERS {
        let (a, b) = identities(Encryption::Tls);
        let (tell, all_came) = channel();
        let Some(far) = start(setting(choice, b, None), sink(BYTES, tell)) else { continue };
        let mut begun = false;
        let mut bytes = Bytes::from(vec![7; BYTES]);
        let near = start(setting(choice, a, Some(far.link)), move |event, effects| match event {
            Event::Tick if !std::mem::replace(&mut begun, true) => {
                effects.push_back(Effect::Link(LinkEffect::Connect { conn: CONN }));
            }
            Event::Link(LinkEvent::Connected { conn }) => {
                effects.push_back(Effect::Link(LinkEffect::Send {
                    conn,
                    parts: vec![std::mem::take(&mut bytes)],
                }));
            }
            Event::Admin { token, .. } => {
                let reply = AdminReply::Ok { value: Status::default().into() };
                effects.push_back(Effect::Admin { token, reply });
            }
            Event::Stop => effects.push_back(Effect::Stopped),
            _ => {}
        })
        .unwrap();
        next(&all_came);
        let (reply, answer) = sync_channel(1);
        near.inbox.send(Message::Admin { request: AdminRequest::Status, reply }).unwrap();
        let AdminReply::Ok { value: AdminAnswer::Status(status) } = next(&answer) else { panic!("a status") };
        let longest = status.longest_round_ms;
        assert!(longest > 0.0 && longest < ROUND_MAX_MS, "{choice:?}: a round of {longest} ms");
        near.stop();
        far.stop();
    }
}

#[test]
fn what_a_node_wants_in_buffers_of_its_own_comes_there_and_the_rest_as_it_comes() {
    for encryption in [Encryption::Tls, Encryption::None] {
        for choice in DRIVERS {
            let (a, b) = identities(encryption);
            let (tell, heard) = channel();
            let Some(far) = start(setting(choice, b, None), filler(tell)) else { continue };
            let sent: Bytes = (0..3_000_000_u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
            let (tell, _told) = channel();
            let near = start(setting(choice, a, Some(far.link)), dialler(sent.clone(), tell)).unwrap();
            let mut got = Vec::new();
            let mut pieces = 0;
            // The last buffer is never full.
            while got.len() < 1_000_000 {
                got.extend(next(&heard));
                pieces += 1;
            }
            assert!(got[..] == sent[..got.len()], "everything comes, in order");
            assert!(pieces > 2);
            near.stop();
            let over = loop {
                let some = next(&heard);
                if some.starts_with(b"receiving from") {
                    break String::from_utf8(some).unwrap();
                }
            };
            assert!(
                over.contains("the peer closed the link") || over.contains("without a goodbye"),
                "{over}"
            );
            far.stop();
        }
    }
}

#[test]
fn nobody_at_the_peers_address_is_a_closed_connection_with_the_reason() {
    for choice in DRIVERS {
        let (tell, told) = channel();
        let (identity, _) = identities(Encryption::Tls);
        // A port of the loopback on which nothing listens.
        let Some(node) = start(setting(choice, identity, None), dialler(Bytes::new(), tell)) else {
            continue;
        };
        match next(&told) {
            Event::Link(LinkEvent::Closed { conn: CONN, why }) => {
                assert!(why.starts_with("connecting to 127.0.0.1:1: "), "{why}");
            }
            other => panic!("{other:?}"),
        }
        node.stop();
    }
}

#[test]
fn a_node_whose_key_is_not_trusted_is_refused_by_name_and_the_engine_hears_nothing() {
    for encryption in [Encryption::Tls, Encryption::None] {
        let ((_, b), (stranger, _)) = (identities(encryption), identities(encryption));
        let (tell, heard) = channel();
        let far = start(setting(IoChoice::Epoll, b, None), echo(tell)).unwrap();
        let (tell, told) = channel();
        let near = start(setting(IoChoice::Epoll, stranger, Some(far.link)), dialler(Bytes::new(), tell));
        assert!(matches!(next(&told), Event::Link(LinkEvent::Closed { conn: CONN, .. })));
        let incident = next(&far.incidents);
        assert_eq!(incident.kind, "link-refused");
        assert_eq!(refused(&far), (1, 1));
        near.unwrap().stop();
        far.stop();
        assert!(heard.try_recv().is_err());
    }
}

/// Connections refused and incidents, as a status tells them.
fn refused(node: &Node) -> (u64, u64) {
    let (reply, answer) = sync_channel(1);
    node.inbox.send(Message::Admin { request: AdminRequest::Status, reply }).unwrap();
    match next(&answer) {
        AdminReply::Ok { value: AdminAnswer::Status(status) } => (status.refused, status.incidents),
        other => panic!("{other:?}"),
    }
}

fn is_over(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    // An alert may come first.
    let mut buffer = Vec::new();
    match stream.read_to_end(&mut buffer) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn strangers_cost_a_few_slots_for_a_moment_and_one_line_in_the_log() {
    for choice in DRIVERS {
        let (tell, heard) = channel();
        let mut patient = setting(choice, identities(Encryption::Tls).1, None);
        patient.patience.handshake_ms = 1000;
        let Some(node) = start(patient, echo(tell)) else { continue };
        for _ in 0..5 {
            let mut chatty = TcpStream::connect(node.link).unwrap();
            chatty.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            assert!(is_over(&mut chatty));
        }
        assert_eq!(refused(&node), (5, 1));
        let mut silent: Vec<_> =
            (0..LINKS_UNKNOWN_MAX + 4).map(|_| connect_from([127, 0, 0, 2], node.link)).collect();
        let begin = std::time::Instant::now();
        // The oldest give way at once, the others have a slot, but only for their time.
        assert!(silent.drain(..4).all(|mut oldest| is_over(&mut oldest)));
        assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
        let before = std::time::Instant::now();
        assert!(silent.iter_mut().all(is_over));
        assert!(before.elapsed() < Duration::from_secs(10));
        let all = u64::try_from(5 + LINKS_UNKNOWN_MAX + 4).unwrap();
        assert_eq!(refused(&node).0, all);
        let incidents: Vec<Incident> =
            std::iter::from_fn(|| node.incidents.recv_timeout(TIMEOUT).ok()).take(3).collect();
        assert_eq!(incidents.len(), 3, "{incidents:?}");
        assert_eq!(node.incidents.try_iter().count(), 0);
        node.stop();
        assert!(heard.try_recv().is_err());
    }
}

/// So patient that nobody loses a slot because its time is over.
fn patient(choice: IoChoice, identity: LinkIdentity, peer: Option<SocketAddr>) -> Setting {
    let mut patient = setting(choice, identity, peer);
    patient.patience.handshake_ms = 60_000;
    patient
}

#[test]
fn however_many_strangers_hold_on_to_the_link_port_the_peer_gets_in_and_out() {
    for choice in DRIVERS {
        let (a, b) = identities(Encryption::Tls);
        let (tell, heard) = channel();
        let Some(far) = start(patient(choice, b, None), echo(tell)) else { continue };
        // They come from elsewhere, and from the peer's own address.
        let mut silent: Vec<_> = (0..200).map(|_| connect_from([127, 0, 0, 2], far.link)).collect();
        silent.extend((0..50).map(|_| connect_from([127, 0, 0, 1], far.link)));
        let most = u64::try_from(250 - LINKS_UNKNOWN_MAX - LINKS_PEER_UNKNOWN_MAX).unwrap();
        let begin = std::time::Instant::now();
        while refused(&far).0 < most {
            assert!(begin.elapsed() < TIMEOUT, "{:?} of {most}", refused(&far));
        }
        let (tell, told) = channel();
        let near = start(patient(choice, a.clone(), Some(far.link)), dialler(Bytes::new(), tell)).unwrap();
        assert!(matches!(next(&told), Event::Link(LinkEvent::Connected { conn: CONN })));
        assert_eq!(next(&heard), "accepted");
        near.stop();
        far.stop();

        // A node whose own port they hold on to dials as ever.
        let (a, b) = identities(Encryption::Tls);
        let (tell, heard) = channel();
        let far = start(patient(choice, b, None), echo(tell)).unwrap();
        let (tell, told) = channel();
        let mut dial = dialler(Bytes::new(), tell);
        let node = start(patient(choice, a, Some(far.link)), move |event, effects| match event {
            Event::Tick => {}
            // Only now.
            Event::Client(ClientEvent::Opened { .. }) => dial(Event::Tick, effects),
            event => dial(event, effects),
        });
        let node = node.unwrap();
        let _silent: Vec<_> = (0..100).map(|_| connect_from([127, 0, 0, 2], node.link)).collect();
        let _client = node.client();
        assert!(matches!(next(&told), Event::Link(LinkEvent::Connected { conn: CONN })));
        assert_eq!(next(&heard), "accepted");
        node.stop();
        far.stop();
    }
}

#[test]
fn strangers_do_not_push_out_those_that_come_from_the_peers_address() {
    for choice in DRIVERS {
        let (tell, _heard) = channel();
        let Some(node) = start(patient(choice, identities(Encryption::Tls).1, None), echo(tell)) else {
            continue;
        };
        let mut of_peer = connect_from([127, 0, 0, 1], node.link);
        let strangers: Vec<_> = (0..100).map(|_| connect_from([127, 0, 0, 2], node.link)).collect();
        let most = u64::try_from(100 - LINKS_UNKNOWN_MAX).unwrap();
        let begin = std::time::Instant::now();
        while refused(&node).0 < most {
            assert!(begin.elapsed() < TIMEOUT);
        }
        of_peer.set_nonblocking(true).unwrap();
        let still = of_peer.read(&mut [0; 100]).unwrap_err();
        assert_eq!(still.kind(), std::io::ErrorKind::WouldBlock, "{still}");
        assert_eq!(refused(&node).0, most);
        drop(strangers);
        node.stop();
    }
}
