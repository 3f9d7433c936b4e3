//! Which file system and which block device a directory is on.

use crate::base::limits::SYSTEM_FILE_MAX;
use crate::base::text_at_most;
use nix::sys::stat::{major, minor};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a directory is.
#[derive(Debug, Default)]
pub struct Place {
    /// As mount(8) names it.
    pub file_system: Option<String>,
    /// The whole device, not the partition.
    pub device: Option<Device>,
}

/// What the kernel believes of a block device.
#[derive(Debug)]
pub struct Device {
    /// As /dev names it.
    pub name: String,
    /// `write back` or `write through`.
    pub write_cache: Option<String>,
    /// Whether single writes can be forced through the cache.
    pub fua: Option<bool>,
    /// Its directory under /sys.
    path: PathBuf,
}

impl Place {
    /// Where `dir` is, as far as the kernel tells.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        let Ok(meta) = std::fs::metadata(dir) else { return Self::default() };
        let number = format!("{}:{}", major(meta.dev()), minor(meta.dev()));
        let mounts = kernel_file("/proc/self/mountinfo").unwrap_or_default();
        let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.number == number);
        let device = whole_device(&number).or_else(|| {
            // btrfs and others number their mounts by themselves; the source may still be a device.
            let source = std::fs::metadata(mount.as_ref()?.source).ok()?;
            whole_device(&format!("{}:{}", major(source.rdev()), minor(source.rdev())))
        });
        Self {
            file_system: mount.map(|mount| mount.kind.to_owned()),
            device: device.map(|path| Device::read(&path)),
        }
    }
}

impl Device {
    fn read(path: &Path) -> Self {
        Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            write_cache: kernel_file(path.join("queue/write_cache")),
            fua: kernel_file(path.join("queue/fua")).map(|fua| fua == "1"),
            path: path.to_owned(),
        }
    }

    /// What one of the kernel's files on it says, such as `queue/io_poll`.
    #[must_use]
    pub fn tells(&self, file: &str) -> Option<String> {
        kernel_file(self.path.join(file))
    }
}

/// The content of one of the kernel's small files, without the line's end.
#[must_use]
pub fn kernel_file(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::File::open(path).and_then(|file| text_at_most(file, SYSTEM_FILE_MAX));
    text.ok().map(|text| text.trim().to_owned())
}

/// The directory of the device under /sys; of its disk, if it is a partition.
fn whole_device(number: &str) -> Option<PathBuf> {
    let path = std::fs::canonicalize(Path::new("/sys/dev/block").join(number)).ok()?;
    if path.join("partition").exists() { path.parent().map(Path::to_path_buf) } else { Some(path) }
}

/// A line of /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    number: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    /// proc_pid_mountinfo(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
    fn parse(line: &'a str) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let number = place.split(' ').nth(2)?;
        let mut what = what.split(' ');
        Some(Self { number, kind: what.next()?, source: what.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_pages_example_is_understood() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let expected = Mount { number: "98:0", kind: "ext3", source: "/dev/root" };
        assert_eq!(Mount::parse(line), Some(expected));
        let without = "36 35 0:30 / /tmp rw - tmpfs tmpfs rw";
        assert_eq!(Mount::parse(without), Some(Mount { number: "0:30", kind: "tmpfs", source: "tmpfs" }));
        assert_eq!(Mount::parse("36 35 98:0 /mnt1"), None);
    }
}
