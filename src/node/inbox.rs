//! How the other threads speak to the core: a bounded queue and the driver's wake, which is cheap to repeat.

use crate::base::limits::INBOX_MAX;
use crate::base::{JournalKind, SegmentIndex};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::engine::{Event, SaveAnswer, SaveAsk};
use crate::io::{JournalFile, Wake};
use std::sync::Arc;
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
    /// Somebody who makes a save asks.
    Save {
        /// What.
        ask: SaveAsk,
        /// Where the answer goes; dropped without one when the node stops.
        reply: SyncSender<SaveAnswer>,
    },
    /// A user who may not asked at the admin socket.
    CallerRefused {
        /// The user.
        uid: u32,
        /// How often; those before may have been others.
        times: u64,
    },
    /// Is it alive? It answers.
    Alive {
        /// Where the answer goes.
        reply: SyncSender<()>,
    },
    /// The name service answered, see [`super::peer_address::Resolver`].
    PeerFound(std::io::Result<Vec<std::net::SocketAddr>>),
    /// Finish and end.
    Stop,
}

/// The core has ended; nobody will read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreEnded;

/// The senders' side. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: SyncSender<Message>,
    wake: Arc<dyn Wake>,
}

impl Inbox {
    /// An inbox that wakes the core's driver, and the core's side of it.
    pub(crate) fn new(wake: Arc<dyn Wake>) -> (Self, InboxReceiver) {
        let (sender, receiver) = sync_channel(INBOX_MAX);
        (Self { sender, wake }, InboxReceiver { receiver })
    }

    /// Puts a message in, waiting while the inbox is full, and wakes the core.
    pub(crate) fn send(&self, message: Message) -> Result<(), CoreEnded> {
        self.sender.send(message).map_err(|_| CoreEnded)?;
        self.wake.wake();
        Ok(())
    }

    /// The same for an event.
    pub(crate) fn event(&self, event: impl Into<Event>) -> Result<(), CoreEnded> {
        self.send(Message::Event(event.into()))
    }
}

/// The core's side of an [`Inbox`].
pub(crate) struct InboxReceiver {
    receiver: Receiver<Message>,
}

impl InboxReceiver {
    /// The next message, if one is there. A message is in before its wake: whoever takes all after a wait misses
    /// none, for what comes in later wakes again.
    pub(crate) fn take(&self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_message_is_there_before_its_wake_and_a_sender_hears_that_the_core_has_ended() {
        let count = Arc::new(Count::default());
        let (inbox, outbox) = Inbox::new(Arc::clone(&count) as Arc<dyn Wake>);
        inbox.event(Event::Tick).unwrap();
        inbox.send(Message::Stop).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(std::iter::from_fn(|| outbox.take()).count(), 2);
        drop(outbox);
        assert_eq!(inbox.event(Event::Tick), Err(CoreEnded));
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
