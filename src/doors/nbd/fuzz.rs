//! Any bytes against a door with a tiny volume.

use super::{Allocation, BlockBackend, NbdConfig, NbdDoor, NbdOutput, Piece, Refusal, Tls};
use crate::base::{AckLevel, ConnId, FileId, JournalKind, Now, Seq, Wait};
use crate::doors::{CommitWatermarks, Payload, Volume};
use crate::format::nbd;

/// A volume of zeros that is safe at once.
#[derive(Debug, Default)]
struct Tiny {
    reads: Vec<(u64, u64)>,
    allocations: Vec<(u64, u64)>,
}

const SIZE: u64 = 1 << 20;
const SAFE: Wait = Wait { journal: JournalKind::Local, seq: Seq(0), level: AckLevel::Local };

impl BlockBackend for Tiny {
    fn volumes(&self) -> Vec<Volume> {
        vec![Volume { file: FileId(1), name: "a/b".to_owned(), bytes: SIZE, writable: true }]
    }

    fn volume_named(&self, name: &[u8]) -> Result<Volume, Refusal> {
        match name {
            b"a/b" => self.volume(FileId(1)),
            other => Err(Refusal::NoSuchFile(String::from_utf8_lossy(other).into_owned())),
        }
    }

    fn volume(&self, _file: FileId) -> Result<Volume, Refusal> {
        self.volumes().pop().ok_or_else(|| Refusal::NoSuchFile(String::new()))
    }

    fn write_blocks(&mut self, _: FileId, _: u64, _: Payload<'_>) -> Result<Wait, Refusal> {
        Ok(SAFE)
    }

    fn zero_blocks(&mut self, _: FileId, _: u64, _: u64, _: bool) -> Result<Wait, Refusal> {
        Ok(SAFE)
    }

    fn flush_blocks(&mut self, _: FileId) -> Result<[Wait; 2], Refusal> {
        Ok([SAFE; 2])
    }

    fn read_blocks(&mut self, token: u64, _: FileId, _: u64, len: u32) -> Result<(), Refusal> {
        self.reads.push((token, u64::from(len)));
        Ok(())
    }

    fn allocation(&mut self, token: u64, _: FileId, _: u64, len: u64) -> Result<(), Refusal> {
        self.allocations.push((token, len));
        Ok(())
    }

    fn watermarks(&self) -> CommitWatermarks {
        CommitWatermarks::default()
    }

    fn blocks_congested(&self) -> bool {
        false
    }
}

/// Sends `start` and then `bytes`, in parts whose sizes the bytes themselves give.
fn drive(start: &[u8], bytes: &[u8]) {
    let (mut door, mut backend) = (NbdDoor::new(NbdConfig::default()), Tiny::default());
    let (now, conn) = (Now::default(), ConnId(1));
    let tls = if bytes.len().is_multiple_of(2) { Tls::Off } else { Tls::Offered };
    door.open(now, conn, if start.is_empty() { tls } else { Tls::Off });
    let all = [start, bytes].concat();
    let mut left = all.as_slice();
    loop {
        while let Some(output) = door.output() {
            match output {
                NbdOutput::Send { .. } => door.sent(now, conn),
                NbdOutput::StartTls { .. } => door.secured(conn),
                NbdOutput::Proven { .. } | NbdOutput::Refused { .. } | NbdOutput::Close { .. } => {}
                NbdOutput::Receive { mut buffer, .. } => {
                    let room = usize::from(left.first().copied().unwrap_or(0)) + 1;
                    let (part, rest) = left.split_at(room.min(left.len()).min(buffer.capacity()));
                    if part.is_empty() {
                        return;
                    }
                    left = rest;
                    buffer.extend_from_slice(part);
                    door.input(now, conn, buffer, &mut backend);
                }
                NbdOutput::Fill { mut buffer, until, .. } => {
                    let (part, rest) = left.split_at((until - buffer.len()).min(left.len()));
                    left = rest;
                    buffer.extend_from_slice(part);
                    if buffer.len() < until {
                        return;
                    }
                    door.filled(now, conn, buffer, &mut backend);
                }
            }
        }
        if !door.knows(conn) {
            return;
        }
        for (token, len) in std::mem::take(&mut backend.reads) {
            door.read_done(now, token, Ok(vec![Piece::Zeros(len)]));
        }
        for (token, len) in std::mem::take(&mut backend.allocations) {
            door.allocation_done(now, token, Ok(vec![Allocation { len, hole: true }]));
        }
        door.tick(now, &mut backend);
        door.release(now, &mut backend);
    }
}

/// Takes any bytes for those of a client that was just greeted. Never panics.
pub fn fuzz_nbd_handshake(bytes: &[u8]) {
    drive(&[], bytes);
}

/// Takes any bytes for those of a client that has chosen an export. Never panics.
pub fn fuzz_nbd_transmission(bytes: &[u8]) {
    let mut start = nbd::CLIENT_FIXED_NEWSTYLE.to_be_bytes().to_vec();
    nbd::OptionHeader { option: nbd::OPT_STRUCTURED_REPLY, len: 0 }.encode(&mut start);
    let meta = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";
    let len = u32::try_from(meta.len()).unwrap_or(0);
    nbd::OptionHeader { option: nbd::OPT_SET_META_CONTEXT, len }.encode(&mut start);
    start.extend_from_slice(meta);
    nbd::OptionHeader { option: nbd::OPT_GO, len: 6 }.encode(&mut start);
    start.extend_from_slice(&[0; 6]);
    drive(&start, bytes);
}
