//! A tape drive and an autoloader for the real driver `st`: an iSCSI target on a Unix socket, with reels in memory and
//! every fault to order. It answers as a SCSI drive does (SSC, SMC), so what `st` makes of that is the driver's own.
//!
//! The rules that the in-process drive (`hot_backup::tape::fake`) follows were found with it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cartridge: blocks, and `None` for a filemark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cartridge {
    pub(crate) barcode: String,
    pub(crate) records: Vec<Option<Vec<u8>>>,
    pub(crate) protected: bool,
}

/// What goes wrong, after so many more writes, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// What the drive holds in memory is lost, and told late.
    Deferred,
}

/// The state of drive and slots.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) slots: BTreeMap<usize, Option<Cartridge>>,
    pub(crate) drive: Option<Cartridge>,
    /// Given out, and still in the drive's mouth.
    ejected: Option<Cartridge>,
    source: usize,
    position: usize,
    block: usize,
    attentions: Vec<(u8, u8)>,
    prevent: bool,
    buffered: usize,
    late: bool,
    /// Bytes that a reel takes, and from which on it warns.
    pub(crate) end: usize,
    pub(crate) warn: usize,
    pub(crate) trouble: Option<(u32, Trouble)>,
    /// Writes so far.
    pub(crate) writes: u64,
    /// TapeAlert flags that are set until somebody reads them.
    pub(crate) alerts: Vec<u8>,
}

/// What a command fails with: sense key, codes, what is left, flags (0x80 mark, 0x40 end, 0x20 length), deferred, data.
struct Check {
    key: u8,
    code: (u8, u8),
    left: Option<i64>,
    flags: u8,
    deferred: bool,
    data: Vec<u8>,
}

type Done = Result<Vec<u8>, Check>;

fn check(key: u8, code: (u8, u8)) -> Check {
    Check { key, code, left: None, flags: 0, deferred: false, data: Vec::new() }
}

fn missing() -> Check {
    check(2, (0x3a, 0))
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

impl Check {
    fn sense(&self) -> Vec<u8> {
        let mut sense = vec![0; 18];
        sense[0] = if self.deferred { 0x71 } else { 0x70 } | if self.left.is_some() { 0x80 } else { 0 };
        sense[2] = self.key | self.flags;
        if let Some(left) = self.left {
            sense[3..7].copy_from_slice(&i32::try_from(left).unwrap_or(0).to_be_bytes());
        }
        sense[7] = 10;
        (sense[12], sense[13]) = self.code;
        sense
    }
}

impl State {
    /// What lies in the drive from now on, at its beginning.
    pub(crate) fn lay_in(&mut self, reel: Option<Cartridge>) {
        (self.drive, self.ejected) = (reel, None);
        (self.source, self.position, self.buffered, self.prevent, self.late) = (0, 0, 0, false, false);
    }

    fn used(&self) -> usize {
        let reel = self.drive.iter().flat_map(|reel| &reel.records).take(self.position);
        reel.flatten().map(Vec::len).sum()
    }

    fn reel(&mut self) -> Result<&mut Cartridge, Check> {
        self.drive.as_mut().ok_or_else(missing)
    }

    /// What the drive holds in memory is gone.
    fn forget(&mut self) {
        let keep = self.position.saturating_sub(self.buffered);
        if let Some(reel) = &mut self.drive {
            reel.records.truncate(keep);
        }
        (self.position, self.buffered) = (keep, 0);
    }

    fn told_late(&mut self) -> Result<(), Check> {
        if !std::mem::take(&mut self.late) {
            return Ok(());
        }
        self.forget();
        Err(Check { deferred: true, ..check(3, (0x0c, 0)) })
    }

    fn due(&mut self) -> Option<Trouble> {
        let (left, trouble) = self.trouble?;
        self.trouble = (left > 0).then(|| (left - 1, trouble));
        (left == 0).then_some(trouble)
    }

    fn write(&mut self, blocks: Vec<Vec<u8>>) -> Done {
        self.reel()?;
        self.writes += 1;
        match self.due() {
            Some(Trouble::Deferred) => self.late = true,
            None => {}
        }
        if self.reel()?.protected {
            return Err(check(7, (0x27, 0)));
        }
        self.told_late()?;
        let (end, warn, mut used) = (self.end, self.warn, self.used());
        for block in blocks {
            let len = block.len();
            if used + len > end {
                let left = Some(i64::try_from(len).unwrap_or(0));
                return Err(Check { left, flags: 0x40, ..check(0x0d, (0, 2)) });
            }
            let at = self.position;
            let reel = self.reel()?;
            reel.records.truncate(at);
            reel.records.push(Some(block));
            (self.position, self.buffered, used) = (at + 1, self.buffered + 1, used + len);
        }
        if used > warn {
            return Err(Check { left: Some(0), flags: 0x40, ..check(0, (0, 2)) });
        }
        Ok(Vec::new())
    }

    fn marks(&mut self, count: usize, immediate: bool) -> Done {
        if self.reel()?.protected {
            return Err(check(7, (0x27, 0)));
        }
        self.told_late()?;
        let at = self.position;
        let reel = self.reel()?;
        if count > 0 {
            reel.records.truncate(at);
            reel.records.extend(std::iter::repeat_n(None, count));
        }
        self.position += count;
        if !immediate {
            self.buffered = 0;
        }
        if self.used() > self.warn {
            return Err(Check { left: Some(0), flags: 0x40, ..check(0, (0, 2)) });
        }
        Ok(Vec::new())
    }

    fn read(&mut self, cdb: &[u8]) -> Done {
        let (count, at) = (number(&cdb[2..5]), self.position);
        let wanted = i64::try_from(count).unwrap_or(0);
        let record = self.reel()?.records.get(at).cloned();
        let Some(record) = record else { return Err(Check { left: Some(wanted), ..check(8, (0, 5)) }) };
        self.position += 1;
        let Some(mut data) = record else {
            return Err(Check { left: Some(wanted), flags: 0x80, ..check(0, (0, 1)) });
        };
        let left = wanted - i64::try_from(data.len()).unwrap_or(0);
        data.truncate(count);
        if left > 0 && cdb[1] & 2 != 0 || left == 0 {
            return Ok(data);
        }
        Err(Check { left: Some(left), flags: 0x20, data, ..check(0, (0, 0)) })
    }

    fn space(&mut self, code: u8, count: i32) -> Done {
        self.buffered = 0;
        let records = self.reel()?.records.clone();
        if code == 3 {
            self.position = records.len();
            return Ok(Vec::new());
        }
        let mut left = count.abs();
        while left > 0 {
            let open = Some(i64::from(left));
            let record = if count > 0 {
                let Some(record) = records.get(self.position) else {
                    return Err(Check { left: open, ..check(8, (0, 5)) });
                };
                self.position += 1;
                record
            } else {
                let Some(at) = self.position.checked_sub(1) else {
                    return Err(Check { left: open, flags: 0x40, ..check(0, (0, 4)) });
                };
                self.position = at;
                &records[at]
            };
            if code == 1 {
                left -= i32::from(record.is_none());
            } else if record.is_none() {
                return Err(Check { left: open, flags: 0x80, ..check(0, (0, 1)) });
            } else {
                left -= 1;
            }
        }
        Ok(Vec::new())
    }

    fn mode(&self, cdb: &[u8]) -> Done {
        let page = cdb[2] & 0x3f;
        let mut pages = Vec::new();
        if matches!(page, 0x0f | 0x3f) {
            pages.extend([0x0f, 14, 0xc0, 0x80, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        if matches!(page, 0x10 | 0x3f) {
            pages.extend([0x10, 14]);
            pages.extend([0; 14]);
        }
        if !matches!(page, 0 | 0x3f | 0x0f | 0x10) {
            return Err(check(5, (0x24, 0)));
        }
        let mut descriptor = vec![0x58, 0, 0, 0, 0];
        descriptor.extend(&u32::try_from(self.block).unwrap_or(0).to_be_bytes()[1..]);
        if cdb[1] & 8 != 0 {
            descriptor.clear();
        }
        let protected = self.drive.as_ref().is_some_and(|reel| reel.protected);
        let (bits, len) = (0x10 | if protected { 0x80 } else { 0 }, descriptor.len() + pages.len());
        let short = |len: usize| u8::try_from(len).unwrap_or(0);
        let mut out = match cdb[0] {
            0x1a => vec![short(3 + len), 0, bits, short(descriptor.len())],
            _ => vec![0, short(6 + len), 0, bits, 0, 0, 0, short(descriptor.len())],
        };
        out.extend(descriptor);
        out.extend(pages);
        Ok(out)
    }

    fn position_data(&mut self, cdb: &[u8]) -> Done {
        self.reel()?;
        let at = u64::try_from(self.position).unwrap_or(0);
        let mut out = vec![if at == 0 { 0x80 } else { 0 }, 0, 0, 0];
        if cdb[1] & 0x1f == 6 {
            out.extend([0; 4]);
            out.extend(at.to_be_bytes());
            out.extend([0; 16]);
            return Ok(out);
        }
        let buffered = u64::try_from(self.buffered).unwrap_or(0);
        for value in [at, at - buffered, buffered, 0] {
            out.extend(&value.to_be_bytes()[4..]);
        }
        Ok(out)
    }

    /// The flags that are set, which reading clears.
    fn alerts_page(&mut self) -> Vec<u8> {
        let set = std::mem::take(&mut self.alerts);
        let flags = (1..=64_u8).flat_map(|flag| [0, flag, 0x40, 1, u8::from(set.contains(&flag))]);
        [0x2e, 0, 1, 0x40].into_iter().chain(flags).collect()
    }

    fn tape(&mut self, cdb: &[u8], data: &[u8]) -> Done {
        match (cdb[0], cdb[1] & 1, cdb[2]) {
            (0x12, 1, 0) => return Ok(vec![1, 0, 0, 3, 0, 0x80, 0x83]),
            (0x12, 1, 0x80) => return Ok([&[1, 0x80, 0, 10][..], b"SERIAL0001"].concat()),
            (0x12, 1, 0x83) => return Ok(vec![1, 0x83, 0, 0]),
            (0x12, 1, _) => return Err(check(5, (0x24, 0))),
            (0x12, ..) => {
                return Ok([&[1, 0x80, 6, 2, 31, 0, 0, 0][..], b"PROBE   ULTRIUM-EMU     0001"].concat());
            }
            _ => {}
        }
        if let Some(done) = common(cdb) {
            return done;
        }
        if !self.attentions.is_empty() {
            let code = self.attentions.remove(0);
            return Err(check(6, code));
        }
        match cdb[0] {
            0x00 => drop(self.reel()?),
            0x01 => {
                self.reel()?;
                (self.position, self.buffered) = (0, 0);
            }
            0x05 => return Ok(vec![0, 0x10, 0, 0, 0, 1]),
            0x08 => return self.read(cdb),
            0x0a if cdb[1] & 1 != 0 => {
                return self.write(data.chunks(self.block.max(1)).map(<[u8]>::to_vec).collect());
            }
            0x0a => return self.write(vec![data.to_vec()]),
            0x10 => return self.marks(number(&cdb[2..5]), cdb[1] & 1 != 0),
            0x11 => {
                let count = i32::from_be_bytes([cdb[2], cdb[3], cdb[4], 0]) >> 8;
                return self.space(cdb[1] & 0x0f, count);
            }
            0x15 | 0x55 => {
                let (at, descriptors) =
                    if cdb[0] == 0x15 { (4, usize::from(data[3])) } else { (8, number(&data[6..8])) };
                if descriptors >= 8 {
                    self.block = number(&data[at + 5..at + 8]);
                }
            }
            0x16 | 0x17 => {}
            0x19 => {
                let at = self.position;
                self.reel()?.records.truncate(at);
            }
            0x1a | 0x5a => return self.mode(cdb),
            0x1b if cdb[4] & 1 != 0 => {
                self.reel()?;
                self.position = 0;
            }
            0x1b if self.prevent => return Err(check(5, (0x53, 2))),
            0x1b => self.eject(),
            0x1e => self.prevent = cdb[4] & 3 != 0,
            0x2b => {
                let (to, end) = (number(&cdb[3..7]), self.reel()?.records.len());
                (self.position, self.buffered) = (to.min(end), 0);
                if to > end {
                    return Err(check(8, (0, 5)));
                }
            }
            0x34 => return self.position_data(cdb),
            0x4d if cdb[2] & 0x3f == 0x2e => return Ok(self.alerts_page()),
            0xa2 if cdb[1] == 0x20 && number(&cdb[2..4]) == 0x20 => {
                return Ok([0, 0x20, 0, 20, 0x42, 2, 2, 1].into_iter().chain([0; 16]).collect());
            }
            _ => return Err(check(5, (0x20, 0))),
        }
        Ok(Vec::new())
    }

    fn eject(&mut self) {
        if let Some(reel) = self.drive.take() {
            self.ejected = Some(reel);
        }
        (self.position, self.buffered) = (0, 0);
    }

    fn changer(&mut self, cdb: &[u8]) -> Done {
        match cdb[0] {
            0x12 if cdb[1] & 1 != 0 => return Err(check(5, (0x24, 0))),
            0x12 => return Ok([&[8, 0x80, 6, 2, 31, 0, 0, 0][..], b"PROBE   AUTOLOADER-EMU  0001"].concat()),
            _ => {}
        }
        if let Some(done) = common(cdb) {
            return done;
        }
        match cdb[0] {
            0x00 | 0x07 | 0x1e | 0x16 | 0x17 => Ok(Vec::new()),
            0x1a | 0x5a => {
                let mut page = Vec::new();
                if matches!(cdb[2] & 0x3f, 0x1d | 0x3f) {
                    page.extend([0x1d, 18]);
                    let slots = u16::try_from(self.slots.len()).unwrap_or(0);
                    for value in [ROBOT, 1, SLOTS, slots, 0, 0, DRIVE, 1, 0] {
                        page.extend(value.to_be_bytes());
                    }
                }
                let len = u8::try_from(page.len()).unwrap_or(0);
                let mut out =
                    if cdb[0] == 0x1a { vec![3 + len, 0, 0, 0] } else { vec![0, 6 + len, 0, 0, 0, 0, 0, 0] };
                out.extend(page);
                Ok(out)
            }
            0xb8 => Ok(self.elements(cdb)),
            0xa5 => self.moves(number(&cdb[4..6]), number(&cdb[6..8])),
            _ => Err(check(5, (0x20, 0))),
        }
    }

    fn elements(&self, cdb: &[u8]) -> Vec<u8> {
        let (kind, start, most) = (cdb[1] & 0x0f, number(&cdb[2..4]), number(&cdb[4..6]));
        let slots: Vec<u16> =
            (0..self.slots.len()).map(|at| SLOTS + u16::try_from(at).unwrap_or(0)).collect();
        let (mut body, mut count, mut first) = (Vec::new(), 0, None);
        for (code, addresses) in [(1_u8, vec![ROBOT]), (2, slots), (4, vec![DRIVE])] {
            let here = addresses.into_iter().filter(|at| usize::from(*at) >= start);
            let here: Vec<u16> = here.take(most.saturating_sub(count)).collect();
            if (kind != 0 && kind != code) || here.is_empty() {
                continue;
            }
            first = first.or(here.first().copied());
            count += here.len();
            let descriptors: Vec<u8> = here.iter().flat_map(|at| self.element(code, *at)).collect();
            body.extend([code, 0x80, 0, 52]);
            body.extend(u32::try_from(descriptors.len()).unwrap_or(0).to_be_bytes());
            body.extend(descriptors);
        }
        let mut out = first.unwrap_or(0).to_be_bytes().to_vec();
        out.extend(u16::try_from(count).unwrap_or(0).to_be_bytes());
        out.extend(u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
        out.extend(body);
        out
    }

    fn element(&self, code: u8, address: u16) -> Vec<u8> {
        let in_drive = self.drive.as_ref().or(self.ejected.as_ref());
        let (reel, source) = match code {
            4 => (in_drive, self.source),
            2 => (self.slots.get(&usize::from(address - SLOTS + 1)).and_then(Option::as_ref), 0),
            _ => (None, 0),
        };
        let mut out = address.to_be_bytes().to_vec();
        out.extend([if code == 1 { 0 } else { 8 | u8::from(reel.is_some()) }, 0, 0, 0, 0, 0, 0]);
        let known = source > 0 && reel.is_some();
        out.push(if known { 0x80 } else { 0 });
        let from = if known { SLOTS + u16::try_from(source - 1).unwrap_or(0) } else { 0 };
        out.extend(from.to_be_bytes());
        let tag = reel.map(|reel| format!("{:32}", reel.barcode)).unwrap_or_else(|| "\0".repeat(32));
        out.extend(tag.bytes());
        out.extend([0; 8]);
        out
    }

    fn moves(&mut self, from: usize, to: usize) -> Done {
        let (drive, slots) = (usize::from(DRIVE), usize::from(SLOTS));
        let slot = |address: usize| address.wrapping_sub(slots).wrapping_add(1);
        let reel = if from == drive {
            if self.drive.is_some() && self.prevent {
                return Err(check(5, (0x53, 2)));
            }
            self.eject();
            self.source = 0;
            self.ejected.take()
        } else {
            self.slots.get_mut(&slot(from)).and_then(Option::take)
        };
        let Some(reel) = reel else { return Err(check(5, (0x3b, 0x0e))) };
        if to == drive {
            (self.drive, self.source, self.block) = (Some(reel), slot(from), 0);
            (self.position, self.buffered) = (0, 0);
            self.attentions.push((0x28, 0));
        } else {
            self.slots.insert(slot(to), Some(reel));
        }
        Ok(Vec::new())
    }
}

const ROBOT: u16 = 0;
const DRIVE: u16 = 0x100;
const SLOTS: u16 = 0x1000;

/// What drive and changer have in common.
fn common(cdb: &[u8]) -> Option<Done> {
    match cdb[0] {
        0xa0 => Some(Ok([&[0, 0, 0, 16, 0, 0, 0, 0][..], &[0; 8], &[0, 1, 0, 0, 0, 0, 0, 0]].concat())),
        0x03 => Some(Ok(vec![0; 18])),
        _ => None,
    }
}

/// A drive with an autoloader; it answers as long as the test runs.
#[derive(Clone, Debug)]
pub(crate) struct Library(Arc<Mutex<State>>);

impl Library {
    /// With so many blank cartridges, of so many bytes, at this socket.
    pub(crate) fn new(socket: &Path, slots: usize, (warn, end): (usize, usize)) -> Self {
        let state = State { warn, end, attentions: vec![(0x29, 0)], ..State::default() };
        let this = Self(Arc::new(Mutex::new(state)));
        for slot in 1..=slots {
            let blank = Cartridge { barcode: format!("TAP{slot:03}L6"), ..Cartridge::default() };
            this.state().slots.insert(slot, Some(blank));
        }
        let listener = UnixListener::bind(socket).unwrap();
        let target = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&target.0);
                std::thread::spawn(move || {
                    // Who leaves ends it.
                    let _ = Session { stream, state, numbers: (1, 0), segment: 8192 }.run();
                });
            }
        });
        this
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of an initiator.
struct Session {
    stream: UnixStream,
    state: Arc<Mutex<State>>,
    /// The next status, and the next command.
    numbers: (u32, u32),
    /// Bytes that the initiator takes at once.
    segment: usize,
}

const SEGMENT: usize = 256 << 10;
const BURST: usize = 1 << 20;

/// A command whose data is coming.
struct Coming {
    head: [u8; 48],
    data: Vec<u8>,
    asked: u32,
}

impl Session {
    fn receive(&mut self) -> io::Result<([u8; 48], Vec<u8>)> {
        let mut head = [0; 48];
        self.stream.read_exact(&mut head)?;
        let (more, len) = (usize::from(head[4]) * 4, number(&head[5..8]));
        let mut rest = vec![0; more + len.next_multiple_of(4)];
        self.stream.read_exact(&mut rest)?;
        rest.drain(..more);
        rest.truncate(len);
        Ok((head, rest))
    }

    /// Sends one unit; `status` says that it takes a number.
    fn send(&mut self, mut head: [u8; 48], data: &[u8], status: bool) -> io::Result<()> {
        head[5..8].copy_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes()[1..]);
        if head[0] != 0x25 {
            head[24..28].copy_from_slice(&self.numbers.0.to_be_bytes());
        }
        self.numbers.0 += u32::from(status);
        head[28..32].copy_from_slice(&self.numbers.1.to_be_bytes());
        head[32..36].copy_from_slice(&(self.numbers.1 + 31).to_be_bytes());
        let padding = vec![0; data.len().next_multiple_of(4) - data.len()];
        self.stream.write_all(&[&head, data, &padding].concat())
    }

    fn log_in(&mut self, head: &[u8; 48], data: &[u8]) -> io::Result<()> {
        self.numbers.1 = u32::from_be_bytes([head[24], head[25], head[26], head[27]]);
        let text = String::from_utf8_lossy(data).into_owned();
        let (current, next) = ((head[1] >> 2) & 3, head[1] & 3);
        let mut out = Vec::new();
        if current == 0 || text.contains("TargetName=") {
            out.push("TargetPortalGroupTag=1".to_owned());
        }
        for (key, value) in text.split('\0').filter_map(|pair| pair.split_once('=')) {
            let answer = match key {
                "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" => continue,
                "AuthMethod" | "HeaderDigest" | "DataDigest" => "None".to_owned(),
                "MaxRecvDataSegmentLength" => {
                    self.segment = value.parse().unwrap_or(8192);
                    SEGMENT.to_string()
                }
                "MaxBurstLength" | "FirstBurstLength" => {
                    value.parse().unwrap_or(BURST).min(BURST).to_string()
                }
                "InitialR2T" | "ImmediateData" | "DataPDUInOrder" | "DataSequenceInOrder" => "Yes".to_owned(),
                "IFMarker" | "OFMarker" => "No".to_owned(),
                "MaxConnections" | "MaxOutstandingR2T" => "1".to_owned(),
                "ErrorRecoveryLevel" => "0".to_owned(),
                "DefaultTime2Wait" | "DefaultTime2Retain" => value.to_owned(),
                _ => "NotUnderstood".to_owned(),
            };
            out.push(format!("{key}={answer}"));
        }
        let mut reply = [0; 48];
        (reply[0], reply[1]) = (0x23, head[1] & 0x8f);
        reply[8..16].copy_from_slice(&head[8..16]);
        if head[1] & 0x80 != 0 && next == 3 {
            (reply[14], reply[15]) = (0, 1);
        }
        reply[16..20].copy_from_slice(&head[16..20]);
        let text: String = out.iter().flat_map(|pair| [pair.as_str(), "\0"]).collect();
        self.send(reply, text.as_bytes(), true)
    }

    fn execute(&mut self, head: &[u8; 48], data: &[u8]) -> io::Result<()> {
        let (cdb, lun, expected) = (&head[32..48], head[9], number(&head[20..24]));
        let done = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if lun == 0 { state.tape(cdb, data) } else { state.changer(cdb) }
        };
        let (mut out, sense) = match done {
            Ok(out) => (out, Vec::new()),
            Err(check) => (check.data.clone(), check.sense()),
        };
        let reads = head[1] & 0x40 != 0;
        if reads {
            let allowed = match cdb[0] {
                0x12 => number(&cdb[3..5]),
                0x1a | 0x03 => usize::from(cdb[4]),
                0x5a | 0x4d => number(&cdb[7..9]),
                0xa0 | 0xa2 => number(&cdb[6..10]),
                0xb8 => number(&cdb[7..10]),
                _ => expected,
            };
            out.truncate(allowed.min(expected));
            let step = self.segment.min(SEGMENT);
            for (at, piece) in out.chunks(step).enumerate() {
                let mut unit = [0; 48];
                unit[0] = 0x25;
                unit[1] = if (at + 1) * step >= out.len() { 0x80 } else { 0 };
                unit[16..20].copy_from_slice(&head[16..20]);
                unit[20..24].copy_from_slice(&[0xff; 4]);
                unit[36..40].copy_from_slice(&u32::try_from(at).unwrap_or(0).to_be_bytes());
                unit[40..44].copy_from_slice(&u32::try_from(at * step).unwrap_or(0).to_be_bytes());
                self.send(unit, piece, false)?;
            }
        }
        let mut reply = [0; 48];
        (reply[0], reply[1], reply[3]) = (0x21, 0x80, if sense.is_empty() { 0 } else { 2 });
        reply[16..20].copy_from_slice(&head[16..20]);
        let moved = if reads { out.len() } else { expected };
        if moved < expected {
            reply[1] |= 2;
            reply[44..48].copy_from_slice(&u32::try_from(expected - moved).unwrap_or(0).to_be_bytes());
        }
        let sense = match sense.len() {
            0 => sense,
            len => [&u16::try_from(len).unwrap_or(0).to_be_bytes()[..], &sense].concat(),
        };
        self.send(reply, &sense, true)
    }

    /// Asks for more data of a command.
    fn ask(&mut self, coming: &mut Coming) -> io::Result<()> {
        let (have, all) = (coming.data.len(), number(&coming.head[20..24]));
        let mut unit = [0; 48];
        (unit[0], unit[1]) = (0x31, 0x80);
        unit[8..20].copy_from_slice(&coming.head[8..20]);
        unit[20..24].copy_from_slice(&1_u32.to_be_bytes());
        unit[36..40].copy_from_slice(&coming.asked.to_be_bytes());
        unit[40..44].copy_from_slice(&u32::try_from(have).unwrap_or(0).to_be_bytes());
        unit[44..48].copy_from_slice(&u32::try_from((all - have).min(BURST)).unwrap_or(0).to_be_bytes());
        coming.asked += 1;
        self.send(unit, &[], false)
    }

    fn run(mut self) -> io::Result<()> {
        let mut open: BTreeMap<[u8; 4], Coming> = BTreeMap::new();
        loop {
            let (head, data) = self.receive()?;
            let (code, tag) = (head[0] & 0x3f, [head[16], head[17], head[18], head[19]]);
            if head[0] & 0x40 == 0 && matches!(code, 0..=2 | 4 | 6) {
                self.numbers.1 = u32::from_be_bytes([head[24], head[25], head[26], head[27]]).wrapping_add(1);
            }
            let mut reply = [0; 48];
            reply[1] = 0x80;
            reply[16..20].copy_from_slice(&tag);
            match code {
                0x03 => self.log_in(&head, &data)?,
                0x01 if head[1] & 0x20 != 0 && data.len() < number(&head[20..24]) => {
                    let mut coming = Coming { head, data, asked: 0 };
                    self.ask(&mut coming)?;
                    open.insert(tag, coming);
                }
                0x01 => self.execute(&head, &data)?,
                0x05 => {
                    let Some(mut coming) = open.remove(&tag) else { continue };
                    coming.data.extend(data);
                    if coming.data.len() >= number(&coming.head[20..24]) {
                        self.execute(&coming.head, &coming.data)?;
                        continue;
                    }
                    if head[1] & 0x80 != 0 {
                        self.ask(&mut coming)?;
                    }
                    open.insert(tag, coming);
                }
                0x00 if tag != [0xff; 4] => {
                    reply[0] = 0x20;
                    reply[20..24].copy_from_slice(&[0xff; 4]);
                    self.send(reply, &data, true)?;
                }
                0x02 => {
                    reply[0] = 0x22;
                    self.send(reply, &[], true)?;
                }
                0x04 => {
                    reply[0] = 0x24;
                    self.send(reply, &data, true)?;
                }
                0x06 => {
                    reply[0] = 0x26;
                    return self.send(reply, &[], true);
                }
                _ => {}
            }
        }
    }
}
