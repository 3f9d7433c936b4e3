//! What COMMAND DOCS and COMMAND GETKEYSANDFLAGS say of the commands of the table.

use super::table::{Cmd, Spec};

/// Group and summary of a command, in Redis's words where it means the same.
pub(super) fn of(spec: &Spec) -> (&'static str, &'static str) {
    match spec.cmd {
        Cmd::Append => ("string", "Append a value to an item"),
        Cmd::Auth => ("connection", "Authenticate the connection"),
        Cmd::Client => ("connection", "A container for commands about connections"),
        Cmd::Command => ("server", "Get details about all commands"),
        Cmd::Config => ("server", "A container for commands about settings"),
        Cmd::DbSize => ("server", "Return the number of items"),
        Cmd::Debug => ("server", "Refused"),
        Cmd::Decr => ("string", "Decrement the integer value of an item by one"),
        Cmd::DecrBy => ("string", "Decrement the integer value of an item by a number"),
        Cmd::Del => ("generic", "Delete items"),
        Cmd::Discard => ("transactions", "Discard all commands issued after MULTI"),
        Cmd::Echo => ("connection", "Return the given string"),
        Cmd::Exec => ("transactions", "Execute all commands issued after MULTI, as one batch"),
        Cmd::Exists => ("generic", "Count the items that are there"),
        Cmd::Expire => ("generic", "Refused: items never expire"),
        Cmd::ExpireTime => ("generic", "Return -1, or -2 if there is no such item: items never expire"),
        Cmd::Flush => ("server", "Refused: clearing files is an operator's act"),
        Cmd::Get => ("string", "Get the value of an item"),
        Cmd::GetDel => ("string", "Get the value of an item and delete the item"),
        Cmd::GetEx => ("string", "Get the value of an item; items never expire"),
        Cmd::GetRange => ("string", "Get a part of the value of an item"),
        Cmd::GetSet => ("string", "Set the value of an item and return its old value"),
        Cmd::Hello => ("connection", "Handshake: choose the protocol, authenticate, set a name"),
        Cmd::Incr => ("string", "Increment the integer value of an item by one"),
        Cmd::IncrBy => ("string", "Increment the integer value of an item by a number"),
        Cmd::Info => ("server", "Get information and statistics about the node"),
        Cmd::Keys => ("generic", "Find all items whose names match a pattern"),
        Cmd::Memory => ("server", "A container for commands about memory"),
        Cmd::MGet => ("string", "Get the values of several items"),
        Cmd::MSet => ("string", "Set several items, as one batch"),
        Cmd::MSetNx => ("string", "Set several items if none of them is there"),
        Cmd::Multi => ("transactions", "Mark the start of a transaction"),
        Cmd::Persist => ("generic", "Return 0: items never expire"),
        Cmd::Ping => ("connection", "Ping the server"),
        Cmd::Quit => ("connection", "Close the connection"),
        Cmd::ReadMode => ("connection", "Accepted: every node may be read from"),
        Cmd::Reset => ("connection", "Reset the connection"),
        Cmd::Role => ("server", "Return the role of the node in the pair"),
        Cmd::Scan => ("generic", "Walk over the items step by step"),
        Cmd::Select => ("connection", "Accept database 0, the only one"),
        Cmd::Set => ("string", "Set the value of an item"),
        Cmd::SetEx => ("string", "Refused: items never expire"),
        Cmd::SetNx => ("string", "Set the value of an item if it is not there"),
        Cmd::StrLen => ("string", "Get the length of the value of an item"),
        Cmd::Time => ("server", "Return the node's time"),
        Cmd::Ttl => ("generic", "Return -1, or -2 if there is no such item: items never expire"),
        Cmd::Type => ("generic", "Return string, or none if there is no such item"),
        Cmd::Unwatch => ("transactions", "Forget all watched items"),
        Cmd::Wait => ("generic", "Wait until the updates of this connection are on the peer's disk"),
        Cmd::WaitAof => ("generic", "Wait until the updates of this connection are on the disks"),
        Cmd::Watch => ("transactions", "Watch items to decide whether a transaction is carried out"),
    }
}

/// How a command uses its keys, in Redis's words; `get` is set when a SET returns the old value.
pub(super) fn key_use(spec: &Spec, get: bool) -> &'static [&'static str] {
    match spec.cmd {
        Cmd::Append => &["RW", "insert"],
        Cmd::Decr | Cmd::DecrBy | Cmd::Incr | Cmd::IncrBy | Cmd::GetSet | Cmd::GetEx => {
            &["RW", "access", "update"]
        }
        Cmd::Set if get => &["RW", "access", "update"],
        Cmd::Set | Cmd::SetEx | Cmd::MSet => &["OW", "update"],
        Cmd::SetNx | Cmd::MSetNx => &["OW", "insert"],
        Cmd::GetDel => &["RW", "access", "delete"],
        Cmd::Del => &["RM", "delete"],
        Cmd::Persist | Cmd::Expire => &["RW", "update"],
        Cmd::Get | Cmd::GetRange | Cmd::MGet | Cmd::Ttl | Cmd::ExpireTime => &["RO", "access"],
        _ => &["RO"],
    }
}
