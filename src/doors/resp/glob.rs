//! Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-z]`, `[^a]`, `\` before a character that means itself.

/// Whether `text` fits `pattern`, in time proportional to the product of their lengths at worst.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // Where to go on when the text after the last star does not fit: the star takes one byte more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = p {
            p = rest;
            retry = Some((rest, t));
            continue;
        }
        let step = match (one(p, t.first().copied()), t) {
            (Some(after), [_, rest @ ..]) => Some((after, rest)),
            _ if p.is_empty() && t.is_empty() => return true,
            _ => None,
        };
        (p, t) = match (step, retry) {
            (Some(step), _) => step,
            (None, Some((after_star, [_, rest @ ..]))) => {
                retry = Some((after_star, rest));
                (after_star, rest)
            }
            (None, _) => return false,
        };
    }
}

/// What follows the pattern's first element, if `byte` fits that.
fn one(pattern: &[u8], byte: Option<u8>) -> Option<&[u8]> {
    let byte = byte?;
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => set(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// A set without its opening bracket; one that is never closed goes to the end, as in Redis.
fn set(mut pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let negated = pattern.first() == Some(&b'^');
    if negated {
        pattern = &pattern[1..];
    }
    let mut found = false;
    let rest = loop {
        pattern = match pattern {
            [] => break pattern,
            [b']', rest @ ..] => break rest,
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
        };
    };
    (found != negated).then_some(rest)
}

/// The bytes before the first that does not stand for itself.
pub(super) fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let special = pattern.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
    pattern.split_at(special.unwrap_or(pattern.len())).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let yes: [(&str, &str); 16] = [
            ("*", ""),
            ("", ""),
            ("a*c", "abbc"),
            ("a*b*c", "axbxbc"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hbllo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("[\\]]", "]"),
            ("app,*,10??", "app,orders,1001"),
            ("**a", "bca"),
            ("[ab", "b"),
            ("a\\", "a\\"),
            ("*ab", "aab"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should match {text}");
        }
        let no: [(&str, &str); 8] = [
            ("", "a"),
            ("a", ""),
            ("a*c", "abcd"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("??", "a"),
            ("[a-c]", "d"),
            ("ab*", "a"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_does_not_take_for_ever() {
        let pattern = "a*".repeat(400);
        let text = "a".repeat(255) + "b";
        assert!(!matches((pattern + "c").as_bytes(), text.as_bytes()));
    }

    #[test]
    fn the_literal_prefix_ends_before_the_first_special_character() {
        assert_eq!(literal_prefix(b"app,orders,10*"), b"app,orders,10");
        assert_eq!(literal_prefix(b"a\\*"), b"a");
        assert_eq!(literal_prefix(b"abc"), b"abc");
    }
}
