//! CRC32C (Castagnoli, RFC 3720 appendix B.4) over bytes, and the running checksum of a history.

use super::Chain;

/// CRC32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC32C of the concatenation of `parts`.
#[must_use]
pub fn crc32c_parts(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| ::crc32c::crc32c_append(crc, part))
}

/// CRC32C of what `crc` is of, followed by `more`.
#[must_use]
pub fn crc32c_append(crc: u32, more: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, more)
}

/// The polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The product of two polynomials modulo the checksum's; the highest bit is the coefficient of 1.
const fn product(a: u32, mut b: u32) -> u32 {
    let (mut sum, mut bit) = (0, 1 << 31);
    while bit != 0 {
        if a & bit != 0 {
            sum ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
        bit >>= 1;
    }
    sum
}

/// x to the power of 8 * 2^n.
const SHIFTS: [u32; 32] = {
    let mut all = [0; 32];
    // x to the power of 8.
    let mut power = 1 << 23;
    let mut n = 0;
    while n < all.len() {
        all[n] = power;
        power = product(power, power);
        n += 1;
    }
    all
};

/// CRC32C of one run of bytes behind another, of which the second has `len` bytes, from the checksums of both. Takes
/// less than a microsecond, whatever `len` is. (The crate's own takes as long as a pass over a hundred kilobytes.)
#[must_use]
pub fn crc32c_joined(first: u32, second: u32, len: u32) -> u32 {
    let one = 1 << 31;
    let shift = SHIFTS.iter().enumerate().filter(|(n, _)| len >> n & 1 == 1);
    product(shift.fold(one, |all, (_, power)| product(*power, all)), first) ^ second
}

/// The history's checksum after a batch whose own CRC is `batch_crc` and whose length is `len` bytes.
///
/// A 64-bit mix (the finaliser of `SplitMix64`) of the previous value with both, so that order matters.
#[must_use]
pub fn chain_next(before: Chain, batch_crc: u32, len: u32) -> Chain {
    let mut z = before.0.rotate_left(23) ^ (u64::from(len) << 32 | u64::from(batch_crc));
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    Chain(z ^ (z >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_the_check_value_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_parts(&[b"1234", b"56789"]), 0xE306_9283);
    }

    #[test]
    fn the_chain_depends_on_order() {
        let a = chain_next(chain_next(Chain(0), 1, 10), 2, 10);
        let b = chain_next(chain_next(Chain(0), 2, 10), 1, 10);
        assert_ne!(a, b);
    }

    #[test]
    fn checksums_of_parts_join_to_that_of_the_whole() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| n.wrapping_mul(n).to_le_bytes()[1]).collect();
        for split in [0, 1, 8, 88, 4095, 65_536, 69_999, 70_000] {
            let (first, second) = bytes.split_at(split);
            let len = u32::try_from(second.len()).unwrap();
            assert_eq!(crc32c_joined(crc32c(first), crc32c(second), len), crc32c(&bytes), "at {split}");
            assert_eq!(crc32c_append(crc32c(first), second), crc32c(&bytes), "at {split}");
        }
    }
}
