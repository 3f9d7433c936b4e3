//! Walking over items: SCAN, KEYS, DBSIZE.
//!
//! Files are walked in the order of their ids and items in the order of theirs, both of which never change. So an
//! item that is there throughout is met exactly once, whatever is put or deleted meanwhile.
//!
//! A pattern that begins with a literal `account,file,` walks that file only, and starts at the literal part of the
//! item id; its keys are told in full. Any other pattern walks the whole database; the keys of the default file
//! are then told as plain item ids, as programs that know nothing of files wrote them, if such a key would lead
//! back to the item and fits the pattern, and in full otherwise.
//!
//! KEYS and DBSIZE may have to look at very many items: they do so in steps between which others are served, and
//! the client that asked waits. DBSIZE counts each item that is there throughout once; no count is kept.

use super::outbox::Waits;
use super::refusal::{Fail, SYNTAX};
use super::session::{Blocked, Client};
use super::turn::Turn;
use super::{Shared, glob};
use crate::base::limits::{CLIENT_REPLY_MAX, ITEM_ID_MAX, KEYS_MAX, PATTERN_MAX, SCAN_COUNT_MAX, WALK_STEP};
use crate::base::{FileId, Now};
use crate::doors::{Backend, Refusal};
use crate::format::resp::{self, Args};
use std::collections::{BTreeMap, HashMap};

/// Where a walk stands: before the first item of `file`, or behind the item `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: FileId,
    after: Option<Vec<u8>>,
}

/// Which items a walk is for.
#[derive(Debug)]
struct Filter {
    pattern: Option<Vec<u8>>,
    /// Only this file; the pattern is then for ids, and this is the literal start of those that fit.
    only: Option<(FileId, Vec<u8>)>,
    default_file: Option<String>,
}

impl Filter {
    fn new<B: Backend>(pattern: Option<&[u8]>, shared: &Shared, backend: &B) -> Result<Self, Fail> {
        let default_file = shared.config.default_file.clone();
        let Some(pattern) = pattern else { return Ok(Self { pattern: None, only: None, default_file }) };
        if pattern.len() > PATTERN_MAX {
            return Err(format!("ERR a pattern has at most {PATTERN_MAX} bytes").into());
        }
        let literal = glob::literal_prefix(pattern);
        let mut commas = literal.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
        if let (Some(_), Some(second)) = (commas.next(), commas.next()) {
            let file = backend.resolve(&literal[..second])?;
            let only = Some((file, literal[second + 1..].to_vec()));
            return Ok(Self { pattern: Some(pattern[second + 1..].to_vec()), only, default_file });
        }
        Ok(Self { pattern: Some(pattern.to_vec()), only: None, default_file })
    }

    fn start(&self) -> Place {
        match &self.only {
            Some((file, literal)) => Place { file: *file, after: just_before(literal) },
            None => Place { file: FileId(0), after: None },
        }
    }

    fn fits(&self, text: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, text))
    }

    /// Sets `key` to what is told of an item, if it fits.
    fn key(&self, file: &str, id: &[u8], key: &mut Vec<u8>) -> bool {
        key.clear();
        if self.only.is_none() && self.default_file.as_deref() == Some(file) {
            let leads_back = id.iter().filter(|byte| **byte == b',').count() < 2;
            if leads_back && self.fits(id) {
                key.extend_from_slice(id);
                return true;
            }
        }
        key.extend_from_slice(file.as_bytes());
        key.push(b',');
        key.extend_from_slice(id);
        if self.only.is_some() { self.fits(id) } else { self.fits(key) }
    }

    /// Whether no id from this one on can fit.
    fn beyond(&self, id: &[u8]) -> bool {
        self.only.as_ref().is_some_and(|(_, literal)| !id.starts_with(literal) && id > literal.as_slice())
    }
}

/// The greatest possible id before all that begin with `prefix`.
fn just_before(prefix: &[u8]) -> Option<Vec<u8>> {
    let (last, front) = prefix.split_last()?;
    let mut before = front.to_vec();
    if let Some(less) = last.checked_sub(1) {
        before.push(less);
        before.resize(ITEM_ID_MAX.max(before.len()), u8::MAX);
    } else if before.is_empty() {
        return None;
    }
    Some(before)
}

/// Looks at up to `budget` items from `place` on and tells `found` the keys that fit. Returns where to go on.
fn walk<B: Backend>(
    backend: &mut B,
    waits: &mut Waits,
    filter: &Filter,
    mut place: Place,
    mut budget: usize,
    mut found: impl FnMut(&[u8]),
) -> Result<Option<Place>, Refusal> {
    let files = backend.record_files();
    let mut key = Vec::new();
    while budget > 0 {
        let next = files.partition_point(|(file, _)| *file < place.file);
        let Some((file, name)) = files.get(next) else { return Ok(None) };
        if *file != place.file {
            place = Place { file: *file, after: None };
        }
        if filter.only.as_ref().is_some_and(|(only, _)| only != file) {
            return Ok(None);
        }
        let (ids, wait) = match backend.scan(*file, place.after.as_deref(), budget) {
            // Deleted since the list was made: nothing of it is left to be told.
            Err(Refusal::NoSuchFile(_)) => (Vec::new(), None),
            other => other?,
        };
        wait.into_iter().for_each(|wait| waits.add(wait));
        for id in &ids {
            if filter.key(name, id, &mut key) {
                found(&key);
            }
        }
        let ended = ids.len() < budget || ids.last().is_some_and(|id| filter.beyond(id));
        if ended && filter.only.is_some() {
            return Ok(None);
        }
        // An empty file is work, too.
        budget = budget.saturating_sub(ids.len().max(1));
        match ids.last() {
            Some(last) if !ended => place.after = Some(last.to_vec()),
            _ => place = Place { file: FileId(file.0 + 1), after: None },
        }
    }
    Ok(Some(place))
}

/// SCAN positions by number. Numbers are never used twice, not by another process either, as far as clocks go:
/// a cursor of a node that was restarted or taken over from is refused, never taken for another position.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    places: HashMap<u64, (Place, u64), super::FastHash>,
    by_use: BTreeMap<u64, u64>,
    last: u64,
    uses: u64,
}

impl Cursors {
    fn remember(&mut self, now: Now, place: Place) -> u64 {
        const PER_MS: u32 = 20;
        let base = now.wall_ms.checked_shl(PER_MS).unwrap_or(0) & (u64::MAX >> 1);
        self.last = if self.last == 0 { base.max(1) } else { self.last + 1 };
        while self.places.len() >= super::SCAN_CURSORS_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.places.remove(&oldest);
        }
        self.uses += 1;
        self.places.insert(self.last, (place, self.uses));
        self.by_use.insert(self.uses, self.last);
        self.last
    }

    /// The position; it stays, so that a client may ask for the same part again.
    fn place(&mut self, cursor: u64) -> Option<Place> {
        let (place, used) = self.places.get_mut(&cursor)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, cursor);
        Some(place.clone())
    }
}

struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
    nothing: bool,
}

impl<'a> ScanOptions<'a> {
    fn read(args: Args<'a>) -> Result<Self, Fail> {
        let mut options = Self { pattern: None, count: 10, nothing: false };
        for at in (2..args.len()).step_by(2) {
            let (word, value) = (args.at(at), args.at(at + 1));
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes()) && at + 1 < args.len();
            if is("count") {
                let count = super::items::parse_integer(value).ok_or(super::refusal::NOT_AN_INTEGER)?;
                if count < 1 {
                    return Err(SYNTAX.into());
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
            } else if is("match") {
                options.pattern = Some(value);
            } else if is("type") {
                options.nothing = !value.eq_ignore_ascii_case(b"string");
            } else {
                return Err(SYNTAX.into());
            }
        }
        Ok(options)
    }
}

/// A KEYS or DBSIZE under way.
#[derive(Debug)]
pub(super) struct Walk {
    filter: Filter,
    place: Place,
    waits: Waits,
    count: usize,
    /// KEYS: the keys so far, encoded.
    keys: Option<Vec<u8>>,
}

impl Walk {
    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.keys.as_ref().map_or(0, Vec::len)
    }

    /// One step. True when the walk is over; the reply is then written and held back as needed.
    pub(super) fn step<B: Backend>(&mut self, client: &mut Client, backend: &mut B) -> bool {
        let start = client.out.bytes.len();
        match self.look(backend) {
            Ok(false) => return false,
            Ok(true) => match &self.keys {
                Some(keys) => {
                    resp::array(&mut client.out.bytes, self.count);
                    client.out.bytes.extend_from_slice(keys);
                }
                None => resp::integer(&mut client.out.bytes, i64::try_from(self.count).unwrap_or(i64::MAX)),
            },
            Err(fail) => resp::error(&mut client.out.bytes, &fail.text()),
        }
        client.out.hold(start, &self.waits, &backend.watermarks());
        true
    }

    fn look<B: Backend>(&mut self, backend: &mut B) -> Result<bool, Fail> {
        let (count, keys) = (&mut self.count, &mut self.keys);
        let next = walk(backend, &mut self.waits, &self.filter, self.place.clone(), WALK_STEP, |key| {
            *count += 1;
            if let Some(keys) = keys {
                resp::bulk(keys, key);
            }
        })?;
        if self.keys.is_some() && (self.count > KEYS_MAX || self.bytes() > CLIENT_REPLY_MAX) {
            return Err(format!("ERR more than {KEYS_MAX} keys would be returned: use SCAN").into());
        }
        match next {
            None => Ok(true),
            Some(place) => {
                self.place = place;
                Ok(false)
            }
        }
    }
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn scan(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let cursor: Option<u64> = std::str::from_utf8(args.at(1)).ok().and_then(|text| text.parse().ok());
        let cursor = cursor.ok_or(Fail::from("ERR invalid cursor"))?;
        let options = ScanOptions::read(args)?;
        let filter = Filter::new(options.pattern, self.shared, self.backend)?;
        let place = match cursor {
            0 => filter.start(),
            _ => self.shared.cursors.place(cursor).ok_or(Fail::from(
                "ERR unknown cursor: it is of another node or was not used for long; start again with 0",
            ))?,
        };
        let (mut keys, mut count) = (Vec::new(), 0);
        let next = match options.nothing {
            true => None,
            false => walk(self.backend, &mut self.waits, &filter, place, options.count, |key| {
                resp::bulk(&mut keys, key);
                count += 1;
            })?,
        };
        let cursor = next.map_or(0, |place| self.shared.cursors.remember(self.now, place));
        let out = &mut self.client.out.bytes;
        resp::array(out, 2);
        resp::bulk(out, cursor.to_string().as_bytes());
        resp::array(out, count);
        out.extend_from_slice(&keys);
        Ok(())
    }

    pub(super) fn keys(&mut self, args: Args<'_>) -> Result<(), Fail> {
        self.start_walk(Some(args.at(1)), Some(Vec::new()))
    }

    pub(super) fn db_size(&mut self) -> Result<(), Fail> {
        self.start_walk(None, None)
    }

    fn start_walk(&mut self, pattern: Option<&[u8]>, keys: Option<Vec<u8>>) -> Result<(), Fail> {
        let filter = Filter::new(pattern, self.shared, self.backend)?;
        let place = filter.start();
        let mut walk = Walk { filter, place, waits: Waits::default(), count: 0, keys };
        if !walk.step(self.client, self.backend) {
            self.client.blocked = Some(Blocked::Walk(Box::new(walk)));
            self.shared.walks.push_back(self.client.conn);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_between_a_prefix_and_what_is_just_before_it() {
        assert_eq!(just_before(b""), None);
        assert_eq!(just_before(b"\0"), None);
        assert_eq!(just_before(b"a\0"), Some(b"a".to_vec()));
        let before = just_before(b"ab").unwrap();
        assert_eq!((before.len(), &before[..2], before[254]), (ITEM_ID_MAX, &b"aa"[..], 255));
        assert!(before.as_slice() < b"ab".as_slice());
    }

    #[test]
    fn cursors_are_forgotten_by_least_use_and_never_number_twice() {
        let mut cursors = Cursors::default();
        let now = Now { wall_ms: 1_700_000_000_000, ..Now::default() };
        let place = |n: u64| Place { file: FileId(n), after: None };
        let first = cursors.remember(now, place(1));
        let second = cursors.remember(now, place(2));
        assert_ne!(first, second);
        assert_eq!(cursors.place(first), Some(place(1)));
        for n in 0..super::super::SCAN_CURSORS_MAX as u64 - 1 {
            cursors.remember(now, place(n));
        }
        assert_eq!(cursors.place(first), Some(place(1)), "used last, so kept");
        assert_eq!(cursors.place(second), None, "used least");
        assert_eq!(cursors.places.len(), cursors.by_use.len());
    }
}
