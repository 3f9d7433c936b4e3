//! What the doors of a view may ask for, against a store in memory and blocks in memory.

use super::backend::ViewBackend;
use super::*;
use crate::base::{Ordinal, Prng};
use crate::doors::{Backend, BlockBackend, CommitWatermarks, CountOf, IfCold, Payload, Refusal, Update};
use crate::engine::test_kit;
use crate::format::dptr::{DptrKind, Flags};
use crate::store::namespace::NewFile;
use crate::store::{Fits, StoreError};
use std::collections::BTreeMap;

/// Items of one file.
#[derive(Debug)]
struct Items(BTreeMap<Vec<u8>, Bytes>);

impl StoreSnapshot for Items {
    fn applied(&self) -> [Seq; 2] {
        [Seq(7), Seq(2)]
    }

    fn get(&self, _: FileId, _: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(id).cloned())
    }

    fn scan(
        &self,
        _: FileId,
        _: u32,
        after: Option<&[u8]>,
        limit: usize,
        _: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let behind = self.0.iter().filter(|(id, _)| after.is_none_or(|after| id.as_slice() > after));
        Ok(behind.take(limit).map(|(id, value)| (Bytes::from(id.clone()), value.clone())).collect())
    }

    fn items_at_most(&self, _: FileId, _: u32) -> u64 {
        self.0.len() as u64
    }

    fn estimate(&self, _: FileId, _: u32, fits: Fits) -> Result<u64, StoreError> {
        Ok(self.0.keys().filter(|id| fits(id)).count() as u64)
    }
}

/// Blocks of one volume.
#[derive(Debug)]
struct Disk(Vec<u8>);

impl ViewBlocks for Disk {
    fn read(&mut self, _: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let at = usize::try_from(offset).unwrap();
        Ok(Bytes::copy_from_slice(&self.0[at..at + len]))
    }

    fn write(&mut self, _: FileId, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let at = usize::try_from(offset).unwrap();
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&mut self, _: FileId, _: u64, _: u64) -> Result<(), Fault> {
        Err(Fault::NoSpace)
    }

    fn allocation(&mut self, _: FileId, _: u64, len: u64) -> Result<Vec<(u64, bool)>, Fault> {
        Ok(vec![(len, false)])
    }
}

fn namespace() -> Namespace {
    let mut namespace = Namespace::new();
    let node = Ordinal(0);
    let mut apply = |change: crate::store::namespace::Change| {
        for entry in &change.entries {
            namespace.apply(node, change.journal, &entry.entry()).unwrap();
        }
        namespace.clone()
    };
    let now = apply(Namespace::new().create_account("app", Flags::L, node).unwrap());
    let new = |name, kind, blocks| NewFile { account: "app", name, kind, flags: None, blocks, ack: None };
    let now = apply(now.create_file(&new("orders", DptrKind::Records, 0), node).unwrap());
    apply(now.create_file(&new("disk", DptrKind::Blocks, 4), node).unwrap())
}

fn of(writable: bool) -> ViewOf<Items, Disk> {
    let items = (0..9).map(|n| (format!("{n}").into_bytes(), Bytes::from("old"))).collect();
    let (items, blocks) = (Items(items), Disk(vec![7; 16384]));
    ViewOf { applied: [Seq(7), Seq(2)], epoch: 3, namespace: namespace(), items, blocks, writable }
}

#[test]
fn items_are_the_moments_with_what_was_written_over_them_in_order() {
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let mut view = ViewBackend::new(of(true), 1);
        let file = view.resolve(b"app,orders").unwrap();
        let mut truth: BTreeMap<Vec<u8>, Bytes> = view_items(&mut view, file, 100);
        assert_eq!(truth.len(), 9);
        for _ in 0..30 {
            let id = format!("{}", prng.below(14)).into_bytes();
            if prng.percent(40) {
                view.update(&[Update::Delete { file, id: &id }]).unwrap();
                truth.remove(&id);
            } else {
                view.update(&[Update::Put { file, id: &id, value: b"new" }]).unwrap();
                truth.insert(id.clone(), Bytes::from("new"));
            }
            assert_eq!(view.read(file, &id, IfCold::Wait).unwrap(), (truth.get(&id).cloned(), None));
            let limit = usize::try_from(1 + prng.below(6)).unwrap();
            assert_eq!(view_items(&mut view, file, limit), truth, "seed {seed}, limit {limit}");
        }
    }
}

/// All items of a file, by scans of so many.
fn view_items(view: &mut ViewBackend<Items, Disk>, file: FileId, limit: usize) -> BTreeMap<Vec<u8>, Bytes> {
    let (mut all, mut after): (BTreeMap<Vec<u8>, Bytes>, Option<Bytes>) = (BTreeMap::new(), None);
    loop {
        let found = view.scan(file, after.as_deref(), limit, IfCold::Wait).unwrap();
        for id in found.ids {
            let value = view.read(file, &id, IfCold::Wait).unwrap().0.unwrap();
            assert!(all.insert(id.to_vec(), value).is_none(), "{id:?} came twice");
        }
        match found.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

#[test]
fn a_view_that_is_not_writable_refuses_every_change() {
    let mut view = ViewBackend::new(of(false), 1);
    let (items, disk) = (view.resolve(b"app,orders").unwrap(), view.volume_named(b"app/disk").unwrap());
    assert!(!disk.writable && disk.bytes == 16384);
    let put = [Update::Put { file: items, id: b"1", value: b"new" }];
    assert_eq!(view.update(&put), Err(Refusal::ReadOnly));
    assert_eq!(view.write_blocks(disk.file, 0, Payload::Borrowed(b"x")), Err(Refusal::ReadOnly));
    assert_eq!(view.zero_blocks(disk.file, 0, 4096, true), Err(Refusal::ReadOnly));
    assert_eq!(view.read(items, b"1", IfCold::Wait).unwrap().0, Some(Bytes::from("old")));
    assert_eq!(view.written(), 0);
}

#[test]
fn blocks_are_written_to_the_view_and_a_full_one_says_so() {
    let mut view = ViewBackend::new(of(true), 1);
    let file = view.volume_named(b"app/disk").unwrap().file;
    let wait = view.write_blocks(file, 4096, Payload::Borrowed(&[9; 10])).unwrap();
    let marks: CommitWatermarks = BlockBackend::watermarks(&view);
    assert!(marks.reached(wait), "nothing is waited for");
    assert_eq!(view.zero_blocks(file, 0, 4096, true), Err(Refusal::NoSpace));
    view.read_blocks(5, file, 4090, 20).unwrap();
    let answers = format!("{:?}", view.take_answers());
    let bytes = Bytes::from([vec![7; 6], vec![9; 10], vec![7; 4]].concat());
    assert!(answers.contains(&format!("{bytes:?}")), "{answers}");
    let records = view.record_files();
    assert_eq!(records.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["app,orders"]);
    assert!(matches!(view.resolve(b"app,disk"), Err(Refusal::NotRecords(_))));
    assert!(matches!(view.volume_named(b"app/orders"), Err(Refusal::NotBlocks(_))));
}

#[test]
fn what_a_view_holds_of_written_items_is_bounded_and_counted_back() {
    let mut view = ViewBackend::new(of(true), 1);
    let file = view.resolve(b"app,orders").unwrap();
    let value = vec![1; 10 << 20];
    for _ in 0..20 {
        view.update(&[Update::Put { file, id: b"same", value: &value }]).unwrap();
    }
    for n in 0..5 {
        view.update(&[Update::Put { file, id: format!("{n}").as_bytes(), value: &value }]).unwrap();
    }
    let refused = view.update(&[Update::Put { file, id: b"more", value: &value }]).unwrap_err();
    assert!(matches!(refused, Refusal::TooLarge { .. }), "{refused}");
    assert_eq!(view.estimate(file, CountOf::All, IfCold::Wait).unwrap(), 9);
}

#[test]
fn a_view_shows_what_was_answered_and_none_is_opened_of_a_node_that_answers_nobody() {
    use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest};
    let open = || AdminRequest::ViewOpen(crate::engine::admin::ViewOrder::default());
    let mut node = test_kit::Node::serving(test_kit::config(0));
    let AdminReply::Ok { value: AdminAnswer::View(view) } = node.asks(open()) else { panic!("no terms") };
    assert!(view.seq > 0, "{view:?}");
    assert_eq!(Seq(view.seq), node.engine.core.replicated().pace().durable);
    let mut asking = test_kit::Node::new(test_kit::config(0), crate::format::control::Role::Primary);
    asking.input(crate::engine::Event::Tick);
    let AdminReply::No { message, .. } = asking.asks(open()) else { panic!("it serves nobody") };
    assert!(message.contains("it does not serve"), "{message}");
}

#[test]
fn a_listing_is_what_a_read_command_answers_line_by_line() {
    let of = |query: &str| {
        let ViewOf { namespace, items, .. } = of(false);
        let lines = super::listing::listing(namespace, items, query.as_bytes())?;
        Ok::<_, String>(lines.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(of("GET app,orders,1").unwrap(), ["old"]);
    assert_eq!(of("MGET app,orders,1  app,orders,77").unwrap(), ["old", "(nil)"]);
    let mut keys = of("KEYS app,orders,*").unwrap();
    keys.sort();
    assert_eq!(keys, (0..9).map(|n| format!("app,orders,{n}")).collect::<Vec<_>>());
    assert_eq!(of("EXISTS app,orders,1 app,orders,2 app,orders,x").unwrap(), ["2"]);
    assert!(of("SET app,orders,1 x").unwrap_err().contains("READONLY"));
    assert!(of("NOSUCH").unwrap_err().contains("unknown command"));
    assert!(of("").is_err());
}
