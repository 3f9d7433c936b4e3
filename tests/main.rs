//! All integration tests in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admin_group;
mod bad_input;
mod bench;
mod cli;
mod clients;
mod cluster;
mod compare;
mod crash;
mod docs;
mod ends;
mod files;
mod full_sync;
mod fuzzing;
mod hostile;
mod invariants;
mod items_rot;
mod layering;
mod licence;
mod long_way;
mod menu;
mod network;
mod notify;
mod observe;
mod ocf;
mod outside;
mod packages;
mod pages;
mod pair;
mod partial;
mod redis_differential;
mod rewind;
mod save;
mod save_crash;
mod service;
mod set_back;
mod setup;
mod simulation;
mod since;
mod spool;
mod spool_age;
mod spool_far;
mod spool_tape;
mod strangers;

#[allow(dead_code, reason = "what one tier needs another may not")]
mod support;
mod switchover;
mod tape;
mod tape_drive;
mod tape_new_reel;
mod tape_socket;
mod tape_socket_back;
mod until;
mod versions;
mod views;
mod volumes;
mod volumes_crash;
mod volumes_limits;
mod volumes_model;
mod volumes_rot;
mod watch;
mod wrong_peer;
