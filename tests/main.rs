//! All integration tests in one program, so that it is linked once.

mod docs;
mod layering;
mod simulation;
mod cli;
mod clients;
mod crash;
mod network;
mod pair;
mod support;
