//! `receipt`: what has become of an update.

use super::failure::{Answer, Done};
use super::out::visible;
use super::{Context, ask};
use crate::engine::admin::{AdminRequest, ReceiptView};
use clap::Args;

/// Tells whether an update is durable here, on both nodes, applied, or lost
#[derive(Debug, Args)]
#[command(after_long_help = "\
A Redis client asks for epoch and number of its last update with CLIENT RECEIPT. Together they name the update for ever:
after a takeover its number may belong to another one, in a later epoch. Without --epoch the entry is meant that has the
number in this node's history now.
Examples:
  hot-backup receipt 120345 --epoch 1000002
  hot-backup receipt 120345 --json | jq .state
Exit codes: 0 it is in this node's history, 1 it is lost, not here yet, or not known, 2 error.")]
pub(crate) struct ReceiptArgs {
    /// Its number
    #[arg(value_name = "SEQ")]
    seq: u64,
    /// Its epoch
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
}

/// Runs `receipt`.
pub(crate) fn run(context: &mut Context, args: &ReceiptArgs) -> Done {
    let receipt: ReceiptView =
        ask::ask_for(context, &AdminRequest::Receipt { seq: args.seq, epoch: args.epoch })?;
    if context.json {
        context.out.json(&receipt)?;
    } else {
        context.out.line(visible(&receipt.text))?;
    }
    Ok(Answer::of(receipt.state == "kept"))
}
