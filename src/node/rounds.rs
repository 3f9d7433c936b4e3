//! How long the rounds of the core thread are, in processor time: what one client can make others wait for, whatever
//! else the machine does.

use crate::base::Mono;
use crate::base::limits::ROUNDS_SHOWN_MS;
use std::time::Duration;

/// Keeps the longest round of the last minute or two.
#[derive(Debug, Default)]
pub(crate) struct RoundMeter {
    /// Processor time when the last round ended.
    last: Option<Duration>,
    /// Where this period ends.
    until: Mono,
    /// The longest round of this period and of the one before.
    longest: [Duration; 2],
}

impl RoundMeter {
    /// A round is over, and the thread has used so much processor time in its life.
    pub(crate) fn end(&mut self, now: Mono, used: Duration) {
        if now >= self.until {
            self.until = now.plus_ms(ROUNDS_SHOWN_MS);
            self.longest = [Duration::ZERO, self.longest[0]];
        }
        if let Some(last) = self.last.replace(used) {
            self.longest[0] = self.longest[0].max(used.saturating_sub(last));
        }
    }

    /// The longest round that is remembered (milliseconds).
    pub(crate) fn longest_ms(&self) -> f64 {
        self.longest[0].max(self.longest[1]).as_secs_f64() * 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_round_is_told_for_a_minute_at_least_and_two_at_most() {
        let mut meter = RoundMeter::default();
        let mut used = Duration::ZERO;
        let mut round = |meter: &mut RoundMeter, second: u64, ms: u64| {
            used += Duration::from_millis(ms);
            meter.end(Mono(0).plus_ms(second * 1000), used);
        };
        round(&mut meter, 0, 500);
        assert!(meter.longest_ms() < 0.1, "what came before the first round is none");
        round(&mut meter, 30, 7);
        round(&mut meter, 59, 2);
        round(&mut meter, 89, 3);
        assert!((meter.longest_ms() - 7.0).abs() < 0.1, "{meter:?}");
        round(&mut meter, 150, 1);
        assert!((meter.longest_ms() - 3.0).abs() < 0.1, "{meter:?}");
    }
}
