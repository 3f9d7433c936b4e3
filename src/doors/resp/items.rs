//! Commands on single items.

use super::gather::What;
use super::refusal::{Fail, NOT_AN_INTEGER, SYNTAX};
use super::turn::{Turn, wrong_arity};
use crate::base::FileId;
use crate::base::limits::ITEM_VALUE_MAX;
use crate::doors::{Backend, Refusal, Update};
use crate::format::resp::{self, Args};
use bytes::{Bytes, BytesMut};

/// Reads an integer as strictly as Redis: no blanks, no plus, no zeros in front.
pub(super) fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        b"0" => return (digits.len() == text.len()).then_some(0),
        [b'1'..=b'9', rest @ ..] if rest.len() < 19 && rest.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Options of SET and GETEX that ask for an end.
const EXPIRY_OPTIONS: [&str; 4] = ["ex", "px", "exat", "pxat"];
/// What whoever asks for an end of an item is told.
pub(super) const NO_EXPIRY: &str = "ERR items do not expire: EX, PX, EXAT and PXAT are not supported, nor EXPIRE and its \
                                    like; delete the item when its time is over";

/// The options of SET.
#[derive(Default)]
struct SetOptions {
    if_absent: bool,
    if_present: bool,
    get: bool,
}

impl SetOptions {
    fn read(args: Args<'_>) -> Result<Self, Fail> {
        let mut options = Self::default();
        for word in args.tail(3) {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if EXPIRY_OPTIONS.into_iter().any(is) {
                return Err(NO_EXPIRY.into());
            } else if is("nx") && !options.if_present {
                options.if_absent = true;
            } else if is("xx") && !options.if_absent {
                options.if_present = true;
            } else if is("get") {
                options.get = true;
            } else if !is("keepttl") {
                return Err(SYNTAX.into());
            }
        }
        Ok(options)
    }
}

impl<B: Backend> Turn<'_, B> {
    /// Reads an argument that must be an integer.
    pub(super) fn parse_integer(&self, text: &[u8]) -> Result<i64, Fail> {
        parse_integer(text).ok_or(NOT_AN_INTEGER.into())
    }

    fn put(&mut self, (file, id): (FileId, &[u8]), value: &[u8]) -> Result<(), Fail> {
        self.write(&[Update::Put { file, id, value }])
    }

    fn read_key(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fail> {
        let item = self.key(key)?;
        self.read(item)
    }

    pub(super) fn count(&mut self, count: usize) -> Result<(), Fail> {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn set(&mut self, args: Args<'_>) -> Result<(), Fail> {
        if args.len() == 3 {
            let item = self.key(args.at(1))?;
            self.put(item, args.at(2))?;
            return self.ok();
        }
        let options = SetOptions::read(args)?;
        let item = self.key(args.at(1))?;
        let asked = options.get || options.if_absent || options.if_present;
        let old = if asked { self.read(item)? } else { None };
        let done = !(options.if_absent && old.is_some() || options.if_present && old.is_none());
        if done {
            self.put(item, args.at(2))?;
        }
        if options.get || !done {
            let shown = if options.get { old.as_deref() } else { None };
            return self.bulk_or_null(shown);
        }
        self.ok()
    }

    pub(super) fn get(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let value = self.read_key(args.at(1))?;
        self.bulk_or_null(value.as_deref())
    }

    pub(super) fn get_ex(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let is = |at: usize, name: &str| args.at(at).eq_ignore_ascii_case(name.as_bytes());
        match args.len() {
            2 => {}
            // There is nothing to take away.
            3 if is(2, "persist") => {}
            4 if EXPIRY_OPTIONS.into_iter().any(|name| is(2, name)) => return Err(NO_EXPIRY.into()),
            _ => return Err(SYNTAX.into()),
        }
        self.get(args)
    }

    pub(super) fn set_nx(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let item = self.key(args.at(1))?;
        let absent = self.read(item)?.is_none();
        if absent {
            self.put(item, args.at(2))?;
        }
        self.integer(i64::from(absent))
    }

    pub(super) fn get_del(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let (file, id) = self.key(args.at(1))?;
        let value = self.read((file, id))?;
        self.bulk_or_null(value.as_deref())?;
        if value.is_some() {
            self.write(&[Update::Delete { file, id }])?;
        }
        Ok(())
    }

    pub(super) fn get_set(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let item = self.key(args.at(1))?;
        let old = self.read(item)?;
        self.bulk_or_null(old.as_deref())?;
        self.put(item, args.at(2))
    }

    pub(super) fn get_range(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let (start, end) = (self.parse_integer(args.at(2))?, self.parse_integer(args.at(3))?);
        let value = self.read_key(args.at(1))?.unwrap_or_default();
        // Values are far below 2^63 bytes; a negative index counts from the end.
        let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
        let from_start =
            |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index.min(len) };
        if start < 0 && end < 0 && start > end {
            return self.bulk(b"");
        }
        let first = usize::try_from(from_start(start)).unwrap_or(0);
        let past = usize::try_from(from_start(end)).unwrap_or(0) + 1;
        self.bulk(value.get(first..past.min(value.len())).unwrap_or_default())
    }

    pub(super) fn str_len(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let value = self.read_key(args.at(1))?;
        self.count(value.map_or(0, |value| value.len()))
    }

    /// MSET and MSETNX: keys, each with a value.
    pub(super) fn gather_pairs(&mut self, what: What, args: Args<'_>) -> Result<(), Fail> {
        if args.len().is_multiple_of(2) {
            let name = if what == What::Put { "mset" } else { "msetnx" };
            return Err(wrong_arity(name).into());
        }
        self.gather(what, args)
    }

    pub(super) fn append(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let item = self.key(args.at(1))?;
        let old = self.read(item)?.unwrap_or_default();
        let found = old.len() + args.at(2).len();
        if found > ITEM_VALUE_MAX {
            let limit = "an item's value has at most 16 MiB";
            return Err(Refusal::TooLarge { what: "item value", found, limit }.into());
        }
        self.shared.work.spend(args.at(2).len());
        let (file, id) = item;
        if let Some(staged) = &mut self.staged {
            let hash = self.backend.item_hash(file, id);
            if let Some(own) = staged.draft.take(hash, file, id) {
                // Nobody else holds it: it grows in place, however often it is appended to.
                drop(old);
                let mut own = own.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                own.extend_from_slice(args.at(2));
                staged.draft.set(hash, file, id, Some(own.freeze()));
                return self.count(found);
            }
        }
        let value = [old.as_ref(), args.at(2)].concat();
        self.put(item, &value)?;
        self.count(found)
    }

    pub(super) fn incr_by(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let by = self.parse_integer(args.at(2))?;
        self.add(args.at(1), by)
    }

    pub(super) fn decr_by(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let by = self.parse_integer(args.at(2))?;
        let by = by.checked_neg().ok_or(Fail::from("ERR decrement would overflow"))?;
        self.add(args.at(1), by)
    }

    pub(super) fn add(&mut self, key: &[u8], by: i64) -> Result<(), Fail> {
        let item = self.key(key)?;
        let old = match self.read(item)? {
            Some(value) => self.parse_integer(&value)?,
            None => 0,
        };
        let new = old.checked_add(by).ok_or(Fail::from("ERR increment or decrement would overflow"))?;
        self.put(item, new.to_string().as_bytes())?;
        self.integer(new)
    }

    pub(super) fn type_of(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let there = self.read_key(args.at(1))?.is_some();
        resp::simple(&mut self.client.out.bytes, if there { "string" } else { "none" });
        Ok(())
    }

    /// Items never expire: -1, or -2 where there is none.
    pub(super) fn ttl(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let there = self.read_key(args.at(1))?.is_some();
        self.integer(if there { -1 } else { -2 })
    }

    pub(super) fn persist(&mut self, args: Args<'_>) -> Result<(), Fail> {
        self.key(args.at(1))?;
        self.integer(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_does() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
        }
        for text in
            ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808", "99999999999999999999", "x"]
        {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }
}
