//! blake3 in long steps: in short ones it hashes one part after another, in long ones many at once.

/// Of all that it is given, one after another.
#[derive(Default)]
pub(super) struct Hasher {
    inner: blake3::Hasher,
    /// What is hashed with the next step.
    gathered: Vec<u8>,
}

impl Hasher {
    /// Bytes of a step.
    const STEP: usize = 64 << 10;

    pub(super) fn update(&mut self, bytes: &[u8]) -> &mut Self {
        if self.gathered.len() + bytes.len() > Self::STEP {
            self.step();
        }
        if bytes.len() >= Self::STEP {
            self.inner.update(bytes);
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        self
    }

    fn step(&mut self) {
        self.inner.update(&self.gathered);
        self.gathered.clear();
    }

    pub(super) fn finalize(mut self) -> [u8; 32] {
        self.step();
        *self.inner.finalize().as_bytes()
    }
}
