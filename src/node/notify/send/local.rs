//! The system's log: by the socket of syslog, and by that of journald.

use super::Message;
use crate::base::limits::NOTIFY_PATIENCE_MS;
use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// The facility `daemon` (RFC 5424, table 1).
const DAEMON: u8 = 3;

/// The severity of RFC 5424, table 2.
fn priority(message: &Message) -> u8 {
    match message.record.severity.as_str() {
        _ if message.record.ended_ms.is_some() && !message.record.end.is_empty() => 5,
        "critical" => 2,
        "warning" => 4,
        _ => 5,
    }
}

/// As glibc's syslog(3) writes it, but for the time, which the receiver sets.
pub(super) fn syslog(socket: &Path, message: &Message) -> Result<String, String> {
    let lines = message.lines();
    let text = lines.get(1..).unwrap_or_default().join("; ");
    let (priority, pid) = (DAEMON * 8 + priority(message), std::process::id());
    let RecordFields { code, severity } = RecordFields::of(message);
    let line = format!("<{priority}>hot-backup[{pid}]: {} {severity} {code}: {text}", message.node);
    send(socket, line.as_bytes())
}

struct RecordFields<'a> {
    code: &'a str,
    severity: &'a str,
}

impl<'a> RecordFields<'a> {
    fn of(message: &'a Message) -> Self {
        Self { code: &message.record.code, severity: &message.record.severity }
    }
}

/// The native protocol of journald: a field a line, each value of ours without a line's end.
pub(super) fn journald(socket: &Path, message: &Message) -> Result<String, String> {
    let record = &message.record;
    let lines = message.lines();
    let mut text = String::new();
    let fields: [(&str, &dyn std::fmt::Display); 8] = [
        ("MESSAGE", &lines.get(1..).unwrap_or_default().join("; ")),
        ("PRIORITY", &priority(message)),
        ("SYSLOG_IDENTIFIER", &"hot-backup"),
        ("HOT_BACKUP_NODE", &message.node),
        ("HOT_BACKUP_CODE", &record.code),
        ("HOT_BACKUP_SEVERITY", &record.severity),
        ("HOT_BACKUP_STATE", &message.state()),
        ("HOT_BACKUP_INCIDENT", &record.id),
    ];
    for (name, value) in fields {
        let _ = writeln!(text, "{name}={}", crate::node::log::one_line(&value.to_string()));
    }
    send(socket, text.as_bytes())
}

fn send(path: &Path, bytes: &[u8]) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("writing to {}: {error}", path.display());
    let socket = UnixDatagram::unbound().map_err(failed)?;
    socket.set_write_timeout(Some(Duration::from_millis(NOTIFY_PATIENCE_MS))).map_err(failed)?;
    socket.connect(path).map_err(failed)?;
    socket.send(bytes).map_err(failed)?;
    Ok(format!("{} bytes to {}", bytes.len(), path.display()))
}
