//! What a tape drive tells of itself when it is asked past the driver: TapeAlert (SSC-4, log page 2Eh), hardware compression
//! (mode pages 0Fh and 10h), encryption (SPC-4 security protocol 20h, page 0020h). All numbers are big-endian.
//!
//! | what | asked by | answer |
//! |---|---|---|
//! | TapeAlert | LOG SENSE 4Dh, page 2Eh, current values | page, 0, length (2), then for each flag: its number (2), control, length, value; bit 0 of the first byte of the value is the flag |
//! | compression | MODE SENSE(10) 5Ah, page 0Fh, else 10h | length (2), 2, 0, 0, length of descriptors (2), descriptors, the page: number in bits 0 to 5, length, content. Page 0Fh, byte 2: bit 7 on, bit 6 possible. Page 10h, byte 14: 0 off |
//! | encryption | SECURITY PROTOCOL IN A2h, 20h, 0020h | page (2), length (2), scope, encryption mode, decryption mode, .. |
//!
//! What cannot be understood is told as nothing: a drive is no less a drive for it.

/// How bad a flag is, by the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertLevel {
    /// Data or the drive are at risk.
    Critical,
    /// Something is to be done.
    Warning,
    /// Somebody should know.
    Information,
}

/// A TapeAlert flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its number, from 1 to 64.
    pub flag: u8,
    /// Its name in the standard.
    pub name: &'static str,
    /// How bad it is.
    pub level: AlertLevel,
    /// What people can do.
    pub advice: &'static str,
}

/// Flags that there are.
pub const ALERTS_MAX: u8 = 64;

const COPY: &str = "copy what is on the reel to another one (`hot-backup tape copy`), then write it off";
const OTHER: &str = "use another reel; what was written to this one was proven, or goes to the next";
const CLEAN: &str = "clean the drive, then go on";
const SERVICE: &str = "have the drive looked at; use another one until then";
const NOTHING: &str = "nothing at once";

/// By number, in order: the names of SSC-4, annex A.
const ALERTS: [(u8, &str, AlertLevel, &str); 59] = {
    use AlertLevel::{Critical, Information, Warning};
    [
        (1, "Read warning", Warning, CLEAN),
        (2, "Write warning", Warning, CLEAN),
        (3, "Hard error", Warning, CLEAN),
        (4, "Medium", Critical, COPY),
        (5, "Read failure", Critical, "clean the drive and read again; else use a copy of the reel"),
        (6, "Write failure", Critical, OTHER),
        (7, "Medium life", Warning, COPY),
        (8, "Not data grade", Warning, OTHER),
        (9, "Write protect", Critical, "move the tab of the cartridge, or use another one"),
        (10, "Medium removal prevented", Information, NOTHING),
        (11, "Cleaning medium", Information, "bring a data cartridge"),
        (12, "Unsupported format", Information, OTHER),
        (13, "Recoverable mechanical cartridge failure", Critical, COPY),
        (
            14,
            "Unrecoverable mechanical cartridge failure",
            Critical,
            "do not pull at the cartridge; have the drive opened",
        ),
        (15, "Memory chip in cartridge failure", Warning, COPY),
        (16, "Forced eject", Critical, "bring the reel again; what counts on it is found"),
        (17, "Read-only format", Warning, OTHER),
        (
            18,
            "Tape directory corrupted on load",
            Warning,
            "read the reel to its end once: it gets slower until then",
        ),
        (19, "Nearing medium life", Information, "plan a new reel for this one"),
        (20, "Cleaning required", Critical, CLEAN),
        (21, "Cleaning requested", Warning, "clean the drive when the work is done"),
        (22, "Expired cleaning medium", Critical, "use another cleaning cartridge"),
        (23, "Invalid cleaning tape", Critical, "use a cleaning cartridge for this drive"),
        (24, "Retension requested", Warning, "let the drive retension the reel (`mt retension`)"),
        (25, "Multi-port interface error on a primary port", Warning, "look at the cables of the drive"),
        (26, "Cooling fan failure", Warning, SERVICE),
        (27, "Power supply failure", Warning, SERVICE),
        (28, "Power consumption", Warning, SERVICE),
        (29, "Drive preventive maintenance required", Warning, "have the drive serviced"),
        (30, "Hardware A", Critical, "eject the reel, switch the drive off and on; else have it looked at"),
        (31, "Hardware B", Critical, SERVICE),
        (32, "Primary interface", Warning, "look at the cables and the adapter of the drive"),
        (33, "Eject medium", Critical, "eject the reel and bring it again"),
        (34, "Microcode update fail", Warning, "load the drive's firmware again"),
        (35, "Drive humidity", Warning, "look at the air in the room"),
        (36, "Drive temperature", Warning, "look at the air in the room, and at the fans of the drive"),
        (37, "Drive voltage", Warning, SERVICE),
        (38, "Predictive failure", Critical, SERVICE),
        (39, "Diagnostics required", Warning, "run the diagnostics of the drive's maker"),
        (40, "Loader hardware A", Critical, "look at the changer, switch it off and on"),
        (41, "Loader stray tape", Critical, "take out the reel that lies in the changer's way"),
        (42, "Loader hardware B", Warning, "look at the changer"),
        (43, "Loader door", Critical, "close the door of the changer"),
        (44, "Loader hardware C", Critical, "look at the changer"),
        (45, "Loader magazine", Critical, "put the magazine into the changer"),
        (46, "Loader predictive failure", Warning, "have the changer looked at"),
        (49, "Diminished native capacity", Information, "plan a new reel for this one"),
        (50, "Lost statistics", Warning, NOTHING),
        (
            51,
            "Tape directory invalid at unload",
            Warning,
            "read the reel to its end once: it gets slower until then",
        ),
        (52, "Tape system area write failure", Critical, COPY),
        (53, "Tape system area read failure", Critical, COPY),
        (54, "No start of data", Critical, OTHER),
        (
            55,
            "Loading or threading failure",
            Critical,
            "eject the reel and look at it; have the drive looked at if it comes again",
        ),
        (56, "Unrecoverable unload failure", Critical, "do not pull at the cartridge; have the drive opened"),
        (57, "Automation interface failure", Critical, "look at the cables between changer and drive"),
        (58, "Microcode failure", Warning, "load the newest firmware of the drive"),
        (59, "WORM medium - integrity check failed", Warning, COPY),
        (60, "WORM medium - overwrite attempted", Warning, OTHER),
        (61, "Encryption policy violation", Warning, "look at how keys are set in the drive or library"),
    ]
};

impl Alert {
    /// Of that number; one that the standard does not name has no name of its own.
    #[must_use]
    pub fn of(flag: u8) -> Self {
        let known = ALERTS.iter().find(|(number, ..)| *number == flag);
        let (name, level, advice) = known
            .map_or(("of no name", AlertLevel::Warning, SERVICE), |(_, name, level, advice)| {
                (*name, *level, *advice)
            });
        Self { flag, name, level, advice }
    }
}

impl std::fmt::Display for Alert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TapeAlert {} ({}): {}", self.flag, self.name, self.advice)
    }
}

/// LOG SENSE for TapeAlert, with room for so many bytes.
#[must_use]
pub fn ask_alerts(room: u16) -> [u8; 10] {
    let [high, low] = room.to_be_bytes();
    // Cumulative values: where flags are kept, current and cumulative ones are the same.
    [0x4d, 0, 0x40 | 0x2e, 0, 0, 0, 0, high, low, 0]
}

/// MODE SENSE(10) for a page, with room for so many bytes.
#[must_use]
pub fn ask_mode(page: u8, room: u16) -> [u8; 10] {
    let [high, low] = room.to_be_bytes();
    [0x5a, 0, page & 0x3f, 0, 0, 0, 0, high, low, 0]
}

/// SECURITY PROTOCOL IN for the status of encryption, with room for so many bytes.
#[must_use]
pub fn ask_encryption(room: u16) -> [u8; 12] {
    let [high, low] = room.to_be_bytes();
    [0xa2, 0x20, 0x00, 0x20, 0, 0, 0, 0, high, low, 0, 0]
}

/// The flags that are set, in order of their numbers. Never panics.
#[must_use]
pub fn alerts(page: &[u8]) -> Vec<u8> {
    let mut set = Vec::new();
    let Some((&[first, _, high, low], rest)) = page.split_first_chunk() else { return set };
    if first & 0x3f != 0x2e {
        return set;
    }
    let mut rest =
        rest.get(..rest.len().min(usize::from(u16::from_be_bytes([high, low])))).unwrap_or_default();
    while let Some((&[high, low, _, len], behind)) = rest.split_first_chunk() {
        let Some((value, next)) = behind.split_at_checked(usize::from(len)) else { break };
        let flag = u16::from_be_bytes([high, low]);
        if let Ok(flag) = u8::try_from(flag)
            && (1..=ALERTS_MAX).contains(&flag)
            && value.first().is_some_and(|value| value & 1 != 0)
            && !set.contains(&flag)
        {
            set.push(flag);
        }
        rest = next;
    }
    set.sort_unstable();
    set
}

/// The content of a mode page in the answer to MODE SENSE(10), from its number on; none if it is not there.
fn mode_page(answer: &[u8], page: u8) -> Option<&[u8]> {
    let (&[_, _, _, _, _, _, high, low], rest) = answer.split_first_chunk()?;
    let found = rest.get(usize::from(u16::from_be_bytes([high, low]))..)?;
    let (number, len) = (*found.first()?, usize::from(*found.get(1)?));
    (number & 0x3f == page).then(|| found.get(..found.len().min(len + 2)))?
}

/// Whether the drive packs what is written, by page 0Fh or 10h; none if the answer does not say. Never panics.
#[must_use]
pub fn compression(answer: &[u8]) -> Option<bool> {
    if let Some(page) = mode_page(answer, 0x0f) {
        return page.get(2).map(|bits| bits & 0x80 != 0);
    }
    mode_page(answer, 0x10)?.get(14).map(|algorithm| *algorithm != 0)
}

/// What the drive does to data by itself, with a key that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveEncryption {
    /// Nothing.
    Off,
    /// Encrypts what is written, decrypts what is read.
    On,
    /// Decrypts what is read, encrypts nothing.
    Reads,
    /// Who gave it the key controls it from elsewhere.
    External,
}

impl DriveEncryption {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Reads => "reads only",
            Self::External => "external",
        }
    }
}

/// The status of encryption; none if the answer does not say. Never panics.
#[must_use]
pub fn encryption(answer: &[u8]) -> Option<DriveEncryption> {
    let (&[0, 0x20, _, _, _, encrypts, decrypts], _) = answer.split_first_chunk()? else { return None };
    Some(match (encrypts, decrypts) {
        (2, _) => DriveEncryption::On,
        (1, _) => DriveEncryption::External,
        (0, 2 | 3) => DriveEncryption::Reads,
        (0, _) => DriveEncryption::Off,
        _ => return None,
    })
}

/// Takes any bytes as each answer.
pub fn fuzz_tape_health(bytes: &[u8]) {
    let flags = alerts(bytes);
    assert!(flags.len() <= usize::from(ALERTS_MAX) && flags.is_sorted(), "{flags:?}");
    flags.iter().for_each(|flag| drop(Alert::of(*flag).to_string()));
    let _ = (compression(bytes), encryption(bytes).map(DriveEncryption::name));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these flags set, as a drive gives it: all of them, in order.
    fn page(set: &[u8]) -> Vec<u8> {
        let flags = (1..=ALERTS_MAX).flat_map(|flag| [0, flag, 0x40, 1, u8::from(set.contains(&flag))]);
        [0x2e, 0, 1, 0x40].into_iter().chain(flags).collect()
    }

    #[test]
    fn flags_are_read_as_the_standard_lays_them_out_and_named_as_it_does() {
        assert_eq!(page(&[]).len(), 324);
        assert!(alerts(&page(&[])).is_empty());
        assert_eq!(alerts(&page(&[20, 3, 64])), [3, 20, 64]);
        // As sg_logs shows it of a drive: saved parameters bit, other control bits, wider values.
        let odd = [0xae, 0, 0, 11, 0, 0x14, 0x63, 1, 1, 0, 0x26, 0x40, 2, 1, 0];
        assert_eq!(alerts(&odd), [0x14, 0x26]);
        let clean = Alert::of(20);
        assert_eq!((clean.name, clean.level), ("Cleaning required", AlertLevel::Critical));
        assert!(clean.to_string().starts_with("TapeAlert 20 (Cleaning required): clean the drive"));
        assert_eq!(Alert::of(62).name, "of no name");
        let all: Vec<u8> = ALERTS.iter().map(|(flag, ..)| *flag).collect();
        assert!(all.is_sorted_by(|a, b| a < b) && all.first() == Some(&1) && all.last() == Some(&61));
        for (flag, level) in
            [(6, AlertLevel::Critical), (21, AlertLevel::Warning), (19, AlertLevel::Information)]
        {
            assert_eq!(Alert::of(flag).level, level, "{flag}");
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_page_sets_no_flag() {
        let whole = page(&[1, 64]);
        for len in 0..whole.len() {
            let found = alerts(&whole[..len]);
            assert_eq!(found, if len >= 9 { vec![1] } else { vec![] }, "{len} bytes");
        }
        let mut other = whole.clone();
        other[0] = 0x2f;
        assert!(alerts(&other).is_empty());
        // A length beyond the answer, a flag beyond the last, one twice.
        assert_eq!(
            alerts(&[0x2e, 0, 0xff, 0xff, 0, 5, 0, 1, 1, 0, 65, 0, 1, 1, 0, 5, 0, 1, 1, 1, 5, 0, 1, 1]),
            [5]
        );
        assert!(alerts(&[0x2e, 0, 0, 5, 0, 5, 0, 0, 0]).is_empty());
    }

    #[test]
    fn compression_is_told_by_either_page_behind_any_descriptor() {
        // An LTO drive with a descriptor of 8 bytes; DCE and DCC are set.
        let head = |descriptors: u8| vec![0, 30, 0x58, 0x10, 0, 0, 0, descriptors];
        let data = |bits: u8| [0x0f, 0x0e, bits, 0x80, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
        let descriptor = [0x58, 0, 0, 0, 0, 0, 0, 0];
        let answer = |bits| [&head(8)[..], &descriptor, &data(bits)].concat();
        assert_eq!((compression(&answer(0xc0)), compression(&answer(0x40))), (Some(true), Some(false)));
        assert_eq!(compression(&[&head(0)[..], &data(0xc0)].concat()), Some(true));
        let mut device = [0; 16];
        (device[0], device[1], device[14]) = (0x90, 0x0e, 1);
        assert_eq!(compression(&[&head(0)[..], &device].concat()), Some(true));
        device[14] = 0;
        assert_eq!(compression(&[&head(0)[..], &device].concat()), Some(false));
        for len in 0..18 {
            assert_eq!(compression(&answer(0xc0)[..len]), None, "{len} bytes");
        }
        assert_eq!(compression(&head(200)), None);
    }

    #[test]
    fn encryption_is_told_by_both_modes_and_by_nothing_else() {
        let answer = |encrypts, decrypts| [0, 0x20, 0, 0x14, 0x42, encrypts, decrypts, 1, 0, 0, 0, 7];
        assert_eq!(encryption(&answer(0, 0)), Some(DriveEncryption::Off));
        assert_eq!(encryption(&answer(2, 2)), Some(DriveEncryption::On));
        assert_eq!(encryption(&answer(0, 3)), Some(DriveEncryption::Reads));
        assert_eq!(encryption(&answer(1, 0)), Some(DriveEncryption::External));
        assert_eq!((encryption(&answer(9, 0)), encryption(&answer(2, 2)[..6])), (None, None));
        assert_eq!(encryption(&[0, 0x21, 0, 0x14, 0x42, 2, 2]), None);
    }

    #[test]
    fn what_is_asked_is_what_the_standard_says() {
        assert_eq!(ask_alerts(1024), [0x4d, 0, 0x6e, 0, 0, 0, 0, 4, 0, 0]);
        assert_eq!(ask_mode(0x0f, 255), [0x5a, 0, 0x0f, 0, 0, 0, 0, 0, 255, 0]);
        assert_eq!(ask_encryption(512), [0xa2, 0x20, 0, 0x20, 0, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn any_bytes_tell_something_or_nothing() {
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            let mut bytes = page(&[1, 5, 64]);
            for _ in 0..4 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
                bytes[at] = u8::try_from(seed >> 56).unwrap();
            }
            bytes.truncate(usize::try_from(seed >> 40).unwrap() % bytes.len());
            fuzz_tape_health(&bytes);
        }
    }
}
