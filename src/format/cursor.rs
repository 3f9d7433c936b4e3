//! Reading and writing little-endian fields one after another.

use super::DecodeError;
use crate::base::limits::NUMBER_MAX;

/// Takes fields off the front of a slice.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, what }
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left; nothing is taken then.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(DecodeError::Short {
            what: self.what,
            needed: len,
            found: self.bytes.len(),
        })?;
        self.bytes = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next two bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next eight bytes as a number that others follow: a sequence number, an epoch, an id; `what` names it.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] over [`NUMBER_MAX`], [`DecodeError::Short`].
    pub fn number(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match self.u64()? {
            found if found > NUMBER_MAX => Err(DecodeError::Limit { what, limit: NUMBER_MAX, found }),
            number => Ok(number),
        }
    }

    /// A u16 length, then that many bytes of printable UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] over `limit` bytes, [`DecodeError::Text`], [`DecodeError::Short`].
    pub fn text(&mut self, limit: usize) -> Result<&'a str, DecodeError> {
        let len = usize::from(self.u16()?);
        if len > limit {
            return Err(DecodeError::Limit { what: self.what, limit: limit as u64, found: len as u64 });
        }
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| DecodeError::Text { what: self.what })?;
        if text.chars().any(char::is_control) {
            return Err(DecodeError::Text { what: self.what });
        }
        Ok(text)
    }

    /// Checks that the next field equals `expected`.
    ///
    /// # Errors
    /// [`DecodeError::Field`] naming both values.
    pub fn expect(&self, what: &'static str, expected: u64, found: u64) -> Result<(), DecodeError> {
        if expected == found { Ok(()) } else { Err(DecodeError::Field { what, expected, found }) }
    }
}

/// Appends fields to a `Vec`.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// Appends raw bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends a u16 length and the text, cut at a character boundary to what a u16 can tell.
    pub fn text(&mut self, text: &str) -> &mut Self {
        let mut end = text.len().min(usize::from(u16::MAX));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = text.get(..end).unwrap_or_default();
        self.u16(u16::try_from(cut.len()).unwrap_or(u16::MAX)).put(cut.as_bytes())
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was written so far, mutable, to set a checksum.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
