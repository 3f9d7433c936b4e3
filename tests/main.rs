//! All integration tests in one program, so that it is linked once.

mod simulation;
mod layering;
