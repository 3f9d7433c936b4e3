//! Clients that write what nobody else writes to whichever node takes it, and a checker of what they were told.
//!
//! The checker knows nothing of how nodes decide. It has, of each update that was answered with "ok", when it was sent,
//! when it was answered, and the epoch that the answer names. It holds two rules against that: what was acknowledged is
//! there at the end; and once anything was acknowledged in an epoch, nothing that is sent after that is acknowledged in
//! an earlier one. So no two nodes acknowledge at the same time.

use super::{Door, items, wait_until};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// An update that was answered with "ok".
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) key: String,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    /// The node that answered: its place in the list of doors.
    pub(crate) node: usize,
    pub(crate) epoch: u64,
}

/// Clients at work.
pub(crate) struct History {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<Vec<Acked>>>,
}

impl History {
    /// Starts clients that look for the node which takes updates of `app,orders`.
    pub(crate) fn start(clients: usize, doors: &[Door]) -> Self {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let start = |client: usize| {
            let (doors, stop, acked) = (doors.to_vec(), Arc::clone(&stop), Arc::clone(&acked));
            thread::spawn(move || {
                let (mut next, mut at) = (0, client % doors.len());
                while !stop.load(Ordering::Relaxed) {
                    // That a node refuses, or goes, is what this is about.
                    let _ = write(&doors[at], (client, at), &mut next, &stop, &acked);
                    at = (at + 1) % doors.len();
                    thread::sleep(Duration::from_millis(5));
                }
            })
        };
        Self { threads: (0..clients).map(start).collect(), stop, acked }
    }

    /// So many updates were acknowledged by this node so far.
    pub(crate) fn by(&self, node: usize) -> usize {
        self.acked.lock().unwrap().iter().filter(|acked| acked.node == node).count()
    }

    /// Waits until this node acknowledges `more` further updates.
    #[track_caller]
    pub(crate) fn goes_on_at(&self, node: usize, more: usize) {
        let goal = self.by(node) + more;
        wait_until("a node to acknowledge", || (self.by(node) >= goal).then_some(()));
    }

    /// When the first update was acknowledged that was sent to `node` after `since`.
    #[track_caller]
    pub(crate) fn first_at(&self, node: usize, since: Instant) -> Instant {
        wait_until("a node to acknowledge", || {
            let acked = self.acked.lock().unwrap();
            acked
                .iter()
                .find(|acked| acked.node == node && acked.answered > since)
                .map(|acked| acked.answered)
        })
    }

    /// Ends the clients; what they were told.
    pub(crate) fn finish(self) -> Vec<Acked> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client does not panic"));
        std::mem::take(&mut self.acked.lock().unwrap())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// Writes until something is refused.
fn write(
    door: &Door,
    (client, node): (usize, usize),
    next: &mut usize,
    stop: &AtomicBool,
    acked: &Mutex<Vec<Acked>>,
) -> io::Result<()> {
    let (answers, mut requests) = door.stream()?;
    let mut answers = BufReader::new(answers);
    requests.write_all(b"CLIENT SETNAME history\r\nHELLO 3\r\n")?;
    let mut line = || {
        let mut line = String::new();
        match answers.read_line(&mut line)? {
            0 => Err(bad("the node hung up")),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    // The answer to HELLO has as many lines as it likes: what follows is the answer to a word that only this client says.
    requests.write_all(b"CLIENT RECEIPT ON\r\nECHO begin\r\n")?;
    while line()? != "begin" {}
    while !stop.load(Ordering::Relaxed) {
        let key = format!("app,orders,h{client}-{next}");
        *next += 1;
        let sent = Instant::now();
        requests.write_all(format!("SET {key} v-{key}\r\n").as_bytes())?;
        let mut told = line()?;
        let mut epoch = None;
        if told.starts_with('|') {
            // |1, +receipt, *2, :epoch, :number
            let lines = [line()?, line()?, line()?, line()?];
            epoch = lines[2].strip_prefix(':').and_then(|epoch| epoch.parse().ok());
            told = line()?;
        }
        if told != "+OK" {
            return Err(bad(&told));
        }
        let epoch = epoch.ok_or_else(|| bad("an answer without a receipt"))?;
        acked.lock().unwrap().push(Acked { key, sent, answered: Instant::now(), node, epoch });
    }
    Ok(())
}

/// What of a history breaks a rule: nothing, if all is well.
pub(crate) fn broken(history: &[Acked], there: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<String> {
    let mut found = Vec::new();
    let mut first: BTreeMap<u64, &Acked> = BTreeMap::new();
    for acked in history {
        let value = there.get(acked.key.as_bytes());
        if value.map(Vec::as_slice) != Some(format!("v-{}", acked.key).as_bytes()) {
            found.push(format!("acknowledged and not there: {acked:?}: {value:?}"));
        }
        let earliest = first.entry(acked.epoch).or_insert(acked);
        if acked.answered < earliest.answered {
            *earliest = acked;
        }
    }
    for acked in history {
        let later = first.range(acked.epoch + 1..).map(|(_, later)| later);
        if let Some(later) = later.into_iter().find(|later| later.answered < acked.sent) {
            found.push(format!("acknowledged in an epoch that was over: {acked:?} after {later:?}"));
        }
    }
    found
}

/// Holds a history to the rules, with what is behind a door.
///
/// # Panics
/// If one is broken.
#[track_caller]
pub(crate) fn check(history: &[Acked], door: &Door) {
    let broken = broken(history, &items(door, "app,orders,"));
    let shown: Vec<&String> = broken.iter().take(5).collect();
    assert!(broken.is_empty(), "{} of {} updates: {shown:#?}", broken.len(), history.len());
}

/// The longest time in which nothing was acknowledged.
pub(crate) fn pause(history: &[Acked]) -> Duration {
    let mut times: Vec<Instant> = history.iter().map(|acked| acked.answered).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, (sent, answered): (u64, u64), node: usize, epoch: u64) -> Acked {
        let ms = |ms| begin + Duration::from_millis(ms);
        Acked { key: format!("k{sent}-{node}"), sent: ms(sent), answered: ms(answered), node, epoch }
    }

    fn stored(history: &[Acked]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let pair = |acked: &Acked| (acked.key.clone().into_bytes(), format!("v-{}", acked.key).into_bytes());
        history.iter().map(pair).collect()
    }

    #[test]
    fn a_history_is_broken_by_a_lost_update_and_by_one_that_is_acknowledged_after_its_epoch() {
        let now = Instant::now();
        // What was sent before the other node began may be acknowledged late.
        let good = [at(now, (0, 5), 0, 1), at(now, (6, 30), 0, 1), at(now, (10, 20), 1, 3)];
        assert!(broken(&good, &stored(&good)).is_empty());
        assert_eq!(broken(&good, &stored(&good[1..])).len(), 1);
        let two = [at(now, (0, 5), 1, 3), at(now, (6, 7), 0, 1)];
        assert!(broken(&two, &stored(&two))[0].contains("an epoch that was over"));
        assert_eq!(pause(&good), Duration::from_millis(15));
    }
}
