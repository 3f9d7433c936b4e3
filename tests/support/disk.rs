//! A small disk of our own: a file, a loop device on it, ext4.

use super::shell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Mounted until it is dropped. Needs root.
pub(crate) struct Disk {
    device: String,
    at: PathBuf,
    mounted: bool,
    /// Holds the image and the place where it is mounted.
    _root: tempfile::TempDir,
}

/// Ends all I/O of the file system at once, without writing back what is only in memory: EXT4_IOC_SHUTDOWN with
/// EXT4_GOING_FLAGS_NOLOGFLUSH.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

impl Disk {
    /// A fresh one.
    pub(crate) fn new(mebibytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (image, at) = (root.path().join("image"), root.path().join("disk"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        shell(&["mkfs.ext4", "-q", "-F", image.to_str().unwrap()]);
        let device = shell(&["losetup", "--find", "--show", image.to_str().unwrap()]).trim().to_owned();
        let mut disk = Self { device, at, mounted: false, _root: root };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&mut self) {
        shell(&["mount", "-t", "ext4", &self.device, self.at.to_str().unwrap()]);
        self.mounted = true;
    }

    /// The kernel lets go of the files of a killed process only after the process can be waited for: what io_uring
    /// holds is released by a worker of its own.
    fn try_unmount(&mut self) -> bool {
        let unmounted =
            || Command::new("umount").arg(&self.at).output().is_ok_and(|out| out.status.success());
        let until = Instant::now() + Duration::from_secs(30);
        while self.mounted && Instant::now() < until {
            self.mounted = !unmounted();
            std::thread::sleep(Duration::from_millis(if self.mounted { 20 } else { 0 }));
        }
        !self.mounted
    }

    #[track_caller]
    fn unmount(&mut self) {
        assert!(self.try_unmount(), "{} cannot be unmounted: {}", self.at.display(), self.holders());
    }

    /// Processes that keep it from being unmounted.
    fn holders(&self) -> String {
        let links = |process: &Path| {
            let mut links: Vec<_> = ["cwd", "root", "exe"].map(|name| process.join(name)).to_vec();
            let fds = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            links.extend(fds.map(|fd| fd.path()));
            links
        };
        let holds =
            |link: &PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(&self.at));
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let found = processes.flat_map(|process| links(&process)).filter(holds);
        let text: Vec<String> = found.map(|link| link.display().to_string()).collect();
        if text.is_empty() { "no process has a file of it open".to_owned() } else { text.join(" ") }
    }

    /// From here on nothing reaches the disk any more, as if the power had gone.
    pub(crate) fn lose_power(&self) {
        shell(&["python3", "-c", SHUTDOWN, self.at.to_str().unwrap()]);
    }

    /// The power is back: mounted afresh. Nobody may have a file of it open.
    pub(crate) fn restart(&mut self) {
        self.unmount();
        self.mount();
    }

    /// From here on no write to it ends, until what is returned is dropped, or this process is gone.
    pub(crate) fn freeze(&self) -> Frozen {
        let at = self.at.to_str().unwrap();
        // It thaws the disk when its input ends, whatever becomes of us.
        let words = ["-c", "read nothing; fsfreeze --unfreeze \"$0\"", at];
        let thaw = Command::new("sh").args(words).stdin(Stdio::piped()).spawn().expect("there is a shell");
        let frozen = Frozen { thaw };
        shell(&["fsfreeze", "--freeze", at]);
        frozen
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.at.join("filler")).unwrap();
        for piece in [vec![1; 1 << 16], vec![1; 1 << 10]] {
            while file.write_all(&piece).and_then(|()| file.sync_data()).is_ok() {}
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.at.join("filler")).unwrap();
    }
}

/// A disk on which no write ends.
pub(crate) struct Frozen {
    thaw: Child,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.thaw.stdin.take());
        let _ = self.thaw.wait();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also when the test has failed: nothing of it may stay behind.
        let unmounted = self.try_unmount();
        let held = if unmounted { String::new() } else { self.holders() };
        if !unmounted {
            let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        }
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        assert!(unmounted || std::thread::panicking(), "{} is still in use: {held}", self.at.display());
    }
}
