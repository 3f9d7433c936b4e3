//! How the other threads speak to the core: a bounded queue and a bell.

use crate::base::limits::INBOX_MAX;
use crate::base::{JournalKind, SegmentIndex};
use crate::engine::Event;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::io::{JournalFile, Wake};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What another thread tells the core.
pub(crate) enum Message {
    /// For the engine as it is.
    Event(Event),
    /// A segment is there; opened already, so that the core need not.
    SegmentReady {
        /// The journal.
        journal: JournalKind,
        /// The segment.
        index: SegmentIndex,
        /// Its file.
        file: Arc<JournalFile>,
    },
    /// An operator asks.
    Admin {
        /// What.
        request: AdminRequest,
        /// Where the answer goes; dropped without one when the node stops.
        reply: SyncSender<AdminReply>,
    },
    /// Finish and end.
    Stop,
}

/// The core has ended; nobody will read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreEnded;

struct Bell {
    rung: AtomicBool,
    wake: Arc<dyn Wake>,
}

/// The senders' side. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: SyncSender<Message>,
    bell: Arc<Bell>,
}

impl Inbox {
    /// An inbox whose bell wakes the core's driver, and the core's side of it.
    pub(crate) fn new(wake: Arc<dyn Wake>) -> (Self, Outbox) {
        let (sender, receiver) = sync_channel(INBOX_MAX);
        let bell = Arc::new(Bell { rung: AtomicBool::new(false), wake });
        (Self { sender, bell: Arc::clone(&bell) }, Outbox { receiver, bell })
    }

    /// Puts a message in, waiting while the inbox is full, and wakes the core unless that was done already.
    pub(crate) fn send(&self, message: Message) -> Result<(), CoreEnded> {
        self.sender.send(message).map_err(|_| CoreEnded)?;
        if !self.bell.rung.swap(true, Ordering::SeqCst) {
            self.bell.wake.wake();
        }
        Ok(())
    }

    /// The same for an event.
    pub(crate) fn event(&self, event: Event) -> Result<(), CoreEnded> {
        self.send(Message::Event(event))
    }
}

/// The core's side of an [`Inbox`].
pub(crate) struct Outbox {
    receiver: Receiver<Message>,
    bell: Arc<Bell>,
}

impl Outbox {
    /// Lets the bell ring again. Must come before the messages are taken, so that none can be missed.
    pub(crate) fn hush(&self) {
        self.bell.rung.store(false, Ordering::SeqCst);
    }

    /// The next message, if one is there.
    pub(crate) fn take(&self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_bell_rings_once_for_many_messages_and_again_after_they_were_taken() {
        let count = Arc::new(Count::default());
        let (inbox, outbox) = Inbox::new(Arc::clone(&count) as Arc<dyn Wake>);
        for _ in 0..5 {
            inbox.event(Event::Tick).unwrap();
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        outbox.hush();
        assert_eq!(std::iter::from_fn(|| outbox.take()).count(), 5);
        inbox.send(Message::Stop).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_sender_hears_that_the_core_has_ended() {
        let (inbox, outbox) = Inbox::new(Arc::new(Count::default()));
        drop(outbox);
        assert_eq!(inbox.event(Event::Tick), Err(CoreEnded));
    }
}
