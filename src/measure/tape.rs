//! A tape drive: its streaming floor, as `tape check` measures it.

use super::report::{Figure, Report};
use super::{Course, MeasureError, float};
use crate::node::tape::{Checked, TapeError, TapeOptions, check};

/// Sizes of blocks (bytes).
const SIZES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];

/// Writes so many bytes in blocks of each size, and reads them back. The reel has to be blank or one that may be
/// overwritten. Figures: `write`, `read`, by size of block.
///
/// # Errors
/// What the drive or its reel answered; when the course was stopped, between two sizes.
pub fn tape(
    options: &TapeOptions,
    bytes: u64,
    course: &Course<'_>,
    report: &mut Report,
) -> Result<(), TapeFailure> {
    course.expect(SIZES.len());
    for size in SIZES {
        course.step(&format!("blocks of {} KiB", size >> 10))?;
        for one in check(options, &[size], bytes)? {
            report.figures.extend(figures(&one));
            report.fact(
                &format!("flush after blocks of {} KiB", size >> 10),
                format!("{:.3} s", one.flush_seconds),
            );
        }
    }
    Ok(())
}

fn figures(one: &Checked) -> [Figure; 2] {
    [("write", one.write_rate), ("read", one.read_rate)].map(|(what, rate)| Figure {
        part: "tape".to_owned(),
        what: what.to_owned(),
        way: "drive".to_owned(),
        bytes: one.block_size.into(),
        at_once: 1,
        per_second: float(rate) / f64::from(one.block_size.max(1)),
        ..Figure::default()
    })
}

/// Why it came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TapeFailure {
    /// The drive, its reel, its place.
    #[error("{0}")]
    Tape(#[from] TapeError),
    /// It was interrupted.
    #[error("{0}")]
    Measure(#[from] MeasureError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tape::Place;

    #[test]
    fn an_image_is_measured_in_each_size_of_blocks_and_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::parse(dir.path().join("reel.tap").to_str().unwrap()).unwrap();
        let options = TapeOptions::new(place);
        let mut report = Report::default();
        let course = Course::new(&|| false, &|_, _, _| {});
        tape(&options, 2 << 20, &course, &mut report).unwrap();
        assert_eq!((report.of("tape", "write").count(), report.of("tape", "read").count()), (3, 3));
        assert!(report.figures.iter().all(|figure| figure.per_second > 0.0), "{report:?}");
        assert!(!dir.path().join("reel.tap").exists());
    }
}
