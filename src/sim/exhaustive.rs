//! Every crash point of a small run.
