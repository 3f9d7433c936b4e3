//! Replays a run of the simulator: `cargo run --release --example replay -- SEED [--events N] [--mutation NAME]`.
//!
//! Prints what the run is made of, its last events in words, and the verdict. With `--until SEED` it makes all runs up to
//! that seed and prints a line for each that breaks a rule. Exit code 0 if no rule was broken.

use hot_backup::sim::{MUTATIONS, Options, run};
use std::process::ExitCode;

/// Events shown when nothing else is asked for.
const EVENTS: usize = 200;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mut seed = None;
    let mut keep = EVENTS;
    let mut mutation = None;
    let mut until = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--events" => keep = args.next().and_then(|n| n.parse().ok()).unwrap_or(EVENTS),
            "--until" => until = args.next().and_then(|n| n.parse::<u64>().ok()),
            "--mutation" => {
                let name = args.next().unwrap_or_default();
                mutation = MUTATIONS.into_iter().find(|m| format!("{m:?}") == name);
                if mutation.is_none() {
                    eprintln!("replay: no mutation {name:?}; there are {MUTATIONS:?}");
                    return ExitCode::from(2);
                }
            }
            other => seed = other.parse::<u64>().ok(),
        }
    }
    let Some(seed) = seed else {
        eprintln!("usage: replay SEED [--until SEED] [--events N] [--mutation NAME]");
        return ExitCode::from(2);
    };
    if let Some(until) = until {
        let broken = |seed: &u64| {
            let outcome = run(Options { mutation, ..Options::from_seed(*seed) }, 0);
            outcome
                .violation
                .map(|violation| println!("seed {seed}: {}: {}", violation.invariant, violation.text))
                .is_some()
        };
        let found = (seed..=until).filter(broken).count();
        println!("{found} of {} runs broke a rule", (seed..=until).count());
        return ExitCode::from(u8::from(found > 0));
    }
    let outcome = run(Options { mutation, ..Options::from_seed(seed) }, keep);
    println!("{}", outcome.report());
    println!("digest {:#018x}, {} commands told ok", outcome.digest, outcome.acked);
    if outcome.violation.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
