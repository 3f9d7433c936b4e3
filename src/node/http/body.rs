//! What an answer consists of: a text, or events as they come.

use super::page;
use super::snapshot::{Desk, Snapshot};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// The content of an answer.
pub(super) enum Answer {
    /// A text, until it was taken.
    Whole(Option<Bytes>),
    /// Events.
    Events(Follow),
}

impl Answer {
    pub(super) fn whole(text: String) -> Self {
        Self::Whole(Some(text.into()))
    }
}

type Waiting = Pin<Box<dyn Future<Output = Option<watch::Receiver<Arc<Snapshot>>>> + Send>>;

/// Somebody who follows. The next event is made when the last one was taken, so nothing collects.
pub(super) struct Follow {
    next: Waiting,
    desk: Desk,
    /// Not yet told anything.
    first: bool,
    _place: OwnedSemaphorePermit,
}

async fn changed(
    mut news: watch::Receiver<Arc<Snapshot>>,
    at_once: bool,
) -> Option<watch::Receiver<Arc<Snapshot>>> {
    if !at_once {
        news.changed().await.ok()?;
    }
    Some(news)
}

impl Follow {
    pub(super) fn new(news: watch::Receiver<Arc<Snapshot>>, desk: Desk, place: OwnedSemaphorePermit) -> Self {
        Self { next: Box::pin(changed(news, true)), desk, first: true, _place: place }
    }

    /// Two events: the status for programs, the sections of the page for browsers.
    fn event(&mut self, snapshot: &Snapshot) -> Bytes {
        let mut text = String::new();
        if std::mem::take(&mut self.first) {
            text.push_str("retry: 2000\n\n");
        }
        let sections = page::sections_json(snapshot, &self.desk.points());
        let _ = write!(text, "event: status\ndata: {}\n\n", snapshot.json());
        let _ = write!(text, "event: page\ndata: {sections}\n\n");
        text.into()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Events(follow) => match follow.next.as_mut().poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some(mut news)) => {
                    let snapshot = Arc::clone(&news.borrow_and_update());
                    follow.next = Box::pin(changed(news, false));
                    let event = follow.event(&snapshot);
                    Poll::Ready(Some(Ok(Frame::data(event))))
                }
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
