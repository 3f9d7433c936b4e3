//! The entries that a returned primary had and the pair never kept, one JSON object a line: readable by people,
//! and enough to play an item, or a change of a volume, back by hand. Beside them stands, once the node was rewound, what the
//! primary had in their places: whoever gives them to the primary again sees what it changed meanwhile.

use crate::base::{Epoch, FileId, Seq};
use crate::format::entry::{Entry, EntryKind};
use crate::format::rewind::Rewind;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    epoch: u64,
    kind: &'static str,
    file: &'a str,
    file_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text as it is, other bytes in hexadecimal.
fn split(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(hex(bytes))),
    }
}

/// One line, with its newline. `file` is the file's name as far as it is known. A change of a volume tells where it
/// begins and how long it is (bytes), and what was written in hexadecimal.
#[must_use]
pub fn diverged_line(seq: Seq, epoch: Epoch, file: &str, entry: &Entry<'_>) -> Vec<u8> {
    let of_item = matches!(entry.kind, EntryKind::Put | EntryKind::Delete);
    let (item, item_hex) = if of_item { split(entry.id) } else { (None, None) };
    let (value, value_hex) = match entry.kind {
        EntryKind::Put => split(entry.value),
        EntryKind::Delete | EntryKind::BlockPunch | EntryKind::BlockZero => (None, None),
        _ => (None, Some(hex(entry.value))),
    };
    let blocks = entry.block_change();
    let line = Line {
        seq: seq.0,
        epoch: epoch.0,
        kind: entry.kind.name(),
        file,
        file_id: entry.file.0,
        item,
        item_hex,
        offset: blocks.map(|change| change.offset),
        bytes: blocks.map(|change| change.len),
        value,
        value_hex,
    };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[derive(Serialize)]
struct Base<'a> {
    file_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_hex: Option<String>,
    there: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

/// One line, with its newline: what the primary had of an item when this node was rewound.
#[must_use]
pub fn base_line(file: FileId, id: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let (item, item_hex) = split(id);
    let (text, value_hex) = value.map_or((None, None), split);
    let there = value.is_some();
    let mut bytes =
        serde_json::to_vec(&Base { file_id: file.0, item, item_hex, there, value: text, value_hex })
            .unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The last line, with its newline: what the primary changed from the common point until the rewind was done.
#[must_use]
pub fn changed_line(changed: &Rewind) -> Vec<u8> {
    let line = serde_json::json!({ "after": changed.common.seq.0, "changed_hex": hex(&changed.encode()) });
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::BlockId;

    #[test]
    fn text_stays_readable_and_other_bytes_come_in_hexadecimal() {
        let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"1001", value: &[0xff, 0x00] };
        let line = diverged_line(Seq(7), Epoch(2), "app,orders", &entry);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(
            text,
            "{\"seq\":7,\"epoch\":2,\"kind\":\"put\",\"file\":\"app,orders\",\"file_id\":4,\"item\":\"1001\",\
             \"value_hex\":\"ff00\"}\n"
        );
    }

    #[test]
    fn a_change_of_a_volume_tells_where_it_begins_and_how_long_it_is() {
        let (at, range) = (BlockId::write(8192), BlockId::range(4096, 1 << 30));
        let file = FileId(4);
        let line = |kind, id, value| {
            let entry = Entry { kind, file, id, value };
            String::from_utf8(diverged_line(Seq(7), Epoch(2), "app,disk", &entry)).unwrap()
        };
        let start = |kind| {
            format!("{{\"seq\":7,\"epoch\":2,\"kind\":\"{kind}\",\"file\":\"app,disk\",\"file_id\":4,")
        };
        assert_eq!(
            line(EntryKind::BlockWrite, at.as_ref(), b"ab"),
            start("block-write") + "\"offset\":8192,\"bytes\":2,\"value_hex\":\"6162\"}\n"
        );
        for (kind, word) in [(EntryKind::BlockPunch, "block-punch"), (EntryKind::BlockZero, "block-zero")] {
            let told = start(word) + "\"offset\":4096,\"bytes\":1073741824}\n";
            assert_eq!(line(kind, range.as_ref(), b""), told);
        }
    }
}
