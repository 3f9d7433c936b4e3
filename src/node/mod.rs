//! The daemon: sockets, threads, files and clocks around an [`crate::engine::Engine`]. It translates, it never
//! decides.
//!
//! | thread | owns | may block on |
//! |---|---|---|
//! | core | the engine, the driver, every socket | nothing but the driver's wait |
//! | bulk | segments in the making | the disk |
//! | files | reads, removals, the control file, diverged entries | the disk |
//! | apply | the store's writer | the disk |
//! | spool | copies of segments on another disk, reads of them | that disk |
//! | scrub | what a scrub reads, its record | the disk, the apply thread, its own pace |
//! | incidents | the incident file | the disk |
//! | log | what all log | stderr |
//! | manager | what the service manager is told | the service manager |
//! | licence | the licence's file and record | the disk |
//! | resolver | a look-up of the peer's name, while it is under way | the name service |
//! | signals | SIGTERM, SIGINT, SIGHUP | waiting for them |
//! | admin | an operator's request | the caller, the core's answer |
//!
//! The core hands work to the others through channels that never block it; what may be queued there is bounded by
//! the engine (bytes unapplied, two writes per journal, one checkpoint, the quota). The others answer through the
//! `Inbox`, which is bounded and blocks them. The core never waits for them, so no circle of waits can close.

pub mod admin;
mod admin_router;
mod adopt;
pub mod against;
mod alone;
mod apply;
pub mod audit;
mod clients;
mod compares;
pub mod config;
pub mod config_file;
mod copies;
mod core;
mod dial;
mod disk;
pub mod diverged;
pub mod door_tls;
mod guesses;
pub mod http;
pub mod identity;
mod inbox;
mod incidents;
pub mod kept_stats;
pub mod layout;
pub mod licence;
mod link;
mod listen;
pub mod log;
mod manager;
pub mod notify;
mod operators;
mod owner;
pub mod pairing;
pub mod past;
pub mod peer_address;
mod process;
pub mod queue;
pub mod restore;
pub mod restore_more;
pub mod resync_plan;
mod retired;
pub mod room;
mod rounds;
mod save;
pub mod saves;
mod scrub;
mod segment_source;
mod segments;
pub mod serve;
pub mod set;
pub mod setup;
mod signals;
pub mod spool;
mod starting;
mod store_reads;
pub mod tape;
pub mod tape_socket;
pub mod tls;
mod trust;
mod views;
mod volumes;
pub mod watch;
mod whole;
