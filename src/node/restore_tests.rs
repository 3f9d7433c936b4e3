//! A set into a node that is not running.

use super::*;
use crate::node::set::tests::{PAIR, sample, sample_alone, sample_since};
use crate::node::setup::{InitOptions, init};
use crate::store::volumes::Check;

fn node(dir: &Path, pair: PairId) -> Layout {
    let mut options = InitOptions::new(dir.join("n"), "c", "primary", "127.0.0.1:2001", "127.0.0.1:2000");
    options.pair_id = Some(pair);
    init(&options).unwrap()
}

fn of(bytes: Bytes) -> Sources {
    Sources::of(Source::Bytes(bytes))
}

fn source() -> Sources {
    of(sample("").bytes())
}

/// What the node holds: the items of `app,orders`, and the first bytes of the blocks of `app,disk`.
fn held(layout: &Layout) -> (Vec<(Bytes, Bytes)>, Vec<u8>) {
    let Opened { mut writer, reader, namespace, .. } =
        TreeStore::open(&layout.store(), &layout.volumes(), Ordinal(0)).unwrap();
    let file = |name: &[u8]| namespace.resolve(name).unwrap();
    let (orders, disk) = (file(b"app,orders"), file(b"app,disk"));
    let generation = namespace.file(orders).unwrap().dptr.generation;
    let items = reader.snapshot().scan(orders, generation, None, 100, true).unwrap();
    writer.check_volume(disk, 0, 4 * 4096, Check::Scrub).unwrap();
    assert!(writer.take_bad_places().is_empty());
    let blocks = writer.read_volume(disk, 0, 4 * 4096).unwrap();
    (items, blocks.iter().step_by(4096).copied().collect())
}

fn is_as_saved(layout: &Layout) {
    let item = |id: &'static str, value: &'static str| (Bytes::from(id), Bytes::from(value));
    let (items, blocks) = held(layout);
    assert_eq!(items, [item("k1", "uno"), item("k9", "nine")]);
    assert_eq!(blocks, [0, 5, 0, 0]);
    let control = setup::read_control(layout).unwrap();
    assert_eq!((control.role, control.epoch, control.pair), (Role::Standby, Epoch(4), PAIR));
    assert_eq!((control.origin.at.seq, control.origin.at.epoch), (Seq(7), Epoch(4)));
    assert!(control.peer.restored);
    let table: Vec<_> = control.table.iter().map(|mark| (mark.epoch.0, mark.first_seq.0)).collect();
    assert_eq!(table, [(2, 1), (4, 6)]);
    assert!(!layout.restoring().exists());
}

#[test]
fn a_set_becomes_the_content_of_an_empty_node_which_is_a_standby_then() {
    let dir = tempfile::tempdir().unwrap();
    let layout = node(dir.path(), PAIR);
    check(layout.dir(), &source()).unwrap();
    let mut read = 0;
    let restored = restore(layout.dir(), &source(), &mut |bytes| read = bytes).unwrap();
    assert_eq!((restored.trailer.end.seq, read), (Seq(7), source().sets[0].bytes().unwrap()));
    is_as_saved(&layout);
    // It has content now.
    let again = restore(layout.dir(), &source(), &mut |_| {}).unwrap_err();
    assert!(matches!(again, RestoreError::NotEmpty { .. }), "{again}");
    assert!(again.next().contains("--only"), "{}", again.next());
    is_as_saved(&layout);
}

#[test]
fn an_interrupted_restore_never_serves_and_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let layout = node(dir.path(), PAIR);
    let whole = sample("").bytes();
    // The end is there, so it begins; what is damaged is found on the way.
    let mut bad = whole.to_vec();
    let at = whole.len() / 2;
    bad[at] ^= 1;
    let error = restore(layout.dir(), &of(bad.into()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, RestoreError::Set(SetError::Damaged { .. })), "{error}");
    assert!(matches!(check_finished(&layout), Err(SetupError::Restoring { .. })));
    let error = crate::node::serve::serve(layout.dir(), Default::default()).unwrap_err();
    assert!(error.to_string().contains("a restore into it is not finished"), "{error}");
    assert!(error.next().contains("hot-backup restore"), "{}", error.next());
    restore(layout.dir(), &source(), &mut |_| {}).unwrap();
    is_as_saved(&layout);
    // It ended between its last two steps.
    replace(&layout, OwnName::Restoring, b"x").unwrap();
    restore(layout.dir(), &source(), &mut |_| {}).unwrap();
    is_as_saved(&layout);
}

#[test]
fn nothing_is_changed_by_a_set_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let layout = node(dir.path(), PAIR);
    let before = setup::read_control(&layout).unwrap();
    let told = |source: Sources| restore(layout.dir(), &source, &mut |_| {}).unwrap_err();
    let cut = sample("").bytes();
    let cut = cut.slice(..cut.len() - 1);
    assert!(told(of(cut)).to_string().contains("it is no save"));
    let error = told(of(Bytes::from_static(b"no set")));
    assert!(error.to_string().contains("it is not a save set"), "{error}");
    let error = told(Sources::of(Source::of(&dir.path().join("missing"))));
    assert!(error.to_string().contains("missing"), "{error}");
    let mut partial = sample("elsewhere");
    partial.steps.retain(|step| matches!(step, crate::node::set::tests::Step::Batch(_)));
    let error = told(of(partial.bytes()));
    assert!(matches!(error, RestoreError::Partial { .. }), "{error}");
    let held = lock(&layout).unwrap();
    assert!(told(source()).next().contains("--only"));
    drop(held);
    assert_eq!(setup::read_control(&layout).unwrap(), before);
    assert!(!layout.restoring().exists());
    let other = tempfile::tempdir().unwrap();
    let layout = node(other.path(), PairId([1; 16]));
    let error = restore(layout.dir(), &source(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, RestoreError::OtherPair { .. }), "{error}");
    assert!(error.next().contains(&PAIR.to_string()), "{}", error.next());
}

#[test]
fn a_set_is_laid_out_to_look_items_up_in_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let names = || std::fs::read_dir(dir.path()).unwrap().count();
    let sample = sample("");
    let unpacked = unpack(&source(), dir.path(), Some(sample.orders), &mut |_| {}).unwrap();
    assert_eq!(unpacked.item(sample.orders, b"k9").unwrap(), Some(Bytes::from("nine")));
    assert_eq!(unpacked.item(sample.orders, b"k2").unwrap(), None);
    let ids: Vec<_> = unpacked.items(sample.orders, b"", 10).unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["k1", "k9"]);
    assert_eq!(unpacked.namespace().file(sample.disk).unwrap().key, "app,disk");
    assert_eq!(names(), 1);
    drop(unpacked);
    assert_eq!(names(), 0);
    let mut bad = sample.bytes().to_vec();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    assert!(unpack(&of(bad.into()), dir.path(), None, &mut |_| {}).is_err());
    assert_eq!(names(), 0);
}

fn chain() -> Sources {
    let sets = [sample("").bytes(), sample_since().bytes()];
    let sets = sets.into_iter().map(Source::Bytes).collect();
    Sources { sets, past: Vec::new(), until: Until::End, alone: true }
}

#[test]
fn a_set_and_one_since_it_become_the_state_at_the_end_of_the_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let layout = node(dir.path(), PAIR);
    let restored = restore(layout.dir(), &chain(), &mut |_| {}).unwrap();
    assert_eq!((restored.end.seq, restored.end.epoch), (Seq(9), Epoch(4)));
    let (items, blocks) = held(&layout);
    assert_eq!(items, [(Bytes::from("k1"), Bytes::from("eins"))]);
    assert_eq!(blocks, [0, 5, 0, 0]);
    let control = setup::read_control(&layout).unwrap();
    assert_eq!((control.origin.at.seq, control.epoch), (Seq(9), Epoch(4)));
    // To look things up in, too.
    let sample = sample("");
    let unpacked = unpack(&chain(), dir.path(), None, &mut |_| {}).unwrap();
    assert_eq!(unpacked.item(sample.orders, b"k1").unwrap(), Some(Bytes::from("eins")));
    assert_eq!(unpacked.item(sample.orders, b"k9").unwrap(), None);
}

#[test]
fn sets_that_do_not_continue_each_other_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let layout = node(dir.path(), PAIR);
    let before = setup::read_control(&layout).unwrap();
    let [full, since] = <[Source; 2]>::try_from(chain().sets).unwrap();
    for sets in [vec![since.clone()], vec![since.clone(), full.clone()], vec![full.clone(), full], vec![]] {
        let sources = Sources { sets, ..chain() };
        let error = restore(layout.dir(), &sources, &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, RestoreError::Set(SetError::Chain { .. }) | RestoreError::Nothing),
            "{error}"
        );
        assert!(!layout.restoring().exists());
    }
    assert_eq!(setup::read_control(&layout).unwrap(), before);
}

/// What the node has alone: names, flags and items.
fn alone(layout: &Layout) -> Vec<(String, String, usize)> {
    let Opened { reader, namespace, writer: _writer, .. } =
        TreeStore::open(&layout.store(), &layout.volumes(), Ordinal(0)).unwrap();
    let own = namespace.files().filter(|(_, info)| !info.replicated);
    let row = |(id, info): (FileId, &FileInfo)| {
        let items = reader.snapshot().scan(id, info.dptr.generation, None, 100, true).unwrap();
        (info.key.clone(), info.dptr.flags.to_string(), items.len())
    };
    own.map(row).collect()
}

#[test]
fn what_the_saved_node_had_alone_comes_back_with_it_once_however_often_the_restore_is_begun() {
    let row = |name: &str, flags: &str, items| (name.to_owned(), flags.to_owned(), items);
    let dir = tempfile::tempdir().unwrap();
    let layout = node(dir.path(), PAIR);
    let bytes = sample_alone().bytes();
    // It ends in the last block but the trailer: what the node has alone is there by half.
    let mut bad = bytes.to_vec();
    let at = bytes.windows(5).position(|window| window == b"alone").unwrap();
    bad[at] ^= 1;
    restore(layout.dir(), &of(bad.into()), &mut |_| {}).unwrap_err();
    for _ in 0..2 {
        restore(layout.dir(), &of(bytes.clone()), &mut |_| {}).unwrap();
        is_as_saved(&layout);
        assert_eq!(alone(&layout), [row("own,list", "T", 2), row("app,views", "Y", 0)]);
        replace(&layout, OwnName::Restoring, b"x").unwrap();
    }
    // Not where only what is replicated is wanted.
    let sources = Sources { alone: false, ..of(bytes.clone()) };
    restore(layout.dir(), &sources, &mut |_| {}).unwrap();
    is_as_saved(&layout);
    assert_eq!(alone(&layout), []);
    let unpacked = unpack(&of(bytes), dir.path(), None, &mut |_| {}).unwrap();
    let (list, info) = unpacked.namespace().files().find(|(_, info)| info.key == "own,list").unwrap();
    assert!(unpacked.has_content(info));
    assert_eq!(unpacked.item(list, b"n1").unwrap(), Some(Bytes::from("alone")));
    let views = unpacked.namespace().files().find(|(_, info)| info.key == "app,views").unwrap();
    assert!(!unpacked.has_content(views.1));
}
