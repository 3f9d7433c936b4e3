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
}
