//! The journal without its disk: batches, watermarks, segments, the walk over them, the recovery table.

mod recover;

pub use recover::{Recovered, SegmentInfo, SegmentSource};
