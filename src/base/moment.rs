//! A moment as people write it, in UTC: the other way round than [`super::shown::utc`].

/// The last millisecond (since 1970) of what is named: `2026-01-31 23:59:59` is all of that second, with `.25` behind it a part
/// of it. Between day and time stands a space or a `T`; a `Z` may end it. Nothing else is taken for a moment.
#[must_use]
pub fn last_of(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, part) = match time.split_once('.') {
        None => (time, 999),
        Some((time, part)) => (time, thousandths(part)?),
    };
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let sound = year >= 1970 && (1..=longest).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let seconds = ((days(year, month, day)? * 24 + hour) * 60 + minute) * 60 + second;
    sound.then_some(seconds * 1000 + part)
}

/// Three numbers of so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut found = [0; 3];
    let mut words = text.split(between);
    for (place, len) in found.iter_mut().zip(digits) {
        let word = words.next().filter(|word| word.len() == len)?;
        *place = number(word)?;
    }
    words.next().is_none().then_some(found)
}

fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// Of a second.
fn thousandths(text: &str) -> Option<u64> {
    let len = u32::try_from(text.len()).ok().filter(|len| *len <= 3)?;
    Some(number(text)? * 10_u64.pow(3 - len))
}

/// Days since 1970-01-01.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // The year is counted from March, so that a leap day is its last.
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + day_of_year;
    (year / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shown::utc;

    #[test]
    fn a_moment_that_is_shown_reads_back_and_names_its_whole_second() {
        for wall_ms in [0, 951_782_399_000, 951_868_800_999, 1_796_947_199_500, 4_107_542_400_000] {
            assert_eq!(last_of(&utc(wall_ms)), Some(wall_ms / 1000 * 1000 + 999), "{}", utc(wall_ms));
        }
        for day in 0..60_000 {
            let text = utc(day * 86_400_000);
            assert_eq!(last_of(&text), Some(day * 86_400_000 + 999), "{text}");
        }
        assert_eq!(last_of("1970-01-01T00:00:01.25"), Some(1250));
        assert_eq!(last_of("1970-01-01 00:00:00.007Z"), Some(7));
    }

    #[test]
    fn what_is_no_moment_is_not_taken_for_one() {
        for bad in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31 10:00",
            "26-01-31 10:00:00",
            "2026-13-01 10:00:00",
            "2026-02-29 10:00:00",
            "2026-01-31 24:00:00",
            "2026-01-31 10:60:00",
            "2026-01-31 10:00:60",
            "2026-01-31 10:00:00.",
            "2026-01-31 10:00:00.1234",
            "2026-01-31 10:00:00+01:00",
            "2026-01-31 10:00:00:00",
            "2026-00-10 10:00:00",
            "2026-01-00 10:00:00",
            "1969-12-31 23:59:59",
            "2026-+1-31 10:00:00",
        ] {
            assert_eq!(last_of(bad), None, "{bad}");
        }
    }
}
