//! The journal without its disk: batches, watermarks, segments, the walk over them, the recovery table.
//!
//! Invariants held here: nothing is told durable before its write was reported durable (I-03), and all before it; of
//! two writes under way the later counts only with the earlier, so nothing counts behind a hole (I-04); segments are
//! released only up to what every consumer has confirmed (I-06); reading never writes (I-07).

mod cursor;
mod in_flight;
mod reader;
mod recover;
mod segments;
mod walk;
mod whole;
mod writer;

pub use cursor::{CursorError, ReadRequest};
pub use reader::{JournalReader, ReadStep};
pub use recover::{Recovered, RecoveryError, SegmentInfo, SegmentSource, recover, recover_from};
pub use walk::SegmentWalk;
pub use writer::{Journal, JournalOp, JournalState, JournalWatermarks, Placed};
