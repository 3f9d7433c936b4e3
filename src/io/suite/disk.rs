//! Durable writes: content, errors, both ways of making durable, many at once.

use super::*;
use std::fs::{File, OpenOptions};
use std::path::Path;

on_both_drivers! {
    a_direct_write_is_in_the_file_and_nowhere_else,
    a_write_without_o_direct_is_in_the_file,
    a_file_of_the_other_kind_of_file_system_works_as_it_says,
    a_write_to_a_read_only_descriptor_is_an_error,
    a_full_device_is_told_as_such,
    an_unaligned_direct_write_is_an_error,
    many_writes_are_under_way_at_once,
    a_dropped_driver_leaves_no_write_behind,
    a_write_and_sockets_do_not_wait_for_each_other,
}

fn aligned(bytes: &[u8]) -> Bytes {
    let mut buffer = AlignedBuf::with_capacity(bytes.len());
    buffer.extend_from_slice(bytes);
    Bytes::from_owner(buffer)
}

fn zeroed(path: &Path, bytes: u64) -> Arc<JournalFile> {
    zero_file(path, bytes).expect("there is room");
    Arc::new(open_journal(path, false).expect("it was made"))
}

/// A zeroed file written by threads, and one written by the ring where there is one.
fn both_ways(dir: &Path, bytes: u64) -> [(std::path::PathBuf, Arc<JournalFile>); 2] {
    [("by-thread", true), ("by-ring", false)].map(|(name, by_thread)| {
        let path = dir.join(name);
        zero_file(&path, bytes).expect("there is room");
        let file = open_journal(&path, false).expect("it was made");
        (path, Arc::new(JournalFile { by_thread, ..file }))
    })
}

/// Writes at several offsets and sizes, and compares the whole file.
fn contents(rig: &mut Rig, file: &Arc<JournalFile>, path: &Path, len: usize) {
    let mut expected = std::fs::read(path).expect("readable");
    expected.resize(len, 0);
    for (seed, (offset, size)) in
        (0..).zip([(0, 4096), (8192, 65_536), (len - 4096, 4096), (1 << 20, 2 << 20)])
    {
        let bytes = noise(seed, size);
        let token = rig.start(Op::WriteDurable(Arc::clone(file), vec![aligned(&bytes)], offset as u64));
        rig.written(token).expect("written");
        expected[offset..offset + size].copy_from_slice(&bytes);
    }
    // More parts than one call takes, of different sizes.
    let parts: Vec<Bytes> =
        (0..300).map(|n| aligned(&noise(n, if n % 2 == 0 { 4096 } else { 8192 }))).collect();
    let all = parts.concat();
    let token = rig.start(Op::WriteDurable(Arc::clone(file), parts, 4096));
    rig.written(token).expect("written");
    expected[4096..4096 + all.len()].copy_from_slice(&all);
    assert_eq!(crc32c(&read_direct(path, 0, len + 1).expect("readable")), crc32c(&expected));
    assert_eq!(std::fs::metadata(path).expect("there").len(), len as u64);
}

fn a_direct_write_is_in_the_file_and_nowhere_else(rig: &mut Rig) {
    // Beside the test program, because the system's temporary directory may be in memory.
    let beside = std::env::current_exe().expect("a program");
    let dir = tempfile::tempdir_in(beside.parent().expect("a directory")).expect("writable");
    let path = dir.path().join("journal");
    zero_file(&path, 4 << 20).expect("there is room");
    for by_thread in [false, true] {
        let file = open_journal(&path, false).expect("it was made");
        if !file.direct {
            println!("skipped: the file system of {} has no O_DIRECT", dir.path().display());
            return;
        }
        contents(rig, &Arc::new(JournalFile { by_thread, ..file }), &path, 4 << 20);
    }
}

fn a_write_without_o_direct_is_in_the_file(rig: &mut Rig) {
    let dir = tempfile::tempdir_in("/dev/shm").expect("writable");
    let path = dir.path().join("journal");
    for by_thread in [false, true] {
        let file = File::create(&path).expect("writable");
        let file = Arc::new(JournalFile { fd: file.into(), direct: false, by_thread });
        contents(rig, &file, &path, 4 << 20);
        // Without O_DIRECT nothing needs to be aligned.
        let token = rig.start(Op::WriteDurable(file, vec![Bytes::from_static(b"odd")], 5));
        rig.written(token).expect("written");
        assert_eq!(&std::fs::read(&path).expect("readable")[5..8], b"odd");
    }
}

fn a_file_of_the_other_kind_of_file_system_works_as_it_says(rig: &mut Rig) {
    for place in [std::env::temp_dir().as_path(), Path::new("/dev/shm")] {
        let dir = tempfile::tempdir_in(place).expect("writable");
        let path = dir.path().join("journal");
        let file = zeroed(&path, 4 << 20);
        contents(rig, &file, &path, 4 << 20);
    }
}

fn a_write_to_a_read_only_descriptor_is_an_error(rig: &mut Rig) {
    for (direct, by_thread) in [(false, false), (true, false), (false, true), (true, true)] {
        let file = tempfile::NamedTempFile::new().expect("writable");
        let fd = OpenOptions::new().read(true).open(file.path()).expect("readable").into();
        let file = Arc::new(JournalFile { fd, direct, by_thread });
        let token = rig.start(Op::WriteDurable(file, vec![aligned(&[1; 4096])], 0));
        let error = rig.written(token).expect_err("it is not open for writing");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}

fn a_full_device_is_told_as_such(rig: &mut Rig) {
    for by_thread in [false, true] {
        let fd = OpenOptions::new().write(true).open("/dev/full").expect("a device").into();
        let file = Arc::new(JournalFile { fd, direct: false, by_thread });
        let token = rig.start(Op::WriteDurable(file, vec![Bytes::from_static(b"more")], 0));
        let error = rig.written(token).expect_err("it is always full");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}

fn an_unaligned_direct_write_is_an_error(rig: &mut Rig) {
    let dir = tempfile::tempdir().expect("writable");
    let file = zeroed(&dir.path().join("journal"), 8192);
    if !file.direct {
        println!("skipped: the file system of {} has no O_DIRECT", dir.path().display());
        return;
    }
    let token = rig.start(Op::WriteDurable(file, vec![aligned(&[1; 1000])], 0));
    assert_eq!(rig.written(token).expect_err("not a block").raw_os_error(), Some(libc::EINVAL));
}

fn many_writes_are_under_way_at_once(rig: &mut Rig) {
    let dir = tempfile::tempdir().expect("writable");
    let files = both_ways(dir.path(), 4096 * 100);
    let mut tokens = Vec::new();
    for n in 0..100_u8 {
        for (_, file) in &files {
            let offset = u64::from(n) * 4096;
            tokens.push(rig.start(Op::WriteDurable(Arc::clone(file), vec![aligned(&[n; 4096])], offset)));
        }
    }
    for token in tokens {
        rig.written(token).expect("written");
    }
    for (path, _) in files {
        let content = std::fs::read(&path).expect("readable");
        for (n, block) in (0..).zip(content.chunks(4096)) {
            assert!(block.iter().all(|&byte| byte == n));
        }
    }
}

fn a_dropped_driver_leaves_no_write_behind(rig: &mut Rig) {
    let dir = tempfile::tempdir().expect("writable");
    let files = both_ways(dir.path(), 4096 * 64);
    for block in 0..64 {
        for (_, file) in &files {
            rig.start(Op::WriteDurable(Arc::clone(file), vec![aligned(&[1; 4096])], block * 4096));
        }
    }
    rig.flush();
    rig.driver = open(IoChoice::Epoll, ENTRIES).expect("another driver");
    let contents = |files: &[(std::path::PathBuf, Arc<JournalFile>)]| {
        files.iter().map(|(path, _)| std::fs::read(path).expect("readable")).collect::<Vec<_>>()
    };
    let before = contents(&files);
    for ((_, file), content) in files.iter().zip(&before) {
        assert_eq!(Arc::strong_count(file), 1, "the operations are gone");
        for block in content.chunks(4096) {
            assert!(block.iter().all(|byte| byte == &block[0]), "each block is written or not");
        }
    }
    thread::sleep(Duration::from_millis(20));
    assert_eq!(contents(&files), before, "nothing is written afterwards");
}

fn a_write_and_sockets_do_not_wait_for_each_other(rig: &mut Rig) {
    let dir = tempfile::tempdir().expect("writable");
    let file = zeroed(&dir.path().join("journal"), 1 << 20);
    let (socket, mut peer) = unix_pair();
    for round in 0..50_u64 {
        let write =
            rig.start(Op::WriteDurable(Arc::clone(&file), vec![aligned(&[9; 4096])], (round % 256) * 4096));
        let receive = rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(16)));
        peer.write_all(b"ping").expect("connected");
        assert_eq!(rig.received(receive).expect("received"), b"ping");
        let send = rig.start(Op::Send(Arc::clone(&socket), vec![Bytes::from_static(b"pong")]));
        rig.sent(send).expect("sent");
        rig.written(write).expect("written");
    }
}
