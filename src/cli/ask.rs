//! Questions to the running node, and the answers as types.

use super::failure::Failure;
use super::wait::{Need, until_ready};
use super::{Context, glue};
use crate::base::limits::ANSWER_MAX;
use crate::base::{Line, next_line};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How long an ordinary verb may take: it may wait for a slow disk, not for the peer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks, and gives back what the node answered; a refusal is a failure with the node's own words.
pub(crate) fn ask(context: &Context, request: &AdminRequest) -> Result<AdminAnswer, Failure> {
    ask_within(context, request, PATIENCE)
}

/// Like [`ask`], for verbs that may take long. What changes something first waits for a node that is starting.
pub(crate) fn ask_within(
    context: &Context,
    request: &AdminRequest,
    patience: Duration,
) -> Result<AdminAnswer, Failure> {
    until_ready(context, Need::of(request))?;
    answer_of(glue::call(context.dir()?, request, patience)?)
}

/// Asks for a value of a known type.
pub(crate) fn ask_for<T>(context: &Context, request: &AdminRequest) -> Result<T, Failure>
where
    T: TryFrom<AdminAnswer, Error = AdminAnswer>,
{
    read(ask(context, request)?)
}

/// The value of an answer.
pub(crate) fn answer_of(reply: AdminReply) -> Result<AdminAnswer, Failure> {
    match reply {
        AdminReply::Ok { value } => Ok(value),
        AdminReply::No { message, next } => Err(Failure::No { message, next }),
        AdminReply::Error { message, next } => Err(Failure::Error { message, next }),
    }
}

/// A value as its type.
pub(crate) fn read<T>(answer: AdminAnswer) -> Result<T, Failure>
where
    T: TryFrom<AdminAnswer, Error = AdminAnswer>,
{
    T::try_from(answer).map_err(|_| {
        Failure::error(
            "reading the node's answer: it is one to another request",
            "use the same version of hot-backup for the node and for this command",
        )
    })
}

/// Asks the person at the terminal whether to go on; without one, or with `--yes`, goes on.
pub(crate) fn confirm(context: &Context, what: &str, yes: bool) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if yes || !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    let node: Box<Status> = ask_for(context, &AdminRequest::Status)?;
    let question = format!("On node {} ({}): {what} Go on? (yes/no) ", node.name, node.role);
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "hot-backup: {}", super::out::visible(&question));
    let _ = stderr.flush();
    let answer = next_line(&mut stdin.lock(), ANSWER_MAX)
        .map_err(|e| Failure::io("reading the answer from stdin", &e))?;
    if matches!(&answer, Line::Whole(said) if [&b"yes"[..], b"y"].contains(&said.trim_ascii())) {
        Ok(())
    } else {
        Err(Failure::no("nothing was changed", "answer yes to go on, or use --yes in scripts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_node_keeps_its_words_and_its_exit_code() {
        let no = AdminReply::No { message: "deleting app,x: no such file".into(), next: "list them".into() };
        let failure = answer_of(no).unwrap_err();
        assert_eq!((failure.code(), failure.to_string()), (1, "deleting app,x: no such file".to_owned()));
        let error = AdminReply::Error { message: "m".into(), next: String::new() };
        assert_eq!(answer_of(error).unwrap_err().code(), 2);
    }

    #[test]
    fn an_answer_to_another_request_is_an_error_that_says_so() {
        let failure = read::<Box<Status>>(AdminAnswer::done()).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with("reading the node's answer"), "{failure}");
    }
}
