//! Blocks of a reel: golden bytes, every flipped bit, every cut.

use super::*;

fn label() -> ReelLabel {
    ReelLabel {
        pair: PairId([9; 16]),
        epoch: Epoch(2),
        seq: Seq(80),
        wall_ms: 5,
        block_size: 256 << 10,
        key: 7,
        name: "monday 2".to_owned(),
        node: "a".to_owned(),
    }
}

fn block(kind: ReelKind, payload: &[u8]) -> Vec<u8> {
    let data = kind == ReelKind::Data;
    let header = ReelBlock {
        kind,
        sealed: false,
        len: 0,
        crc: 0,
        reel: 2,
        set: SetId([7; 16]),
        session: SetId([8; 16]),
        sequence: 71,
        chain: Chain(5),
        start: 3,
        first: 1000,
        last: 1000 + if data { payload.len() as u64 } else { 0 },
    };
    header.with(payload)
}

fn all() -> Vec<Vec<u8>> {
    vec![
        block(ReelKind::Label, &label().encode()),
        block(ReelKind::Data, b"what a session holds"),
        block(ReelKind::SessionEnd, &SessionEnd { bytes: 1020, blocks: 69 }.encode()),
        block(ReelKind::ReelEnd, &ReelEnd { next: 3, first: 40 }.encode()),
    ]
}

#[test]
fn the_golden_blocks_are_byte_for_byte_what_this_version_writes() {
    // Of the label the padding is left out.
    let short = |bytes: &Vec<u8>| bytes[..bytes.len().min(192)].to_vec();
    let bytes: Vec<u8> = all().iter().flat_map(short).collect();
    let golden = include_bytes!("../../tests/data/reel-v1.bin");
    assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
}

#[test]
fn blocks_read_back_and_no_changed_bit_and_no_cut_goes_unnoticed() {
    for bytes in all() {
        let (header, payload) = ReelBlock::decode(&bytes).unwrap();
        assert_eq!(header.with(payload), bytes);
        match header.kind {
            ReelKind::Label => assert_eq!(ReelLabel::decode(payload), Ok(label())),
            ReelKind::SessionEnd => assert_eq!(SessionEnd::decode(payload).unwrap().bytes, 1020),
            ReelKind::ReelEnd => assert_eq!(ReelEnd::decode(payload).unwrap().next, 3),
            ReelKind::Data => assert_eq!(payload, b"what a session holds"),
        }
        for bit in (0..bytes.len() * 8).filter(|bit| *bit < 2000 || bit % 1009 == 0) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ReelBlock::decode(&bad).is_err(), "{:?}, bit {bit}", header.kind);
            fuzz_reel(&bad);
        }
        // What is cut of the padding of a label takes nothing away.
        for end in 0..REEL_HEADER + payload.len() {
            assert!(ReelBlock::decode(&bytes[..end]).is_err(), "{:?}, cut at {end}", header.kind);
            fuzz_reel(&bytes[..end]);
        }
    }
}

#[test]
fn a_newer_version_and_lengths_that_cannot_be_are_refused_by_name() {
    let told = |at: usize, value: u8| {
        let mut bytes = all()[1].clone();
        bytes[at] = value;
        let crc = crc32c(&bytes[8..REEL_HEADER]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        ReelBlock::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(told(8, 2), "version of a reel's block: expected 1, found 2");
    assert!(told(15, 1).contains("length of a reel's block"), "{}", told(15, 1));
    assert!(told(88, 1).contains("bytes of a reel's block"), "{}", told(88, 1));
    assert!(told(64 + 8, 99).contains("start of a session"), "{}", told(72, 99));
}

#[test]
fn the_chain_depends_on_every_numbered_block_and_their_order() {
    let of = |bytes: &[u8]| ReelBlock::decode(bytes).unwrap().0;
    let data = of(&all()[1]);
    assert_ne!(data.chain_behind(), data.chain);
    assert_ne!(data.chain_behind(), of(&block(ReelKind::Data, b"what a session holdz")).chain_behind());
    for other in [0, 3] {
        let header = of(&all()[other]);
        assert_eq!((header.chain_behind(), header.sequence_behind()), (header.chain, header.sequence));
    }
}
