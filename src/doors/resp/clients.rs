//! CLIENT: what is known of every connection, and who is told it.
//!
//! A session and its commands see one client only. So what others may ask about it stands in the [`Roster`]: each
//! session brings its card up to date whenever its memory is counted, that is after every turn.

use super::connection::check_name;
use super::refusal::{Fail, SYNTAX};
use super::session::{Blocked, Client};
use super::subcommands;
use super::table::Spec;
use super::turn::{Turn, wrong_arity};
use crate::base::limits::{WORK_COMMAND, WORK_READ};
use crate::base::{ConnId, JournalKind, Mono, Seq};
use crate::doors::Backend;
use crate::format::resp::{self, Args, Version};
use std::fmt::Write;

/// Epoch and number of an update.
pub(super) fn receipt(out: &mut Vec<u8>, epoch: u64, seq: Seq) {
    resp::array(out, 2);
    resp::integer(out, i64::try_from(epoch).unwrap_or(i64::MAX));
    resp::integer(out, i64::try_from(seq.0).unwrap_or(i64::MAX));
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// Where a connection comes from and to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPlace {
    /// The client's address; of a Unix socket its path and `:0`.
    pub remote: String,
    /// The node's address, likewise.
    pub local: String,
    /// The descriptor.
    pub fd: i32,
    /// Came over a Unix socket.
    pub unix: bool,
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Card {
    conn: ConnId,
    pub(super) place: ClientPlace,
    pub(super) name: Vec<u8>,
    /// Name and version of the client's library.
    library: [Vec<u8>; 2],
    no_evict: bool,
    no_touch: bool,
    opened: Mono,
    facts: Facts,
}

/// What changes with every turn.
#[derive(Clone, Copy, Debug)]
struct Facts {
    active: Mono,
    version: Version,
    last_command: &'static str,
    /// Commands queued in a transaction.
    queued: Option<usize>,
    queued_bytes: usize,
    blocked: bool,
    closing: bool,
    /// Received and not carried out yet (bytes).
    unread: usize,
    /// What the next receive may bring (bytes).
    free: usize,
    /// Replies not sent yet (bytes).
    pending: usize,
    /// All memory of the client (bytes).
    held: usize,
}

impl Facts {
    fn of(client: &Client) -> Self {
        Self {
            active: client.active,
            version: client.version,
            last_command: client.last_command,
            queued: client.queue.as_ref().map(|queue| queue.len()),
            queued_bytes: client.queue.as_ref().map_or(0, |queue| queue.bytes()),
            blocked: client.blocked.is_some(),
            closing: client.closing,
            unread: 0,
            free: 0,
            pending: client.out.pending(),
            held: 0,
        }
    }
}

/// The cards of all connections; a session knows the place of its own.
#[derive(Debug, Default)]
pub(super) struct Roster {
    cards: Vec<Option<Card>>,
    free: Vec<usize>,
}

impl Roster {
    /// A card for a new connection; returns its place.
    pub(super) fn add(&mut self, conn: ConnId, client: &Client) -> usize {
        let card = Card {
            conn,
            place: ClientPlace::default(),
            name: Vec::new(),
            library: [Vec::new(), Vec::new()],
            no_evict: false,
            no_touch: false,
            opened: client.opened,
            facts: Facts::of(client),
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.cards.push(None);
            self.cards.len() - 1
        });
        if let Some(place) = self.cards.get_mut(at) {
            *place = Some(card);
        }
        at
    }

    /// The connection is gone.
    pub(super) fn remove(&mut self, at: usize) {
        if let Some(place) = self.cards.get_mut(at)
            && place.take().is_some()
        {
            self.free.push(at);
        }
    }

    pub(super) fn card(&mut self, at: usize) -> Option<&mut Card> {
        self.cards.get_mut(at).and_then(Option::as_mut)
    }

    /// Brings a card up to date.
    pub(super) fn note(&mut self, client: &Client, unread: usize, free: usize, held: usize) {
        if let Some(card) = self.card(client.card) {
            card.facts = Facts { unread, free, held, ..Facts::of(client) };
        }
    }

    /// All cards and their places, in the order in which the connections were made.
    fn all(&self) -> Vec<(usize, &Card)> {
        let cards = self.cards.iter().enumerate();
        let mut all: Vec<(usize, &Card)> =
            cards.filter_map(|(at, card)| card.as_ref().map(|card| (at, card))).collect();
        all.sort_unstable_by_key(|(_, card)| card.conn);
        all
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cards.len() - self.free.len()
    }
}

/// A CLIENT LIST under way.
#[derive(Debug)]
pub(super) struct Listing {
    /// Places in the roster, the next one last.
    left: Vec<usize>,
    text: String,
}

impl Listing {
    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.left.capacity() * size_of::<usize>() + self.text.capacity()
    }
}

/// Which connections a CLIENT LIST or CLIENT KILL is about.
#[derive(Debug, Default)]
struct Filter<'a> {
    ids: Option<Vec<i64>>,
    /// Of another type than `normal`: there is none.
    none: bool,
    remote: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    skip: Option<ConnId>,
}

impl<'a> Filter<'a> {
    /// Reads filters from the argument `at` on; `me` is who asks.
    fn read(args: Args<'a>, mut at: usize, me: ConnId, kill: bool) -> Result<Self, Fail> {
        // Whom a KILL with filters does not name it spares: as in Redis, that is the caller.
        let mut filter = Self { skip: kill.then_some(me), ..Self::default() };
        while at < args.len() {
            let (word, value) = (args.at(at), args.at(at + 1));
            if at + 1 >= args.len() {
                return Err(SYNTAX.into());
            }
            at += 2;
            if is(word, "id") {
                let mut ids = vec![Self::id(value, kill)?];
                // LIST takes several: all that follow.
                while !kill && at < args.len() {
                    ids.push(Self::id(args.at(at), kill)?);
                    at += 1;
                }
                filter.ids = Some(ids);
            } else if is(word, "type") {
                filter.none |= Self::is_other_type(value)?;
            } else if is(word, "user") {
                if value != b"default" && kill {
                    return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(value)).into());
                }
                filter.none |= value != b"default";
            } else if is(word, "addr") {
                filter.remote = Some(value);
            } else if is(word, "laddr") {
                filter.local = Some(value);
            } else if is(word, "skipme") && (is(value, "yes") || is(value, "no")) {
                filter.skip = is(value, "yes").then_some(me);
            } else {
                return Err(SYNTAX.into());
            }
        }
        Ok(filter)
    }

    fn id(word: &[u8], kill: bool) -> Result<i64, Fail> {
        match super::items::parse_integer(word) {
            Some(id) if id > 0 || !kill => Ok(id),
            _ if kill => Err("ERR client-id should be greater than 0".into()),
            _ => Err("ERR Invalid client ID".into()),
        }
    }

    /// Whether a type is one that no connection here has.
    fn is_other_type(word: &[u8]) -> Result<bool, Fail> {
        match word {
            normal if is(normal, "normal") => Ok(false),
            other if ["master", "replica", "slave", "pubsub"].iter().any(|name| is(other, name)) => Ok(true),
            other => Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(other)).into()),
        }
    }

    fn fits(&self, card: &Card) -> bool {
        let id = i64::try_from(card.conn.0).unwrap_or(i64::MAX);
        !self.none
            && self.skip != Some(card.conn)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&id))
            && self.remote.is_none_or(|address| address == card.place.remote.as_bytes())
            && self.local.is_none_or(|address| address == card.place.local.as_bytes())
    }
}

impl<B: Backend> Turn<'_, B> {
    /// Of this client more is known now than after its last turn.
    fn note_self(&mut self) {
        self.shared.learn(self.backend);
        let now = Facts::of(self.client);
        if let Some(card) = self.shared.roster.card(self.client.card) {
            let Facts { unread, free, held, .. } = card.facts;
            card.facts = Facts { unread, free, held, ..now };
        }
    }

    /// A line of CLIENT LIST. Fields are Redis's; sizes that are not kept apart are 0.
    fn client_line(&self, at: usize) -> String {
        let Some(card) = self.shared.roster.cards.get(at).and_then(Option::as_ref) else {
            return String::new();
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let seconds = |since: Mono| self.now.mono.since(since) / 1_000_000;
        let (conn, place, facts) = (card.conn, &card.place, &card.facts);
        let mut flags = String::new();
        let dirty = self.shared.watches.is_dirty(conn);
        for (set, flag) in [
            (facts.queued.is_some(), 'x'),
            (facts.blocked, 'b'),
            (dirty, 'd'),
            (facts.closing, 'c'),
            (place.unix, 'U'),
            (card.no_evict, 'e'),
            (card.no_touch, 'T'),
        ] {
            flags.extend(set.then_some(flag));
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let multi = facts.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX));
        let mut line = format!(
            "id={conn} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 ssub=0 \
             multi={multi} watch={}",
            place.remote,
            place.local,
            place.fd,
            text(&card.name),
            seconds(card.opened),
            seconds(facts.active),
            self.shared.watches.of(conn),
        );
        let Facts { unread, free, queued_bytes, pending, held, .. } = facts;
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            line,
            " qbuf={unread} qbuf-free={free} argv-mem=0 multi-mem={queued_bytes} rbs=0 rbp=0 obl={pending} oll=0 \
             omem=0 tot-mem={held} events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            facts.last_command,
            facts.version.number(),
            text(&card.library[0]),
            text(&card.library[1]),
        );
        line
    }

    fn card(&mut self) -> Result<&mut Card, Fail> {
        self.shared.roster.card(self.client.card).ok_or("ERR this connection is not known".into())
    }

    pub(super) fn client(&mut self, spec: &Spec, args: Args<'_>) -> Result<(), Fail> {
        let sub = subcommands::find(spec, args.at(1)).map_or("", subcommands::Sub::word);
        match sub {
            "id" => self.integer(i64::try_from(self.client.conn.0).unwrap_or(i64::MAX)),
            "getname" => {
                let name = self.card()?.name.clone();
                self.bulk_or_null((!name.is_empty()).then_some(&name))
            }
            "setname" => {
                check_name(args.at(2))?;
                self.card()?.name = args.at(2).to_vec();
                self.ok()
            }
            "setinfo" => self.set_info(args),
            "info" => {
                self.note_self();
                let line = self.client_line(self.client.card);
                self.verbatim(&line)
            }
            "list" => {
                self.note_self();
                let left = self.shared.roster.all().into_iter().rev().map(|(at, _)| at).collect();
                self.list_on(Box::new(Listing { left, text: String::new() }), args)
            }
            "kill" => self.kill_clients(args),
            "no-evict" | "no-touch" => {
                let on = is(args.at(2), "on");
                if !on && !is(args.at(2), "off") {
                    return Err(SYNTAX.into());
                }
                let card = self.card()?;
                *if sub == "no-evict" { &mut card.no_evict } else { &mut card.no_touch } = on;
                self.ok()
            }
            "reply" => match args.at(2) {
                on if is(on, "on") => self.ok(),
                off if is(off, "off") || is(off, "skip") => {
                    Err("ERR CLIENT REPLY OFF and SKIP are not supported: every command is answered".into())
                }
                _ => Err(SYNTAX.into()),
            },
            "receipt" => self.receipt(args),
            "getredir" => self.integer(-1),
            "trackinginfo" => {
                self.tracking_info();
                Ok(())
            }
            "unpause" => self.ok(),
            "help" => self.help(spec),
            _ => Err(wrong_arity(spec.name).into()),
        }
    }

    fn receipt(&mut self, args: Args<'_>) -> Result<(), Fail> {
        match args.at(2) {
            on if args.len() == 3 && is(on, "on") => {
                if self.client.version == Version::V2 {
                    return Err(
                        "ERR a receipt with each reply needs RESP3: say HELLO 3; without ON or OFF, CLIENT \
                                RECEIPT tells that of the last update"
                            .into(),
                    );
                }
                self.client.receipts = true;
                self.ok()
            }
            off if args.len() == 3 && is(off, "off") => {
                self.client.receipts = false;
                self.ok()
            }
            _ if args.len() > 2 => Err(SYNTAX.into()),
            _ => {
                let seq = self.client.last[JournalKind::Replicated.index()];
                let out = &mut self.client.out.bytes;
                if seq.0 == 0 {
                    resp::null(out, self.client.version);
                } else {
                    receipt(out, self.client.last_epoch, seq);
                }
                Ok(())
            }
        }
    }

    fn tracking_info(&mut self) {
        let version = self.client.version;
        let out = &mut self.client.out.bytes;
        resp::map(out, version, 3);
        resp::bulk(out, b"flags");
        resp::set(out, version, 1);
        resp::bulk(out, b"off");
        resp::bulk(out, b"redirect");
        resp::integer(out, -1);
        resp::bulk(out, b"prefixes");
        resp::array(out, 0);
    }

    /// Goes on with a CLIENT LIST, and answers when all connections were looked at.
    pub(super) fn list_on(&mut self, mut listing: Box<Listing>, args: Args<'_>) -> Result<(), Fail> {
        let filter = Filter::read(args, 2, self.client.conn, false)?;
        while let Some(at) = listing.left.pop() {
            // A transaction is one command; between its commands others are served.
            if self.shared.work.slice_is_over() && self.staged.is_none() {
                listing.left.push(at);
                self.unfinished = Some(Blocked::Listing(listing));
                return Ok(());
            }
            self.shared.work.spend(WORK_READ);
            // One that came since then in place of another is listed as well.
            if let Some(card) = self.shared.roster.card(at).map(|card| &*card)
                && filter.fits(card)
            {
                listing.text += &self.client_line(at);
            }
        }
        self.verbatim(&listing.text)
    }

    fn kill_clients(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let me = self.client.conn;
        let by_address = args.len() == 3;
        let filter = match by_address {
            true => Filter { remote: Some(args.at(2)), ..Filter::default() },
            false => Filter::read(args, 2, me, true)?,
        };
        let all = self.shared.roster.all();
        let found: Vec<ConnId> =
            all.into_iter().filter(|(_, card)| filter.fits(card)).map(|(_, card)| card.conn).collect();
        self.shared.work.spend(self.shared.clients * (WORK_COMMAND / 4));
        for conn in &found {
            if *conn == me {
                // It is still told how many there were.
                self.client.closing = true;
            } else {
                self.shared.killed.push(*conn);
            }
        }
        match by_address {
            true if found.is_empty() => Err("ERR No such client".into()),
            true => self.ok(),
            false => self.integer(i64::try_from(found.len()).unwrap_or(i64::MAX)),
        }
    }

    fn set_info(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let place = match args.at(2) {
            name if is(name, "lib-name") => 0,
            version if is(version, "lib-ver") => 1,
            other => {
                let other = String::from_utf8_lossy(other.get(..128).unwrap_or(other)).into_owned();
                return Err(format!("ERR Unrecognized option '{other}'").into());
            }
        };
        check_name(args.at(3)).map_err(|_| {
            let what = ["lib-name", "lib-ver"][place];
            Fail::from(format!("ERR {what} cannot contain spaces, newlines or special characters."))
        })?;
        self.card()?.library[place] = args.at(3).to_vec();
        self.ok()
    }

    /// What a connection is after RESET: nameless, as it came.
    pub(super) fn reset_card(&mut self) {
        if let Some(card) = self.shared.roster.card(self.client.card) {
            card.name.clear();
            card.no_evict = false;
            card.no_touch = false;
        }
    }
}
