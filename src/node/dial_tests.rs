//! Loops on loopback whose peer has a name: what the name service answers, and where they dial.

use super::super::config::Encryption;
use super::super::core::testing::{DRIVERS, Node, Setting, TIMEOUT, identities, start};
use super::super::inbox::Message;
use super::super::peer_address::LookUp;
use super::*;
use crate::engine::admin::{AdminReply, AdminRequest, Status};
use crate::engine::{Effect, Event, LinkEffect, LinkEvent};
use nix::sys::socket::{Backlog, listen};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

/// Nothing listens there.
const NOBODY: &str = "127.0.0.1:1";

/// Dials at once and whenever a dial ended, and tells how each did.
fn redialler(tell: Sender<String>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send + 'static {
    let mut conn = 0;
    move |event, effects| {
        let again = match event {
            Event::Tick => conn == 0,
            Event::Link(LinkEvent::Connected { conn }) => {
                let _ = tell.send("connected".to_owned());
                effects.push_back(Effect::Link(LinkEffect::Close { conn, abort: true }));
                true
            }
            Event::Link(LinkEvent::Closed { why, .. }) => tell.send(why).is_ok(),
            Event::Stop => {
                effects.push_back(Effect::Stopped);
                false
            }
            Event::Admin { token, .. } => {
                let reply = AdminReply::Ok { value: Status::default().into() };
                effects.push_back(Effect::Admin { token, reply });
                false
            }
            _ => false,
        };
        if again {
            conn += 1;
            effects.push_back(Effect::Link(LinkEffect::Connect { conn: ConnId(conn) }));
        }
    }
}

/// Tells that it was called.
fn called(name: &'static str, tell: Sender<&'static str>) -> impl FnMut(Event, &mut VecDeque<Effect>) + Send {
    move |event, effects| match event {
        Event::Link(LinkEvent::Accepted { .. }) => tell.send(name).unwrap_or_default(),
        Event::Stop => effects.push_back(Effect::Stopped),
        _ => {}
    }
}

/// A name service that gives these answers, one for each question; the last one again and again.
fn names(mut answers: Vec<Vec<SocketAddr>>) -> LookUp {
    answers.reverse();
    let answers = std::sync::Mutex::new(answers);
    Arc::new(move |_| {
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        answer.filter(|found| !found.is_empty()).ok_or_else(|| io::Error::other("the name service is away"))
    })
}

fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(TIMEOUT).unwrap()
}

fn named(choice: crate::io::IoChoice, names: LookUp) -> Setting {
    let mut setting = Setting::of(choice);
    setting.peer = "b.example:2000".parse().unwrap();
    setting.names = names;
    setting
}

fn is_answering(node: &Node) -> bool {
    let (reply, answer) = sync_channel(1);
    node.inbox.send(Message::Admin { request: AdminRequest::Status, reply }).unwrap();
    matches!(answer.recv_timeout(TIMEOUT), Ok(AdminReply::Ok { .. }))
}

#[test]
fn a_name_is_looked_up_at_each_dial_and_each_of_its_addresses_is_tried() {
    for choice in DRIVERS {
        let (near, far) = identities(Encryption::Tls);
        let (tell, heard) = channel();
        let place = |name| {
            let mut setting = Setting::of(choice);
            setting.identity = far.clone();
            start(setting, called(name, tell.clone()))
        };
        let (Some(one), Some(two)) = (place("one"), place("two")) else { continue };
        let nobody: SocketAddr = NOBODY.parse().unwrap();
        let (tell, told) = channel();
        let mut setting =
            named(choice, names(vec![vec![nobody, one.link], vec![nobody, two.link], vec![nobody]]));
        setting.identity = near;
        let node = start(setting, redialler(tell)).unwrap();
        assert_eq!((next(&told).as_str(), next(&heard)), ("connected", "one"), "the second address");
        assert_eq!((next(&told).as_str(), next(&heard)), ("connected", "two"), "the answer that changed");
        assert_eq!(next(&told), "connecting to b.example:2000: 127.0.0.1:1: connection refused");
        node.stop();
        one.stop();
        two.stop();
    }
}

/// A listening socket whose queue is full, so that connecting to it takes for ever; and what fills the queue.
fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener.as_fd(), Backlog::new(0).unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 64, "the queue has no end");
    }
    (listener, held)
}

#[test]
fn an_address_that_never_answers_does_not_hide_the_next_one() {
    let (listener, _held) = deaf();
    let at = listener.local_addr().unwrap();
    for choice in DRIVERS {
        let (near, far) = identities(Encryption::Tls);
        let (tell, heard) = channel();
        let mut setting = Setting::of(choice);
        setting.identity = far;
        let Some(there) = start(setting, called("there", tell)) else { continue };
        let (tell, told) = channel();
        let mut setting = named(choice, names(vec![vec![at, there.link]]));
        setting.identity = near;
        setting.patience.handshake_ms = 2000;
        let node = start(setting, redialler(tell)).unwrap();
        assert_eq!((next(&told).as_str(), next(&heard)), ("connected", "there"));
        node.stop();
        there.stop();

        let (tell, told) = channel();
        let mut setting = named(choice, names(vec![vec![NOBODY.parse().unwrap(), at]]));
        setting.patience.handshake_ms = 400;
        let node = start(setting, redialler(tell)).unwrap();
        let why = next(&told);
        let expected = format!("{NOBODY}: connection refused; {at}: not done within 200 ms");
        assert_eq!(why, format!("connecting to b.example:2000: {expected}"));
        node.stop();
    }
}

#[test]
fn a_name_service_that_is_silent_stops_neither_the_loop_nor_later_dials() {
    let (answer, answers) = channel::<SocketAddr>();
    let answers = std::sync::Mutex::new(answers);
    let silent: LookUp = Arc::new(move |_| match answers.lock().unwrap().recv() {
        Ok(address) => Ok(vec![address]),
        Err(_) => Err(io::Error::other("gone")),
    });
    let (tell, told) = channel();
    let node = start(named(crate::io::IoChoice::Epoll, silent), redialler(tell)).unwrap();
    let why = next(&told);
    assert_eq!(
        why,
        "looking up the address of b.example:2000: the name service does not answer within 300 ms"
    );
    assert!(is_answering(&node), "while the look-up is under way");
    answer.send(NOBODY.parse().unwrap()).unwrap();
    let refused = std::iter::repeat_with(|| next(&told)).take(20).find(|why| why.contains("refused"));
    assert!(refused.is_some(), "its late answer serves the dial that waits then");
    drop(answer);
    node.stop();
}

#[test]
fn when_the_name_service_fails_its_last_addresses_are_dialled() {
    let (tell, told) = channel();
    let nobody: SocketAddr = NOBODY.parse().unwrap();
    let answers = names(vec![vec![], vec![nobody], vec![]]);
    let node = start(named(crate::io::IoChoice::Epoll, answers), redialler(tell)).unwrap();
    assert_eq!(next(&told), "looking up the address of b.example:2000: the name service is away");
    for _ in 0..2 {
        assert_eq!(next(&told), "connecting to b.example:2000: 127.0.0.1:1: connection refused");
    }
    node.stop();
}

#[test]
fn the_next_dial_begins_behind_the_address_at_which_the_last_one_ended() {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (inbox, _outbox) = super::super::inbox::Inbox::new(Arc::new(Asleep));
    let resolver = Resolver::with(&inbox, names(vec![vec![at(1)]]));
    let mut dial = Dial::new("b:1".parse().unwrap(), resolver);
    let attempt = |dial: &mut Dial, conn| {
        assert!(dial.begin(ConnId(conn), Mono(0), 3000).unwrap().is_none());
        let (_, attempt) = dial.found(Ok(vec![at(1), at(2), at(3)]), 3000).unwrap();
        let attempt = attempt.unwrap();
        dial.trying(&attempt);
        attempt.at.port()
    };
    assert_eq!([1, 2, 3, 4].map(|conn| attempt(&mut dial, conn)), [1, 2, 3, 1]);
    dial.reached(at(3));
    assert_eq!(attempt(&mut dial, 5), 3, "where the peer was is where it is looked for first");
}

#[test]
fn a_node_that_never_dials_knows_the_hosts_of_a_peer_that_has_a_name() {
    let (inbox, outbox) = super::super::inbox::Inbox::new(Arc::new(Asleep));
    let (asked, questions) = channel();
    let asked = std::sync::Mutex::new(asked);
    let look_up: LookUp = Arc::new(move |_| {
        asked.lock().unwrap().send(()).unwrap();
        Ok(vec![SocketAddr::from(([127, 0, 0, 9], 1))])
    });
    let mut dial = Dial::new("b:1".parse().unwrap(), Resolver::with(&inbox, look_up));
    let host = std::net::IpAddr::from([127, 0, 0, 9]);
    assert!(!dial.has_host(host));
    dial.refresh(Mono(0));
    next(&questions);
    let answer = loop {
        match outbox.take() {
            Some(Message::PeerFound(answer)) => break answer,
            Some(_) => panic!("something else"),
            None => std::thread::yield_now(),
        }
    };
    assert!(dial.found(answer, 1).is_none(), "no dial waits for it");
    assert!(dial.has_host(host));
    // A flood of callers is no flood of questions.
    for ms in 0..1000 {
        dial.refresh(Mono(0).plus_ms(ms));
    }
    assert!(questions.try_recv().is_err());
    assert_eq!(dial.next_look, Mono(0).plus_ms(PEER_LOOK_MS), "it has not asked meanwhile");
    dial.refresh(Mono(0).plus_ms(PEER_LOOK_MS));
    next(&questions);
}

struct Asleep;

impl crate::io::Wake for Asleep {
    fn wake(&self) {}
}
