//! `nbd-access`: what a client of volumes on another machine needs to be let in.

use super::Context;
use super::failure::{Answer, Done, Failure};
use super::glue;
use super::out::say;
use super::values;
use clap::Args;
use serde_json::json;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes the credentials of a client of volumes (NBD) on another machine
#[derive(Debug, Args)]
#[command(after_long_help = "\
Beyond loopback the NBD door speaks TLS only, and lets in only clients with a certificate that this node or its peer has
made. The folder holds ca-cert.pem, client-cert.pem and client-key.pem, as libnbd, nbdkit and QEMU look for them. Bring it
to the client over a way that you trust; whoever has the key can read and write every volume.

What one node made serves at the other too. For the client to know both nodes, add the peer's certificate:

Examples:
  hot-backup nbd-access web1 --out web1 --dir A
  hot-backup nbd-access --add-ca --out web1 --dir B
  nbdinfo 'nbds://10.0.0.1/app/disk1?tls-certificates=web1'

To shut a client out, replace the key of the node that made its certificate, and remove the old one from the other
node's file `peers`.")]
pub(crate) struct NbdAccessArgs {
    /// The client, as its certificate names it
    #[arg(value_parser = values::account_name, required_unless_present = "add_ca")]
    name: Option<String>,
    /// The folder for the files
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Only add what vouches for this node to the folder's ca-cert.pem
    #[arg(long, conflicts_with = "name")]
    add_ca: bool,
}

/// Runs `nbd-access`.
pub(crate) fn run(context: &mut Context, args: &NbdAccessArgs) -> Done {
    let dir = context.dir()?.to_owned();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&args.out);
    made.map_err(|e| Failure::io(format_args!("making {}", args.out.display()), &e))?;
    let ca = args.out.join(glue::CA_FILE);
    let Some(name) = &args.name else {
        let pem = glue::nbd_authority(&dir)?;
        let mut all = OpenOptions::new();
        // A link that others laid there must not lead to a file elsewhere.
        all.append(true).create(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
        let written = all.open(&ca).and_then(|mut file| file.write_all(pem.as_bytes()));
        written.map_err(|e| Failure::io(format_args!("adding to {}", ca.display()), &e))?;
        say(format_args!("{} vouches for this node too", ca.display()));
        return Ok(Answer::Yes);
    };
    let credentials = glue::nbd_credentials(&dir, name)?;
    let files = [
        (ca, &credentials.ca, 0o644),
        (args.out.join(glue::CERTIFICATE_FILE), &credentials.certificate, 0o644),
        (args.out.join(glue::KEY_FILE), &credentials.key, 0o600),
    ];
    for (path, content, mode) in &files {
        write_new(path, content, *mode)?;
    }
    if context.json {
        let paths: Vec<_> = files.iter().map(|(path, ..)| path.display().to_string()).collect();
        context.out.json(&json!({ "client": name, "files": paths }))?;
    } else {
        say(format_args!("{name} can connect with the files in {}", args.out.display()));
        say("add the peer's certificate: hot-backup nbd-access --add-ca --out FOLDER --dir PEER");
    }
    Ok(Answer::Yes)
}

/// Writes a file that must not be there yet: it may be the only copy of a key.
fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    match opened.and_then(|mut file| file.write_all(content.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::error(
            format!("writing {}: it is there already", path.display()),
            "name another folder with --out, or move that one away",
        )),
        result => result.map_err(|e| Failure::io(format_args!("writing {}", path.display()), &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_written_to_new_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        for path in [&victim, &link] {
            let failure = write_new(path, "key", 0o600).unwrap_err();
            assert!(failure.to_string().contains("there already"), "{failure}");
        }
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
