//! The log: one line each to stderr, never a byte of stored data.
//!
//! A thread of its own writes it, as stderr may be full, broken, or a pipe that nobody reads: nobody else waits for it.
//! What cannot be written is counted and told once it can. What one place in the source says again and again is told a
//! few times and then once a minute with its count.

use crate::base::limits::{
    LOG_BURST, LOG_BURST_INFO, LOG_FLUSH_MS, LOG_LINE_MAX, LOG_LINES_MAX, LOG_RETRY_MS, REPEAT_KEYS_MAX,
    REPEAT_QUIET_MS,
};
use crate::base::shown::Grouped;
use crate::base::{Mono, Repeats, Telling};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that overrides the config's `log`.
pub const LOG_VARIABLE: &str = "HOT_BACKUP_LOG";
/// The target of lines whose repetition is limited already.
pub(crate) const PACED: &str = "paced";

/// Whether a panic ends the process; it does not in tests, whose panics are their verdicts.
static ENDS: AtomicBool = AtomicBool::new(false);
/// To the thread that writes.
static LINES: OnceLock<SyncSender<Order>> = OnceLock::new();
/// Lines that were not written, since the start.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes out what is logged when it goes.
#[derive(Debug)]
#[must_use = "the last lines are written when it is dropped"]
pub struct Log(());

impl Drop for Log {
    fn drop(&mut self) {
        flush();
    }
}

/// Starts logging at `level` unless [`LOG_VARIABLE`] names another (`error`, `warn`, `info`, `debug`, `trace` or
/// `off`). Under systemd, which notes the time itself, lines have none. A second call changes nothing.
///
/// # Errors
/// When stderr cannot be duplicated or the thread cannot be started.
pub fn start(level: Level) -> io::Result<Log> {
    if LINES.get().is_some() {
        return Ok(Log(()));
    }
    let chosen = std::env::var(LOG_VARIABLE).ok().and_then(|word| word.parse().ok());
    let level = chosen.unwrap_or(LevelFilter::from_level(level));
    // Not by std's stderr: whoever writes there waits for its lock while this thread waits for the reader.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (sender, orders) = sync_channel(LOG_LINES_MAX);
    let begin = Instant::now();
    let clock = move || Mono(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || Writer::new(stderr, &LOST).run(&orders, clock))?;
    // Fails only when another thread was faster, whose lines then are as good.
    let _ = LINES.set(sender.clone());
    let builder = tracing_subscriber::fmt()
        .with_writer(Lines(sender))
        .log_internal_errors(false)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level);
    // Fails only when a subscriber is there already, which then serves as well.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
    Ok(Log(()))
}

/// Waits until what was logged is written, for a bounded time.
pub(crate) fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, wait) = sync_channel(1);
    let until = Instant::now() + Duration::from_millis(LOG_FLUSH_MS);
    let mut order = Order::Flush(done);
    while let Err(std::sync::mpsc::TrySendError::Full(again)) = lines.try_send(order) {
        if Instant::now() >= until {
            return;
        }
        order = again;
        thread::sleep(Duration::from_millis(1));
    }
    let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
}

/// Lets a panic's message go by the log: a reader of stderr that does not read must not keep the process from ending.
pub(crate) fn take_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let trace = std::backtrace::Backtrace::capture();
        tracing::error!("thread {name} {info}\n{trace}");
        flush();
        if ENDS.load(Ordering::Relaxed) {
            std::process::abort();
        }
    }));
}

/// From here on a panic in any thread ends the process, whatever profile it was built with: a node that lost a thread
/// must not go on as half of one, and its journal tells the next start all that counts.
pub(crate) fn end_at_panics() {
    ENDS.store(true, Ordering::Relaxed);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// How many lines could not be written.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Order {
    Line(Line),
    /// Say that all before it is done.
    Flush(SyncSender<()>),
}

/// One line with its end.
#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    /// What limits how often the like is told, if anything does.
    pace: Option<(Level, Identifier)>,
}

/// Hands lines over without ever waiting.
#[derive(Debug)]
struct Lines(SyncSender<Order>);

/// A line in the making.
struct Sheet<'a> {
    lines: &'a SyncSender<Order>,
    pace: Option<(Level, Identifier)>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Sheet<'a>;

    fn make_writer(&'a self) -> Sheet<'a> {
        Sheet { lines: &self.0, pace: None }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Sheet<'a> {
        let paced = meta.target() != PACED && *meta.level() <= Level::INFO;
        Sheet { lines: &self.0, pace: paced.then(|| (*meta.level(), meta.callsite())) }
    }
}

impl Write for Sheet<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = Line { text: bounded(text), pace: self.pace.clone() };
        if self.lines.try_send(Order::Line(line)).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No line is longer than its limit.
fn bounded(text: &[u8]) -> Vec<u8> {
    match text.get(..LOG_LINE_MAX) {
        Some(start) if text.len() > LOG_LINE_MAX => [start, b"..\n"].concat(),
        _ => text.to_vec(),
    }
}

/// The thread's side.
struct Writer<'a, W> {
    to: W,
    /// What could not be written, by this thread or because it could not take it.
    lost: &'a AtomicU64,
    /// Of it, what was told.
    told: u64,
    why: String,
    troubles: Repeats<Identifier, Vec<u8>>,
    infos: Repeats<Identifier, Vec<u8>>,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(to: W, lost: &'a AtomicU64) -> Self {
        let repeats = |burst| Repeats::new(burst, REPEAT_QUIET_MS, REPEAT_KEYS_MAX);
        let (troubles, infos) = (repeats(LOG_BURST), repeats(LOG_BURST_INFO));
        Self { to, lost, told: 0, why: "nobody reads it".to_owned(), troubles, infos }
    }

    /// Writes until nobody can order more.
    fn run(mut self, orders: &Receiver<Order>, clock: impl Fn() -> Mono) {
        loop {
            let held = [self.troubles.deadline(), self.infos.deadline()].into_iter().flatten().min();
            let wait = held.map_or(u64::MAX, |at| at.since(clock()));
            match orders.recv_timeout(Duration::from_micros(wait)) {
                Ok(Order::Line(line)) => self.line(clock(), line),
                Ok(Order::Flush(done)) => {
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => self.due(clock()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn line(&mut self, now: Mono, line: Line) {
        let Line { text, pace } = line;
        let telling = match pace {
            None => Some(Telling { what: text, unsaid: 0 }),
            Some((Level::INFO, site)) => self.infos.say(now, site, text),
            Some((_, site)) => self.troubles.say(now, site, text),
        };
        if let Some(telling) = telling {
            self.tell(telling);
        }
    }

    /// Writes what was held back.
    fn due(&mut self, now: Mono) {
        for telling in self.troubles.due(now).into_iter().chain(self.infos.due(now)) {
            self.tell(telling);
        }
    }

    fn tell(&mut self, Telling { what: mut text, unsaid }: Telling<Vec<u8>>) {
        if unsaid > 0 {
            while text.last() == Some(&b'\n') {
                text.pop();
            }
            text.extend_from_slice(
                format!(" ({} more like this were not logged)\n", Grouped(unsaid)).as_bytes(),
            );
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told {
            let line = format!("{} log lines could not be written: {}\n", lost - self.told, self.why);
            if self.write(line.as_bytes()).is_ok() {
                self.told = lost;
            }
        }
        if let Err(error) = self.write(&text) {
            self.why = error.to_string();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            match self.to.write(text) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => text = text.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever gave us stderr made it so that a write does not wait.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(LOG_RETRY_MS));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// `text` with its control characters escaped, so that what a stranger sent can neither fake a line nor steer a
/// terminal.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many lines, fails for others, and takes on.
    struct Moody {
        written: Vec<String>,
        fails: Vec<ErrorKind>,
    }

    impl Write for &mut Moody {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if let Some(error) = self.fails.pop() {
                return Err(error.into());
            }
            self.written.push(String::from_utf8(text.to_vec()).unwrap());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(text: &str) -> Line {
        Line { text: text.as_bytes().to_vec(), pace: None }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_it_can() {
        let lost = AtomicU64::new(0);
        let full = ErrorKind::StorageFull;
        // The first line fails, and so does the count that comes before the second, and the second.
        let mut to = Moody { written: Vec::new(), fails: vec![full, full, full] };
        let mut writer = Writer::new(&mut to, &lost);
        for text in ["one\n", "two\n", "three\n", "four\n"] {
            writer.line(Mono(0), said(text));
        }
        let told = format!("2 log lines could not be written: {}\n", io::Error::from(full));
        assert_eq!(to.written, [told.as_str(), "three\n", "four\n"]);
        assert_eq!(lost.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_place_that_says_the_same_all_the_time_is_told_a_few_times_and_then_counted() {
        let lost = AtomicU64::new(0);
        let mut to = Moody { written: Vec::new(), fails: Vec::new() };
        let mut writer = Writer::new(&mut to, &lost);
        let site = tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: );
        let site = tracing::Callsite::metadata(site).callsite();
        for quarter in 0..100 {
            let pace = Some((Level::WARN, site.clone()));
            let text = format!("making segment {quarter}: no space\n").into_bytes();
            writer.line(Mono(quarter * 250_000), Line { text, pace });
        }
        writer.due(Mono(60_000_000));
        assert_eq!(to.written.len(), LOG_BURST as usize + 1, "{:?}", to.written);
        let last =
            format!("making segment 99: no space ({} more like this were not logged)\n", 99 - LOG_BURST);
        assert_eq!(to.written.last(), Some(&last));
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody_and_costs_bounded_memory() {
        let (sender, orders) = sync_channel(LOG_LINES_MAX);
        let lines = Lines(sender);
        let before = lost();
        for _ in 0..3 * LOG_LINES_MAX {
            lines.make_writer().write_all(&vec![b'x'; 2 * LOG_LINE_MAX]).unwrap();
        }
        assert!(lost() - before >= 2 * LOG_LINES_MAX as u64, "the rest is counted");
        let short = |order: &Order| matches!(order, Order::Line(line) if line.text.len() <= LOG_LINE_MAX + 3);
        let held = orders.try_iter().filter(short).count();
        assert_eq!(held, LOG_LINES_MAX);
    }

    #[test]
    fn control_characters_cannot_reach_the_log() {
        assert_eq!(one_line("plain ünïcode"), "plain ünïcode");
        assert_eq!(one_line("a\nb\u{1b}[31mc\u{85}"), "a\\nb\\u{1b}[31mc\\u{85}");
        assert_eq!(one_line("a\u{9b}31m"), "a\\u{9b}31m", "those beyond ASCII alone, too");
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process() {
        const IN_CHILD: &str = "HB_TEST_PANICS";
        if let Ok(mode) = std::env::var(IN_CHILD) {
            end_at_panics();
            if mode == "log" {
                take_panics();
            }
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            return;
        }
        for mode in ["command", "log"] {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "node::log::tests::a_panic_in_any_thread_ends_the_process"])
                .env(IN_CHILD, mode)
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
            assert_eq!(signal, Some(libc::SIGABRT), "{mode}: {child:?}");
        }
    }
}
