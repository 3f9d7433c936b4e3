//! `item put`: one item, its value from the command line, a file or stdin.

use super::super::failure::{Answer, Done, Failure};
use super::super::out::escape;
use super::super::{Context, values};
use super::{call, key, too_large, unexpected};
use crate::base::limits::ITEM_VALUE_MAX;
use crate::base::read_at_most;
use crate::client::Reply;
use clap::Args;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Writes an item: the value is an argument, a file, or stdin
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hot-backup item put app,orders 1001 'two boxes'
  hot-backup item put app,docs README @README.md       the value is what is in the file
  date | hot-backup item put app,notes today @-        .. or what comes on stdin, as without a value
  hot-backup item put app,users ann @@ann              the value is @ann
  hot-backup item put app,users ann --value @ann       .. and so is this")]
pub(crate) struct PutArgs {
    /// account,file
    #[arg(value_parser = values::file_name)]
    file: String,
    /// The item's id
    id: OsString,
    /// The value, or @PATH for what is in a file, @- for stdin, @@TEXT for a value that begins with @; stdin without it
    #[arg(conflicts_with_all = ["from", "plain"])]
    value: Option<OsString>,
    /// The value, whatever it begins with
    #[arg(long = "value", value_name = "TEXT", conflicts_with = "from", allow_hyphen_values = true)]
    plain: Option<OsString>,
    /// Read the value from this file
    #[arg(long = "file", value_name = "PATH")]
    from: Option<PathBuf>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Text(Vec<u8>),
    File(PathBuf),
    Stdin,
}

impl PutArgs {
    fn source(&mut self) -> Source {
        if let Some(path) = self.from.take() {
            return Source::File(path);
        }
        if let Some(text) = self.plain.take() {
            return Source::Text(text.into_vec());
        }
        let Some(value) = self.value.take().map(OsStringExt::into_vec) else { return Source::Stdin };
        match value.strip_prefix(b"@") {
            None => Source::Text(value),
            Some(b"-") => Source::Stdin,
            Some(rest) if rest.starts_with(b"@") => Source::Text(rest.to_vec()),
            Some(path) => Source::File(OsString::from_vec(path.to_vec()).into()),
        }
    }
}

impl Source {
    /// The value; one that is too large is not read to its end, and of a file that tells its size nothing is.
    fn read(self, id: &[u8]) -> Result<Vec<u8>, Failure> {
        let bytes = match self {
            Self::Text(text) => text,
            Self::File(path) => {
                let failed = |e: std::io::Error| Failure::io(format_args!("reading {}", path.display()), &e);
                let file = std::fs::File::open(&path).map_err(failed)?;
                let found = file.metadata().map_err(failed)?;
                if found.is_dir() {
                    let next = "name a file; a whole directory is written with hot-backup item import";
                    return Err(Failure::error(
                        format!("reading {}: it is a directory", path.display()),
                        next,
                    ));
                }
                read_file(file, found.len(), id, &path.display())?
            }
            Self::Stdin => read_value(std::io::stdin(), id, &"stdin")?,
        };
        check_size(id, bytes.len() as u64, &"the value")?;
        Ok(bytes)
    }
}

/// Reads a file that tells its size: nothing of it if that is too large.
fn read_file(
    source: impl Read,
    len: u64,
    id: &[u8],
    what: &dyn std::fmt::Display,
) -> Result<Vec<u8>, Failure> {
    check_size(id, len, what)?;
    read_value(source, id, what)
}

/// Reads a value; of one that is too large only a byte more than is allowed.
fn read_value(source: impl Read, id: &[u8], what: &dyn std::fmt::Display) -> Result<Vec<u8>, Failure> {
    read_at_most(source, ITEM_VALUE_MAX).or_else(|error| {
        if error.kind() == std::io::ErrorKind::FileTooLarge {
            check_size(id, ITEM_VALUE_MAX as u64 + 1, what)?;
        }
        Err(Failure::io(format_args!("reading {what}"), &error))
    })
}

fn check_size(id: &[u8], len: u64, what: &dyn std::fmt::Display) -> Result<(), Failure> {
    match too_large(id.len(), len) {
        Some(why) => Err(Failure::error(
            format!("writing item {} from {what}: {why}", escape(id)),
            "split it into several items, or keep it in a file of blocks: hot-backup file create --blocks",
        )),
        None => Ok(()),
    }
}

/// Runs `item put`.
pub(super) fn run(context: &mut Context, mut args: PutArgs) -> Done {
    let bytes = args.source().read(args.id.as_bytes())?;
    let PutArgs { file, id, .. } = args;
    let doing = format!("writing item {} of {file}", escape(id.as_bytes()));
    match call(context, &doing, &[b"SET", &key(&file, id.as_bytes()), &bytes])? {
        Reply::Simple(_) if context.json => {
            context.out.json(&serde_json::json!({ "bytes": bytes.len() }))?;
            Ok(Answer::Yes)
        }
        Reply::Simple(_) => Ok(Answer::Yes),
        other => Err(unexpected(&doing, &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verb;
    use super::*;

    #[test]
    fn a_value_that_begins_with_an_at_sign_names_a_file_unless_it_is_doubled() {
        use clap::Parser;
        let source = |line: &str| {
            let words =
                ["hot-backup", "item", "put", "app,x", "1"].into_iter().chain(line.split_whitespace());
            let super::super::super::Command::Item(args) =
                super::super::super::Cli::try_parse_from(words).expect(line).command
            else {
                panic!("{line}")
            };
            let Verb::Put(mut args) = args.verb else { panic!("{line}") };
            args.source()
        };
        let text = |text: &str| Source::Text(text.as_bytes().to_vec());
        for (line, expected) in [
            ("hello", text("hello")),
            ("a@b", text("a@b")),
            ("@@ann", text("@ann")),
            ("@@", text("@")),
            ("--value @ann", text("@ann")),
            ("--value --x", text("--x")),
            ("@/etc/motd", Source::File("/etc/motd".into())),
            ("@x", Source::File("x".into())),
            ("--file @x", Source::File("@x".into())),
            ("@-", Source::Stdin),
            ("", Source::Stdin),
        ] {
            assert_eq!(source(line), expected, "{line}");
        }
    }

    #[test]
    fn of_a_file_that_is_too_large_nothing_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // It takes no room, and would take a terabyte to read.
        file.as_file().set_len(1 << 40).unwrap();
        let begin = std::time::Instant::now();
        let failure = Source::File(file.path().to_owned()).read(b"1").unwrap_err();
        assert!(failure.to_string().contains("more than 16 MiB"), "{failure}");
        assert!(begin.elapsed() < std::time::Duration::from_secs(5));
        struct Unread;
        impl Read for Unread {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("it is read");
            }
        }
        assert!(read_file(Unread, ITEM_VALUE_MAX as u64 + 1, b"1", &"a file").is_err());
        let limit = ITEM_VALUE_MAX as u64;
        file.as_file().set_len(limit).unwrap();
        assert_eq!(Source::File(file.path().to_owned()).read(b"1").unwrap().len() as u64, limit);
        assert!(Source::File("/dev/zero".into()).read(b"1").is_err(), "one that tells no size is cut off");
        let dir = Source::File("/".into()).read(b"1").unwrap_err();
        assert!(dir.to_string().contains("it is a directory"), "{dir}");
    }
}
