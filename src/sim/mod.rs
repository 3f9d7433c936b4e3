//! A whole pair in one thread, on one simulated clock: hostile disks, a hostile wire, clients, and an operator who
//! acts at bad moments. Everything follows from one seed; the nodes' engines are the very ones that the daemon runs.
//!
//! [`run`] makes a run from its seed. Rules (the numbers are those of the design's list of what must always hold)
//! are checked at every step by [`checker`](self), against the world's own account of what was written where.
//! [`exhaustive`] walks every crash point of small runs instead of sampling.

mod account;
mod blocks;
mod checker;
mod client;
mod cold;
mod compares;
mod copies;
mod disk;
mod doors;
mod effects;
mod ends;
pub mod exhaustive;
mod handover;
mod lease;
mod lives;
mod net;
mod operator;
mod options;
mod reels;
mod resp;
mod rot;
mod saves;
pub mod scenario;
mod spool;
mod trace;
mod truth;
mod verdict;
mod views;
pub mod walk_rewind;
mod wire;
mod world;

pub use checker::Violation;
pub use handover::{HARMS, Harm};
pub use options::{MUTATIONS, Mutation, Options, Trouble};
pub use spool::{SpoolOptions, SpoolTape};
pub use trace::{SOMETIMES, SOMETIMES_UNDER_LEASES};

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// A run that takes more events than this is stuck in a loop.
const EVENTS_MAX: u64 = 3_000_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was made of.
    pub options: Options,
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// Digest of every event: equal for equal seeds and code.
    pub digest: u64,
    /// How many events.
    pub events: u64,
    /// How often an engine looked at the clock.
    pub ticks: u64,
    /// Simulated time (microseconds).
    pub micros: u64,
    /// Commands that were told ok.
    pub acked: usize,
    /// Names of [`SOMETIMES`] that were reached.
    pub reached: BTreeSet<&'static str>,
    /// The last events in words, if they were asked for.
    pub lines: Vec<String>,
}

impl Outcome {
    /// What to print about a failed run: the seed, what it was made of, the last events, how to see it again.
    #[must_use]
    pub fn report(&self) -> String {
        let seed = self.options.seed;
        let verdict = match &self.violation {
            Some(v) => format!("{}: {}", v.invariant, v.text),
            None => "no rule was broken".to_owned(),
        };
        format!(
            "{}\n{:#?}\nseed {seed}: {verdict}\nafter {} events, {} us; see it again with\n  \
             cargo run --release --example replay -- {seed}\n",
            self.lines.join("\n"),
            self.options,
            self.events,
            self.micros
        )
    }
}

/// Runs the pair that `options` describe; the last `keep` events are told in words.
#[must_use]
pub fn run(options: Options, keep: usize) -> Outcome {
    let mut world = World::new(options.clone(), keep);
    let result = catch_unwind(AssertUnwindSafe(|| drive(&mut world)));
    if let Err(panic) = result {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        world.check.fail("panic", text);
    }
    let (digest, events, micros) = (world.trace.digest(), world.trace.events, world.trace.now);
    let ticks = world.trace.ticks;
    let acked = world.check.acked.len();
    let (lines, reached) = world.trace.into_parts();
    let violation = world.check.violation;
    Outcome { options, violation, digest, events, ticks, micros, acked, reached, lines }
}

fn drive(world: &mut World) {
    world.begin();
    while world.check.violation.is_none() && !world.operator.done() {
        if !world.step() {
            world.check.fail("I-50", "nothing will ever happen again".to_owned());
        }
        if world.trace.events > EVENTS_MAX {
            world.check.fail("I-51", format!("more than {EVENTS_MAX} events: a storm"));
        }
    }
}
