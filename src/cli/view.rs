//! `view`: the database as it was at one moment, on doors of its own, while the node goes on.

use super::failure::{Answer, Done};
use super::out::{seconds, visible};
use super::wait::WaitArgs;
use super::{Context, ask, values};
use crate::base::shown::{bytes, count, counted};
use crate::engine::admin::{AdminRequest, ViewOrder, ViewView};
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Before a view is opened the store has to show what was answered.
const PATIENCE: Duration = Duration::from_secs(90);

/// Shows the database as it is now on doors of its own, while the node goes on
#[derive(Debug, Args)]
#[command(after_long_help = "\
A view holds one moment, between two batches, of all record files and volumes: what was changed later is not seen in it,
and replication goes on underneath. So a standby's volumes can be mounted, checked and saved by other programs, and a
report reads one state however long it takes.

It costs memory and tables that would be gone otherwise, and of volumes what is overwritten meanwhile, which is kept in
a file in the node's directory, up to --room. When that is used up the view ends: its clients are disconnected, and an
incident says so. It is gone too when the node is restarted.

Examples:
  hot-backup view open                         prints where its doors are
  hot-backup view open --name monday --resp 127.0.0.1:7010
  redis-cli -p 7010 get app,orders,1001
  hot-backup view open --writable --room 4G    what is written to it goes with it
  nbdcopy 'nbd+unix:///app/disk?socket=DIR/view-v1.nbd.sock' disk.img
  hot-backup view list
  hot-backup view close monday

Exit codes: 0 done, 1 no, 2 error.")]
pub(crate) struct ViewArgs {
    #[command(subcommand)]
    command: ViewCommand,
}

#[derive(Debug, Subcommand)]
enum ViewCommand {
    /// Opens a view of this moment
    Open(OpenArgs),
    /// Lists the views, and those that have ended by themselves
    List,
    /// Ends a view
    Close {
        /// Its name
        name: String,
    },
}

/// What is to be opened.
#[derive(Debug, Args)]
struct OpenArgs {
    /// Let clients change it; what they write goes with it
    #[arg(long)]
    writable: bool,
    /// Its name: small letters, digits, hyphens; without one it is v1, v2 and so on
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where Redis clients connect, such as 127.0.0.1:7010; else a socket in the node's directory
    #[arg(long, value_name = "ADDRESS")]
    resp: Option<SocketAddr>,
    /// Where NBD clients connect, such as 127.0.0.1:10810; else a socket in the node's directory
    #[arg(long, value_name = "ADDRESS")]
    nbd: Option<SocketAddr>,
    /// What it may take of the disk for what is changed in volumes meanwhile; 1G without it
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    room: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `view`.
pub(crate) fn run(context: &mut Context, args: ViewArgs) -> Done {
    match args.command {
        ViewCommand::Open(args) => {
            args.wait.note(context);
            let text = |address: SocketAddr| address.to_string();
            let request = AdminRequest::ViewOpen(ViewOrder {
                name: args.name,
                writable: args.writable,
                resp: args.resp.map(text),
                nbd: args.nbd.map(text),
                room: args.room,
            });
            let view = ask::read(ask::ask_within(context, &request, PATIENCE)?)?;
            tell(context, &view, &opened(&view))
        }
        ViewCommand::List => {
            let views: Vec<ViewView> = ask::ask_for(context, &AdminRequest::ViewList)?;
            if context.json {
                context.out.json(&views)?;
            } else {
                context.out.text(listed(&views))?;
            }
            Ok(Answer::Yes)
        }
        ViewCommand::Close { name } => {
            let view: ViewView = ask::ask_for(context, &AdminRequest::ViewClose { name })?;
            let text =
                format!("view {} is closed; it took {} of the disk\n", view.name, bytes(view.used_bytes));
            tell(context, &view, &text)
        }
    }
}

fn tell(context: &mut Context, view: &ViewView, text: &str) -> Done {
    if context.json {
        context.out.json(view)?;
    } else {
        context.out.text(text.to_owned())?;
    }
    Ok(Answer::Yes)
}

fn kind(view: &ViewView) -> &'static str {
    if view.writable { "writable" } else { "read only" }
}

fn opened(view: &ViewView) -> String {
    let (name, seq) = (visible(&view.name), count(view.seq));
    let mut text =
        format!("view {name} shows everything up to entry {seq} of epoch {}, {}\n", view.epoch, kind(view));
    let _ = writeln!(text, "  items (RESP):   {}", visible(&view.resp));
    let _ = writeln!(text, "  volumes (NBD):  {}", visible(&view.nbd));
    let _ = writeln!(text, "  room for what is changed meanwhile: {}", bytes(view.room_bytes));
    let _ = writeln!(text, "It lasts until: hot-backup view close {name}, or a restart of the node");
    text
}

/// The list for people.
fn listed(views: &[ViewView]) -> String {
    if views.is_empty() {
        return "no view is open\n".to_owned();
    }
    views.iter().map(|view| line(view) + "\n").collect()
}

/// A view in a line, here and in a status.
pub(crate) fn line(view: &ViewView) -> String {
    let (name, age, seq) = (visible(&view.name), seconds(view.age_seconds), count(view.seq));
    let (used, room) = (bytes(view.used_bytes), bytes(view.room_bytes));
    let clients = counted(view.clients, "client", "clients");
    let (state, kind) = (&view.state, kind(view));
    let text = format!("{name}  {state}  entry {seq}  {age} old  {used} of {room}  {kind}  {clients}");
    match view.reason.as_str() {
        "" => text,
        why => format!("{text}  {}", visible(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_told_with_its_position_its_doors_and_what_it_takes() {
        let view = ViewView {
            name: "v1".into(),
            state: "open".into(),
            seq: 1204,
            epoch: 3,
            resp: "/d/view-v1.resp.sock".into(),
            nbd: "127.0.0.1:10810".into(),
            room_bytes: 1 << 30,
            used_bytes: 8192,
            age_seconds: 3.0,
            clients: 1,
            ..ViewView::default()
        };
        let text = opened(&view);
        for part in
            ["up to entry 1,204 of epoch 3, read only", "/d/view-v1.resp.sock", "127.0.0.1:10810", "1.0 GiB"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let ended = ViewView { state: "ended".into(), reason: "its room is used up".into(), ..view.clone() };
        let text = listed(&[view, ended]);
        for part in
            ["v1  open  entry 1,204", "8.0 KiB of 1.0 GiB", "1 client\n", "ended", "its room is used up\n"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(listed(&[]), "no view is open\n");
    }
}
