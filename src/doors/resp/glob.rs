//! Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-z]`, `[^a]`, `\` before a character that means itself.
//!
//! A pattern is parsed once. A text is then matched byte by byte, all states that the pattern may be in at once, one bit
//! each: so the work is the length of the text times the words of 64 bits that the pattern takes, whatever either says.

/// Bits of one word.
const WORD: usize = 64;

/// A parsed pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Pattern {
    /// The bytes at its front that stand for themselves.
    literal: Vec<u8>,
    /// Commas that neither `\` nor a set holds.
    commas: usize,
    /// Elements that are no stars.
    elements: usize,
    /// Words for one bit more than that.
    words: usize,
    /// Bit n: a star follows the first n elements.
    stars: Vec<u64>,
    /// For each byte the words in which bit n is set if the byte fits element n; elements count from 1.
    fits: Vec<u64>,
    has_star: bool,
}

/// One element as it is written.
enum Element<'p> {
    Star,
    Any,
    Byte(u8),
    Set(&'p [u8]),
}

/// The first element of a pattern that is not empty, and what follows it.
fn element(pattern: &[u8]) -> (Element<'_>, &[u8]) {
    match pattern {
        [b'*', rest @ ..] => (Element::Star, rest),
        [b'?', rest @ ..] => (Element::Any, rest),
        [b'[', rest @ ..] => {
            let (inner, rest) = rest.split_at(set_len(rest));
            (Element::Set(inner), rest.strip_prefix(b"]").unwrap_or(rest))
        }
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => (Element::Byte(*byte), rest),
        [] => (Element::Star, pattern),
    }
}

/// How long a set is without its brackets; one that is never closed goes to the end, as in Redis.
fn set_len(set: &[u8]) -> usize {
    let mut at = usize::from(set.first() == Some(&b'^'));
    loop {
        at += match set.get(at..).unwrap_or_default() {
            [] => return set.len(),
            [b']', ..] => return at,
            [b'\\', _, ..] => 2,
            [_, b'-', _, ..] => 3,
            [_, ..] => 1,
        };
    }
}

/// The bytes that a set holds.
fn members(set: &[u8]) -> [bool; 256] {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut members = [negated; 256];
    let mut mark = |from: u8, to: u8| {
        for place in members.iter_mut().take(usize::from(to) + 1).skip(usize::from(from)) {
            *place = !negated;
        }
    };
    loop {
        set = match set {
            [] => break members,
            [b'\\', byte, rest @ ..] => {
                mark(*byte, *byte);
                rest
            }
            [from, b'-', to, rest @ ..] => {
                mark(*from.min(to), *from.max(to));
                rest
            }
            [byte, rest @ ..] => {
                mark(*byte, *byte);
                rest
            }
        };
    }
}

impl Pattern {
    /// Reads a pattern; every text is one.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut pattern = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let (element, after) = element(rest);
            pattern.elements += usize::from(!matches!(element, Element::Star));
            rest = after;
        }
        pattern.words = pattern.elements / WORD + 1;
        pattern.stars = vec![0; pattern.words];
        pattern.fits = vec![0; pattern.words * 256];
        pattern.fill(text);
        pattern
    }

    fn fill(&mut self, text: &[u8]) {
        let (mut rest, mut at, mut plain) = (text, 0, true);
        while !rest.is_empty() {
            let (element, after) = element(rest);
            if let Element::Star = element {
                self.has_star = true;
                plain = false;
                if let Some(word) = self.stars.get_mut(at / WORD) {
                    *word |= 1 << (at % WORD);
                }
                rest = after;
                continue;
            }
            at += 1;
            match element {
                Element::Byte(byte) => {
                    self.fit(at, byte);
                    self.commas += usize::from(byte == b',' && rest.first() == Some(&b','));
                    if plain {
                        self.literal.push(byte);
                    }
                }
                Element::Set(set) => {
                    let members = members(set);
                    (0..=u8::MAX).filter(|byte| members[usize::from(*byte)]).for_each(|b| self.fit(at, b));
                    plain = false;
                }
                Element::Any | Element::Star => {
                    (0..=u8::MAX).for_each(|byte| self.fit(at, byte));
                    plain = false;
                }
            }
            rest = after;
        }
    }

    fn fit(&mut self, element: usize, byte: u8) {
        if let Some(word) = self.fits.get_mut(usize::from(byte) * self.words + element / WORD) {
            *word |= 1 << (element % WORD);
        }
    }

    /// The bytes at its front that stand for themselves: what fits begins with them.
    pub(super) fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Commas that stand in it as they are: not behind `\`, not in a set.
    pub(super) fn commas(&self) -> usize {
        self.commas
    }

    /// What one look at a text of this length costs at most (steps).
    pub(super) fn cost(&self, text_len: usize) -> usize {
        if text_len < self.elements { 1 } else { 1 + text_len * self.words }
    }

    /// Whether all of `text` fits.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let right_length =
            if self.has_star { text.len() >= self.elements } else { text.len() == self.elements };
        let Some(rest) = text.strip_prefix(self.literal.as_slice()).filter(|_| right_length) else {
            return false;
        };
        match self.words {
            1 => self.run_one(rest),
            _ => self.run(rest),
        }
    }

    fn run_one(&self, text: &[u8]) -> bool {
        let (stars, accept) = (self.stars[0], 1_u64 << self.elements);
        let mut state = 1_u64 << self.literal.len();
        for byte in text {
            state = (state << 1 & self.fits[usize::from(*byte)]) | (state & stars);
            if state == 0 {
                return false;
            }
        }
        state & accept != 0
    }

    fn run(&self, text: &[u8]) -> bool {
        let mut state = vec![0_u64; self.words];
        let bit = |at: usize| (at / WORD, 1_u64 << (at % WORD));
        let (word, first) = bit(self.literal.len());
        state[word] = first;
        for byte in text {
            let from = usize::from(*byte) * self.words;
            let fits = self.fits.get(from..from + self.words).unwrap_or_default();
            let (mut carry, mut any) = (0, 0);
            for ((word, fit), stars) in state.iter_mut().zip(fits).zip(&self.stars) {
                let next = ((*word << 1 | carry) & fit) | (*word & stars);
                carry = *word >> (WORD - 1);
                *word = next;
                any |= next;
            }
            if any == 0 {
                return false;
            }
        }
        let (word, accept) = bit(self.elements);
        state[word] & accept != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        Pattern::parse(pattern).matches(text)
    }

    #[test]
    fn patterns_match_as_in_redis() {
        let yes: [(&str, &str); 19] = [
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
            ("[^", "x"),
            ("[a-]z]", "]"),
            ("[\\a-c]", "-"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should match {text}");
        }
        let no: [(&str, &str); 11] = [
            ("", "a"),
            ("a", ""),
            ("a*c", "abcd"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("??", "a"),
            ("[a-c]", "d"),
            ("ab*", "a"),
            ("[", "["),
            ("[]", "]"),
            ("[]a]", "a"),
        ];
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should not match {text}");
        }
    }

    /// Redis's own way, read from its source: one element after another, each star tried with every length.
    fn as_redis_does(mut pattern: &[u8], mut text: &[u8]) -> bool {
        while !pattern.is_empty() {
            let (first, rest) = element(pattern);
            pattern = rest;
            match (first, text) {
                (Element::Star, _) => {
                    return (0..=text.len()).any(|skipped| as_redis_does(pattern, &text[skipped..]));
                }
                (_, []) => return false,
                (Element::Any, _) => {}
                (Element::Byte(wanted), [byte, ..]) if wanted == *byte => {}
                (Element::Set(set), [byte, ..]) if members(set)[usize::from(*byte)] => {}
                _ => return false,
            }
            text = &text[1..];
        }
        text.is_empty()
    }

    #[test]
    fn any_pattern_and_text_agree_with_matching_one_element_after_another() {
        let mut prng = Prng::new(11);
        let mut found = 0;
        for round in 0..60_000 {
            // Now and then so long that the states do not fit one word.
            let most = if round % 10 == 0 { 150 } else { 12 };
            let mut word = |alphabet: &[u8], most: u64| -> Vec<u8> {
                (0..prng.below(most))
                    .map(|_| alphabet[usize::try_from(prng.below(alphabet.len() as u64)).unwrap()])
                    .collect()
            };
            let text = word(b"aaab-]", most);
            let mut pattern = word(b"aaab?*[]^-\\", if most == 12 { 12 } else { 20 });
            if most > 12 {
                let cut = text.len() / 2;
                pattern = [&text[..cut.min(100)], &pattern].concat();
            }
            let expected = as_redis_does(&pattern, &text);
            found += usize::from(expected);
            let shown =
                (String::from_utf8_lossy(&pattern).into_owned(), String::from_utf8_lossy(&text).into_owned());
            assert_eq!(matches(&pattern, &text), expected, "{shown:?}");
        }
        assert!(found > 1000, "{found} matched");
    }

    #[test]
    fn no_pattern_costs_more_than_the_text_times_its_words() {
        for pattern in [
            "a*".repeat(400) + "c",
            "[".to_owned() + &"x".repeat(1000),
            "*".to_owned() + &"a".repeat(200) + "b",
        ] {
            let parsed = Pattern::parse(pattern.as_bytes());
            let text = "a".repeat(255);
            assert!(!parsed.matches(text.as_bytes()));
            assert!(parsed.cost(255) <= 255 * 4 + 1, "{}", parsed.cost(255));
        }
    }

    #[test]
    fn the_literal_front_ends_before_the_first_element_that_is_not_itself() {
        let literal = |pattern: &[u8]| Pattern::parse(pattern).literal().to_vec();
        assert_eq!(literal(b"app,orders,10*"), b"app,orders,10");
        assert_eq!(literal(b"a\\*b?c"), b"a*b");
        assert_eq!(literal(b"abc"), b"abc");
        assert_eq!(literal(b"*abc"), b"");
    }

    #[test]
    fn commas_count_only_as_they_are() {
        let commas = |pattern: &[u8]| Pattern::parse(pattern).commas();
        assert_eq!(commas(b"a,b,c"), 2);
        assert_eq!(commas(b"*,?,[ab]"), 2);
        assert_eq!(commas(b"a\\,b[,]c[^,]*"), 0);
        assert_eq!(commas(b"a,[,"), 1);
    }
}
