//! Walking over items: SCAN, KEYS, DBSIZE.
//!
//! Files are walked in the order of their ids and items in the order of theirs, both of which never change. So an
//! item that is there throughout is met exactly once, whatever is put or deleted meanwhile.
//!
//! With a default file a program that knows short keys only sees a Redis that holds them and nothing else: a walk
//! without a pattern, or with one that has fewer than two commas of its own, is for the items of the default file that
//! a short key names, and tells those keys. A comma behind `\` or within `[...]` is a character of the key and does
//! not count. A pattern with two commas is for keys in full, of all files, and tells them in full; so is every pattern
//! when there is no default file. As in Redis a `*` takes any bytes, commas too.
//!
//! The bytes at the front of a pattern that stand for themselves say where the walk starts and ends.
//!
//! A walk may have to look at very many items: it does so in steps between which others are served, and the client
//! that asked waits. DBSIZE counts each item that is there throughout once, if there may be `COUNT_EXACT_MAX` of them at
//! most; of more it tells an estimate, which costs the same however many there are.

use super::RespShared;
use super::glob::Pattern;
use super::outbox::Waits;
use super::refusal::{Fail, SYNTAX};
use super::session::Blocked;
use super::transaction::Staged;
use super::turn::Turn;
use super::work::Work;
use crate::base::limits::{
    CLIENT_REPLY_MAX, COUNT_EXACT_MAX, FETCH_AHEAD, ITEM_ID_MAX, KEYS_MAX, PATTERN_MAX, SCAN_COUNT_MAX,
    WALK_STAGED_MAX, WALK_STEP, WORK_LOOKED, WORK_READ, WORK_WALKED,
};
use crate::base::{FileId, Now};
use crate::doors::{Backend, CountOf, IfCold, Refusal, Scanned, Unread};
use crate::format::resp::{self, Args};
use std::collections::{BTreeMap, HashMap};

/// Where a walk stands: before the first item of `file`, or behind the item `after`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: FileId,
    after: Option<Vec<u8>>,
}

impl Place {
    /// Whether an item lies behind this place.
    fn is_before(&self, file: FileId, id: &[u8]) -> bool {
        self.file < file || self.file == file && self.after.as_deref().is_none_or(|after| after < id)
    }
}

/// Whose items a walk is for, and by which keys it tells them.
#[derive(Debug)]
enum Scope {
    /// Those of the default file that a short key names, by that key.
    Short(FileId),
    /// Those of the file of this name, in full.
    File(FileId, String),
    /// All, in full.
    All,
}

/// Which items a walk is for.
#[derive(Debug)]
struct Filter {
    pattern: Option<Pattern>,
    scope: Scope,
    /// The ids that fit begin with this; of one file only.
    front: Vec<u8>,
}

impl Filter {
    fn new<B: Backend>(pattern: Option<&[u8]>, shared: &mut RespShared, backend: &B) -> Result<Self, Fail> {
        if pattern.is_some_and(|pattern| pattern.len() > PATTERN_MAX) {
            return Err(format!("ERR a pattern has at most {PATTERN_MAX} bytes").into());
        }
        shared.work.spend(pattern.map_or(0, |pattern| WALK_STEP * (1 + pattern.len())));
        let pattern = pattern.map(Pattern::parse);
        let (front, in_full) =
            pattern.as_ref().map_or((&[][..], false), |pattern| (pattern.literal(), pattern.commas() >= 2));
        if let Some(default) = &shared.config.default_file
            && !in_full
        {
            let scope = Scope::Short(backend.resolve(default.as_bytes())?);
            return Ok(Self { front: front.to_vec(), pattern, scope });
        }
        let mut commas = front.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
        if let (Some(_), Some(second)) = (commas.next(), commas.next()) {
            let (name, front) = (&front[..second], front[second + 1..].to_vec());
            let scope = Scope::File(backend.resolve(name)?, String::from_utf8_lossy(name).into_owned());
            return Ok(Self { front, pattern, scope });
        }
        Ok(Self { front: Vec::new(), pattern, scope: Scope::All })
    }

    /// What DBSIZE counts.
    fn counted<B: Backend>(&self, backend: &B) -> (Vec<FileId>, CountOf) {
        match &self.scope {
            Scope::Short(file) => (vec![*file], CountOf::Short),
            Scope::File(file, _) => (vec![*file], CountOf::All),
            Scope::All => (backend.record_files().into_iter().map(|(file, _)| file).collect(), CountOf::All),
        }
    }

    fn start(&self) -> Place {
        match &self.scope {
            Scope::Short(file) | Scope::File(file, _) => {
                Place { file: *file, after: just_before(&self.front) }
            }
            Scope::All => Place { file: FileId(0), after: None },
        }
    }

    /// The file that comes at `place`, and how its keys begin.
    fn file<B: Backend>(&self, backend: &B, place: &Place) -> Option<(FileId, String)> {
        match &self.scope {
            Scope::Short(file) => (place.file == *file).then(|| (*file, String::new())),
            Scope::File(file, name) => (place.file == *file).then(|| (*file, name.clone() + ",")),
            Scope::All => backend.next_record_file(place.file).map(|(file, name)| (file, name + ",")),
        }
    }

    /// Sets `key` to what is told of an item, if it fits.
    fn key(&self, start: &str, id: &[u8], key: &mut Vec<u8>, work: &mut Work) -> bool {
        if matches!(self.scope, Scope::Short(_)) && id.iter().filter(|byte| **byte == b',').count() >= 2 {
            // As a short key this would name an item of another file.
            return false;
        }
        key.clear();
        key.extend_from_slice(start.as_bytes());
        key.extend_from_slice(id);
        self.pattern.as_ref().is_none_or(|pattern| {
            work.spend(pattern.cost(key.len()));
            pattern.matches(key)
        })
    }

    /// Finds what a transaction put and nobody else can see yet, between two places.
    fn new_items<B: Backend>(
        &self,
        backend: &mut B,
        work: &mut Work,
        staged: &Staged,
        (begin, past): (&Place, Option<&Place>),
        waits: &mut Waits,
        if_cold: IfCold,
    ) -> Result<Vec<Vec<u8>>, Unread> {
        let (mut key, mut found) = (Vec::new(), Vec::new());
        work.spend(staged.len() * WORK_WALKED);
        for (file, id) in staged.puts() {
            let place = Place { file, after: None };
            let Some((_, start)) = self.file(backend, &place).filter(|(found, _)| *found == file) else {
                continue;
            };
            let between = begin.is_before(file, id) && past.is_none_or(|past| !past.is_before(file, id));
            if !between || !self.key(&start, id, &mut key, work) {
                continue;
            }
            let (stored, wait) = backend.read(file, id, if_cold)?;
            work.spend(WORK_READ);
            wait.into_iter().for_each(|wait| waits.add(wait));
            if stored.is_none() {
                found.push(key.clone());
            }
        }
        Ok(found)
    }

    /// Whether no id of the file from this one on can fit.
    fn beyond(&self, id: &[u8]) -> bool {
        !id.starts_with(&self.front) && id > self.front.as_slice()
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

/// Looks at up to `left` items from `place` on, as long as the client's turn lasts, and tells `found` the keys that
/// fit. True when there are no more.
fn walk<B: Backend>(
    (backend, work, staged): (&mut B, &mut Work, Option<&Staged>),
    waits: &mut Waits,
    filter: &Filter,
    place: &mut Place,
    (left, if_cold): (&mut usize, IfCold),
    mut found: impl FnMut(&[u8]),
) -> Result<bool, Unread> {
    let mut key = Vec::new();
    while *left > 0 && !work.slice_is_over() {
        let Some((file, start)) = filter.file(backend, place) else { return Ok(true) };
        if file != place.file {
            *place = Place { file, after: None };
        }
        let Scanned { ids, next, wait, looked } =
            match backend.scan(file, place.after.as_deref(), WALK_STEP.min(*left), if_cold) {
                // Deleted meanwhile: nothing of it is left to be told.
                Err(Unread::Refused(Refusal::NoSuchFile(_))) => Scanned::default(),
                other => other?,
            };
        wait.into_iter().for_each(|wait| waits.add(wait));
        // An empty file is work, too.
        work.spend(WORK_WALKED * (ids.len() + 1) + WORK_LOOKED * looked);
        *left = left.saturating_sub(ids.len().max(1));
        for id in &ids {
            let gone = staged.is_some_and(|staged| staged.deleted(backend.item_hash(file, id), file, id));
            if !gone && filter.key(&start, id, &mut key, work) {
                found(&key);
            }
        }
        match next {
            Some(next) if !filter.beyond(&next) => place.after = Some(next.to_vec()),
            _ if !matches!(filter.scope, Scope::All) => return Ok(true),
            _ => *place = Place { file: FileId(file.0 + 1), after: None },
        }
    }
    Ok(false)
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

/// What a walk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WalkPurpose {
    /// DBSIZE: how many.
    Count,
    /// KEYS: all of them.
    Keys,
    /// SCAN: those of a part, and where to go on.
    Part,
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    filter: Filter,
    /// Where it began.
    begin: Place,
    place: Place,
    /// Items that it looks at yet.
    left: usize,
    /// There is nothing behind `place`.
    ended: bool,
    told: WalkPurpose,
    waits: Waits,
    count: usize,
    /// The keys so far, encoded.
    keys: Vec<u8>,
}

impl Walk {
    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.keys.capacity()
    }

    /// Goes on for a turn. True when there is no more to look at.
    fn look<B: Backend>(
        &mut self,
        backend: &mut B,
        work: &mut Work,
        staged: Option<&Staged>,
        if_cold: IfCold,
    ) -> Result<bool, Fail> {
        let Self { filter, begin, place, left, ended, told, waits, count, keys } = self;
        let mut found = |key: &[u8]| {
            *count += 1;
            if *told != WalkPurpose::Count {
                resp::bulk(keys, key);
            }
        };
        if !*ended {
            *ended = walk((backend, work, staged), waits, filter, place, (left, if_cold), &mut found)?;
        }
        if let Some(staged) = staged
            && (*ended || *left == 0)
        {
            let past = (!*ended).then_some(&*place);
            let new = filter.new_items(backend, work, staged, (begin, past), waits, if_cold)?;
            new.iter().for_each(|key| found(key));
        }
        let ended = *ended;
        if self.told == WalkPurpose::Keys && (self.count > KEYS_MAX || self.keys.len() > CLIENT_REPLY_MAX) {
            return Err(format!("ERR more than {KEYS_MAX} keys would be returned: use SCAN").into());
        }
        Ok(ended)
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
        if options.nothing {
            return self.tell_part(None, 0, &[]);
        }
        self.begin_walk(filter, place, options.count, WalkPurpose::Part)
    }

    pub(super) fn keys(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let filter = Filter::new(Some(args.at(1)), self.shared, self.backend)?;
        let place = filter.start();
        self.begin_walk(filter, place, usize::MAX, WalkPurpose::Keys)
    }

    /// Few items are counted one by one, and so are those that a transaction sees; of many the answer is an estimate.
    pub(super) fn db_size(&mut self) -> Result<(), Fail> {
        let filter = Filter::new(None, self.shared, self.backend)?;
        if self.staged.is_none() {
            let (files, of) = filter.counted(self.backend);
            self.shared.work.spend(files.len() * WORK_WALKED);
            let most: u64 = files.iter().map(|file| self.backend.items_at_most(*file)).sum();
            if most > COUNT_EXACT_MAX {
                let count = self.estimate(&files, of)?;
                return self.integer(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let place = filter.start();
        self.begin_walk(filter, place, usize::MAX, WalkPurpose::Count)
    }

    fn estimate(&mut self, files: &[FileId], of: CountOf) -> Result<u64, Fail> {
        let if_cold = self.if_cold();
        let (mut count, mut cold) = (0, Vec::new());
        for file in files {
            match self.backend.estimate(*file, of, if_cold) {
                Ok(items) => count += items,
                // Deleted meanwhile.
                Err(Unread::Refused(Refusal::NoSuchFile(_))) => {}
                Err(Unread::Cold(fetch)) => cold.push(fetch),
                Err(refused) => return Err(refused.into()),
            }
            if cold.len() >= FETCH_AHEAD {
                break;
            }
        }
        let Some(last) = cold.pop() else { return Ok(count) };
        cold.into_iter().for_each(|fetch| self.also_wait_for(fetch));
        Err(Fail::Cold(last))
    }

    fn begin_walk(
        &mut self,
        filter: Filter,
        place: Place,
        left: usize,
        told: WalkPurpose,
    ) -> Result<(), Fail> {
        let (waits, count, keys) = (Waits::default(), 0, Vec::new());
        let begin = place.clone();
        self.walk_on(Box::new(Walk { filter, begin, place, left, ended: false, told, waits, count, keys }))
    }

    /// Goes on with a walk, and answers when it is over.
    pub(super) fn walk_on(&mut self, mut walk: Box<Walk>) -> Result<(), Fail> {
        if let Some(staged) = &mut self.staged {
            if staged.len() > WALK_STAGED_MAX {
                let error = format!(
                    "ERR this transaction changes more than {WALK_STAGED_MAX} items: look for keys before or after it"
                );
                return Err(error.into());
            }
            staged.walk();
        }
        let if_cold = self.if_cold();
        let looked = walk.look(self.backend, &mut self.shared.work, self.staged.as_ref(), if_cold);
        if let Err(Fail::Cold(fetch)) = looked {
            self.wait_for_fetch(fetch);
            self.unfinished = Some(Blocked::Walk(walk));
            return Ok(());
        }
        let ended = looked?;
        self.client.fetching.progress();
        if !ended && walk.left > 0 {
            self.unfinished = Some(Blocked::Walk(walk));
            return Ok(());
        }
        self.waits.join(&walk.waits);
        let out = &mut self.client.out.bytes;
        match walk.told {
            WalkPurpose::Count => resp::integer(out, i64::try_from(walk.count).unwrap_or(i64::MAX)),
            WalkPurpose::Keys => {
                resp::array(out, walk.count);
                out.extend_from_slice(&walk.keys);
            }
            WalkPurpose::Part => {
                let next = (!ended).then_some(walk.place);
                return self.tell_part(next, walk.count, &walk.keys);
            }
        }
        Ok(())
    }

    fn tell_part(&mut self, next: Option<Place>, count: usize, keys: &[u8]) -> Result<(), Fail> {
        let cursor = next.map_or(0, |place| self.shared.cursors.remember(self.now, place));
        let out = &mut self.client.out.bytes;
        resp::array(out, 2);
        resp::bulk(out, cursor.to_string().as_bytes());
        resp::array(out, count);
        out.extend_from_slice(keys);
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
