//! Proves the engine against a hostile world: thousands of whole lives of a pair, each from one seed, with every
//! rule checked at every step; and proves the checkers by breaking the rules on purpose.

use hot_backup::engine::SpoolKeep;
use hot_backup::sim::exhaustive::{
    Move, Victim, Walk, walk_move, walk_one_node, walk_pair, walk_switchover, walk_takeover,
};
use hot_backup::sim::walk_rewind::walk_rewind;
use hot_backup::sim::{
    HARMS, MUTATIONS, Mutation, Options, Outcome, SOMETIMES, SOMETIMES_UNDER_LEASES, SpoolTape, Trouble,
    Violation, run, scenario,
};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs made by `cargo test`. With `HB_SIM_SECONDS` those behind them are made, for so long.
const SEEDS: u64 = 5_000;
/// Each of so many runs is made twice and compared.
const TWICE: u64 = 64;
const THREADS: u64 = 2;

/// Lives that once broke a rule, or a checker, and what it was.
const BROKEN_ONCE: [(u64, &str); 11] = [
    (12756, "a view was held to a history without what had changed during a pause"),
    (1779, "a save that had met rot went on with what it had asked for before"),
    (4210, "a copy began where the journal had written a mark since it was looked at"),
    (7788, "a scrub of a node that is given a copy was held to the history that it had left"),
    (4754, "what the journal had let go of for want of room was missed in the save of a diverged node"),
    (7154, "a journal let go of a segment that no reel had, because a later one was on a reel"),
    (13884, "what was read for a copy was rotten"),
    (20618, "what a replaced primary had listed was missed again at the next takeover"),
    (21636, "rot that a crash had brought back was in the way of every copy"),
    (25256, "a node that had just left its history for a copy was taken for one that is whole"),
    (25563, "a save went on that had begun with a history that its node had left"),
];

/// Fails with everything that is needed to see it again.
fn must_hold(outcome: &Outcome) {
    if outcome.violation.is_some() {
        let told = run(outcome.options.clone(), 200);
        panic!("{}", told.report());
    }
}

/// Runs seeds from `first` on until `more` says no; gives the number of runs and the states reached.
fn sweep(first: u64, more: impl Fn(u64) -> bool + Sync) -> (u64, BTreeSet<&'static str>) {
    let next = AtomicU64::new(first);
    let reached = Mutex::new(BTreeSet::new());
    let work = || {
        let mut mine = BTreeSet::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !more(seed) {
                break;
            }
            let outcome = run(Options::from_seed(seed), 0);
            must_hold(&outcome);
            if seed.is_multiple_of(TWICE) {
                let again = run(Options::from_seed(seed), 0);
                assert_eq!(
                    outcome.digest, again.digest,
                    "I-61: seed {seed} runs differently the second time"
                );
            }
            mine.extend(outcome.reached);
        }
        reached.lock().unwrap().extend(mine);
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    (next.into_inner().saturating_sub(first + THREADS), reached.into_inner().unwrap())
}

#[test]
fn lives_that_once_broke_a_rule_break_none() {
    for (seed, what) in BROKEN_ONCE {
        println!("seed {seed}: once {what}");
        must_hold(&run(Options::from_seed(seed), 0));
    }
}

#[test]
fn lives_of_a_pair_break_no_rule() {
    let seconds = std::env::var("HB_SIM_SECONDS").ok().and_then(|s| s.parse().ok());
    let started = Instant::now();
    let (runs, reached) = match seconds {
        Some(seconds) => sweep(SEEDS, |_| started.elapsed() < Duration::from_secs(seconds)),
        None => sweep(0, |seed| seed < SEEDS),
    };
    let missed: Vec<_> = SOMETIMES.iter().filter(|name| !reached.contains(*name)).collect();
    println!("{runs} runs in {:.1} s; never reached: {missed:?}", started.elapsed().as_secs_f64());
    if runs >= SEEDS {
        assert!(missed.is_empty(), "never reached in {runs} runs: {missed:?}");
    }
}

#[test]
fn lives_of_a_pair_under_a_lease_never_have_two_nodes_that_acknowledge() {
    let mut reached = BTreeSet::new();
    for seed in 0..300 {
        let outcome = run(Options::leased(seed), 0);
        if outcome.violation.is_some() {
            panic!("{}", run(outcome.options.clone(), 200).report());
        }
        reached.extend(outcome.reached);
    }
    let missed: Vec<_> = SOMETIMES_UNDER_LEASES.iter().filter(|name| !reached.contains(*name)).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

/// Seeds until a run breaks a rule; the rule's number. Where only a secondary effect was noticed it looks on.
fn caught(mutation: Mutation) -> Option<(u64, &'static str)> {
    // What comes of reels only lives with reels show, and what volumes lose only those with volumes.
    let shows = |seed: &u64| {
        let spool = Options::from_seed(*seed).spool;
        match mutation {
            Mutation::ReplayReel => spool.is_some_and(|spool| spool.tape == SpoolTape::Only),
            Mutation::LoseKept => Options::from_seed(*seed).volumes,
            Mutation::ForgetSave => spool.is_some_and(|spool| spool.keep == SpoolKeep::OldestSave),
            _ => true,
        }
    };
    (1..40_000).filter(shows).take(2000).find_map(|seed| {
        let life = if mutation == Mutation::OutliveLease { Options::leased } else { Options::from_seed };
        let options = Options { mutation: Some(mutation), ..life(seed) };
        let rule = run(options, 0).violation?.invariant;
        (!secondary(mutation).contains(&rule)).then_some((seed, rule))
    })
}

/// What a mutation also does, before or without breaking its own rule: that proves nothing about the checker of that rule.
fn secondary(mutation: Mutation) -> &'static [&'static str] {
    match mutation {
        // The lie begins with the first control file after the pair is set up, most often one that keeps what the peer told.
        // Segments are released on the strength of it: a standby that restarts then knows from nowhere where its epoch
        // began, shares no epoch with its peer and needs a full copy, which nobody makes here.
        Mutation::LieControl => &["I-50"],
        // Without a compare after it the store differs from its journal at the end.
        Mutation::PlantItem => &["I-10"],
        _ => &[],
    }
}

#[test]
fn every_rule_broken_on_purpose_is_noticed_by_the_checker_of_that_rule() {
    for mutation in MUTATIONS {
        let expected: &[&str] = match mutation {
            Mutation::OkBeforeDurable => &["I-03"],
            Mutation::LieWritten => &["I-03", "I-10", "I-12"],
            Mutation::ApplyBeforeDurable => &["I-10"],
            // A batch that is never applied is a gap if another follows it, else a pair that never agrees.
            Mutation::SkipApply => &["I-10", "I-45", "I-50"],
            Mutation::DoubleApply => &["I-11"],
            // A compare may come before the end of the life.
            Mutation::SwapApply | Mutation::CorruptApply => &["I-10", "I-11", "I-40", "I-45"],
            Mutation::LieControl | Mutation::ForeignEpoch => &["I-20"],
            Mutation::KeepRound => &["I-10"],
            Mutation::RemoveEarly => &["I-06"],
            Mutation::LieAck | Mutation::LieDurable => &["I-12"],
            Mutation::UnderstateLoss => &["I-22"],
            Mutation::ReuseCut => &["I-06"],
            Mutation::LoseChunk | Mutation::ForgetRange | Mutation::CallEqual => &["I-10", "I-45"],
            Mutation::ShortChunk => &["I-44"],
            Mutation::LookLate | Mutation::PlantItem => &["I-45"],
            Mutation::DropRotten => &["I-46"],
            Mutation::LoseSaved | Mutation::TakeForSame => &["I-30"],
            Mutation::LoseKept | Mutation::StirView => &["I-47"],
            Mutation::ForgetDiverged => &["I-24"],
            Mutation::StaleRead => &["I-01"],
            Mutation::Storm => &["I-51"],
            Mutation::Overdraw => &["I-15"],
            Mutation::NeverConnect => &["I-50"],
            Mutation::CarryOn => &["I-16"],
            Mutation::GiveWay => &["I-14"],
            Mutation::GiveEarly | Mutation::ServeOn => &["I-25"],
            Mutation::SpoolLie => &["I-06"],
            Mutation::OutliveLease => &["I-27"],
            // The journal, or the directory, lets go of what is on no reel.
            Mutation::FlushLie => &["I-06", "I-38"],
            Mutation::ReplayReel => &["I-37"],
            Mutation::ForgetSave => &["I-36"],
        };
        match caught(mutation) {
            Some((seed, rule)) => {
                println!("{mutation:?}: {rule} at seed {seed}");
                assert!(expected.contains(&rule), "{mutation:?} at seed {seed} was noticed as {rule}");
            }
            None => panic!("{mutation:?} went unnoticed"),
        }
    }
}

#[test]
fn a_node_that_acknowledges_after_its_lease_is_noticed() {
    let rule = caught(Mutation::OutliveLease).map(|(_, rule)| rule);
    assert_eq!(rule, Some("I-27"));
}

#[test]
fn what_is_begun_after_its_clients_end_was_seen_is_noticed() {
    let rule = caught(Mutation::CarryOn).map(|(_, rule)| rule);
    assert_eq!(rule, Some("I-16"));
}

#[test]
fn a_view_that_loses_its_moment_is_noticed() {
    for mutation in [Mutation::LoseKept, Mutation::StirView] {
        let rule = caught(mutation).map(|(_, rule)| rule);
        assert_eq!(rule, Some("I-47"), "{mutation:?}");
    }
}

#[test]
fn a_look_at_another_moment_and_an_item_changed_behind_a_standbys_back_are_noticed() {
    for mutation in [Mutation::LookLate, Mutation::PlantItem] {
        let rule = caught(mutation).map(|(_, rule)| rule);
        assert_eq!(rule, Some("I-45"), "{mutation:?}");
    }
}

#[test]
fn what_was_found_once_does_not_come_back() {
    type Scene = (&'static str, fn() -> Option<Violation>);
    let all: [Scene; 21] = [
        ("a read of a volume that is answered when its node has left its history for a copy", || {
            run(Options { volumes: true, ..Options::from_seed(417) }, 0).violation
        }),
        ("a store that cannot look at a range for a compare", || run(Options::from_seed(2601), 0).violation),
        (
            "a copy of a volume into the journal that failed for rot, and is tried again long after that was mended",
            || run(Options { volumes: true, ..Options::from_seed(20097) }, 0).violation,
        ),
        ("a takeover after the old primary went on alone, in an epoch that its peer never heard of", || {
            run(Options { volumes: true, ..Options::from_seed(1118) }, 0).violation
        }),
        ("the quota took the segment in which the epoch began, and the control file knew of none", || {
            run(Options::from_seed(5258), 0).violation
        }),
        ("a stop of a standby whose store shows more than it may give it again", || {
            run(Options::from_seed(7950), 0).violation
        }),
        ("a primary that was killed cannot tell which of its entries its peer had", || {
            run(Options::from_seed(2258), 0).violation
        }),
        ("a flush that a primary answers after it was replaced", || {
            run(Options { volumes: true, ..Options::from_seed(1494) }, 0).violation
        }),
        (
            "one large write made the journal outgrow its quota, and nothing looked at it before the next segment",
            || run(Options::from_seed(3274), 0).violation,
        ),
        ("a full disk took what the standby had in memory alone, and nobody was told", || {
            run(Options::from_seed(4675), 0).violation
        }),
        (
            "a takeover that died after it had announced, and before it had applied, what no primary had on disk",
            || run(Options::from_seed(100_344), 0).violation,
        ),
        ("first segment released", scenario::restart_after_the_first_segment_was_released),
        ("store in the page cache", scenario::restart_with_a_store_that_is_only_in_the_page_cache),
        ("tail cut", scenario::death_right_after_a_tail_was_cut),
        ("diverged", scenario::restart_of_a_node_that_has_diverged),
        ("flush after a pause", scenario::flush_after_a_pause),
        ("flush after a restart", scenario::flush_after_a_restart_alone),
        ("set back for good", scenario::takeover_by_a_standby_that_was_set_back_for_good),
        (
            "set back and being caught up",
            scenario::takeover_by_a_standby_that_is_being_caught_up_after_it_was_set_back,
        ),
        ("an update while the peer is silent", scenario::update_while_the_peer_is_silent),
        (
            "a takeover that is interrupted after the standby showed what the primary lost",
            scenario::takeover_interrupted_before_its_epoch,
        ),
    ];
    for (name, scenario) in all {
        assert_eq!(scenario(), None, "{name}");
    }
}

#[test]
fn bits_that_turn_in_volumes_are_never_served_and_every_scrub_finds_them() {
    let (mut runs, mut reached) = (0, BTreeSet::new());
    for seed in (0..3000).step_by(3) {
        let options = Options::from_seed(seed);
        if !options.has(Trouble::Rot) {
            continue;
        }
        let outcome = run(options, 0);
        must_hold(&outcome);
        runs += 1;
        reached.extend(outcome.reached);
    }
    println!("{runs} lives with rot");
    assert!(
        runs > 100 && reached.contains("a scrub found rot") && reached.contains("rot was refused"),
        "{runs}"
    );
}

fn must_pass(walk: &Walk) {
    if let Some((place, violation)) = &walk.violation {
        panic!("{place}: {}: {}", violation.invariant, violation.text);
    }
}

#[test]
fn every_crash_point_and_every_remainder_of_a_write_keeps_what_was_told_ok() {
    // On a slow disk a second write goes out beside the first.
    let mut two_writes = 0;
    for (updates, disk_us) in [(1, 100), (2, 100), (3, 100), (4, 100), (2, 4000), (4, 4000)] {
        for at_once in [false, true] {
            let walk = walk_one_node(updates, at_once, disk_us);
            must_pass(&walk);
            println!(
                "{updates} updates, at once {at_once}, {disk_us} us: {} points, {} crashes",
                walk.points, walk.crashes
            );
            assert!(walk.crashes > 256, "a block under way has at least 256 remainders");
            two_writes += u32::from(walk.two_writes);
        }
    }
    assert!(two_writes > 0, "no walk had two writes under way");
}

#[test]
fn a_pair_keeps_every_durable_update_whoever_dies_at_whichever_event() {
    for victim in [Victim::Primary, Victim::Standby, Victim::Both, Victim::Takeover] {
        let walk = walk_pair(3, victim);
        must_pass(&walk);
        println!("{victim:?}: {} points", walk.points);
    }
}

#[test]
fn a_takeover_that_dies_at_any_event_is_done_or_not_done() {
    let walk = walk_takeover();
    must_pass(&walk);
    assert!(walk.points > 10, "a takeover takes more than {} events", walk.points);
}

#[test]
fn a_switchover_that_is_disturbed_at_any_event_leaves_one_primary_and_loses_nothing() {
    for (asked, harm) in [0, 1].into_iter().flat_map(|asked| HARMS.map(|harm| (asked, harm))) {
        let walk = walk_switchover(asked, harm);
        must_pass(&walk);
        println!("asked for on node {asked}, {harm:?}: {} points", walk.points);
        assert!(walk.points > 30, "a switchover takes more than {} events", walk.points);
    }
}

#[test]
fn a_rewind_that_is_disturbed_at_any_event_goes_on_and_loses_nothing_that_was_saved() {
    for harm in HARMS {
        let walk = walk_rewind(harm);
        must_pass(&walk);
        println!("{harm:?}: {} points", walk.points);
        assert!(walk.points > 60, "a rewind takes more than {} events", walk.points);
    }
}

#[test]
fn lives_with_switchovers_break_no_rule() {
    let (mut runs, mut reached) = (0, BTreeSet::new());
    for seed in 1..1500 {
        let options = Options::from_seed(seed);
        if !options.has(Trouble::Switchover) {
            continue;
        }
        let outcome = run(options, 0);
        must_hold(&outcome);
        runs += 1;
        reached.extend(outcome.reached);
    }
    println!("{runs} lives with switchovers");
    assert!(
        runs > 100
            && reached.contains("a switchover")
            && reached.contains("a switchover was given up")
            && reached.contains("a primary asked what became of its role"),
        "{runs}: {reached:?}"
    );
}

#[test]
fn a_file_that_moves_between_the_journals_shows_its_newest_update_whatever_a_store_falls_back_to() {
    for kind in [Move::Replicate, Move::Pause, Move::Resume] {
        let walk = walk_move(kind);
        must_pass(&walk);
        println!("{kind:?}: {} points, {} crashes", walk.points, walk.crashes);
        assert!(walk.points > 20 && walk.crashes > 2 * walk.points, "a store falls back to several states");
    }
}

/// With a small quota, and a standby that is away for long.
#[test]
fn a_standby_that_is_away_too_long_for_the_quota_loses_its_claim_in_every_tenth_life_at_least() {
    let mut dropped = 0;
    let mut runs = 0;
    for seed in 1..300 {
        let options = Options::from_seed(seed);
        if options.quota_segments.is_none() {
            continue;
        }
        let outcome = run(options, 0);
        must_hold(&outcome);
        runs += 1;
        dropped += u32::from(outcome.reached.contains("the peer lost its claim on the journal at the quota"));
    }
    println!("{dropped} of {runs} standbys lost their claim");
    assert!(runs > 10 && dropped * 10 > runs, "{dropped} of {runs}");
}
