//! Who gave wrong passwords lately, by address, and how long those who come from there are not listened to.

use crate::base::Mono;
use crate::base::limits::{GUESS_ADDRESSES_MAX, GUESS_FORGET_MS, GUESS_FREE, GUESS_MS, GUESS_MS_MAX};
use std::collections::HashMap;
use std::net::IpAddr;

/// Wrong passwords by address.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    /// How many, and when the last one came.
    wrong: HashMap<IpAddr, (u32, Mono)>,
}

/// One who may choose addresses freely counts as one: of IPv6 the network decides.
fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

impl Guesses {
    /// A wrong password came.
    pub(crate) fn wrong(&mut self, address: IpAddr, now: Mono) {
        let address = place(address);
        if self.wrong.len() >= GUESS_ADDRESSES_MAX && !self.wrong.contains_key(&address) {
            self.wrong.retain(|_, (_, last)| now < last.plus_ms(GUESS_FORGET_MS));
            let oldest = self.wrong.iter().min_by_key(|(_, (_, last))| *last).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| self.wrong.len() >= GUESS_ADDRESSES_MAX) {
                self.wrong.remove(&oldest);
            }
        }
        let (count, last) = self.wrong.entry(address).or_default();
        if last.plus_ms(GUESS_FORGET_MS) <= now {
            *count = 0;
        }
        (*count, *last) = (count.saturating_add(1), now);
    }

    /// Until when nobody from there is listened to who has not given the right one.
    pub(crate) fn until(&self, address: IpAddr, now: Mono) -> Option<Mono> {
        let (count, last) = self.wrong.get(&place(address))?;
        let doublings = count.checked_sub(GUESS_FREE + 1)?.min(20);
        let until = last.plus_ms((GUESS_MS << doublings).min(GUESS_MS_MAX));
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn seconds(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    #[test]
    fn each_wrong_password_makes_the_next_wait_longer_up_to_a_bound() {
        let mut guesses = Guesses::default();
        let now = seconds(100);
        for _ in 0..GUESS_FREE {
            guesses.wrong(ONE, now);
            assert_eq!(guesses.until(ONE, now), None, "a typing error costs nothing");
        }
        let mut before = now;
        for _ in 0..30 {
            guesses.wrong(ONE, now);
            let until = guesses.until(ONE, now).unwrap();
            assert!(until > before || until == now.plus_ms(GUESS_MS_MAX), "{until:?} after {before:?}");
            before = until;
        }
        assert_eq!(before, now.plus_ms(GUESS_MS_MAX));
        assert_eq!(guesses.until(ONE, before), None);
        assert_eq!(guesses.until("10.0.0.2".parse().unwrap(), now), None);
        // What is long ago is forgotten.
        let later = now.plus_ms(GUESS_FORGET_MS);
        guesses.wrong(ONE, later);
        assert_eq!(guesses.until(ONE, later), None);
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let mut guesses = Guesses::default();
        let now = seconds(100);
        let address = |last: u16| IpAddr::V6([0x2001, 0xDB8, 0, 7, 0, 0, 0, last].into());
        (0..10).for_each(|last| guesses.wrong(address(last), now));
        assert!(guesses.until(address(99), now).is_some());
        assert_eq!(guesses.until("2001:db8:0:8::1".parse().unwrap(), now), None);
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        (0..10).for_each(|_| guesses.wrong(mapped, now));
        assert!(guesses.until(ONE, now).is_some());
    }

    #[test]
    fn however_many_addresses_guess_few_are_remembered_and_those_are_the_last() {
        let mut guesses = Guesses::default();
        for number in 0..100_000_u32 {
            let now = Mono(u64::from(number) * 100);
            let address = IpAddr::V4(number.into());
            (0..=GUESS_FREE).for_each(|_| guesses.wrong(address, now));
            assert!(guesses.wrong.len() <= GUESS_ADDRESSES_MAX);
            assert!(guesses.until(address, now).is_some());
            let before = IpAddr::V4(number.saturating_sub(9).into());
            assert!(guesses.until(before, now).is_some(), "those that guessed last are not forgotten for it");
        }
    }
}
