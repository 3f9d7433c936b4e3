//! What the command line asks of a view's doors, at the sockets in the node's directory.

use super::failure::Failure;
use crate::client::{NbdClient, RespClient};
use crate::node::admin::connect_in_dir;
use crate::node::config::Config;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer of a door.
const ANSWER: Duration = Duration::from_secs(30);
/// What is read of a volume to see that it can be (bytes).
const LOOK: u64 = 4096;

/// A door of a view, whose socket lies where the node said.
fn connect(door: &str) -> io::Result<UnixStream> {
    let path = Path::new(door);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    connect_in_dir(path.parent().unwrap_or(Path::new(".")), name, ANSWER)
}

/// A connection to the RESP door of a view.
pub(crate) fn items(door: &str) -> io::Result<RespClient> {
    RespClient::unix(&connect(door)?, ANSWER)
}

/// Reads the beginning of a volume at the NBD door of a view, and writes it there again.
pub(crate) fn touch_volume(door: &str, export: &str) -> io::Result<()> {
    let mut client = NbdClient::unix(connect(door)?, export, ANSWER)?;
    let mut bytes = vec![0; usize::try_from(LOOK.min(client.bytes)).unwrap_or(0)];
    client.read(0, &mut bytes)?;
    client.write(0, &bytes)?;
    client.flush()
}

/// Where users reach the node in `dir` once it is primary, as its config says.
pub(crate) fn user_doors(dir: &Path) -> Result<Vec<String>, Failure> {
    let config = Config::load(dir).map_err(|error| Failure::error(error.to_string(), error.next()))?;
    let named = |what: &str, door: &dyn std::fmt::Display| format!("{what} {door}");
    let resp = config.resp.iter().map(|door| named("RESP", door));
    Ok(resp.chain(config.nbd.iter().map(|door| named("NBD", door))).collect())
}
