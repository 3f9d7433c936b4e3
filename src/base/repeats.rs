//! What repeats is told a few times, then once in a while with a count.

use super::Mono;

/// Limits how often the same is told. Each key has a burst of tellings; what comes above it within the quiet time is
/// counted, and the newest of it is told when that time is over. While it goes on, one is told in each quiet time.
#[derive(Debug)]
pub struct Repeats<K, T> {
    burst: u32,
    quiet_ms: u64,
    keys_max: usize,
    voices: Vec<Voice<K, T>>,
    /// Of keys beyond `keys_max`, which are not told apart.
    unknown: u64,
}

#[derive(Debug)]
struct Voice<K, T> {
    key: K,
    since: Mono,
    told: u32,
    unsaid: u64,
    newest: Option<T>,
}

/// Something that may be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling<T> {
    /// What.
    pub what: T,
    /// How often the same happened before this and was not told.
    pub unsaid: u64,
}

impl<K: PartialEq, T> Repeats<K, T> {
    /// Nothing was told yet.
    ///
    /// # Panics
    /// If nothing could be told ever.
    #[must_use]
    pub fn new(burst: u32, quiet_ms: u64, keys_max: usize) -> Self {
        assert!(burst > 0 && keys_max > 0, "something may be told");
        Self { burst, quiet_ms, keys_max, voices: Vec::new(), unknown: 0 }
    }

    /// It happened: gives it back if it may be told, else counts it.
    pub fn say(&mut self, now: Mono, key: K, what: T) -> Option<Telling<T>> {
        let (burst, quiet_ms) = (self.burst, self.quiet_ms);
        let Some(voice) = self.voice(now, key) else {
            self.unknown += 1;
            return None;
        };
        if now >= voice.since.plus_ms(quiet_ms) {
            // What went on until now has had its burst.
            voice.told = if voice.unsaid > 0 { burst - 1 } else { 0 };
            voice.since = now;
        }
        if voice.told == burst {
            voice.unsaid += 1;
            voice.newest = Some(what);
            return None;
        }
        voice.told += 1;
        voice.newest = None;
        Some(Telling { what, unsaid: std::mem::take(&mut voice.unsaid) })
    }

    fn voice(&mut self, now: Mono, key: K) -> Option<&mut Voice<K, T>> {
        if let Some(at) = self.voices.iter().position(|voice| voice.key == key) {
            return self.voices.get_mut(at);
        }
        if self.voices.len() == self.keys_max {
            let quiet_ms = self.quiet_ms;
            self.voices.retain(|voice| now < voice.since.plus_ms(quiet_ms) || voice.unsaid > 0);
        }
        if self.voices.len() == self.keys_max {
            return None;
        }
        self.voices.push(Voice { key, since: now, told: 0, unsaid: 0, newest: None });
        self.voices.last_mut()
    }

    /// What was held back and may be told now.
    pub fn due(&mut self, now: Mono) -> Vec<Telling<T>> {
        let mut due = Vec::new();
        for voice in &mut self.voices {
            if now >= voice.since.plus_ms(self.quiet_ms)
                && let Some(what) = voice.newest.take()
            {
                (voice.since, voice.told) = (now, self.burst);
                due.push(Telling { what, unsaid: std::mem::take(&mut voice.unsaid) - 1 });
            }
        }
        due
    }

    /// When [`Self::due`] has something.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let held = self.voices.iter().filter(|voice| voice.newest.is_some());
        held.map(|voice| voice.since.plus_ms(self.quiet_ms)).min()
    }

    /// How often something happened whose key was one too many to be told.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn told<T: Clone>(telling: Option<Telling<T>>) -> Option<(T, u64)> {
        telling.map(|telling| (telling.what, telling.unsaid))
    }

    #[test]
    fn what_repeats_all_the_time_is_told_in_a_burst_and_then_once_a_minute_with_its_count() {
        let mut repeats = Repeats::new(2, 60_000, 4);
        let lines: Vec<_> =
            (0..600).filter_map(|tenth| told(repeats.say(Mono(tenth * SECOND / 2), "disk", tenth))).collect();
        // Two at once, then at 60, 120, 180 and 240 s.
        assert_eq!(lines, [(0, 0), (1, 0), (120, 118), (240, 119), (360, 119), (480, 119)]);
    }

    #[test]
    fn the_newest_of_what_was_held_back_is_told_though_nothing_more_happens() {
        let mut repeats = Repeats::new(1, 60_000, 4);
        assert_eq!(repeats.deadline(), None);
        for n in 0..5 {
            repeats.say(Mono(n), "link", n);
        }
        assert_eq!(repeats.deadline(), Some(Mono(60 * SECOND)));
        assert!(repeats.due(Mono(59 * SECOND)).is_empty());
        assert_eq!(repeats.due(Mono(60 * SECOND)), [Telling { what: 4, unsaid: 3 }]);
        assert_eq!((repeats.deadline(), repeats.due(Mono(200 * SECOND))), (None, Vec::new()));
        assert_eq!(told(repeats.say(Mono(70 * SECOND), "link", 5)), None, "it was told a short time ago");
        assert_eq!(repeats.due(Mono(120 * SECOND)), [Telling { what: 5, unsaid: 0 }]);
        // After a quiet time it is as new.
        assert_eq!(told(repeats.say(Mono(200 * SECOND), "link", 9)), Some((9, 0)));
    }

    #[test]
    fn what_was_told_when_it_happened_again_is_not_told_a_second_time() {
        let mut repeats = Repeats::new(1, 60_000, 4);
        for n in 0..3 {
            repeats.say(Mono(n), "link", n);
        }
        assert_eq!(told(repeats.say(Mono(60 * SECOND), "link", 3)), Some((3, 2)));
        assert_eq!((repeats.deadline(), repeats.due(Mono(300 * SECOND))), (None, Vec::new()));
    }

    #[test]
    fn what_is_held_back_is_told_even_where_there_is_no_room_for_others() {
        let mut repeats = Repeats::new(1, 60_000, 1);
        for n in 0..2 {
            repeats.say(Mono(0), "first", n);
        }
        assert_eq!(told(repeats.say(Mono(61 * SECOND), "second", 9)), None);
        assert_eq!(repeats.due(Mono(62 * SECOND)), [Telling { what: 1, unsaid: 0 }]);
    }

    #[test]
    fn keys_do_not_silence_each_other_and_their_number_is_bounded() {
        let mut repeats = Repeats::new(1, 60_000, 3);
        let at = Mono(0);
        assert!((0..3).all(|key| repeats.say(at, key, ()).is_some()));
        assert!((3..1000).all(|key| repeats.say(at, key, ()).is_none()));
        assert_eq!((repeats.voices.len(), repeats.unknown()), (3, 997));
        assert!(repeats.say(Mono(61 * SECOND), 1000, ()).is_some(), "the old ones are forgotten");
        assert_eq!(repeats.voices.len(), 1);
    }
}
