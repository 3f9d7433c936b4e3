//! The RESP door.
