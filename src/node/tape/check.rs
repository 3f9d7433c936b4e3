//! A look at a new drive: writes blocks, reads them back, and measures.

use super::shelf::{open, wall_ms};
use super::{Place, TapeError, TapeOptions};
use crate::base::Prng;
use crate::format::PairId;
use crate::format::reel::{ReelBlock, ReelLabel};
use crate::format::set::SetId;
use crate::tape::{Drive, Fault, Got, Packer, Purpose, Want, identify, judge, prepared};
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};

/// What came of it, for one size of blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// Size of blocks (bytes).
    pub block_size: u32,
    /// Bytes written and read back.
    pub bytes: u64,
    /// Bytes a second while they were written, with the flush at the end.
    pub write_rate: u64,
    /// Bytes a second while they were read.
    pub read_rate: u64,
    /// How long one flush took (seconds).
    pub flush_seconds: f64,
}

fn rate(bytes: u64, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// Writes so many bytes in blocks of each size, reads them back and compares, and leaves the reel prepared. It has to be blank,
/// prepared or allowed to be overwritten. An image is made for it.
///
/// # Errors
/// [`TapeError`]; [`TapeError::Unfit`] where something else was read than was written.
pub fn check(options: &TapeOptions, sizes: &[u32], bytes: u64) -> Result<Vec<Checked>, TapeError> {
    let path = options.place.path(1);
    let made = !matches!(&options.place, Place::Device(_)) && !path.exists();
    let drive: io::Result<Box<dyn Drive>> = match made {
        true => super::Image::create(&path).map(|image| Box::new(image) as Box<dyn Drive>),
        false => open(&options.place, 1, true),
    };
    let mut drive = drive.map_err(|source| io_error(options, source))?;
    let name = drive.name();
    let failed = |fault: Fault| TapeError::Drive { drive: name.clone(), fault };
    let (found, protected) = identify(&mut *drive).map_err(failed)?;
    let want = Want { set: SetId::default(), reel: 1, purpose: Purpose::Write, why: String::new() };
    let mut allowed = options.allowed;
    allowed.blank |= made;
    judge(&found, protected, &want, allowed).map_err(|refusal| TapeError::Unfit {
        what: format!("checking {name}"),
        why: refusal.to_string(),
        next: "use a reel that may be overwritten, and say so: --relabel, or --label-blank for a blank one",
    })?;
    let result = sizes.iter().map(|size| one(&mut *drive, *size, bytes)).collect();
    drive.disarm();
    if made {
        let _ = super::catalogue::own(super::tap::parent_of(&path), &super::verbs::file_name(&path)).remove();
    } else {
        let label = ReelLabel {
            pair: PairId::default(),
            epoch: crate::base::Epoch(0),
            seq: crate::base::Seq(0),
            wall_ms: wall_ms(),
            block_size: 0,
            key: 0,
            name: "checked".to_owned(),
            node: String::new(),
        };
        super::verbs::write_label(&mut *drive, prepared(&label)).map_err(failed)?;
    }
    result
}

fn io_error(options: &TapeOptions, source: io::Error) -> TapeError {
    TapeError::Io { doing: "opening", what: options.place.name(), source }
}

fn one(drive: &mut dyn Drive, size: u32, bytes: u64) -> Result<Checked, TapeError> {
    let name = drive.name();
    let failed = |fault: Fault| TapeError::Drive { drive: name.clone(), fault };
    let wrong = |why: String| TapeError::Unfit {
        what: format!("checking {name}"),
        why,
        next: "use another reel, then another cable or drive; nothing that this drive writes can be relied on",
    };
    // What compresses well would measure something else.
    let mut prng = Prng::new(7);
    let piece: Vec<u8> = (0..1 << 17).flat_map(|_| prng.next_u64().to_le_bytes()).collect();
    let mut packer = Packer::new((SetId([1; 16]), SetId([2; 16])), (0, crate::base::Chain(0)), size, None);
    drive.rewind().map_err(failed)?;
    let (begin, mut written, mut blocks) = (Instant::now(), 0, 0_u64);
    while written < bytes {
        let mut rest = &piece[..];
        while let Some(mut block) = packer.push(&mut rest) {
            drive.write(block.on_reel(1)).map_err(failed)?;
            written += block.len() as u64;
            blocks += 1;
        }
    }
    let flush = Instant::now();
    drive.marks(1).map_err(failed)?;
    let (flushed, took) = (flush.elapsed(), begin.elapsed());
    let position = drive.position().map_err(failed)?;
    if position != blocks + 1 {
        return Err(wrong(format!("it stands at {position} after {blocks} blocks and a filemark")));
    }
    drive.rewind().map_err(failed)?;
    let (begin, mut buffer, mut chain) = (Instant::now(), vec![0; size as usize], crate::base::Chain(0));
    for at in 0..blocks {
        let got = drive.read(&mut buffer).map_err(failed)?;
        let Got::Block(len) = got else { return Err(wrong(format!("a filemark stands at block {at}"))) };
        let read = ReelBlock::decode(buffer.get(..len).unwrap_or_default());
        match read.map(|(header, _)| header) {
            Ok(header) if header.sequence == at && header.chain == chain => chain = header.chain_behind(),
            Ok(header) => return Err(wrong(format!("block {} was read as block {at}", header.sequence))),
            Err(error) => return Err(wrong(format!("block {at} is not what was written: {error}"))),
        }
    }
    Ok(Checked {
        block_size: size,
        bytes: written,
        write_rate: rate(written, took),
        read_rate: rate(written, begin.elapsed()),
        flush_seconds: flushed.as_secs_f64(),
    })
}
