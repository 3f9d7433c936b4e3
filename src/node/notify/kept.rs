//! The file `records`: incidents, and what waits to be told of them. A line with magic, version and checksum, then JSON.

use crate::base::crc32c;
use crate::base::limits::{NOTIFY_MAX, NOTIFY_QUEUE_MAX, RECORDS_FILE_MAX, RECORDS_MAX};
use crate::engine::Severity;
use crate::engine::notices::Letter;
use crate::engine::records::{RecordView, Records, Told};
use serde::{Deserialize, Serialize};

const MAGIC: &str = "hot-backup records";
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The highest number of a record that was given.
    pub(super) last: u64,
    /// Oldest first.
    pub(super) records: Vec<RecordView>,
    /// For each entry of the notify list.
    pub(super) waiting: Vec<Waiting>,
}

/// What waits for an entry of the notify list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// Its name.
    pub(super) name: String,
    /// Messages, oldest first.
    pub(super) letters: Vec<Letter>,
    /// Those that gave way.
    pub(super) dropped: u64,
}

impl Kept {
    /// As the file holds it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = format!("{MAGIC} {VERSION} {:08x}\n", crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// From the file's bytes; the error says what is wrong with them.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > RECORDS_FILE_MAX {
            return Err(format!("it is longer than {RECORDS_FILE_MAX} bytes"));
        }
        let end = bytes
            .iter()
            .take(64)
            .position(|byte| *byte == b'\n')
            .ok_or("its first line is not one of this program")?;
        let (line, body) = bytes.split_at(end + 1);
        let line = std::str::from_utf8(line).map_err(|_| "its first line is no text")?;
        let fields =
            line.trim_end().strip_prefix(MAGIC).ok_or("its first line is not one of this program")?;
        let (version, sum) = fields.trim_start().split_once(' ').ok_or("its first line was cut off")?;
        match version.parse::<u32>() {
            Ok(VERSION) => {}
            Ok(other) => return Err(format!("it has version {other}, this program reads {VERSION}")),
            Err(_) => return Err("its version is no number".to_owned()),
        }
        if u32::from_str_radix(sum, 16).ok() != Some(crc32c(body)) {
            return Err("its checksum is wrong".to_owned());
        }
        let mut kept: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        kept.records.truncate(4 * RECORDS_MAX);
        kept.waiting.truncate(4 * NOTIFY_MAX);
        kept.waiting.iter_mut().for_each(|waiting| waiting.letters.truncate(4 * NOTIFY_QUEUE_MAX));
        Ok(kept)
    }
}

/// A line of `incidents.jsonl`.
#[derive(Deserialize)]
struct Line {
    severity: String,
    kind: String,
    text: String,
    wall_ms: u64,
}

/// What the file of incidents of a version without records tells. It does not tell what lasts, so nothing does.
pub(super) fn records_of_lines(text: &str, records: &mut Records) {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    for line in lines {
        let severity = Severity::of(&line.severity).unwrap_or(Severity::Notice);
        let (code, text) = (line.kind.as_str(), line.text.as_str());
        records.note_told(&Told { code, severity, text, wall_ms: line.wall_ms, lasts: false });
    }
}

/// Reads any bytes as the file of records.
pub fn fuzz_records(bytes: &[u8]) {
    if let Ok(kept) = Kept::decode(bytes) {
        assert_eq!(Kept::decode(&kept.encode()).as_ref(), Ok(&kept), "what was read reads back");
    }
    let mut records = Records::default();
    records_of_lines(&String::from_utf8_lossy(bytes), &mut records);
    assert!(records.iter().count() <= RECORDS_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn kept() -> Kept {
        let record = RecordView {
            id: 4,
            severity: "critical".to_owned(),
            code: "journal-no-space".to_owned(),
            what: "no room for a segment".to_owned(),
            why: "the disk is full".to_owned(),
            next: "make room".to_owned(),
            since_ms: 1_700_000_000_000,
            last_ms: 1_700_000_060_000,
            count: 3,
            ended_ms: Some(1_700_000_090_000),
            end: "there is room again".to_owned(),
            acked_ms: Some(1_700_000_070_000),
            acked_by: "ann".to_owned(),
        };
        let open = RecordView { id: 5, code: "peer-lost".to_owned(), ..RecordView::default() };
        let letters = vec![Letter { number: 9, record: record.clone() }];
        let waiting = vec![Waiting { name: "ops".to_owned(), letters, dropped: 2 }];
        Kept { last: 5, records: vec![record, open], waiting }
    }

    #[test]
    fn the_golden_file_is_what_is_written_and_reads_back() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/records-v1");
        let golden = std::fs::read(path).unwrap_or_default();
        let written = kept().encode();
        assert_eq!(String::from_utf8_lossy(&golden), String::from_utf8_lossy(&written), "{path}");
        assert_eq!(Kept::decode(&golden), Ok(kept()));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let good = kept().encode();
        for at in 0..good.len() {
            assert!(Kept::decode(&good[..at]).is_err(), "cut at {at}");
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            // Only the case of a digit of the checksum may differ.
            assert!(Kept::decode(&bad).is_err() || Kept::decode(&bad) == Ok(kept()), "byte {at}");
        }
        let later = String::from_utf8(good).unwrap().replacen("records 1", "records 2", 1);
        assert!(Kept::decode(later.as_bytes()).unwrap_err().contains("version 2"));
        let mut prng = Prng::new(3);
        for _ in 0..2000 {
            let len = usize::try_from(prng.below(300)).unwrap();
            fuzz_records(&(0..len).map(|_| u8::try_from(prng.below(256)).unwrap()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_file_of_an_earlier_version_becomes_records_of_which_none_lasts() {
        let text = "{\"severity\":\"warning\",\"kind\":\"peer-lost\",\"text\":\"the peer is away\",\"wall_ms\":7}\nrubbish\n\
                    {\"severity\":\"notice\",\"kind\":\"peer-follows\",\"text\":\"it follows\",\"wall_ms\":9}\n";
        let mut records = Records::default();
        records_of_lines(text, &mut records);
        let all: Vec<_> = records.iter().map(|record| (record.code.as_str(), record.is_open())).collect();
        assert_eq!(all, [("peer-lost", false), ("peer-follows", false)]);
    }
}
