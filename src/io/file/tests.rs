//! What is on the disk after each call, and what is left after a failure.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// A file system without O_DIRECT semantics and with a small capacity is not at hand everywhere; tmpfs is.
const MEMORY: &str = "/dev/shm";

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .expect("the directory is readable")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_zeroed_file_is_whole_allocated_and_alone() {
    let dir = dir();
    let path = dir.path().join("segment");
    let bytes = 3 * (1 << 20) + 8192;
    zero_file(&path, bytes).expect("there is room");
    let meta = std::fs::metadata(&path).expect("it is there");
    assert_eq!(meta.len(), bytes);
    assert!(meta.blocks() * 512 >= bytes, "the zeros are on the disk, not a hole");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read(&path).expect("it is readable").iter().all(|&byte| byte == 0));
    assert_eq!(names(dir.path()), ["segment"]);
}

#[test]
fn zeroing_never_replaces_a_file() {
    let dir = dir();
    let path = dir.path().join("segment");
    std::fs::write(&path, b"precious").expect("writable");
    let error = zero_file(&path, 8192).expect_err("the name is taken");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).expect("readable"), b"precious");
    assert_eq!(names(dir.path()), ["segment"]);
}

#[test]
fn zeroing_takes_over_what_a_crash_left() {
    let dir = dir();
    std::fs::write(dir.path().join("segment.tmp"), vec![7; 100_000]).expect("writable");
    zero_file(&dir.path().join("segment"), 8192).expect("there is room");
    assert_eq!(std::fs::read(dir.path().join("segment")).expect("readable"), vec![0; 8192]);
    assert_eq!(names(dir.path()), ["segment"]);
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    for place in [dir(), tempfile::tempdir_in(MEMORY).expect("memory is writable")] {
        let error = zero_file(&place.path().join("segment"), 1 << 50).expect_err("nobody has a petabyte");
        let errno = error.raw_os_error();
        assert!(matches!(errno, Some(libc::ENOSPC | libc::EFBIG)), "{error}");
        assert!(names(place.path()).is_empty());
    }
}

#[test]
fn a_size_that_is_not_in_blocks_is_refused() {
    let dir = dir();
    assert!(zero_file(&dir.path().join("segment"), 4097).is_err());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_replaced_file_holds_the_new_bytes_only() {
    let dir = dir();
    let control = Own::new(dir.path(), "control");
    control.replace(&[1; 10_000]).expect("writable");
    std::fs::write(control.temporary().path(), "left by a crash").expect("writable");
    control.replace(b"short").expect("writable");
    assert_eq!(std::fs::read(control.path()).expect("readable"), b"short");
    assert_eq!(std::fs::metadata(control.path()).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(names(dir.path()), ["control"]);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_file() {
    let dir = dir();
    let control = Own::new(dir.path(), "control");
    std::fs::create_dir(control.path()).expect("writable");
    assert!(control.replace(b"new").is_err(), "a directory is in the way");
    assert_eq!(names(dir.path()), ["control"]);
}

#[test]
fn a_symbolic_link_is_never_followed() {
    let dir = dir();
    let target = dir.path().join("target");
    std::fs::write(&target, vec![0; 4096]).expect("writable");
    let link = dir.path().join("link");
    symlink(&target, &link).expect("writable");
    assert!(open_journal(&link, false).is_err());
    assert!(read_direct(&link, 0, 10).is_err());
    assert!(map_segment(&link).is_err());
}

#[test]
fn reads_give_exactly_the_range_and_are_short_only_at_the_end() {
    for place in [dir(), tempfile::tempdir_in(MEMORY).expect("memory is writable")] {
        let path = place.path().join("file");
        let content: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &content).expect("writable");
        for offset in [0, 1, 4095, 4096, 8192, 12_345, 19_999, 20_000, 30_000] {
            for len in [0, 1, 4096, 8191, 20_000, 50_000] {
                let read = read_direct(&path, offset as u64, len).expect("readable");
                let from = offset.min(content.len());
                let to = (offset + len).min(content.len()).max(from);
                assert_eq!(read, content[from..to], "offset {offset}, length {len}");
            }
        }
    }
}

#[test]
fn a_journal_file_opens_and_a_missing_one_does_not() {
    let dir = dir();
    let path = dir.path().join("journal");
    let missing = open_journal(&path, false).expect_err("it is missing");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    open_journal(&path, true).expect("it is made");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    open_journal(&path, false).expect("it is there");
}

#[test]
fn ranges_of_a_map_outlive_it_and_stay_within_the_file() {
    let dir = dir();
    let path = dir.path().join("sealed");
    let content: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    std::fs::write(&path, &content).expect("writable");
    let map = map_segment(&path).expect("it can be mapped");
    assert_eq!(map.len(), content.len());
    let range = map.range(5000, 90_000).expect("it is within");
    let end = map.range(100_000, 0).expect("the end is within");
    assert_eq!(map.range(99_999, 2).expect_err("beyond the end").kind(), io::ErrorKind::UnexpectedEof);
    map.read_through(0, 100_000).expect("the way of old kernels works too");
    drop(map);
    assert_eq!(range, content[5000..95_000]);
    assert!(end.is_empty());
}

#[test]
fn an_unreadable_page_of_a_map_is_an_error_not_a_signal() {
    let dir = dir();
    let path = dir.path().join("sealed");
    std::fs::write(&path, vec![1; 64 << 10]).expect("writable");
    let map = map_segment(&path).expect("it can be mapped");
    // A page beyond the end of the file fails like one on a bad disk.
    OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("writable");
    assert_eq!(map.range(0, 4096).expect("still there"), vec![1; 4096]);
    let error = map.range(32 << 10, 4096).expect_err("the page is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_second_lock_is_refused_by_name_until_the_first_is_gone() {
    let dir = dir();
    let lock = Own::new(dir.path(), "lock");
    let first = lock_dir(&lock).expect("nobody holds it");
    let error = lock_dir(&lock).expect_err("it is held");
    let own = std::process::id();
    assert!(matches!(error, LockError::Held { holder: Some(id) } if id == own), "{error}");
    drop(first);
    lock_dir(&lock).expect("it is free again");
}

#[test]
fn directories_are_made_for_their_owner_only() {
    let dir = dir();
    let deep = dir.path().join("a/b");
    make_dir(&deep).expect("writable");
    make_dir(&deep).expect("a second time changes nothing");
    for path in [dir.path().join("a"), deep] {
        assert_eq!(std::fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o700);
    }
}

/// A file of a victim, and a link to it under each of the names.
fn trap(dir: &Path, names: &[&str]) -> PathBuf {
    let victim = dir.join("victim");
    std::fs::write(&victim, b"precious").expect("writable");
    names.iter().for_each(|name| symlink(&victim, dir.join(name)).expect("writable"));
    victim
}

#[test]
fn a_link_laid_under_an_own_name_leads_no_write_to_its_target() {
    let dir = dir();
    let own = |name| Own::new(dir.path(), name);
    let names = [".peers.hot-backup-tmp", "lock", "incidents", "made", "config", "segment.tmp"];
    let victim = trap(dir.path(), &names);
    assert!(lock_dir(&own("lock")).is_err(), "a lock is no link");
    assert!(own("incidents").append().is_err() && own("incidents").open().is_err());
    assert_eq!(own("made").make().expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(own("config").replace(b"new").expect_err("a link").kind(), io::ErrorKind::InvalidInput);
    own("peers").replace(b"new").expect("the link under its temporary name is removed");
    zero_file(&dir.path().join("segment"), 8192).expect("so is that of a segment");
    assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
    assert_eq!(std::fs::read(dir.path().join("peers")).expect("there"), b"new");
    assert!(own("incidents").remove().expect("removable"), "a link itself can be removed");
    assert!(victim.exists());
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_without_waiting() {
    let dir = dir();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("writable");
    let own = Own::new(dir.path(), "pipe");
    let demand = Demand { most: 10, secret: false, linked: true };
    assert!(own.append().is_err() && own.replace(b"x").is_err());
    assert!(matches!(open_trusted(&path, demand), Err(Distrust::NotAFile)));
}

#[test]
fn a_file_is_believed_only_if_others_cannot_have_written_it() {
    let dir = dir();
    let path = dir.path().join("file");
    std::fs::write(&path, "content").expect("writable");
    let chmod = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    let demand = Demand { most: 7, secret: false, linked: false };
    chmod(0o644);
    assert_eq!(read_trusted(&path, demand).expect("read by all, written by one"), b"content");
    let too_small = read_trusted(&path, Demand { most: 6, ..demand }).expect_err("a bound");
    assert!(matches!(too_small, Distrust::Io(error) if error.kind() == io::ErrorKind::FileTooLarge));
    let secret = read_trusted(&path, Demand { secret: true, ..demand }).expect_err("a secret");
    assert!(secret.to_string().contains("chmod 600"), "{secret}");
    for mode in [0o664, 0o646, 0o620, 0o602] {
        chmod(mode);
        let error = read_trusted(&path, demand).expect_err("written by others").to_string();
        assert!(error.contains("chmod go-w"), "{mode:o}: {error}");
    }
    chmod(0o600);
    read_trusted(&path, Demand { secret: true, ..demand }).expect("private");
    let link = dir.path().join("link");
    symlink(&path, &link).expect("writable");
    assert!(matches!(read_trusted(&link, demand), Err(Distrust::Link)));
    read_trusted(&link, Demand { linked: true, ..demand }).expect("where links are allowed");
}

#[test]
fn a_directory_that_others_may_write_to_is_not_believed() {
    let dir = dir();
    let chmod =
        |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        chmod(mode);
        for access in [Access::Read, Access::Change] {
            let error = check_dir(dir.path(), access).expect_err("open").to_string();
            assert!(error.contains("chmod go-w"), "{mode:o}: {error}");
        }
    }
    chmod(0o755);
    check_dir(dir.path(), Access::Change).expect("read by all is no harm");
    let below = dir.path().join("node");
    std::fs::create_dir(&below).expect("writable");
    let before = loose_parents(&below).len();
    chmod(0o777);
    let warned = loose_parents(&below);
    assert_eq!(warned.len(), before + 1, "{warned:?}");
    assert!(warned[0].contains("put something else in the place of"), "{warned:?}");
    chmod(0o1777);
    assert_eq!(loose_parents(&below).len(), before, "as in /tmp, nobody touches the files of others");
    chmod(0o700);
}

#[test]
fn every_sync_of_a_zeroed_file_is_made_in_its_order_and_told_when_it_fails() {
    // Three pieces, the file, its name.
    calls::testing::assert_syncs(5, |_| (), |dir| zero_file(&dir.join("segment"), 3 << 20));
}

#[test]
fn every_sync_of_a_renewed_file_is_made_in_its_order_and_told_when_it_fails() {
    let old = |dir: &Path| std::fs::write(dir.join("old"), [7; 64 << 10]).unwrap();
    calls::testing::assert_syncs(2, old, |dir| renew_file(&dir.join("old"), &dir.join("new")));
}

#[test]
fn every_sync_of_a_replaced_file_is_made_in_its_order_and_told_when_it_fails() {
    let old = |dir: &Path| std::fs::write(dir.join("control"), b"old").unwrap();
    calls::testing::assert_syncs(2, old, |dir| Own::new(dir, "control").replace(b"new"));
    // Until its bytes are durable the old ones are there.
    let dir = dir();
    old(dir.path());
    let control = Own::new(dir.path(), "control");
    let (result, _) = calls::testing::record(Some(0), || control.replace(b"new"));
    assert!(result.is_err() && std::fs::read(control.path()).unwrap() == b"old");
}

#[test]
fn a_file_that_is_put_in_place_is_whole_and_named_for_good_or_not_there() {
    let part = |dir: &Path| std::fs::write(dir.join("part"), b"new").unwrap();
    calls::testing::assert_syncs(2, part, |dir| put_in_place(&dir.join("part"), &dir.join("export")));
    let dir = dir();
    part(dir.path());
    std::fs::write(dir.path().join("export"), b"old").unwrap();
    let put = || put_in_place(&dir.path().join("part"), &dir.path().join("export"));
    let (result, _) = calls::testing::record(Some(0), put);
    assert!(result.is_err() && std::fs::read(dir.path().join("export")).unwrap() == b"old");
    put().unwrap();
    assert_eq!(names(dir.path()), ["export"]);
}

#[test]
fn who_locks_a_file_waits_until_it_is_free() {
    let dir = dir();
    let open = || File::create(dir.path().join("file")).unwrap();
    let held = lock_file(open()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let file = open();
    let waits = std::thread::spawn(move || {
        let lock = lock_file(file).unwrap();
        tell.send(()).unwrap();
        drop(lock);
    });
    assert!(told.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it is locked");
    drop(held);
    told.recv().unwrap();
    waits.join().unwrap();
}

#[test]
fn every_sync_of_directories_that_are_made_is_made_and_told_when_it_fails() {
    calls::testing::assert_syncs(3, |_| (), |dir| make_dir(&dir.join("a/b/c")));
}

#[test]
fn every_sync_of_what_is_appended_is_made_and_told_when_it_fails() {
    calls::testing::assert_syncs(
        5,
        |_| (),
        |dir| {
            let mut file = Own::new(&dir.join("a"), "file").begin()?;
            append_durably(&mut file, b"one")?;
            append_durably(&mut file, b"two")
        },
    );
}
