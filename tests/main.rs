//! All integration tests in one program, so that it is linked once.

mod clients;
mod crash;
mod layering;
mod network;
mod pair;
mod simulation;
mod support;
