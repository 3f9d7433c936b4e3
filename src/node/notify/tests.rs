use super::*;
use crate::engine::notices::Wants;
use target::Http;

fn hook(name: &str, floor: Severity) -> Target {
    let http = Http { url: "http://127.0.0.1:1/".to_owned(), token_file: None, ca_file: None };
    Target { name: name.to_owned(), wants: Wants { floor, quiet: None }, way: Way::Webhook(http) }
}

fn desk(dir: &std::path::Path, targets: Vec<Target>) -> Desk {
    Desk::open(&Layout::new(dir), "a", targets)
}

fn lasting(kind: &'static str, severity: Severity) -> Incident {
    Incident { severity, kind, text: format!("{kind}: because"), wall_ms: 5, lasts: true }
}

fn waiting(desk: &Desk, at: usize) -> Vec<(u64, bool)> {
    let state = desk.state();
    state.outboxes[at].letters().map(|letter| (letter.record.id, letter.record.is_open())).collect()
}

#[test]
fn what_waits_and_what_is_known_outlives_the_process_and_what_lasted_is_told_to_be_over() {
    let dir = tempfile::tempdir().unwrap();
    let targets = || vec![hook("ops", Severity::Warning), hook("boss", Severity::Critical)];
    let first = desk(dir.path(), targets());
    first.note(&lasting("peer-lost", Severity::Warning));
    first.note(&lasting("journal-no-space", Severity::Critical));
    first.ended("peer-lost", 9);
    first.ack(2, "ann");
    first.save();
    let again = desk(dir.path(), targets());
    // The one that lasted is closed by the start, and that is one message with its beginning.
    assert_eq!(waiting(&again, 0), [(1, false), (2, false)]);
    assert_eq!(waiting(&again, 1), [(2, false)]);
    again.note(&lasting("peer-stuck", Severity::Warning));
    assert_eq!(again.state().records.last(), 3);
    assert_eq!(again.state().records.get(2).unwrap().acked_by, "ann");
    // An entry that is no longer listed leaves nothing behind, a new one has nothing to tell of the past.
    again.save();
    let other = desk(dir.path(), vec![hook("new", Severity::Notice)]);
    assert_eq!(waiting(&other, 0), [(3, false)], "what the start closes is news");
}

#[test]
fn an_entry_that_takes_nothing_for_long_is_told_to_the_others_until_it_works() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path(), vec![hook("ops", Severity::Warning), hook("boss", Severity::Warning)]);
    desk.note(&lasting("peer-lost", Severity::Warning));
    let fails = |at: usize| {
        desk.conclude(at, &desk.0.targets[at], 1, Err("refused".to_owned()));
    };
    fails(0);
    assert_eq!(desk.state().records.last(), 1, "not at once");
    desk.state().outboxes[0].failing_since_ms = Some(wall_ms() - NOTIFY_FAILING_MS);
    fails(0);
    fails(0);
    let told = desk.state().records.get(2).cloned().unwrap();
    assert_eq!((told.code.as_str(), told.is_open()), ("notify-failed", true));
    assert!(told.what.contains("messages to ops"), "{told:?}");
    assert_eq!(waiting(&desk, 1), [(1, true), (2, true)]);
    desk.conclude(0, &desk.0.targets[0], 1, Ok(String::new()));
    assert!(!desk.state().records.get(2).unwrap().is_open());
    assert_eq!(desk.state().records.last(), 2);
    let view = desk.views();
    assert_eq!((view[0].delivered, view[0].failing_since_ms), (1, None));
}

#[test]
fn all_is_well_only_while_the_core_is_heard_and_nothing_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path(), Vec::new());
    assert!(desk.is_well(Severity::Warning));
    desk.note(&lasting("peer-lost", Severity::Warning));
    assert!(!desk.is_well(Severity::Warning) && desk.is_well(Severity::Critical));
    desk.ended("peer-lost", 9);
    assert!(desk.is_well(Severity::Warning));
    let late = Desk(Arc::new(Inner {
        dir: dir.path().to_owned(),
        node: "a".to_owned(),
        targets: Vec::new(),
        start: Instant::now().checked_sub(Duration::from_millis(PULSE_MS + 1000)).unwrap(),
        state: Mutex::new(State {
            records: Records::default(),
            outboxes: Vec::new(),
            failing: Vec::new(),
            dirty: false,
            stop: false,
            pulse: 0,
        }),
        changed: Condvar::new(),
        file: Mutex::new(Layout::new(dir.path()).own(OwnName::Records)),
    }));
    assert!(!late.is_well(Severity::Critical), "the core was not heard for long");
    late.pulse();
    assert!(late.is_well(Severity::Critical));
}

#[test]
fn a_file_that_cannot_be_replaced_holds_up_nothing_and_is_written_by_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let desk = desk(dir.path(), vec![hook("ops", Severity::Warning)]);
    // A directory in its place.
    std::fs::create_dir(dir.path().join("records")).unwrap();
    desk.note(&lasting("peer-lost", Severity::Warning));
    desk.save();
    assert_eq!(waiting(&desk, 0), [(1, true)]);
    std::fs::remove_dir(dir.path().join("records")).unwrap();
    desk.save();
    let kept = Kept::decode(&std::fs::read(dir.path().join("records")).unwrap()).unwrap();
    assert_eq!((kept.records.len(), kept.waiting[0].letters.len()), (1, 1));
}
