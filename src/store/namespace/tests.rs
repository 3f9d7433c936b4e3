//! What the namespace promises: names, routes, copies, and that the two journals commute.

use super::*;
use crate::base::Prng;
use crate::store::testkit::{new_file, random_change};

const A: Ordinal = Ordinal(0);
const B: Ordinal = Ordinal(1);

fn run(ns: &mut Namespace, node: Ordinal, change: &Change) -> Outcome {
    let mut all = Outcome::default();
    for entry in &change.entries {
        let out = ns.apply(node, change.journal, &entry.entry()).unwrap();
        all.renamed.extend(out.renamed);
        all.moved.extend(out.moved);
        all.dropped.extend(out.dropped);
        all.ignored |= out.ignored;
    }
    all
}

fn make(
    ns: &mut Namespace,
    node: Ordinal,
    change: impl FnOnce(&Namespace) -> Result<Change, NamespaceError>,
) -> Outcome {
    let change = change(ns).unwrap();
    run(ns, node, &change)
}

/// Account `app` with `orders` (L) and `notes` (no flag).
fn sample() -> Namespace {
    let mut ns = Namespace::new();
    make(&mut ns, A, |ns| ns.create_account("app", Flags::NONE, A));
    make(&mut ns, A, |ns| ns.create_file(&new_file("app", "orders", Flags::L), A));
    make(&mut ns, A, |ns| ns.create_file(&new_file("app", "notes", Flags::NONE), A));
    ns
}

fn id(ns: &Namespace, key: &str) -> FileId {
    ns.resolve(key.as_bytes()).unwrap_or_else(|| panic!("{key} exists"))
}

#[test]
fn a_new_database_holds_the_system_account_only() {
    let ns = Namespace::new();
    assert_eq!(ns.account_id("dm"), Some(SYSTEM_ACCOUNT));
    assert!(!ns.account_is_replicated(SYSTEM_ACCOUNT));
    assert_eq!((ns.accounts().count(), ns.files().count()), (1, 0));
    assert_eq!((ns.next_id(A), ns.next_id(B)), (FileId(2), FileId(3)));
}

#[test]
fn files_are_found_by_account_and_name_and_know_their_journal() {
    let ns = sample();
    let (orders, notes) = (id(&ns, "app,orders"), id(&ns, "app,notes"));
    assert_eq!(ns.file(orders).unwrap().journal, JournalKind::Replicated);
    assert_eq!(ns.file(notes).unwrap().journal, JournalKind::Local);
    assert!(ns.is_replicated(orders) && !ns.is_replicated(notes));
    assert!(ns.account_is_replicated(ns.account_id("app").unwrap()));
    assert_eq!(ns.resolve(b"app,nothing"), None);
}

#[test]
fn the_first_replicated_file_takes_its_account_along() {
    let mut ns = Namespace::new();
    make(&mut ns, A, |ns| ns.create_account("app", Flags::NONE, A));
    let first = ns.create_file(&new_file("app", "a", Flags::L), A).unwrap();
    let kinds: Vec<_> = first.entries.iter().map(|e| e.kind).collect();
    assert_eq!((kinds, first.moves), (vec![EntryKind::AccountCreate, EntryKind::FileCreate], true));
    run(&mut ns, A, &first);
    let second = ns.create_file(&new_file("app", "b", Flags::L), A).unwrap();
    assert_eq!((second.entries.len(), second.moves), (1, false));
    let mut peer = Namespace::new();
    run(&mut peer, B, &first);
    assert!(peer.is_replicated(id(&peer, "app,a")));
}

#[test]
fn files_inherit_their_accounts_flags_when_they_are_created_and_only_then() {
    let mut ns = Namespace::new();
    make(&mut ns, A, |ns| ns.create_account("app", Flags::L, A));
    let inherits = NewFile { flags: None, ..new_file("app", "a", Flags::NONE) };
    make(&mut ns, A, |ns| ns.create_file(&inherits, A));
    assert_eq!(ns.file(id(&ns, "app,a")).unwrap().dptr.flags, Flags::L);
    make(&mut ns, A, |ns| ns.change_account_flags("app", Flags::NONE, Flags::L));
    assert!(ns.is_replicated(id(&ns, "app,a")), "it keeps its own flag");
}

#[test]
fn l_beside_x_or_y_is_refused_and_says_what_to_clear() {
    let mut ns = sample();
    make(&mut ns, A, |ns| ns.create_file(&new_file("app", "scratch", Flags::X), A));
    let scratch = id(&ns, "app,scratch");
    let text = ns.change_file_flags(scratch, Flags::L, Flags::NONE).unwrap_err().to_string();
    assert!(text.contains("app,scratch") && text.contains("clear X and Y first"), "{text}");
    let orders = id(&ns, "app,orders");
    let text = ns.change_file_flags(orders, Flags::Y, Flags::NONE).unwrap_err().to_string();
    assert!(text.contains("clear L first"), "{text}");
    assert!(ns.create_account("x", Flags::L.with(Flags::X), A).is_err());
    assert!(ns.change_file_flags(scratch, Flags::L, Flags::X).is_ok(), "both in one change");
}

#[test]
fn l_turned_on_makes_a_copy_due_until_it_ends_and_drops_what_the_standby_had() {
    let mut ns = sample();
    let notes = id(&ns, "app,notes");
    let on = ns.change_file_flags(notes, Flags::L, Flags::NONE).unwrap();
    assert_eq!((on.journal, on.moves), (JournalKind::Replicated, true));
    assert_eq!(run(&mut ns, A, &on).moved, vec![notes]);
    assert_eq!(ns.copies_due().collect::<Vec<_>>(), vec![notes]);
    let mut peer = Namespace::new();
    let begin = ns.begin_copy(notes, A).unwrap();
    run(&mut ns, A, &begin);
    run(&mut peer, B, &begin);
    assert_eq!(ns.file(notes).unwrap().dptr.generation, 0);
    assert_eq!(peer.file(notes).unwrap().dptr.generation, 1);
    assert_eq!(peer.file(notes).unwrap().dptr.state, FileState::Copying);
    assert_eq!(ns.copies_due().count(), 1, "a crash before the end starts it again");
    let end = ns.end_copy(notes).unwrap();
    run(&mut ns, A, &end);
    run(&mut peer, B, &end);
    assert_eq!((ns.copies_due().count(), peer.copies_due().count()), (0, 0));
    assert_eq!(id(&peer, "app,notes"), notes);
}

#[test]
fn clearing_grows_the_generation_of_each_node_by_itself() {
    let mut ns = sample();
    let orders = id(&ns, "app,orders");
    let out = make(&mut ns, A, |ns| ns.clear_file(orders));
    assert_eq!(out.dropped, vec![(orders, 0)]);
    assert_eq!(ns.file(orders).unwrap().dptr.generation, 1);
    // A standby that already dropped it once must drop it again, whatever generation the primary is at.
    let mut peer = sample();
    run(&mut peer, B, &ns.begin_copy(orders, A).unwrap());
    let out = run(&mut peer, B, &sample().clear_file(orders).unwrap());
    assert_eq!(out.dropped, vec![(orders, 1)]);
    assert_eq!(peer.file(orders).unwrap().dptr.generation, 2);
}

#[test]
fn a_replicated_file_takes_its_name_from_a_local_one_and_gives_it_back() {
    let mut standby = Namespace::new();
    make(&mut standby, B, |ns| ns.create_account("app", Flags::NONE, B));
    make(&mut standby, B, |ns| ns.create_file(&new_file("app", "orders", Flags::NONE), B));
    let (account, own) = (standby.account_id("app").unwrap(), id(&standby, "app,orders"));
    let mut primary = Namespace::new();
    make(&mut primary, A, |ns| ns.create_account("app", Flags::NONE, A));
    let create = primary.create_file(&new_file("app", "orders", Flags::L), A).unwrap();
    run(&mut primary, A, &create);
    let out = run(&mut standby, B, &create);
    let to = format!("app.local-{account}");
    let told = Renamed { id: account, kind: DptrKind::Account, from: "app".into(), to: to.clone() };
    assert!(out.renamed.contains(&told), "{:?}", out.renamed);
    assert_eq!(id(&standby, "app,orders"), id(&primary, "app,orders"));
    assert_eq!(id(&standby, &format!("{to},orders")), own);
    let out = run(&mut standby, B, &primary.delete_account("app").unwrap());
    assert_eq!(id(&standby, "app,orders"), own, "the name is free again");
    assert!(out.renamed.iter().any(|r| r.to == "app"), "{:?}", out.renamed);
}

#[test]
fn dm_is_replicated_only_when_asked_also_when_all_is_logged() {
    let mut ns = Namespace::new();
    make(&mut ns, A, |ns| ns.set_logging(LoggingMode::All));
    make(&mut ns, A, |ns| ns.create_file(&new_file("dm", "users", Flags::NONE), A));
    let users = id(&ns, "dm,users");
    assert!(!ns.is_replicated(users));
    let refused = ns.change_file_flags(users, Flags::L, Flags::NONE).unwrap_err();
    assert_eq!(refused, NamespaceError::SystemNotReplicated { name: "dm,users".into() });
    make(&mut ns, A, |ns| ns.change_account_flags("dm", Flags::L, Flags::NONE));
    assert!(ns.is_replicated(users));
    assert_eq!(ns.copies_due().collect::<Vec<_>>(), vec![users]);
    assert!(ns.delete_account("dm").is_err() && ns.rename_account("dm", "x").is_err());
    assert!(ns.create_account("dm", Flags::NONE, A).is_err());
}

#[test]
fn a_pause_sends_updates_to_the_local_journal_and_marks_what_the_standby_misses() {
    let mut ns = sample();
    let orders = id(&ns, "app,orders");
    make(&mut ns, A, |ns| ns.set_logging(LoggingMode::Paused));
    let info = ns.file(orders).unwrap();
    assert_eq!((info.journal, info.replicated, info.needs_stale_mark()), (JournalKind::Local, true, true));
    let mark = ns.mark_stale(orders).unwrap();
    assert_eq!(mark.journal, JournalKind::Local);
    run(&mut ns, A, &mark);
    assert!(!ns.file(orders).unwrap().needs_stale_mark());
    make(&mut ns, A, |ns| ns.create_file(&new_file("app", "late", Flags::L), A));
    assert!(matches!(ns.delete_file(orders), Err(NamespaceError::Paused { .. })));
    assert!(matches!(ns.delete_account("app"), Err(NamespaceError::Paused { .. })));
    assert_eq!(ns.copies_due().count(), 0);
    make(&mut ns, A, |ns| ns.resume_logging());
    assert_eq!(ns.mode(), LoggingMode::DlOnly);
    assert_eq!(ns.copies_due().collect::<Vec<_>>(), vec![orders, id(&ns, "app,late")]);
}

#[test]
fn logging_all_makes_every_plain_file_replicated_and_due() {
    let mut ns = sample();
    let change = ns.set_logging(LoggingMode::All).unwrap();
    assert_eq!(change.journal, JournalKind::Replicated);
    run(&mut ns, A, &change);
    assert_eq!(ns.copies_due().collect::<Vec<_>>(), vec![id(&ns, "app,notes")]);
    assert!(ns.set_logging(LoggingMode::All).is_err());
}

#[test]
fn names_that_look_like_a_displaced_files_are_refused() {
    let ns = sample();
    for bad in ["x.local-7", "", "a,b"] {
        assert!(
            matches!(ns.create_account(bad, Flags::NONE, A), Err(NamespaceError::BadName { .. })),
            "{bad}"
        );
    }
    assert!(ns.create_account("x.local-seven", Flags::NONE, A).is_ok());
}

#[test]
fn a_block_file_needs_a_size_and_a_record_file_has_none() {
    let ns = sample();
    let huge = NewFile { kind: DptrKind::Blocks, blocks: (64 << 28) + 1, ..new_file("app", "v", Flags::L) };
    assert!(matches!(ns.create_file(&huge, A), Err(NamespaceError::Blocks { .. })));
    let blocks = NewFile { kind: DptrKind::Blocks, ..new_file("app", "v", Flags::L) };
    assert!(matches!(ns.create_file(&blocks, A), Err(NamespaceError::Blocks { .. })));
    assert!(ns.create_file(&NewFile { blocks: 8, ..blocks }, A).is_ok());
    let records = NewFile { blocks: 8, ..new_file("app", "r", Flags::L) };
    assert!(matches!(ns.create_file(&records, A), Err(NamespaceError::Blocks { .. })));
}

#[test]
fn a_deleted_account_does_not_come_back_through_the_other_journal() {
    let mut ns = Namespace::new();
    let create = ns.create_account("app", Flags::NONE, A).unwrap();
    let account = create.entries[0].file;
    let mut ahead = ns.clone();
    run(&mut ahead, A, &create);
    let file = ahead.create_file(&new_file("app", "a", Flags::NONE), A).unwrap();
    let delete = Entry { kind: EntryKind::AccountDelete, file: account, id: &[], value: &[] };
    ns.apply(A, JournalKind::Replicated, &delete).unwrap();
    assert!(run(&mut ns, A, &create).ignored);
    assert!(run(&mut ns, A, &file).ignored);
    assert_eq!((ns.accounts().count(), ns.files().count()), (1, 0));
}

#[test]
fn values_that_define_something_else_change_nothing() {
    let mut ns = sample();
    let before = ns.clone();
    let (orders, value) = (id(&ns, "app,orders"), account_dptr("x", Flags::NONE).encode());
    for kind in [EntryKind::FileCreate, EntryKind::FileChange, EntryKind::CopyBegin, EntryKind::Logging] {
        for value in [&value[..], &[9, 9], &[]] {
            let entry = Entry { kind, file: orders, id: &[], value };
            assert!(ns.apply(A, JournalKind::Replicated, &entry).is_err(), "{entry:?}");
        }
    }
    assert_eq!(ns, before);
}

fn reopened(ns: &Namespace) -> Namespace {
    let ids = ns.accounts().map(|(id, _)| id).chain(ns.files().map(|(id, _)| id));
    let records: Vec<(FileId, Vec<u8>)> = ids.map(|id| (id, ns.record(id).unwrap())).collect();
    let backwards = records.iter().rev().map(|(id, bytes)| (*id, bytes.as_slice()));
    Namespace::from_records(&ns.meta(), backwards).unwrap()
}

#[test]
fn any_history_reads_back_from_its_records_and_keeps_its_indexes() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut ns = Namespace::new();
        for _ in 0..40 {
            let node = if prng.percent(50) { A } else { B };
            let Ok(change) = random_change(&ns, &mut prng, node) else { continue };
            run(&mut ns, node, &change);
            for (id, info) in ns.files() {
                assert_eq!(ns.resolve(info.key.as_bytes()), Some(id), "seed {seed}");
            }
            assert_eq!(ns.by_key.len(), ns.files.len(), "seed {seed}");
            assert_eq!(ns.by_account.len(), ns.accounts.len(), "seed {seed}");
        }
        assert_eq!(reopened(&ns), ns, "seed {seed}");
    }
}

/// Applies the two journals in a random interleaving.
fn interleaved(prng: &mut Prng, journals: &[Vec<NewEntry>; 2]) -> Namespace {
    let mut ns = Namespace::new();
    let mut at = [0, 0];
    while at[0] < journals[0].len() || at[1] < journals[1].len() {
        let kind = if prng.percent(50) { JournalKind::Replicated } else { JournalKind::Local };
        let i = kind.index();
        if let Some(entry) = journals[i].get(at[i]) {
            ns.apply(B, kind, &entry.entry()).unwrap();
            at[i] += 1;
        }
    }
    ns
}

#[test]
fn a_standbys_own_definitions_and_its_primarys_commute() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let (mut primary, mut standby) = (Namespace::new(), Namespace::new());
        let mut journals = [Vec::new(), Vec::new()];
        for _ in 0..30 {
            let names = ["a", "b"];
            let mut pick = || names[usize::try_from(prng.below(2)).unwrap()];
            let (account, name) = (pick(), pick());
            // The primary's files are all DL, the standby's own all local: nothing moves between the journals.
            let own = prng.percent(50);
            let (ns, node, flags) =
                if own { (&mut standby, B, Flags::NONE) } else { (&mut primary, A, Flags::L) };
            let files: Vec<_> = ns.files().filter(|(id, _)| id.0 & 1 == u64::from(node.0)).collect();
            let file = files.first().map_or(FileId(9), |(id, _)| *id);
            let change = match prng.below(6) {
                0 => ns.create_account(account, flags, node),
                1 | 2 => ns.create_file(&new_file(account, name, flags), node),
                3 => ns.rename_file(file, name),
                4 => ns.delete_file(file),
                _ => ns.delete_account(account),
            };
            let Ok(change) = change else { continue };
            let theirs = change.entries.iter().any(|e| e.file.0 & 1 != u64::from(node.0));
            let journal = if own { JournalKind::Local } else { JournalKind::Replicated };
            if theirs || change.journal != journal {
                continue;
            }
            run(ns, node, &change);
            if !own {
                run(&mut standby, B, &change);
            }
            journals[journal.index()].extend(change.entries);
        }
        for _ in 0..4 {
            assert_eq!(interleaved(&mut prng, &journals), standby, "seed {seed}");
        }
    }
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let mut ns = Namespace::new();
    let apply = |ns: &mut Namespace, change: Change| {
        for entry in &change.entries {
            ns.apply(A, change.journal, &entry.entry()).unwrap();
        }
    };
    let change = ns.create_account("app", Flags::L, A).unwrap();
    apply(&mut ns, change);
    let disk = NewFile { kind: DptrKind::Blocks, blocks: 10, ..new_file("app", "disk", Flags::L) };
    let change = ns.create_file(&disk, A).unwrap();
    apply(&mut ns, change);
    let change = ns.create_file(&new_file("app", "items", Flags::L), A).unwrap();
    apply(&mut ns, change);
    let (disk, items) = (ns.resolve(b"app,disk").unwrap(), ns.resolve(b"app,items").unwrap());
    let renamed_before = ns.rename_file(disk, "drive").unwrap();
    let change = ns.grow_file(disk, 25).unwrap();
    apply(&mut ns, change);
    assert_eq!(ns.file(disk).unwrap().dptr.blocks, 25);
    let refused = ns.grow_file(disk, 24).unwrap_err().to_string();
    assert_eq!(refused, "resizing app,disk to 98,304 bytes: it has 102,400, and a volume never shrinks");
    assert!(matches!(ns.grow_file(disk, (64 << 28) + 1), Err(NamespaceError::Blocks { .. })));
    assert!(matches!(ns.grow_file(items, 5), Err(NamespaceError::Blocks { .. })));
    // A change that was planned before the growth carries the old size.
    apply(&mut ns, renamed_before);
    assert_eq!(ns.file(disk).unwrap().dptr.blocks, 25);
}
