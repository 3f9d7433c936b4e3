//! What two lists of details say: which parts differ, and which ranges hold them.

use crate::base::limits::{BLOCK_U64, COMPARE_TEXT_MAX};
use crate::format::compare::{Details, Kind, Span};
use bytes::Bytes;
use std::cmp::Ordering;

/// Parts that follow each other and differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// What holds all of them, and nothing that both nodes have alike.
    pub(super) span: Span,
    /// Their names, and how they differ.
    pub(super) parts: Vec<(Bytes, Kind)>,
}

/// What was found in a span, up to where both nodes looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) stretches: Vec<Stretch>,
    /// What is left of the span.
    pub(super) rest: Option<Span>,
}

/// Compares what the standby and the primary found in a span.
pub(super) fn findings(span: &Span, standby: &Details, primary: &Details) -> Findings {
    let limit = match (&standby.reached, &primary.reached) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.as_ref().or(b.as_ref()),
    };
    let within = |name: &Bytes| limit.is_none_or(|limit| name <= limit);
    let (mut a, mut b) = (standby.parts.iter().peekable(), primary.parts.iter().peekable());
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut before = match span {
        Span::Items { after, .. } => after.clone(),
        _ => Bytes::new(),
    };
    let mut follows = false;
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let (name, kind) = match order {
            Ordering::Less => (a.next().map(|(name, _)| name.clone()), Some(Kind::StandbyOnly)),
            Ordering::Greater => (b.next().map(|(name, _)| name.clone()), Some(Kind::PrimaryOnly)),
            Ordering::Equal => {
                let (here, there) = (a.next(), b.next());
                let differ = here.map(|(_, hash)| hash) != there.map(|(_, hash)| hash);
                (here.map(|(name, _)| name.clone()), differ.then_some(Kind::Changed))
            }
        };
        let Some(name) = name.filter(|name| within(name)) else { break };
        if let Some(kind) = kind {
            add(&mut stretches, span, (&before, &name), kind, follows);
        }
        follows = kind.is_some();
        before = name;
    }
    let rest = match (span, limit) {
        (Span::Items { through, .. }, Some(limit)) => {
            Some(Span::Items { after: limit.clone(), through: through.clone() })
        }
        _ => None,
    };
    Findings { stretches, rest }
}

/// Adds a part behind `before`. `follows`: that differs too.
fn add(
    stretches: &mut Vec<Stretch>,
    span: &Span,
    (before, name): (&Bytes, &Bytes),
    kind: Kind,
    follows: bool,
) {
    if matches!(span, Span::Blocks { .. }) {
        let at = offset_of(name);
        if let Some(Stretch { span: Span::Blocks { offset, len }, parts }) = stretches.last_mut()
            && *offset + *len == at
        {
            *len += BLOCK_U64;
            parts.push((name.clone(), kind));
            return;
        }
        let span = Span::Blocks { offset: at, len: BLOCK_U64 };
        return stretches.push(Stretch { span, parts: vec![(name.clone(), kind)] });
    }
    if follows && let Some(Stretch { span: Span::Items { through, .. }, parts }) = stretches.last_mut() {
        through.clone_from(name);
        parts.push((name.clone(), kind));
        return;
    }
    let span = Span::Items { after: before.clone(), through: name.clone() };
    stretches.push(Stretch { span, parts: vec![(name.clone(), kind)] });
}

/// The offset of a block that goes by this name; a name of another length is none of a block.
pub(super) fn offset_of(name: &[u8]) -> u64 {
    name.try_into().map_or(u64::MAX / 4, u64::from_be_bytes)
}

/// Whether all of the details are of the span, and in it.
pub(super) fn fits(span: &Span, details: &Details) -> bool {
    match span {
        Span::Items { after, through } => {
            let last = details.reached.as_ref().or((!through.is_empty()).then_some(through));
            let within = |name: &Bytes| name > after && last.is_none_or(|last| name <= last);
            reaches(span, details.reached.as_ref()) && details.parts.iter().all(|(name, _)| within(name))
        }
        Span::Blocks { offset, len } => details.parts.iter().all(|(name, _)| {
            let at = offset_of(name);
            name.len() == 8 && at >= *offset && at < offset + len && at.is_multiple_of(BLOCK_U64)
        }),
        Span::Query(_) => details.reached.is_none(),
        Span::Behind(_) => false,
    }
}

/// Whether a look at the span may have ended there.
pub(super) fn reaches(span: &Span, reached: Option<&Bytes>) -> bool {
    match (span, reached) {
        (_, None) => true,
        (Span::Items { after, through }, Some(reached)) => {
            reached > after && (through.is_empty() || reached < through)
        }
        _ => false,
    }
}

/// The name of a part of a file, for people.
pub(super) fn words(name: &[u8], blocks: bool) -> String {
    if blocks {
        let at = offset_of(name);
        return format!("bytes {at} to {}", at.saturating_add(BLOCK_U64 - 1));
    }
    short(&String::from_utf8_lossy(name).escape_debug().to_string())
}

/// A range, for people.
pub(super) fn span_words(span: &Span) -> String {
    let id = |id: &[u8]| String::from_utf8_lossy(id).escape_debug().to_string();
    short(&match span {
        Span::Items { after, through } => match (after.is_empty(), through.is_empty()) {
            (true, true) => "all items".to_owned(),
            (true, false) => format!("items up to {}", id(through)),
            (false, true) => format!("items after {}", id(after)),
            (false, false) => format!("items after {} up to {}", id(after), id(through)),
        },
        Span::Blocks { offset, len } => format!("bytes {offset} to {}", (offset + len).saturating_sub(1)),
        Span::Behind(_) => "items".to_owned(),
        Span::Query(command) => id(command),
    })
}

/// The text, or its beginning if it is long.
fn short(text: &str) -> String {
    let most = COMPARE_TEXT_MAX - 3;
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn items(parts: &[(&'static str, u8)], reached: Option<&'static str>) -> Details {
        let parts = parts.iter().map(|(name, hash)| (b(name), [*hash; 16])).collect();
        Details { reached: reached.map(b), parts }
    }

    fn span(after: &'static str, through: &'static str) -> Span {
        Span::Items { after: b(after), through: b(through) }
    }

    #[test]
    fn each_part_that_differs_is_named_and_its_range_holds_no_other() {
        let standby = items(&[("a", 1), ("b", 1), ("c", 1), ("e", 1), ("g", 1)], None);
        let primary = items(&[("a", 1), ("b", 2), ("c", 2), ("d", 1), ("g", 1), ("h", 1)], None);
        let Findings { stretches, rest } = findings(&span("", ""), &standby, &primary);
        assert_eq!(rest, None);
        let told: Vec<_> =
            stretches.iter().map(|stretch| (stretch.span.clone(), stretch.parts.len())).collect();
        assert_eq!(told, [(span("a", "e"), 4), (span("g", "h"), 1)]);
        let kinds: Vec<_> = stretches[0].parts.iter().map(|(name, kind)| (name.clone(), *kind)).collect();
        let wanted = [
            (b("b"), Kind::Changed),
            (b("c"), Kind::Changed),
            (b("d"), Kind::PrimaryOnly),
            (b("e"), Kind::StandbyOnly),
        ];
        assert_eq!(kinds, wanted);
        assert_eq!(findings(&span("", ""), &primary, &primary).stretches, []);
    }

    #[test]
    fn what_one_node_did_not_look_at_is_left_for_the_next_look() {
        let standby = items(&[("a", 1), ("c", 1)], Some("c"));
        let primary = items(&[("a", 1), ("b", 1), ("d", 1)], None);
        let found = findings(&span("", "z"), &standby, &primary);
        assert_eq!(found.rest, Some(span("c", "z")));
        let parts: Vec<_> = found.stretches.iter().flat_map(|stretch| stretch.parts.clone()).collect();
        assert_eq!(parts, [(b("b"), Kind::PrimaryOnly), (b("c"), Kind::StandbyOnly)]);
    }

    #[test]
    fn blocks_that_differ_are_named_by_their_bytes() {
        let blocks = |offsets: &[(u64, u8)]| Details {
            reached: None,
            parts: offsets.iter().map(|(at, hash)| (at.to_be_bytes().to_vec().into(), [*hash; 16])).collect(),
        };
        let span = Span::Blocks { offset: 0, len: 1 << 20 };
        let (standby, primary) =
            (blocks(&[(0, 1), (4096, 1), (8192, 1)]), blocks(&[(0, 1), (4096, 2), (16384, 1)]));
        let found = findings(&span, &standby, &primary);
        let told: Vec<_> = found.stretches.iter().map(|stretch| stretch.span.clone()).collect();
        assert_eq!(
            told,
            [Span::Blocks { offset: 4096, len: 8192 }, Span::Blocks { offset: 16384, len: 4096 }]
        );
        assert_eq!(words(&found.stretches[0].parts[0].0, true), "bytes 4096 to 8191");
        assert!(fits(&span, &standby) && !fits(&Span::Blocks { offset: 4096, len: 4096 }, &standby));
        assert!(!fits(&span, &items(&[("x", 1)], None)), "that is no block");
    }

    #[test]
    fn details_beyond_the_span_do_not_fit_it() {
        let two = |reached| items(&[("b", 1), ("c", 1)], reached);
        assert!(fits(&span("a", ""), &two(None)) && fits(&span("a", "d"), &two(Some("c"))));
        for (after, through, reached) in
            [("b", "", None), ("a", "b", None), ("a", "d", Some("b")), ("a", "d", Some("d"))]
        {
            assert!(!fits(&span(after, through), &two(reached)), "{after} {through} {reached:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_no_control_character_is_told() {
        assert_eq!(words(b"a\nb", false), "a\\nb");
        let long = words("\u{1f600}".repeat(300).as_bytes(), false);
        assert!(long.len() <= COMPARE_TEXT_MAX && long.ends_with("..."), "{long}");
        assert_eq!(span_words(&span("a", "b")), "items after a up to b");
    }
}
