//! A save is told where the journal stood.
