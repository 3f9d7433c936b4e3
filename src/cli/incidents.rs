//! `incidents`: what happened that a person should know.

use super::failure::{Answer, Done};
use super::out::{Table, say, utc};
use super::{Context, ask};
use crate::engine::admin::{AdminRequest, IncidentView};
use clap::Args;

/// Lists recent incidents, newest last
#[derive(Debug, Args)]
#[command(after_long_help = "\
An incident is any event that a person should know: a promise lowered, the peer lost and found, a disk that failed.
severity: notice (good to know, or the end of a trouble), warning (a promise is weaker than configured),
critical (updates or protection have stopped).")]
pub(crate) struct IncidentsArgs {}

/// Runs `incidents`.
pub(crate) fn incidents(context: &mut Context) -> Done {
    let incidents: Vec<IncidentView> = ask::ask_for(context, &AdminRequest::Incidents)?;
    if context.json {
        context.out.json(&incidents)?;
    } else if incidents.is_empty() {
        say("no incidents since the node started");
    } else {
        let mut table = Table::new(&["when", "severity", "kind", "what"]);
        for i in incidents {
            table.row([utc(i.wall_ms), i.severity, i.kind, i.text]);
        }
        context.out.text(table.render())?;
    }
    Ok(Answer::Yes)
}
