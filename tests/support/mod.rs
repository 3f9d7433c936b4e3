//! What tests of whole nodes share: pairs in temporary directories, clients that remember what they were told, and
//! the rules by which a test may be left out.
//!
//! A test whose name begins with `tier_` runs only with `HB_TIER=ci`. A test that needs a tool or root, and does not
//! have it, says `skipped: NAME needs TOOL` on stderr; with `HB_REQUIRE=1` that is a failure.

pub(crate) mod cluster;
mod disk;
pub(crate) mod etcd;
pub(crate) mod history;
pub(crate) mod library;
mod load;
pub(crate) mod machine;
mod nbd;
mod node;
mod peer;
pub(crate) mod receivers;
mod redis;
mod rules;
mod uml;
mod volumes;
mod wire;

pub(crate) use disk::Disk;
pub(crate) use load::{Load, Shape, Told, audit, items, noise};
pub(crate) use nbd::{Nbd, Safe, Stamper, audit_stamps};
pub(crate) use node::{Door, Node, Pair, Plan, loopback_addresses, program, shell};
pub(crate) use peer::{Impostor, hello_of, in_place_of};
pub(crate) use redis::{RawClient, RedisServer, Reply};
pub(crate) use rules::{here, tier};
pub(crate) use rules::{lacking, memory, missing, scratch, skipped, some, tool, wait_telling, wait_until};
pub(crate) use uml::{Kernel, Lan};
pub(crate) use volumes::{Detour, EXPORT, Volumes, make_volume, serves_volumes_at};
pub(crate) use wire::Wire;
