//! The digest of a set, SHA-256, computed beside whoever reads or writes it: it takes longer than all else that is done with a
//! byte of a set.

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// What is handed over at once, if it does not come in larger pieces (bytes). A set that is shorter needs no thread.
const STEP: usize = 64 << 10;
/// So many pieces wait at most.
const WAITING: usize = 4;

/// Of all that was written or read so far.
pub(super) struct Digest {
    hash: Hash,
    /// Comes before whatever comes next.
    gathered: Vec<u8>,
}

enum Hash {
    Here(Box<Context>),
    /// By a thread that ends with this.
    Aside(SyncSender<Work>),
}

enum Work {
    Bytes(Bytes),
    /// Of these bytes, too, which come again.
    Value(Bytes, SyncSender<[u8; 32]>),
}

impl Digest {
    pub(super) fn new() -> Self {
        Self { hash: Hash::Here(Box::new(Context::new(&SHA256))), gathered: Vec::new() }
    }

    /// Takes what comes next; waits while too much is not hashed yet.
    pub(super) fn update(&mut self, bytes: Bytes) {
        if self.gathered.len() + bytes.len() < STEP {
            self.gathered.extend_from_slice(&bytes);
            return;
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.hash.update(gathered.into());
        self.hash.update(bytes);
    }

    /// Of everything up to here.
    pub(super) fn value(&self) -> [u8; 32] {
        match &self.hash {
            Hash::Here(context) => value_of(context, &self.gathered),
            Hash::Aside(work) => {
                let (reply, value) = sync_channel(1);
                let gathered = Bytes::copy_from_slice(&self.gathered);
                work.send(Work::Value(gathered, reply)).expect("the thread ends when this does");
                value.recv().expect("the thread answers")
            }
        }
    }
}

impl Hash {
    fn update(&mut self, bytes: Bytes) {
        if let Self::Here(context) = self {
            let (work, todo) = sync_channel(WAITING);
            let context = Context::clone(context);
            // Without a thread it is computed here.
            if thread::Builder::new().name("digest".to_owned()).spawn(move || run(context, &todo)).is_ok() {
                *self = Self::Aside(work);
            }
        }
        match self {
            Self::Here(context) => context.update(&bytes),
            Self::Aside(work) => work.send(Work::Bytes(bytes)).expect("the thread ends when this does"),
        }
    }
}

fn value_of(context: &Context, more: &[u8]) -> [u8; 32] {
    let mut context = context.clone();
    context.update(more);
    context.finish().as_ref().try_into().unwrap_or([0; 32])
}

fn run(mut context: Context, todo: &Receiver<Work>) {
    for work in todo {
        match work {
            Work::Bytes(bytes) => context.update(&bytes),
            // Who asked waits for it.
            Work::Value(more, reply) => {
                let _ = reply.send(value_of(&context, &more));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_all_bytes_in_order_wherever_it_is_computed() {
        for sizes in [&[3, 5, 0][..], &[3, STEP - 4, 1, 7, 3 * STEP, 1, 0, STEP / 2, STEP / 2]] {
            let (mut digest, mut all) = (Digest::new(), Vec::new());
            for (n, size) in (1..).zip(sizes) {
                let bytes = vec![n; *size];
                all.extend_from_slice(&bytes);
                digest.update(bytes.into());
                let expected = ring::digest::digest(&SHA256, &all);
                assert_eq!(digest.value(), expected.as_ref(), "{sizes:?} up to {n}");
            }
            let aside = sizes.iter().sum::<usize>() >= STEP;
            assert_eq!(matches!(digest.hash, Hash::Aside(_)), aside);
        }
    }
}
