//! The two nodes of a pair: who may serve, where histories agree, and the frames between them.
//!
//! Invariants held here: at most one node accepts updates in an epoch (I-20); nothing of an older epoch is taken
//! once a newer was seen (I-21); bytes of an old connection are never read as a new one's (I-14).

mod diverged;
mod judge;
pub mod record;
mod session;

pub use diverged::{base_line, changed_line, diverged_line};
pub use judge::{Own, Verdict, common_point, judge, judge_caller};
pub use session::{Frame, Head, LinkFault, LinkSession, fuzz_session};
