//! `item export`: items into a tree of files, a table, or lines of JSON.

use super::super::failure::{Answer, Done, Failure};
use super::super::out::{per_second, seconds};
use super::super::{Context, values};
use super::import::progress;
use super::sink::{Target, is_stdout};
use super::table::{HEAD, JsonItem};
use super::{Scan, escape, key, paths, refused};
use crate::base::shown::{bytes, count, counted};
use crate::client::{Pipeline, Reply, RespClient, RespError};
use clap::{ArgGroup, Args};
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Reads all items of a file out: into a directory, a table, or lines of JSON
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").args(["to", "csv", "jsonl"]).required(true))]
#[command(after_long_help = "\
Into a directory, each item becomes a file whose path is the id; what is unsafe in a path is written as %XX, and
nothing is ever written outside the directory, which must be new or empty. Any of the three forms can be imported
again and gives the same items. Items that change meanwhile are written as they are when their turn comes.

Examples:
  hot-backup item export app,docs ./docs-copy
  hot-backup item export app,orders --csv orders.csv
  hot-backup item export app,orders --jsonl - | gzip > orders.jsonl.gz")]
pub(crate) struct ExportArgs {
    /// account,file
    #[arg(value_parser = values::file_name)]
    file: String,
    /// A new or empty directory
    #[arg(value_name = "DIR")]
    to: Option<PathBuf>,
    /// A table with the columns id and value; - for stdout
    #[arg(long, value_name = "PATH")]
    csv: Option<PathBuf>,
    /// Lines of JSON with id and value, or id_hex and value_hex for what is not UTF-8; - for stdout
    #[arg(long, value_name = "PATH")]
    jsonl: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Totals {
    items: u64,
    bytes: u64,
    seconds: f64,
}

/// Runs `item export`.
pub(crate) fn run(context: &mut Context, args: &ExportArgs) -> Done {
    let mut client = super::door(context)?;
    let mut files = [&args.csv, &args.jsonl].into_iter().flatten();
    // /dev/stdout by its name: what is told of the export must not get in between.
    let to_stdout = files.any(|path| path.as_os_str() == "-" || is_stdout(path));
    let start = Instant::now();
    let mut totals = if to_stdout {
        let mut sink = stdout_sink(context, args)?;
        let totals = export(&mut client, &args.file, &mut sink)?;
        sink.finish()?;
        totals
    } else {
        let (mut sink, target) = file_sink(args)?;
        let totals = export(&mut client, &args.file, &mut sink)?;
        sink.finish()?;
        target.map_or(Ok(()), Target::finish)?;
        totals
    };
    totals.seconds = start.elapsed().as_secs_f64();
    if to_stdout {
        super::super::out::say(told(&totals, &args.file, start));
    } else if context.json {
        context.out.json(&totals)?;
    } else {
        context.out.line(told(&totals, &args.file, start))?;
    }
    Ok(Answer::Yes)
}

fn told(t: &Totals, file: &str, start: Instant) -> String {
    format!(
        "exported {}, {}, of {file} in {} ({} items/s)",
        counted(t.items, "item", "items"),
        bytes(t.bytes),
        seconds(t.seconds),
        count(per_second(t.items, start.elapsed()))
    )
}

fn stdout_sink<'a>(context: &'a mut Context, args: &ExportArgs) -> Result<Sink<'a>, Failure> {
    let out: Box<dyn Write + 'a> = Box::new(&mut context.out);
    if args.csv.is_some() { Sink::table(out) } else { Ok(Sink::Jsonl(out)) }
}

fn file_sink(args: &ExportArgs) -> Result<(Sink<'static>, Option<Target>), Failure> {
    if let Some(dir) = &args.to {
        return Ok((Sink::Dir(Dir::create(dir)?), None));
    }
    // clap lets exactly one of the three through.
    let path = args.csv.as_ref().or(args.jsonl.as_ref()).cloned().unwrap_or_default();
    let (target, file) = Target::create(path)?;
    let out: Box<dyn Write> = Box::new(BufWriter::new(file));
    let sink = if args.csv.is_some() { Sink::table(out)? } else { Sink::Jsonl(out) };
    Ok((sink, Some(target)))
}

enum ExportError {
    Sink(Failure),
    Link(RespError),
    Refused { id: Vec<u8>, error: String },
}

impl From<RespError> for ExportError {
    fn from(error: RespError) -> Self {
        Self::Link(error)
    }
}

fn export(client: &mut RespClient, file: &str, sink: &mut Sink<'_>) -> Result<Totals, Failure> {
    let bar = progress("items");
    let mut totals = Totals::default();
    let mut scan = Scan::new(file, b"*");
    while let Some(ids) = scan.next(client)? {
        let mut done = |id: Vec<u8>, reply: Reply| -> Result<(), ExportError> {
            match reply {
                Reply::Bulk(Some(value)) => {
                    sink.put(&id, &value).map_err(ExportError::Sink)?;
                    totals.items += 1;
                    totals.bytes += value.len() as u64;
                    bar.inc(1);
                    Ok(())
                }
                // Deleted since it was listed.
                Reply::Bulk(None) => Ok(()),
                Reply::Error(error) => Err(ExportError::Refused { id, error }),
                other => Err(ExportError::Refused { id, error: format!("unexpected answer {other:?}") }),
            }
        };
        let mut pipeline = Pipeline::of_reads(client);
        let page = ids.into_iter().try_for_each(|id| {
            let key = key(file, &id);
            pipeline.send(&[b"GET", &key], id, &mut done)
        });
        page.and_then(|()| pipeline.finish(&mut done)).map_err(|error| match error {
            ExportError::Sink(failure) => failure,
            ExportError::Link(error) => Failure::resp(format_args!("exporting {file}"), &error),
            ExportError::Refused { id, error } => {
                refused(&format!("exporting item {} of {file}", escape(&id)), &error)
            }
        })?;
    }
    bar.finish_and_clear();
    Ok(totals)
}

enum Sink<'a> {
    Dir(Dir),
    Table(Box<csv::Writer<Box<dyn Write + 'a>>>),
    Jsonl(Box<dyn Write + 'a>),
}

impl<'a> Sink<'a> {
    fn table(out: Box<dyn Write + 'a>) -> Result<Self, Failure> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(HEAD).map_err(table_failure)?;
        Ok(Self::Table(Box::new(writer)))
    }

    fn put(&mut self, id: &[u8], value: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Dir(dir) => dir.put(id, value),
            Self::Table(writer) => writer.write_record([id, value]).map_err(table_failure),
            Self::Jsonl(out) => {
                let line = serde_json::to_string(&JsonItem::new(id, Some(value))).map_err(io::Error::from);
                line.and_then(|line| writeln!(out, "{line}")).map_err(|e| write_failure(&e))
            }
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match self {
            Self::Dir(_) => Ok(()),
            Self::Table(writer) => writer.flush().map_err(|e| write_failure(&e)),
            Self::Jsonl(out) => out.flush().map_err(|e| write_failure(&e)),
        }
    }
}

fn table_failure(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => write_failure(&error),
        other => Failure::error(format!("writing the table: {other:?}"), ""),
    }
}

fn write_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::ReaderGone
    } else {
        Failure::io("writing the export", error)
    }
}

/// A directory that receives items, and nothing above it does.
struct Dir {
    root: PathBuf,
    /// Directories made by this export; only these are entered, so no link laid by others is followed.
    made: HashSet<PathBuf>,
}

impl Dir {
    fn create(root: &Path) -> Result<Self, Failure> {
        let failed = |e: &io::Error| Failure::io(format_args!("making directory {}", root.display()), e);
        std::fs::create_dir_all(root).map_err(|e| failed(&e))?;
        if std::fs::read_dir(root).map_err(|e| failed(&e))?.next().is_some() {
            return Err(Failure::error(
                format!("exporting into {}: the directory is not empty", root.display()),
                "name a new directory",
            ));
        }
        let dir = Self { root: root.to_owned(), made: HashSet::new() };
        dir.write(paths::MARKER, b"Names in this tree are ids, encoded by hot-backup item export.\n")
            .map_err(|e| failed(&e))?;
        Ok(dir)
    }

    fn put(&mut self, id: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut path = paths::encode(id);
        // An item `a` and an item `a/b` cannot both have their natural path: the later one takes the other.
        let mut result = self.write_below(&path, value);
        if matches!(&result, Err(e) if is_taken(e)) {
            path = paths::encode_flat(id);
            result = self.write_below(&path, value);
        }
        result.map_err(|e| Failure::io(format_args!("writing {}", self.root.join(&path).display()), &e))
    }

    fn write_below(&mut self, path: &str, value: &[u8]) -> io::Result<()> {
        let relative = Path::new(path);
        let above: Vec<&Path> = relative.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        for dir in above.into_iter().rev() {
            if !self.made.contains(dir) {
                std::fs::create_dir(self.root.join(dir))?;
                self.made.insert(dir.to_owned());
            }
        }
        self.write(path, value)
    }

    fn write(&self, path: &str, value: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.root.join(path))?;
        file.write_all(value)
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(dir: &Path, ids: &[&[u8]]) {
        let mut sink = Sink::Dir(Dir::create(dir).unwrap());
        for (n, id) in ids.iter().enumerate() {
            sink.put(id, format!("value {n}").as_bytes()).unwrap();
        }
        sink.finish().unwrap();
    }

    fn imported(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
        super::super::import::tree_items(dir)
    }

    #[test]
    fn what_was_exported_into_a_directory_is_imported_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("out");
        let ids: [&[u8]; 14] = [
            b"a",
            b"a/b",
            b"a/b/c",
            b"x/y",
            b"x",
            b"..",
            b"../../etc/passwd",
            b"/abs",
            b"a//b",
            b"%",
            b"\xff\x00",
            b".hot-backup-export",
            b"\0/x",
            b"\0",
        ];
        exported(&dir, &ids);
        let mut back = imported(&dir);
        back.sort();
        let mut expected: Vec<_> =
            ids.iter().enumerate().map(|(n, id)| (id.to_vec(), format!("value {n}").into_bytes())).collect();
        expected.sort();
        assert_eq!(back, expected);
        let outside: Vec<_> =
            std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["out"], "nothing was written beside the directory");
    }

    #[test]
    fn a_directory_that_holds_something_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("x"), "mine").unwrap();
        assert_eq!(Dir::create(temp.path()).err().map(|e| e.code()), Some(2));
    }

    #[test]
    fn a_link_laid_into_the_directory_meanwhile_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (temp.path().join("out"), temp.path().join("elsewhere"));
        std::fs::create_dir(&elsewhere).unwrap();
        let mut sink = Dir::create(&dir).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.join("a")).unwrap();
        sink.put(b"a/b", b"x").unwrap();
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        assert!(imported(&dir).contains(&(b"a/b".to_vec(), b"x".to_vec())));
    }
}
