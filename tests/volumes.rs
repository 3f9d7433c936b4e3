//! Volumes and the clients of others.
