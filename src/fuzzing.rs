//! Every decoder of bytes that others made, as one list: for coverage-guided fuzzing (`fuzz/`), for the corpus in
//! `tests/corpus`, and for the test of what they allocate.

use crate::base::crc32c;
use crate::base::limits::BLOCK;
use crate::node::config::Encryption;
use crate::node::identity::{NewKey, NodeKey};
use crate::node::tls::LinkIdentity;
use std::sync::OnceLock;

/// A decoder's name and the function that gives it any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. None may panic, whatever the bytes.
pub const TARGETS: &[Target] = &[
    ("admin", admin),
    ("batch", batch),
    ("bench-link", crate::measure::link::fuzz_head),
    ("bench-report", crate::measure::report::fuzz_report),
    ("chunk", crate::format::chunk::fuzz_chunk),
    ("compare", compare),
    ("config", config),
    ("control", control),
    ("dptr", crate::format::dptr::fuzz_dptr),
    ("engine-journal", crate::store::fuzz_engine_journal),
    ("entry", crate::format::entry::fuzz_entry),
    ("frame", frame),
    ("handover", crate::format::handover::fuzz_handover),
    ("http", http),
    ("identity", identity),
    ("import", crate::cli::fuzz_import),
    ("lease", crate::node::watch::fuzz_lease),
    ("licence", crate::format::licence::fuzz_licence),
    ("link", link),
    ("nbd-handshake", crate::doors::nbd::fuzz::fuzz_nbd_handshake),
    ("nbd-transmission", crate::doors::nbd::fuzz::fuzz_nbd_transmission),
    ("pairing", crate::format::pairing::fuzz_pairing),
    ("peers", peers),
    ("records", records),
    ("reel", crate::format::reel::fuzz_reel),
    ("resp", crate::format::resp::fuzz_resp),
    ("resync-plan", crate::node::resync_plan::fuzz_plan),
    ("rewind", crate::format::rewind::fuzz_rewind),
    ("saves", crate::node::saves::fuzz_saves),
    ("scrub", scrub),
    ("segment", segment),
    ("session", crate::pair::fuzz_session),
    ("set", set),
    ("socket", socket),
    ("spool", spool),
    ("stats", crate::node::kept_stats::fuzz_stats),
    ("store-archive", crate::store::fuzz_archive),
    ("store-record", crate::store::fuzz_record),
    ("tape-catalogue", crate::node::tape::fuzz_catalogue),
    ("tape-health", crate::format::tape_health::fuzz_tape_health),
    ("tape-image", crate::node::tape::fuzz_tap),
    ("tape-index", crate::tape::fuzz_index),
    ("tape-parts", crate::tape::fuzz_parts),
    ("utmp", crate::node::notify::fuzz_utmp),
    ("volume-sums", sums),
];

/// Gives `bytes` to the target of that name.
///
/// # Panics
/// If there is none, or if the decoder has a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(other, _)| *other == name);
    let (_, decode) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    decode(bytes);
}

/// The same bytes with a checksum that fits at 4 .. 8, over all from 8 up to `end`: no fuzzer finds one by itself, and
/// what stands behind the check would never be tried.
fn resealed(bytes: &[u8], end: usize) -> Option<Vec<u8>> {
    let sum = crc32c(bytes.get(8..end)?);
    let mut whole = bytes.to_vec();
    whole.get_mut(4..8)?.copy_from_slice(&sum.to_le_bytes());
    Some(whole)
}

fn control(bytes: &[u8]) {
    crate::format::control::fuzz_control(bytes);
    resealed(bytes, bytes.len()).iter().for_each(|whole| crate::format::control::fuzz_control(whole));
}

fn segment(bytes: &[u8]) {
    crate::format::segment::fuzz_segment(bytes);
    // A header is a whole block, most of it zeros.
    let mut block = bytes.to_vec();
    block.resize(BLOCK, 0);
    resealed(&block, BLOCK).iter().for_each(|whole| crate::format::segment::fuzz_segment(whole));
}

fn scrub(bytes: &[u8]) {
    crate::format::scrub::fuzz_scrub(bytes);
    resealed(bytes, bytes.len()).iter().for_each(|whole| crate::format::scrub::fuzz_scrub(whole));
}

fn spool(bytes: &[u8]) {
    crate::format::spool::fuzz_spool(bytes);
    // A header is a whole block; trailers and records have checksums of their own.
    let mut block = bytes.to_vec();
    block.resize(BLOCK, 0);
    let whole = [resealed(&block, BLOCK), resealed(bytes, bytes.len())];
    whole.iter().flatten().for_each(|whole| crate::format::spool::fuzz_spool(whole));
}

fn socket(bytes: &[u8]) {
    crate::format::socket::fuzz_socket(bytes);
    resealed(bytes, bytes.len()).iter().for_each(|whole| crate::format::socket::fuzz_socket(whole));
}

fn compare(bytes: &[u8]) {
    crate::format::compare::fuzz_compare(bytes);
    crate::format::compared::fuzz_compared(bytes);
    // A certificate stands behind the byte that chooses it.
    let whole = bytes.get(1..).and_then(|rest| resealed(rest, rest.len()));
    whole.iter().for_each(|whole| crate::format::compare::fuzz_compare(&[&[5], &whole[..]].concat()));
}

fn set(bytes: &[u8]) {
    crate::format::set::fuzz_set(bytes);
    crate::format::since::fuzz_same(bytes);
    crate::format::alone::fuzz_alone(bytes);
    crate::format::asked::fuzz_asked(bytes);
    crate::node::set::fuzz_reader(bytes);
}

fn sums(bytes: &[u8]) {
    crate::format::sums::fuzz_sums(bytes);
    resealed(bytes, 64).iter().for_each(|whole| crate::format::sums::fuzz_sums(whole));
    resealed(bytes, bytes.len()).iter().for_each(|whole| crate::store::volumes::fuzz_round(whole));
}

fn batch(bytes: &[u8]) {
    crate::format::batch::fuzz_batch(bytes);
    let mut whole = bytes.to_vec();
    let (len, end) = (u32::try_from(bytes.len()).unwrap_or(u32::MAX), bytes.len());
    if let Some(field) = whole.get_mut(12..16) {
        field.copy_from_slice(&len.to_le_bytes());
    }
    resealed(&whole, end).iter().for_each(|whole| crate::format::batch::fuzz_batch(whole));
}

fn frame(bytes: &[u8]) {
    crate::format::frame::fuzz_frame(bytes);
    resealed(bytes, bytes.len()).iter().for_each(|whole| crate::format::frame::fuzz_frame(whole));
}

fn config(bytes: &[u8]) {
    text(bytes).iter().for_each(|text| crate::node::config::fuzz_config(text));
}

fn peers(bytes: &[u8]) {
    text(bytes).iter().for_each(|text| crate::node::identity::fuzz_peers(text));
}

fn identity(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    crate::node::identity::fuzz_identity(text);
    // With check digits that fit.
    let body = text.trim().rsplit_once(':').map_or(text, |(body, _)| body);
    crate::node::identity::fuzz_identity(&format!("{body}:{:08x}", crc32c(body.as_bytes())));
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn records(bytes: &[u8]) {
    crate::node::notify::fuzz_records(bytes);
    // With a first line that fits.
    let mut whole = format!("hot-backup records 1 {:08x}\n", crc32c(bytes)).into_bytes();
    whole.extend_from_slice(bytes);
    crate::node::notify::fuzz_records(&whole);
}

fn admin(bytes: &[u8]) {
    crate::node::admin::fuzz_admin(bytes);
}

fn http(bytes: &[u8]) {
    crate::node::http::fuzz_http(bytes);
}

fn link(bytes: &[u8]) {
    static IDENTITIES: OnceLock<Vec<LinkIdentity>> = OnceLock::new();
    let identities = IDENTITIES.get_or_init(|| {
        let key = || {
            let pem = NewKey::generate("a").map_err(|error| error.to_string());
            NodeKey::from_pem(&pem.expect("keys can be made")).expect("a good key")
        };
        let (own, peer) = (key(), key().fingerprint);
        let identity =
            |encryption| LinkIdentity::new(own.clone(), vec![peer], encryption).expect("a good identity");
        vec![identity(Encryption::Tls), identity(Encryption::None)]
    });
    crate::node::tls::fuzz_link(identities, bytes);
}
