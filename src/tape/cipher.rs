//! Encryption of blocks: AES-256-GCM, with a key of its own for each session.
//!
//! The session's key is HKDF-SHA256 of the key file and the session's random number; the nonce is the block's sequence, which
//! a session uses once. A block that is written again to another reel is the same bytes: it is not encrypted again.

use crate::format::reel::{REEL_HEADER, ReelBlock};
use crate::format::set::SetId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, Salt};

/// What a key file holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(..)")
    }
}

/// The key of one session.
#[derive(Clone)]
pub struct SessionKey(std::sync::Arc<LessSafeKey>);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionKey(..)")
    }
}

impl Key {
    /// Of the text of a key file: 64 hexadecimal digits.
    ///
    /// # Errors
    /// Says what is wrong, and nothing of what it holds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim();
        let wrong = || "a key file holds 64 hexadecimal digits: openssl rand -hex 32".to_owned();
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(wrong());
        }
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            let pair = digits.get(2 * at..2 * at + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(key))
    }

    /// A number by which the key can be told from others, never 0.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn id(&self) -> u64 {
        let hash = digest(&SHA256, &[b"hot-backup key id", &self.0[..]].concat());
        let first = hash.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        u64::from_le_bytes(first).max(1)
    }

    /// Thirty-two bytes made of it for another purpose, which tell nothing of it.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn of_purpose(&self, purpose: &str) -> [u8; 32] {
        let derived = Salt::new(HKDF_SHA256, b"hot-backup purpose v1").extract(&self.0);
        let (info, mut bytes) = ([purpose.as_bytes()], [0; 32]);
        let okm = derived.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes));
        okm.expect("the length of a hash is one that HKDF gives");
        bytes
    }

    /// The key of a session.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn of_session(&self, session: SetId) -> SessionKey {
        let derived = Salt::new(HKDF_SHA256, &session.0).extract(&self.0);
        let info = [&b"hot-backup reel v1"[..]];
        let okm = derived.expand(&info, &AES_256_GCM).expect("a key's length is one that HKDF gives");
        SessionKey(std::sync::Arc::new(LessSafeKey::new(UnboundKey::from(okm))))
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes.iter_mut().zip(sequence.to_le_bytes()).for_each(|(byte, digit)| *byte = digit);
    Nonce::assume_unique_for_key(bytes)
}

impl SessionKey {
    /// Encrypts the payload of a block in place, and gives the tag that stands behind it.
    ///
    /// # Panics
    /// Never: a block is far shorter than what AES-GCM takes.
    #[must_use]
    pub fn seal(&self, header: &ReelBlock, payload: &mut [u8]) -> [u8; 16] {
        let aad: Aad<[u8; REEL_HEADER]> = Aad::from(header.bound());
        let tag = self.0.seal_in_place_separate_tag(nonce(header.sequence), aad, payload);
        let tag = tag.expect("a block is short");
        tag.as_ref().try_into().expect("a tag has its length")
    }

    /// The payload of a block as it was before it was encrypted; none if key or bytes are others.
    #[must_use]
    pub fn open(&self, header: &ReelBlock, payload: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = payload.to_vec();
        let opened = self.0.open_in_place(nonce(header.sequence), Aad::from(header.bound()), &mut bytes);
        let len = opened.ok()?.len();
        bytes.truncate(len);
        Some(bytes)
    }
}
