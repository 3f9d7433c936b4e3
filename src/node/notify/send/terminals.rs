//! The terminals of who is logged in.

use super::Message;
use crate::base::limits::{TERMINALS_MAX, UTMP_MAX};
use crate::base::read_at_most;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::{offset_of, size_of};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A terminal on which somebody is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    user: String,
    /// Below `/dev`.
    line: String,
}

/// Writes a message to each of them that takes messages (`mesg y`).
pub(super) fn write(utmp: &Path, users: &[String], message: &Message) -> Result<String, String> {
    let lines = terminals(utmp, users).map_err(|error| format!("reading {}: {error}", utmp.display()))?;
    let text = text_of(message);
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for line in lines.into_iter().take(TERMINALS_MAX) {
        match say(&line, text.as_bytes()) {
            Ok(()) => written.push(line.display().to_string()),
            Err(error) => refused.push(format!("{}: {error}", line.display())),
        }
    }
    match (written.is_empty(), refused.is_empty()) {
        (false, _) => Ok(format!("written to {}", written.join(", "))),
        (true, false) => Err(refused.join(", ")),
        // Nobody is there who could read it, and nobody waits for it.
        (true, true) => Ok("nobody is logged in".to_owned()),
    }
}

/// It begins on a line of its own, and rings.
fn text_of(message: &Message) -> String {
    format!("\r\n\u{7}{}\r\n", message.lines().join("\r\n"))
}

fn terminals(utmp: &Path, users: &[String]) -> io::Result<Vec<PathBuf>> {
    let file = match File::open(utmp) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return all_terminals(),
        other => other?,
    };
    let wanted = |login: &Login| users.is_empty() || users.contains(&login.user);
    let mut lines: Vec<PathBuf> = logins(&read_at_most(file, UTMP_MAX)?)
        .into_iter()
        .filter(wanted)
        .map(|login| Path::new("/dev").join(login.line))
        .collect();
    lines.sort();
    lines.dedup();
    Ok(lines)
}

/// Terminals below `/dev/pts`, where the system keeps no list.
fn all_terminals() -> io::Result<Vec<PathBuf>> {
    let numbered = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    let mut lines: Vec<PathBuf> = std::fs::read_dir("/dev/pts")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(numbered)
        .collect();
    lines.sort();
    Ok(lines)
}

/// The entries of utmp(5) of who is logged in.
fn logins(bytes: &[u8]) -> Vec<Login> {
    const ENTRY: usize = size_of::<libc::utmpx>();
    let field = |entry: &[u8], at: usize, most: usize| {
        let bytes = entry.get(at..at + most).unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    let login = |entry: &[u8]| {
        let at = offset_of!(libc::utmpx, ut_type);
        #[allow(clippy::host_endian_bytes, reason = "the system wrote it on this machine")]
        let kind = i16::from_ne_bytes(entry.get(at..at + 2)?.try_into().ok()?);
        let line = field(entry, offset_of!(libc::utmpx, ut_line), 32);
        let plain = line.split('/').all(|part| {
            !part.is_empty() && part != ".." && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let user = field(entry, offset_of!(libc::utmpx, ut_user), 32);
        (kind == libc::USER_PROCESS && plain).then_some(Login { user, line })
    };
    bytes.chunks_exact(ENTRY).filter_map(login).collect()
}

/// A terminal that takes nothing now is left, so this waits for nobody.
fn say(line: &Path, text: &[u8]) -> io::Result<()> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().write(true).custom_flags(flags).open(line)?;
    if !file.metadata()?.file_type().is_char_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no terminal"));
    }
    file.write_all(text)
}

/// Reads any bytes as the list of who is logged in.
pub fn fuzz_utmp(bytes: &[u8]) {
    for login in logins(bytes) {
        assert!(!login.line.starts_with('/') && !login.line.contains(".."), "it stays below /dev");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: i16, line: &str, user: &str) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<libc::utmpx>()];
        bytes[offset_of!(libc::utmpx, ut_type)..][..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[offset_of!(libc::utmpx, ut_line)..][..line.len()].copy_from_slice(line.as_bytes());
        bytes[offset_of!(libc::utmpx, ut_user)..][..user.len()].copy_from_slice(user.as_bytes());
        bytes
    }

    #[test]
    fn who_is_logged_in_is_read_as_the_system_wrote_it_and_leads_nowhere_else() {
        let all = [
            entry(libc::USER_PROCESS, "pts/3", "ann"),
            entry(libc::DEAD_PROCESS, "pts/4", "bob"),
            entry(libc::USER_PROCESS, "../etc/passwd", "eve"),
            entry(libc::USER_PROCESS, "/sda", "eve"),
            entry(libc::USER_PROCESS, "", "eve"),
            entry(libc::USER_PROCESS, "tty1", "bob"),
        ];
        let mut bytes = all.concat();
        bytes.extend_from_slice(&[7; 100]);
        let login = |line: &str, user: &str| Login { user: user.to_owned(), line: line.to_owned() };
        assert_eq!(logins(&bytes), [login("pts/3", "ann"), login("tty1", "bob")]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("utmp");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(terminals(&path, &["bob".to_owned()]).unwrap(), [PathBuf::from("/dev/tty1")]);
    }

    #[test]
    fn only_a_terminal_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(say(&file, b"x").unwrap_err().to_string(), "it is no terminal");
        std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
        assert!(say(&dir.path().join("link"), b"x").is_err(), "no link is followed");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "kept");
    }
}
