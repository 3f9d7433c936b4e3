//! Why a command was not done, in Redis's words.

use crate::base::limits::CLIENTS_MEMORY_MAX;
use crate::doors::{FetchId, Refusal, Unread};
use std::borrow::Cow;

/// A command's error reply.
#[derive(Debug)]
pub(super) enum Fail {
    /// The database said no.
    Refused(Refusal),
    /// The command itself was wrong; the text begins with a prefix.
    Text(Cow<'static, str>),
    /// It did not fail: what it reads is being fetched.
    Cold(FetchId),
}

impl From<Unread> for Fail {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Refused(refusal) => Self::Refused(refusal),
            Unread::Cold(fetch) => Self::Cold(fetch),
        }
    }
}

impl From<Refusal> for Fail {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<&'static str> for Fail {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Fail {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl Fail {
    /// The error's text.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Refused(refusal) => Cow::Owned(refusal_text(refusal)),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Cold(_) => Cow::Borrowed("ERR what this command reads is being fetched"),
        }
    }
}

pub(super) const SYNTAX: &str = "ERR syntax error";
/// There is no memory for more than small things; see [`CLIENTS_MEMORY_MAX`].
pub(super) const NO_MEMORY: &str = "OOM the clients of this node hold 128 MiB together, which is all there is: ask for less at once, or try again later";
const _: () = assert!(CLIENTS_MEMORY_MAX == 128 << 20);
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// The one place where a refusal gets its prefix, the word that client libraries act on.
fn refusal_text(refusal: &Refusal) -> String {
    let prefix = match refusal {
        // Redis's own sentence: some clients compare the whole of it.
        Refusal::ReadOnly => return "READONLY You can't write against a read only replica.".to_owned(),
        // The node is up, but which node has the truth is not settled: what Redis says of a replica without master.
        Refusal::NotServing(_) => "MASTERDOWN",
        Refusal::NotRecords(_) => "WRONGTYPE",
        Refusal::MixedJournals => "CROSSSLOT",
        Refusal::NoSpace => "OOM",
        Refusal::DiskFailed | Refusal::DiskHangs => "MISCONF",
        _ => "ERR",
    };
    format!("{prefix} {refusal}")
}

/// What is told instead of an answer that cannot be given any more. Redis has this word where a time ran out and what was
/// asked for may be done or not; no client library asks again by itself when it meets it.
pub(super) fn unknown_text(why: &Refusal) -> String {
    format!("IOERR it is not known whether this is kept: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_prefix_that_clients_know() {
        let text = |refusal| Fail::Refused(refusal).text().into_owned();
        assert_eq!(text(Refusal::ReadOnly), "READONLY You can't write against a read only replica.");
        assert_eq!(text(Refusal::NotServing("x".into())), "MASTERDOWN this node does not serve: x");
        assert_eq!(text(Refusal::NoSuchFile("a,b".into())), "ERR no such file a,b");
        assert_eq!(text(Refusal::NotRecords("a,b".into())), "WRONGTYPE a,b is a block file");
        assert!(text(Refusal::MixedJournals).starts_with("CROSSSLOT a transaction"));
        assert!(text(Refusal::NoSpace).starts_with("OOM no space"));
        assert!(text(Refusal::DiskFailed).starts_with("MISCONF the journal"));
        assert!(text(Refusal::DiskHangs).starts_with("MISCONF the journal's disk hangs"));
        assert!(text(Refusal::Store("x".into())).starts_with("ERR the store"));
    }
}
