//! Who changed what, by the admin socket: one line of JSON for each request that changes something or takes content
//! away, with the kernel's word on the caller and what came of it.

use super::admin::Ucred;
use super::layout::{Layout, OwnName};
use super::log::one_line;
use crate::base::limits::{AUDIT_FILE_MAX, LEASE_RENEWAL_MS};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::io::Own;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audited {
    /// When it was answered (milliseconds since 1970).
    pub wall_ms: u64,
    /// The caller's user ..
    pub uid: u32,
    /// .. group ..
    pub gid: u32,
    /// .. and process,
    pub pid: i32,
    /// .. with its name, as far as it still ran.
    pub program: String,
    /// What was asked for, as on the socket.
    pub request: serde_json::Value,
    /// ok, no or error.
    pub answer: String,
    /// Why not, if not.
    pub message: String,
}

/// The file. At its limit it becomes `audit.jsonl.old` and a new one begins.
#[derive(Debug)]
pub(crate) struct Audit {
    newest: Own,
    old: Own,
    limit: u64,
    open: Mutex<Option<(File, u64)>>,
}

/// The name of a process.
fn program(pid: i32) -> String {
    let name = crate::io::read_trusted_text(
        Path::new(&format!("/proc/{pid}/comm")),
        crate::io::Demand { most: 256, secret: false, linked: false },
    );
    name.map(|name| name.trim_end().to_owned()).unwrap_or_default()
}

/// Whether it grants a lease as engines that decide do, each second. What a person grants by hand is longer.
fn renews(request: &AdminRequest) -> bool {
    let AdminRequest::Lease { grant: Some(grant) } = request else { return false };
    (1..LEASE_RENEWAL_MS).contains(&grant.ms)
}

impl Audit {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self::with_limit(layout, AUDIT_FILE_MAX)
    }

    fn with_limit(layout: &Layout, limit: u64) -> Self {
        let (newest, old) = (layout.own(OwnName::Audit), layout.own(OwnName::OldAudit));
        Self { newest, old, limit, open: Mutex::new(None) }
    }

    /// Notes what `caller` asked for and was answered, if that changes something.
    pub(crate) fn note(&self, caller: Ucred, request: &AdminRequest, reply: &AdminReply) {
        if request.only_looks() || renews(request) {
            return;
        }
        let (answer, message) = match reply {
            AdminReply::Ok { .. } => ("ok", ""),
            AdminReply::No { message, .. } => ("no", message.as_str()),
            AdminReply::Error { message, .. } => ("error", message.as_str()),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = Audited {
            wall_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            uid: caller.uid,
            gid: caller.gid,
            pid: caller.pid,
            program: program(caller.pid),
            request: serde_json::to_value(request).unwrap_or_default(),
            answer: answer.to_owned(),
            message: message.to_owned(),
        };
        let what = one_line(&line.request.to_string()).to_string();
        tracing::info!("user {} (process {}) asked: {what}: {answer}", caller.uid, caller.pid);
        if let Err(error) = self.append(&line) {
            tracing::warn!("appending to {}: {error}", self.newest.path().display());
        }
    }

    fn append(&self, line: &Audited) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let more = bytes.len() as u64;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|(_, size)| size + more > self.limit) {
            *open = None;
            self.newest.rename(&self.old)?;
        }
        let (file, size) = match &mut *open {
            Some(open) => open,
            closed @ None => {
                let file = self.newest.append()?;
                let size = file.metadata()?.len();
                closed.insert((file, size))
            }
        };
        file.write_all(&bytes)?;
        *size += more;
        Ok(())
    }
}

/// The newest lines, newest last; lines that cannot be read are left out.
///
/// # Errors
/// A file is there and cannot be read.
pub fn newest(layout: &Layout, most: usize) -> io::Result<Vec<Audited>> {
    let mut all = Vec::new();
    for name in [OwnName::OldAudit, OwnName::Audit] {
        let own = layout.own(name);
        let limit = usize::try_from(AUDIT_FILE_MAX).unwrap_or(usize::MAX);
        match layout.read(own.path(), false, limit) {
            Ok(bytes) => {
                let lines = bytes.split(|byte| *byte == b'\n');
                all.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()));
            }
            Err(distrust) if distrust.kind() == Some(io::ErrorKind::NotFound) => {}
            Err(distrust) => return Err(io::Error::other(distrust.to_string())),
        }
    }
    let skip = all.len().saturating_sub(most);
    Ok(all.split_off(skip))
}

#[cfg(test)]
mod tests {
    use super::super::admin::May;
    use super::*;
    use crate::engine::admin::Grant;

    #[test]
    fn each_request_that_changes_something_leaves_a_line_and_others_none() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::with_limit(&Layout::new(dir.path()), 1500);
        let pid = i32::try_from(std::process::id()).unwrap();
        let caller = Ucred { uid: 7, gid: 8, pid, may: May::All };
        let no = AdminReply::No { message: "not now".to_owned(), next: String::new() };
        audit.note(caller, &AdminRequest::Status, &no);
        audit.note(caller, &AdminRequest::Switchover { dry_run: true }, &no);
        // A lease is renewed each second; that a person grants it an hour, or ends it, is noted.
        let lease = |ms| AdminRequest::Lease { grant: Some(Grant { run: 1, from: 1, ms, alone: false }) };
        audit.note(caller, &lease(30_000), &no);
        assert!(!dir.path().join("audit.jsonl").exists());
        assert_eq!([0, 3_600_000].map(|ms| renews(&lease(ms))), [false; 2]);
        audit.note(caller, &AdminRequest::LoggingResume, &no);
        let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
        let line: Audited = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (line.uid, line.gid, line.answer.as_str(), line.message.as_str()),
            (7, 8, "no", "not now")
        );
        assert!(!line.program.is_empty() && line.request["verb"] == "logging-resume", "{line:?}");
        for _ in 0..40 {
            audit.note(caller, &AdminRequest::LoggingResume, &no);
        }
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("audit.jsonl") <= 1500 && size("audit.jsonl.old") <= 1500);
    }
}
