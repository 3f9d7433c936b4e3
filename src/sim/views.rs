//! Views of either node while everything goes on: opened, read and closed during streams, copies, takeovers and deaths of the other
//! one, and the rule that a view shows its moment and nothing else for as long as it is open (I-47).

use super::blocks::volume_model;
use super::checker::{Items, model};
use super::operator::Purpose;
use super::options::{Mutation, Trouble};
use super::world::World;
use crate::base::{ConnId, Fault, FileId, JournalKind, Now, Prng, Seq};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, ViewOrder};
use crate::engine::view::{RespConfig, View, ViewBlocks, ViewOf};
use crate::engine::{ClientDoor, ClientEffect, ClientEvent, Engine};
use crate::format::dptr::DptrKind;
use crate::store::memory::moment::MemoryMoment;
use crate::store::{StoreError, StoreSnapshot as _};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The lives with views, by their seeds' remainder of 21; two of these have volumes.
const VIEWED: [u64; 3] = [1, 9, 15];
/// Views that are open at once.
const OPEN_MAX: usize = 3;
/// The one client of a view.
const CLIENT: ConnId = ConnId(1);
/// EROFS: these views are read only.
const READ_ONLY: Fault = Fault::Errno(30);

/// Who opens views.
#[derive(Debug)]
pub(super) struct Viewer {
    prng: Prng,
    asked: Option<Asked>,
    open: Vec<Opened>,
}

/// A view that a node was asked for.
#[derive(Debug)]
struct Asked {
    node: usize,
    life: u64,
    /// So many commands had been told ok.
    acked: usize,
    /// What it has to show, once the node said that.
    at_least: Option<[Seq; 2]>,
}

/// An open view, and what it has to show.
#[derive(Debug)]
struct Opened {
    node: usize,
    life: u64,
    moment: MemoryMoment,
    view: View<MemoryMoment, Blocks>,
    items: BTreeMap<u64, Items>,
    volumes: BTreeMap<FileId, Vec<u8>>,
}

/// Volumes of a moment.
#[derive(Debug)]
struct Blocks(MemoryMoment);

impl ViewBlocks for Blocks {
    fn read(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
        self.0.volume_bytes(file, offset, len)
    }

    fn write(&mut self, _: FileId, _: u64, _: &[u8]) -> Result<(), Fault> {
        Err(READ_ONLY)
    }

    fn zero(&mut self, _: FileId, _: u64, _: u64) -> Result<(), Fault> {
        Err(READ_ONLY)
    }

    fn allocation(&mut self, _: FileId, _: u64, len: u64) -> Result<Vec<(u64, bool)>, Fault> {
        Ok(vec![(len, false)])
    }
}

impl Viewer {
    /// Views of a run are opened or not by its seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { prng: Prng::new(seed ^ 0x71e3), asked: None, open: Vec::new() }
    }
}

impl Opened {
    /// What the door says to a command.
    fn answer(&mut self, now: Now, command: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.view.input(now, ClientEvent::Bytes { conn: CLIENT, bytes });
        let mut said = Vec::new();
        loop {
            self.view.pump(now);
            let before = said.len();
            while let Some(effect) = self.view.output() {
                if let ClientEffect::Send { bytes, .. } = effect {
                    said.extend_from_slice(&bytes);
                    self.view.input(now, ClientEvent::Sent { conn: CLIENT });
                }
            }
            if said.len() == before {
                return said;
            }
        }
    }

    /// How what it shows of a file of items differs from its moment.
    fn wrong_items(&mut self, now: Now, file: FileId, chosen: u64) -> Result<Option<String>, StoreError> {
        let Some(info) = self.moment.namespace().file(file) else { return Ok(None) };
        let (key, generation) = (info.key.clone(), info.dptr.generation);
        if key.is_empty() || info.dptr.kind != DptrKind::Records {
            return Ok(None);
        }
        let found = self.moment.scan(file, generation, None, usize::MAX, true)?;
        let found: Items = found.into_iter().map(|(id, value)| (id.to_vec(), value.to_vec())).collect();
        let nothing = Items::new();
        let truth = self.items.get(&file.0).unwrap_or(&nothing);
        if found != *truth {
            return Ok(Some(format!("{} items of {key}, and the moment had {}", found.len(), truth.len())));
        }
        let at = usize::try_from(chosen).unwrap_or(0) % (truth.len() + 1);
        let (id, value) = match truth.iter().nth(at) {
            Some((id, value)) => (id.clone(), Some(value.clone())),
            None => (b"nobody".to_vec(), None),
        };
        let wanted = match value {
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), &value[..], b"\r\n"].concat(),
            None => b"$-1\r\n".to_vec(),
        };
        let said = self.answer(now, &[b"GET", &[key.as_bytes(), b",", &id].concat()]);
        let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let text =
            || format!("{:?} of {key},{}, and the moment had {:?}", shown(&said), shown(&id), shown(&wanted));
        Ok((said != wanted).then(text))
    }

    /// How what it shows of a volume differs from its moment. What was rotten it may refuse.
    fn wrong_blocks(&self, file: FileId) -> Option<String> {
        let truth = self.volumes.get(&file)?;
        let block = |n: usize| self.moment.volume_bytes(file, n as u64 * 4096, 4096);
        let differs =
            truth.chunks(4096).enumerate().find(|(n, held)| block(*n).is_ok_and(|found| found != *held));
        differs.map(|(n, _)| format!("another block {n} of volume {file} than the moment had"))
    }
}

impl World {
    /// Views are opened, looked at and closed.
    pub(super) fn views_go_on(&mut self) {
        // Where another rule is broken on purpose, the checker of that one has to notice.
        let own = matches!(self.options.mutation, None | Some(Mutation::LoseKept | Mutation::StirView));
        // The model of a moment knows no checksums: what is rotten shows in it.
        let rot = self.options.has(Trouble::Rot);
        // What changes during a pause is in another journal, until it is copied.
        let apart = self.operator.paused_ever;
        if !own || rot || apart || !VIEWED.contains(&(self.options.seed % 21)) {
            return;
        }
        self.views_of_the_dead();
        self.hold_view();
        self.check_views();
        if self.viewer.prng.percent(10) && !self.viewer.open.is_empty() {
            let at = self.viewer.prng.below(self.viewer.open.len() as u64);
            self.viewer.open.remove(usize::try_from(at).unwrap_or(0));
            self.trace.sometimes("a view was closed");
        }
        let n = usize::from(self.viewer.prng.percent(50));
        let busy = self.viewer.asked.is_some() || self.viewer.open.len() >= OPEN_MAX;
        if busy || !self.viewer.prng.percent(30) || !self.nodes[n].engine.as_ref().is_some_and(Engine::is_up)
        {
            return;
        }
        let (life, acked) = (self.nodes[n].life, self.check.acked.len());
        self.viewer.asked = Some(Asked { node: n, life, acked, at_least: None });
        self.ask(n, AdminRequest::ViewOpen(ViewOrder::default()), Purpose::View);
    }

    /// A view ends with the process that has it.
    fn views_of_the_dead(&mut self) {
        let lives =
            |node: usize, life: u64| self.nodes[node].engine.is_some() && self.nodes[node].life == life;
        self.viewer.open.retain(|view| lives(view.node, view.life));
        self.viewer.asked.take_if(|asked| !lives(asked.node, asked.life));
    }

    /// The node says what a view has to show, or no.
    pub(super) fn view_answer(&mut self, n: usize, reply: AdminReply) {
        let life = self.nodes[n].life;
        let Some(asked) = self.viewer.asked.as_mut().filter(|asked| (asked.node, asked.life) == (n, life))
        else {
            return;
        };
        match reply {
            AdminReply::Ok { value: AdminAnswer::View(view) } => {
                asked.at_least = Some([Seq(view.seq), Seq(view.local_seq)]);
            }
            _ => self.viewer.asked = None,
        }
        self.hold_view();
    }

    /// The moment is held as soon as the store shows enough.
    fn hold_view(&mut self) {
        let Some(&Asked { node, life, acked, at_least: Some(at_least) }) = self.viewer.asked.as_ref() else {
            return;
        };
        let store = &self.nodes[node].store;
        let there = store.applied().iter().zip(&at_least).all(|(shown, wanted)| shown >= wanted);
        let Some(moment) = there.then(|| store.moment()).flatten() else { return };
        self.viewer.asked = None;
        let log = || self.nodes[node].log.iter().map(|(_, batch)| batch);
        let files = moment.namespace().files().filter(|(_, info)| info.dptr.kind == DptrKind::Blocks);
        let bytes = |file, blocks: u64| {
            volume_model(node, file, (0, usize::try_from(blocks * 4096).unwrap_or(0)), log())
        };
        let volumes = files.map(|(id, info)| (id, bytes(id, info.dptr.blocks))).collect();
        let items = model(node, log());
        if self.options.mutation == Some(Mutation::LoseKept) {
            moment.kept().lose();
        }
        self.check_shown(node, acked, &moment);
        let of = ViewOf {
            applied: moment.applied(),
            epoch: 0,
            namespace: moment.namespace().clone(),
            items: moment.clone(),
            blocks: Blocks(moment.clone()),
            writable: false,
        };
        let config = RespConfig {
            default_file: None,
            password: None,
            version: String::new(),
            tcp_port: 0,
            run: self.options.seed,
        };
        let mut view = View::new(of, config);
        let now = self.now_at(node);
        view.input(now, ClientEvent::Opened { conn: CLIENT, door: ClientDoor::Items { trusted: true } });
        view.pump(now);
        while view.output().is_some() {}
        self.trace.event("view", node as u64, moment.applied()[0].0, || {
            format!("node {node}: {:?}", moment.applied())
        });
        self.trace.sometimes("a view was opened");
        self.viewer.open.push(Opened { node, life, moment, view, items, volumes });
    }

    /// A view of a primary shows all that was answered before it was asked for.
    fn check_shown(&mut self, n: usize, acked: usize, moment: &MemoryMoment) {
        let truth = &self.check.nodes[n].journals[JournalKind::Replicated.index()];
        let applied = moment.applied()[JournalKind::Replicated.index()];
        let before = self.check.acked.iter().take(acked).filter(|acked| acked.place.space == 0);
        let missing = before
            .filter(|_| self.check.is_primary(n))
            .find(|acked| acked.place.seq > applied.0 && truth.holds(acked.place.chain));
        if let Some(missing) = missing {
            let text = format!(
                "a view of node {n} at entry {applied} lacks entry {}, which was answered before it was asked for",
                missing.place.seq
            );
            self.check.fail("I-47", text);
        }
    }

    /// Every open view shows its moment (I-47).
    fn check_views(&mut self) {
        let mut open = std::mem::take(&mut self.viewer.open);
        for view in &mut open {
            let (n, now) = (view.node, self.now_at(view.node));
            let stirred = self.options.mutation == Some(Mutation::StirView);
            if stirred && self.nodes[n].store.applied() != view.moment.applied() {
                // The newest state stands where the moment was.
                if let Some(newest) = self.nodes[n].store.moment() {
                    (self.mutated, view.moment) = (true, newest);
                }
            }
            self.mutated |= view.moment.kept().has_lost();
            let files: Vec<FileId> = view.moment.namespace().files().map(|(id, _)| id).collect();
            for file in files {
                let chosen = self.viewer.prng.below(1 << 20);
                let wrong = match view.wrong_items(now, file, chosen) {
                    Ok(wrong) => wrong.or_else(|| view.wrong_blocks(file)),
                    Err(error) => return self.check.fail("driver", format!("a view of node {n}: {error}")),
                };
                if let Some(wrong) = wrong {
                    let at = view.moment.applied();
                    return self.check.fail("I-47", format!("a view of node {n} at {at:?} shows {wrong}"));
                }
            }
            if self.nodes[n].store.applied() != view.moment.applied() {
                self.trace.sometimes("a view showed a moment that its node had left");
            }
            if self.nodes[n].store.copied().is_some_and(|copied| copied.is_under_way()) {
                self.trace.sometimes("a view went on while its node was given a copy");
            }
        }
        self.viewer.open = open;
    }
}
