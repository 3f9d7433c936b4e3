//! The Redis serialisation protocol, versions 2 and 3.
