//! All integration tests in one program, so that it is linked once.

mod cli;
mod clients;
mod crash;
mod docs;
mod layering;
mod network;
mod pair;
mod simulation;
mod support;
