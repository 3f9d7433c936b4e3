//! Tape drives and images of reels: what does what [`crate::tape`] decides.
//!
//! | thread | owns | may block on |
//! |---|---|---|
//! | tape, of a command that writes | the drive | the drive, for minutes; the operator, for as long as allowed |
//!
//! A command hands it blocks through a stage in memory, which is bounded and blocks the command.

mod carried;
mod catalogue;
mod changer;
mod check;
mod error;
mod key;
mod place;
mod requests;
mod scan;
mod session;
mod shelf;
mod source;
mod st;
mod stage;
mod tap;
mod verbs;

pub use crate::tape::{Allowed, Catalogue, Key, Loss, ReelSet};
pub(in crate::node) use carried::{Carried, CarriedWriter};
pub use catalogue::{CatalogueFile, fuzz_catalogue};
pub use check::{Checked, check};
pub use error::TapeError;
pub(in crate::node) use error::of_stream;
pub use key::read_key;
pub use place::{Alarm, Place, TapeOptions, Teller};
pub(in crate::node) use requests::{Answer, ask, close, take_answer};
pub use requests::{Request, answer, open_request, requests_in};
pub use scan::{Scanned, scan};
pub(in crate::node) use session::{Tape, TapeSession};
pub use source::{TapeSource, TapeStream};
pub(in crate::node) use stage::About;
pub use stage::{TapeOrder, TapeWriter};
pub use tap::{Image, fuzz_tap};
pub use verbs::{Copied, DriveView, Move, copy, label, move_by, status};
