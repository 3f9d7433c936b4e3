//! The config file: one table of keys, a reader that reports every error with its line, and the writer.

mod errors;
mod keys;
mod notify;
mod read;
mod size;
mod write;

pub use errors::{ConfigError, ConfigErrors};
pub use keys::{Fallback, KEYS, Key, Kind, Put};
pub(in crate::node) use notify::is_here;
pub use notify::{KINDS, NOTIFY_KEYS, NotifyKey, Shape, notify_reference};
pub(in crate::node) use read::is_node_name;
pub use read::{DoorAddress, Settings, replace_value, unknown_key};
pub use size::{parse_size, size_text};
pub use write::{quoted, quoted_list, reference, render};
