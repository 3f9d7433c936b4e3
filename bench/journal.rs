//! The journal alone beside the raw disk, as `hot-backup bench disk` measures it: see `src/measure/journal.rs`.
//!
//! The figures are medians over slices. Usage: `cargo run --release --example bench-journal -- [--dir DIR] [--slices 30] [--json]`

use hot_backup::base::limits::SEGMENT_DEFAULT;
use hot_backup::measure::Course;
use hot_backup::measure::journal::Sides;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Entries in a batch.
const COUNTS: [usize; 4] = [1, 8, 64, 512];
/// How long each side writes before the other has its turn.
const SLICE: Duration = Duration::from_millis(200);

type Failure = Box<dyn Error>;

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next()
}

fn main() -> Result<(), Failure> {
    let dir = argument("--dir").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    let slices: usize = argument("--slices").map_or(Ok(30), |text| text.parse())?;
    let dir = dir.join(format!("journal-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = measure(&dir, slices);
    std::fs::remove_dir_all(&dir)?;
    let rows = result?;
    if std::env::args().any(|arg| arg == "--json") {
        println!("[{}]", rows.join(",\n"));
    }
    Ok(())
}

/// A line for each size; the rows as JSON.
fn measure(dir: &Path, slices: usize) -> Result<Vec<String>, Failure> {
    let mut sides = Sides::new(dir, SEGMENT_DEFAULT)?;
    let course = Course::new(&|| false, &|_, _, _| {});
    let mut rows = Vec::new();
    for count in COUNTS {
        let one = sides.measure(count, slices, SLICE, &course)?;
        let (bytes, ours, theirs, ratio) = (one.bytes, one.journal, one.raw, one.ratio);
        eprintln!(
            "{count:4} entries, {bytes:6} bytes: journal {ours:8.0} writes/s, raw {theirs:8.0} writes/s, ratio {ratio:.3}"
        );
        rows.push(format!(
            "{{\"entries\": {count}, \"bytes\": {bytes}, \"journal\": {ours:.1}, \"raw\": {theirs:.1}, \
             \"ratio\": {ratio:.4}, \"by_thread\": {}}}",
            one.by_thread
        ));
    }
    Ok(rows)
}
