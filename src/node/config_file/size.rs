//! Sizes as people write them: `64M` is one, `1.5G` is not.

const SUFFIXES: [(char, u64); 5] =
    [('P', 1 << 50), ('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// The bytes that a text such as `4096`, `64M`, `64MiB` or `1 G` means; suffixes count in steps of 1024.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at_checked(digits)?;
    let suffix = suffix.trim_start().to_ascii_uppercase();
    let letter = suffix.strip_suffix("IB").or_else(|| suffix.strip_suffix('B')).unwrap_or(&suffix);
    let factor = match letter {
        "" if suffix == "IB" => return None,
        "" => 1,
        _ => SUFFIXES.iter().find(|(name, _)| letter.strip_prefix(*name) == Some(""))?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest exact text of a size.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    match SUFFIXES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        let good = [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64K", 65_536),
            ("64k", 65_536),
            (" 1 GiB ", 1 << 30),
            ("2MB", 2 << 20),
            ("1P", 1 << 50),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Some(bytes), "{text:?}");
        }
        for text in
            ["", "K", "iB", "1.5G", "-1", "1X", "1KK", "99999999999999999999", "99999999P", "1 2", "é"]
        {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_size_reads_back_from_its_text() {
        for bytes in [0, 1, 1023, 1024, 1536, 4096, 1 << 20, (1 << 30) + 1, 3 << 40, u64::MAX] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }
        assert_eq!(size_text(64 << 20), "64M");
    }
}
