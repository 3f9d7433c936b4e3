//! The hour of the day where this machine stands.

/// Minutes since midnight of the machine's local time at `seconds` since 1970; those of UTC where the local time is not known.
#[must_use]
pub fn local_minute(seconds: i64) -> u16 {
    let utc = u16::try_from(seconds.rem_euclid(86_400) / 60).unwrap_or_default();
    let mut told = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: localtime_r(3) reads one time_t and writes one struct tm, both ours and alive through the call. It may read the
    // environment for TZ; nothing of this program changes the environment.
    let result = unsafe { libc::localtime_r(&raw const seconds, told.as_mut_ptr()) };
    if result.is_null() {
        return utc;
    }
    // SAFETY: all bytes were zeroed, which is a struct tm (numbers, and a pointer that may be null), and then written.
    let told = unsafe { told.assume_init() };
    u16::try_from(told.tm_hour * 60 + told.tm_min).unwrap_or(utc)
}

#[cfg(test)]
mod tests {
    use super::local_minute;

    #[test]
    fn the_minute_of_the_day_is_that_of_the_systems_own_clock() {
        let seconds = 1_700_000_000;
        let date = std::process::Command::new("date")
            .args(["-d", &format!("@{seconds}"), "+%H %M"])
            .output()
            .unwrap();
        let text = String::from_utf8(date.stdout).unwrap();
        let (hours, minutes) = text.trim().split_once(' ').unwrap();
        let told: u16 = hours.parse::<u16>().unwrap() * 60 + minutes.parse::<u16>().unwrap();
        assert_eq!(local_minute(seconds), told);
        assert_eq!((local_minute(seconds + 60) + 24 * 60 - told) % (24 * 60), 1);
    }
}
