//! What decoders allocate: never more than a small multiple of what came, or of a limit, whatever lengths the bytes claim.

use crate::base::Prng;
use crate::base::limits::{BATCH_MAX, BLOCK_PAYLOAD_MAX, CONFIG_FILE_MAX};
use crate::doors::resp::tests::cost;
use crate::fuzzing::TARGETS;
use crate::sys::counting::counted;
use std::path::Path;

/// What a target may hold at once: so much in any case, and so much for each byte that came.
fn bound(target: &str, came: usize) -> usize {
    let fixed = match target {
        // A batch that was announced is received in place, from a peer that has proved its key.
        "session" => BATCH_MAX + (64 << 10),
        // The payload of a write is received in place.
        "nbd-handshake" | "nbd-transmission" => 2 * BLOCK_PAYLOAD_MAX,
        // TLS has buffers of its own for each side; rows are read through two.
        "link" | "import" => 256 << 10,
        // A set is read twice, in steps of a quarter of a MiB.
        "set" => 2 << 20,
        // Two indexes of one stream.
        "tape-index" => 1 << 20,
        _ => 64 << 10,
    };
    let each = match target {
        // Each line may be a mistake, and is told with what is allowed; names may be tables in tables.
        "config" => 96,
        // Each figure becomes points of plots and rows of tables.
        "bench-report" => 96,
        _ => 24,
    };
    fixed + each * came
}

fn hold(target: &str, decode: fn(&[u8]), bytes: &[u8]) {
    let (bound, found) = (bound(target, bytes.len()), counted(|| decode(bytes)));
    let shown = bytes.get(..bytes.len().min(300)).unwrap_or_default().escape_ascii();
    assert!(
        found.peak <= bound,
        "{target}: {found:?} for {} bytes, {bound} are allowed: {shown}",
        bytes.len()
    );
}

/// Inputs of a target: of the corpus, and what versions before wrote.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

#[test]
fn no_decoder_holds_more_than_a_small_multiple_of_what_came() {
    for (target, decode) in TARGETS {
        // Whatever is made once.
        decode(b"");
        decode(&[0; 64]);
        for bytes in inputs(target) {
            hold(target, *decode, &bytes);
        }
    }
}

/// Lengths at which something is refused or allocated: one beyond each limit, and the ends of the types.
const CLAIMS: [u64; 12] = [
    0xffff,
    (64 << 10) + 1,
    0xff_ffff,
    (16 << 20) + 1,
    (16 << 20) + 1025,
    (32 << 20) + 1,
    (1 << 20) + 1,
    4097,
    u32::MAX as u64,
    i32::MAX as u64,
    u64::MAX,
    i64::MAX as u64,
];

#[test]
fn lengths_that_are_claimed_are_checked_before_they_are_allocated() {
    let mut prng = Prng::new(23);
    for (target, decode) in TARGETS {
        decode(b"");
        decode(&[0; 64]);
        for bytes in inputs(target) {
            let places = bytes.len().min(96);
            for place in 0..places {
                let at = if bytes.len() <= 192 || place < 64 {
                    place
                } else {
                    usize::try_from(prng.below(bytes.len() as u64)).expect("fits")
                };
                let claim = CLAIMS[usize::try_from(prng.below(CLAIMS.len() as u64)).expect("fits")];
                for width in [2, 4, 8] {
                    let (little, big) = (claim.to_le_bytes(), claim.to_be_bytes());
                    for field in [&little[..width], &big[8 - width..]] {
                        let mut bad = bytes.clone();
                        bad.iter_mut().skip(at).zip(field).for_each(|(byte, new)| *byte = *new);
                        hold(target, *decode, &bad);
                    }
                }
            }
        }
    }
}

/// Texts claim lengths in digits, and are long by themselves.
#[test]
fn texts_that_claim_or_have_too_much_are_refused_at_the_limit() {
    let decode = |name: &str| TARGETS.iter().find(|(other, _)| *other == name).expect("a target").1;
    for text in [
        "*1048577\r\n",
        "*1048576\r\n$1\r\na\r\n",
        "*2\r\n$16781313\r\n",
        "*2\r\n$16781312\r\nab",
        "*1\r\n$2147483647\r\n",
        "%1048577\r\n",
        "=9223372036854775807\r\n",
        "*1\r\n*1\r\n*1\r\n*1048576\r\n",
    ] {
        hold("resp", decode("resp"), text.as_bytes());
    }
    let long = [
        "a=1\n".repeat(CONFIG_FILE_MAX),
        "x".repeat(CONFIG_FILE_MAX + 1),
        format!("name = \"{}\"\n", "y".repeat(CONFIG_FILE_MAX - 20)),
        "[".repeat(CONFIG_FILE_MAX),
        "a.".repeat(CONFIG_FILE_MAX / 2),
    ];
    for text in &long {
        for target in ["config", "peers", "identity", "admin"] {
            hold(target, decode(target), text.as_bytes());
        }
        for form in 0..5 {
            hold("import", decode("import"), &[&[form], text.as_bytes()].concat());
        }
    }
}

/// What the RESP door and the test beside it may hold more than before, however much strangers send (bytes).
const STRANGERS_MAX: usize = 1 << 20;

#[test]
fn whatever_clients_without_password_send_a_million_times_nothing_grows() {
    for command in cost::commands_of_strangers() {
        let mut door = cost::Locked::new();
        let before = door.ask(command, 2_000);
        let mut after = before;
        let counted = counted(|| after = door.ask(command, 1_000_000));
        assert_eq!(before, after, "{command}");
        assert!(counted.peak < STRANGERS_MAX, "{command}: {counted:?}");
    }
}

#[test]
fn a_million_connections_without_password_that_come_and_go_leave_nothing() {
    let mut door = cost::Locked::new();
    let before = door.connect(1_000);
    let mut after = before;
    let counted = counted(|| after = door.connect(1_000_000));
    assert_eq!(before, after);
    assert!(counted.peak < STRANGERS_MAX, "{counted:?}");
}
