//! `menu`: the commands of this program behind D3's main menu, for a terminal.
//!
//! `machine.rs` decides, `draw.rs` shows, `table.rs` says what there is. Here the terminal is read, and commands are run as an
//! operator would type them: each is a process of this same program, so the menu can do nothing that they cannot.

mod draw;
mod machine;
mod table;

use super::failure::{Answer, Done, Failure};
use super::{Context, definition, glue, wait::Look};
use crate::base::limits::{MENU_LINE_MAX, MENU_LOOK_MS, MENU_POLL_MS};
use crate::base::{Line, next_line};
use clap::Args;
use machine::{Act, Key, Machine, NodeView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Leads through the commands by menus, as D3's hot backup does
#[derive(Debug, Args)]
#[command(after_long_help = "\
Keys: digits or arrows and Enter choose, Ctrl-N and Ctrl-B go to the next and the one before, Esc, Ctrl-X and X go back, Q
quits. In a form Ctrl-X carries out. What may lose something shows first what, and wants the epoch to be typed.
Everything in the menu is a command of this program, which scripts use by themselves.

Example:
  hot-backup menu --dir /var/lib/hot-backup")]
pub(crate) struct MenuArgs {}

/// What comes from the threads.
enum News {
    Node(NodeView),
    Said(String),
    /// Both ends of the output are closed.
    Silent,
}

/// Runs `menu`.
pub(crate) fn run(context: &mut Context) -> Done {
    let dir = context.dir()?.to_owned();
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::error(
            "showing the menu: this is no terminal",
            "scripts use the commands themselves, see: hot-backup --help",
        ));
    }
    let failed = |error: &std::io::Error| Failure::io("showing the menu in this terminal", error);
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut terminal = ratatui::try_init().map_err(|error| failed(&error))?;
    let (news, heard) = channel();
    watch(dir.clone(), news.clone());
    let has = |verb: &str| definition().find_subcommand(verb).is_some();
    let mut desk = Desk { machine: Machine::new(has), program, dir, news, child: None };
    let result = loop {
        if let Err(error) = terminal.draw(|frame| draw::draw(frame, &desk.machine)) {
            break Err(error);
        }
        match desk.turn(&heard) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    desk.end();
    result.map_err(|error| failed(&error))?;
    Ok(Answer::Yes)
}

/// The menu, and the command that runs.
struct Desk {
    machine: Machine,
    program: PathBuf,
    dir: PathBuf,
    news: Sender<News>,
    child: Option<Child>,
}

impl Desk {
    /// One look at everything; false when the menu is left.
    fn turn(&mut self, heard: &Receiver<News>) -> std::io::Result<bool> {
        if event::poll(Duration::from_millis(MENU_POLL_MS))?
            && let Event::Key(key) = event::read()?
            && let Some(key) = key_of(key)
        {
            match self.machine.key(key) {
                Some(Act::Run(words)) => self.start(&words),
                Some(Act::Stop) => self.stop(),
                Some(Act::Quit) => return Ok(false),
                None => {}
            }
        }
        while let Ok(news) = heard.try_recv() {
            match news {
                News::Node(view) => self.machine.node = view,
                News::Said(line) => self.machine.said(line),
                News::Silent => {
                    let status = self.child.take().map(|mut child| child.wait());
                    self.machine.ended(status.and_then(Result::ok).and_then(|status| status.code()));
                }
            }
        }
        Ok(true)
    }

    fn start(&mut self, words: &[String]) {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--dir").arg(&self.dir).stdin(Stdio::null());
        match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(mut child) => {
                let (out, err) = (child.stdout.take(), child.stderr.take());
                let (news, too) = (self.news.clone(), self.news.clone());
                self.child = Some(child);
                thread::spawn(move || {
                    let errors = thread::spawn(move || tell(err, &too));
                    tell(out, &news);
                    let _ = errors.join();
                    let _ = news.send(News::Silent);
                });
            }
            Err(error) => {
                self.machine.said(format!("starting {}: {error}", self.program.display()));
                self.machine.ended(Some(2));
            }
        }
    }

    /// Asks the command to end.
    fn stop(&mut self) {
        if let Some(pid) = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// What runs when the menu is left goes on to its end by itself, unless it is asked to end.
    fn end(&mut self) {
        self.stop();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

/// Passes lines on, each up to its limit.
fn tell(from: Option<impl Read>, news: &Sender<News>) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    while let Ok(line) = next_line(&mut from, MENU_LINE_MAX) {
        let text = match line {
            Line::Whole(line) | Line::Unended(line) => String::from_utf8_lossy(&line).trim_end().to_owned(),
            Line::TooLong => "(a line that is too long)".to_owned(),
            Line::End => return,
        };
        if news.send(News::Said(text)).is_err() {
            return;
        }
    }
}

/// Looks at the node now and then, for the first line, until the menu is gone.
fn watch(dir: PathBuf, news: Sender<News>) {
    thread::spawn(move || {
        while news.send(News::Node(look(&dir))).is_ok() {
            thread::sleep(Duration::from_millis(MENU_LOOK_MS));
        }
    });
}

fn look(dir: &Path) -> NodeView {
    match glue::look(dir, Duration::from_millis(MENU_LOOK_MS)) {
        Look::Told(status) => {
            let peer = if status.peer.connected { "peer connected" } else { "peer not connected" };
            let text =
                format!("{}  {}  {}  epoch {}  {peer}", status.name, status.role, status.state, status.epoch);
            NodeView { text, epoch: Some(status.epoch) }
        }
        Look::Absent | Look::Hopeless => {
            NodeView { text: format!("no node answers in {}", dir.display()), epoch: None }
        }
    }
}

fn key_of(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('n') if control => Key::Next,
        KeyCode::Char('b') if control => Key::Before,
        KeyCode::Char('x' | 'c') if control => Key::Leave,
        KeyCode::Char('h') if control => Key::Rubout,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up | KeyCode::BackTab => Key::Up,
        KeyCode::Down | KeyCode::Tab => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Back,
        KeyCode::Backspace => Key::Rubout,
        _ => return None,
    })
}
