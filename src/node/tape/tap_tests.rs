//! Images of reels: the bytes of SIMH's format, what others wrote, and what was cut off.

use super::*;

fn image(bytes: &[u8]) -> (tempfile::TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tap");
    std::fs::write(&path, bytes).unwrap();
    let image = Image::open(&path).unwrap();
    (dir, image)
}

fn block(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let pad = if bytes.len() % 2 == 1 { &[0][..] } else { &[] };
    [&len, bytes, pad, &len].concat()
}

#[test]
fn what_is_written_is_byte_for_byte_what_simh_writes_and_reads_back() {
    let (dir, mut drive) = image(b"");
    assert_eq!(drive.write(b"even"), Ok(Wrote::Block));
    assert_eq!(drive.write(b"odd"), Ok(Wrote::Block));
    drive.marks(2).unwrap();
    assert_eq!(drive.position(), Ok(4));
    let found = std::fs::read(dir.path().join("x.tap")).unwrap();
    assert_eq!(found, [block(b"even"), block(b"odd"), vec![0; 8]].concat());
    drive.rewind().unwrap();
    let mut buffer = [0; 8];
    assert_eq!((drive.read(&mut buffer), &buffer[..4]), (Ok(Got::Block(4)), &b"even"[..]));
    assert_eq!((drive.read(&mut buffer), &buffer[..3]), (Ok(Got::Block(3)), &b"odd"[..]));
    assert_eq!([drive.read(&mut buffer), drive.read(&mut buffer)], [Ok(Got::Mark), Ok(Got::Mark)]);
    assert!(matches!(drive.read(&mut buffer), Err(Fault::Failed(_))));
    // Writing in the middle cuts off what is behind, as on a tape.
    drive.seek(1).unwrap();
    drive.write(b"x").unwrap();
    assert_eq!(std::fs::read(dir.path().join("x.tap")).unwrap(), [block(b"even"), block(b"x")].concat());
    assert!(drive.seek(3).is_err());
    assert_eq!(drive.position(), Ok(2));
}

#[test]
fn images_of_others_with_gaps_bad_blocks_and_an_end_of_medium_are_read() {
    let mut bad = block(b"bad!");
    (bad[3], bad[11]) = (0x80, 0x80);
    let end = 0xffff_ffff_u32.to_le_bytes();
    let bytes = [
        block(b"one"),
        0xffff_fffe_u32.to_le_bytes().to_vec(),
        bad,
        vec![0; 4],
        end.to_vec(),
        block(b"behind"),
    ];
    let (_dir, mut drive) = image(&bytes.concat());
    let mut buffer = [0; 8];
    assert_eq!(drive.read(&mut buffer), Ok(Got::Block(3)));
    assert!(matches!(drive.read(&mut buffer), Err(Fault::Failed(why)) if why.contains("could not be read")));
    assert_eq!((drive.position(), drive.read(&mut buffer)), (Ok(2), Ok(Got::Mark)));
    assert!(drive.read(&mut buffer).is_err());
    drive.end().unwrap();
    assert_eq!(drive.position(), Ok(3));
    drive.rewind().unwrap();
    assert_eq!(drive.read(&mut buffer[..2]), Err(Fault::TooLong));
    assert_eq!(drive.position(), Ok(1));
}

#[test]
fn a_record_that_was_cut_off_anywhere_is_the_end_and_is_written_over() {
    let whole = [block(b"first"), block(b"second")].concat();
    for cut in block(b"first").len()..whole.len() {
        let (dir, mut drive) = image(&whole[..cut]);
        drive.end().unwrap();
        assert_eq!(drive.position(), Ok(1), "cut at {cut}");
        drive.write(b"other").unwrap();
        let found = std::fs::read(dir.path().join("x.tap")).unwrap();
        assert_eq!(found, [block(b"first"), block(b"other")].concat(), "cut at {cut}");
    }
}

#[test]
fn an_image_is_open_once_and_one_that_nobody_may_write_is_protected() {
    let (dir, drive) = image(&block(b"x"));
    let path = dir.path().join("x.tap");
    assert_eq!(Image::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(drive);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let mut drive = Image::open(&path).unwrap();
    assert_eq!(drive.medium(), Ok(Medium::Ready { protected: true }));
    assert_eq!((drive.write(b"y"), drive.marks(1)), (Err(Fault::Protected), Err(Fault::Protected)));
    assert_eq!(Image::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn any_bytes_are_an_image_with_an_end() {
    let whole = [block(b"first"), vec![0; 4], block(b"second")].concat();
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fuzz_tap(&bad);
        fuzz_tap(&whole[..bit / 8]);
    }
}

#[test]
fn a_new_image_has_its_name_with_its_label_or_never() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reel-001.tap");
    let names = || {
        let all = std::fs::read_dir(dir.path()).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let unnamed = [".reel-001.tap.hot-backup-tmp"];
    // Marks without a label give no name either.
    let mut drive = Image::create(&path).unwrap();
    drive.marks(0).unwrap();
    assert_eq!(names(), unnamed);
    assert_eq!(Image::create(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drive.write(b"the label").unwrap();
    assert_eq!(names(), unnamed);
    drop(drive);
    assert_eq!(names().len(), 0);
    // What one leaves that is killed behind the label, and before it is durable.
    std::fs::write(dir.path().join(unnamed[0]), block(b"the label of one that was killed")).unwrap();
    let mut drive = Image::create(&path).unwrap();
    drive.write(b"label").unwrap();
    drive.marks(1).unwrap();
    assert_eq!(names(), ["reel-001.tap"]);
    assert_eq!(std::fs::read(&path).unwrap(), [block(b"label"), vec![0; 4]].concat());
    drop(drive);
    assert_eq!(Image::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    // Nobody's image is replaced by one that came meanwhile, and what is given up leaves nothing.
    let other = dir.path().join("reel-002.tap");
    let mut drive = Image::create(&other).unwrap();
    std::fs::write(&other, b"of somebody else").unwrap();
    drive.write(b"label").unwrap();
    assert!(matches!(drive.marks(1), Err(Fault::Failed(_))));
    drop(drive);
    drop(Image::create(&dir.path().join("reel-003.tap")).unwrap());
    assert_eq!(std::fs::read(&other).unwrap(), b"of somebody else");
    assert_eq!(names().len(), 2, "{:?}", names());
}
