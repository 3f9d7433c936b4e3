//! `item import`: trees of files, tables, lines, into items.

use super::super::failure::{Answer, Done, Failure};
use super::super::out::{per_second, say};
use super::super::{Context, values};
use super::rows::{Passed, Rows};
use super::table::{As, Columns, JsonItem};
use super::{escape, key, open_value, paths, refused, too_large};
use crate::base::limits::{ITEM_VALUE_MAX, JSON_LINE_MAX, TEXT_LINE_MAX};
use crate::base::shown::{bytes, count, counted};
use crate::base::{Line, next_line, read_at_most};
use crate::client::{Pipeline, Reply, RespClient, RespError};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Ids remembered to notice that one comes twice (8 bytes each).
const IDS_REMEMBERED: usize = 4 << 20;
/// Skipped pieces told one by one; the rest are only counted.
const SKIPS_TOLD: u64 = 20;

/// Writes many items: files of a directory, rows of CSV, lines
#[derive(Debug, Args)]
#[command(after_long_help = "\
What becomes an item:
  a directory   each file below it; the id is its path within the directory. A tree that item export wrote
                gives the very items that were exported. Links and devices are left out, and told.
  NAME.csv      each row; the first line names the columns, --id-column chooses the id (the first unless given),
                --as what the value is: json (an object of the columns), csv (the row), value (the column value)
  NAME.jsonl    each line, as item export --jsonl writes it: {\"id\":..,\"value\":..}, or id_hex and value_hex
  -             each line of stdin; the id is the line's number, or with --tab what stands before the first tab
  another file  one item; the id is the file's name
An item that exists is overwritten. Ids have at most 255 bytes, values 16 MiB: others are told and left out, and the
exit code is 1. An import may be repeated.

Examples:
  hot-backup item import app,docs ./docs README.md
  hot-backup item import app,orders orders.csv --id-column order_no
  zcat dump.jsonl.gz | hot-backup item import app,orders - --from jsonl")]
pub(crate) struct ImportArgs {
    /// account,file
    #[arg(value_parser = values::file_name)]
    file: String,
    /// Directories, files, or - for stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// What the paths are, instead of what their names say
    #[arg(long, value_enum)]
    from: Option<Source>,
    /// The column of a table that is the id: its name, or its number from 1
    #[arg(long, value_name = "NAME|N")]
    id_column: Option<String>,
    /// What the value of a table's row is [default: value for a table with the columns id and value, else json]
    #[arg(long = "as", value_enum)]
    form: Option<As>,
    /// Of lines: the id is what stands before the first tab, the value what follows
    #[arg(long)]
    tab: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Source {
    /// A directory
    Dir,
    /// A table
    Csv,
    /// Lines of JSON
    Jsonl,
    /// Lines of text
    Lines,
    /// One item
    File,
}

/// What a source yields.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// An item.
    Item {
        /// Its id.
        id: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Something that cannot be an item.
    Skipped {
        /// What, and why.
        why: String,
    },
}

/// Pieces, until there are no more or reading failed.
type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece, Failure>> + 'a>;

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
struct Totals {
    /// Items written.
    items: u64,
    /// Bytes of their values.
    bytes: u64,
    /// Pieces left out.
    skipped: u64,
    /// Items whose id came before in the same import: the last one stays.
    repeated: u64,
    /// How long it took.
    seconds: f64,
}

/// Runs `item import`.
pub(crate) fn run(context: &mut Context, args: &ImportArgs) -> Done {
    let mut client = super::door(context)?;
    let bar = progress("items");
    let mut totals = Totals::default();
    for path in &args.paths {
        let pieces = open(path, args)?;
        load(&mut client, &args.file, pieces, &mut totals, &bar)?;
    }
    bar.finish_and_clear();
    if totals.skipped > SKIPS_TOLD {
        say(format_args!("left out: {} more", count(totals.skipped - SKIPS_TOLD)));
    }
    if context.json {
        context.out.json(&totals)?;
    } else {
        context.out.line(told(&totals, &args.file))?;
    }
    Ok(Answer::of(totals.skipped == 0))
}

/// A counter on stderr, shown only when that is a terminal.
pub(super) fn progress(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let style =
        ProgressStyle::with_template(&format!("{{spinner}} {{human_pos}} {what}  {{per_sec}}  {{elapsed}}"));
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn told(t: &Totals, file: &str) -> String {
    let elapsed = Duration::from_secs_f64(t.seconds.max(0.0));
    let mut text = format!(
        "imported {}, {}, into {file} in {} ({} items/s)",
        counted(t.items, "item", "items"),
        bytes(t.bytes),
        super::super::out::seconds(t.seconds),
        count(per_second(t.items, elapsed))
    );
    if t.repeated > 0 {
        let repeated = counted(t.repeated, "id", "ids");
        text.push_str(&format!("; {repeated} came more than once: the last item of each stays"));
    }
    if t.skipped > 0 {
        text.push_str(&format!("; {} left out", count(t.skipped)));
    }
    text
}

/// Writes all pieces, many under way at once; ends at the first one that the node refuses.
fn load(
    client: &mut RespClient,
    file: &str,
    pieces: Pieces<'_>,
    totals: &mut Totals,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let start = Instant::now();
    let hasher = RandomState::new();
    let mut ids: HashSet<u64> = HashSet::new();
    let mut pipeline = Pipeline::of_writes(client);
    let mut stored = 0_u64;
    let mut done = |(id, size): (Vec<u8>, u64), reply: Reply| -> Result<(), LoadError> {
        match reply {
            Reply::Simple(_) => {
                stored += 1;
                totals.items += 1;
                totals.bytes += size;
                bar.inc(1);
                Ok(())
            }
            Reply::Error(error) => Err(LoadError::Refused { id, error }),
            other => Err(LoadError::Refused { id, error: format!("unexpected answer {other:?}") }),
        }
    };
    let mut skipped = 0;
    let mut repeated = 0;
    let result = pieces.into_iter().try_for_each(|piece| -> Result<(), LoadError> {
        let (id, value) = match piece.map_err(LoadError::Reading)? {
            Piece::Item { id, value } => (id, value),
            Piece::Skipped { why } => {
                skipped += 1;
                tell_skip(bar, skipped, &why);
                return Ok(());
            }
        };
        if ids.len() < IDS_REMEMBERED && !ids.insert(hasher.hash_one(&id)) {
            repeated += 1;
        }
        let size = value.len() as u64;
        pipeline.send(&[b"SET", &key(file, &id), &value], (id, size), &mut done)
    });
    let result = result.and_then(|()| pipeline.finish(&mut done));
    totals.skipped += skipped;
    totals.repeated += repeated;
    totals.seconds += start.elapsed().as_secs_f64();
    result.map_err(|error| error.failure(file, stored))
}

fn tell_skip(bar: &ProgressBar, nth: u64, why: &str) {
    if nth <= SKIPS_TOLD {
        bar.suspend(|| say(format_args!("left out: {why}")));
    }
}

enum LoadError {
    Reading(Failure),
    Link(RespError),
    Refused { id: Vec<u8>, error: String },
}

impl From<RespError> for LoadError {
    fn from(error: RespError) -> Self {
        Self::Link(error)
    }
}

impl LoadError {
    fn failure(self, file: &str, stored: u64) -> Failure {
        let after = format!("after {}", counted(stored, "item", "items"));
        match self {
            Self::Reading(failure) => failure,
            Self::Link(error) => Failure::resp(format_args!("importing into {file} {after}"), &error),
            Self::Refused { id, error } => {
                refused(&format!("importing item {} into {file} {after}", escape(&id)), &error)
            }
        }
    }
}

/// The pieces of a path.
fn open<'a>(path: &'a Path, args: &'a ImportArgs) -> Result<Pieces<'a>, Failure> {
    let failed = |e: &io::Error| Failure::io(format_args!("reading {}", path.display()), e);
    let stdin = path.as_os_str() == "-";
    let from = match args.from {
        Some(from) => from,
        None if stdin => Source::Lines,
        None => kind_of(path, std::fs::metadata(path).map_err(|e| failed(&e))?.is_dir()),
    };
    let reader = || -> Result<Box<dyn Read>, Failure> {
        if stdin {
            Ok(Box::new(io::stdin()))
        } else {
            Ok(Box::new(File::open(path).map_err(|e| failed(&e))?))
        }
    };
    match from {
        Source::Dir => Ok(Box::new(Tree::open(path)?)),
        Source::Csv => table(reader()?, args.id_column.as_deref(), args.form),
        Source::Jsonl => Ok(Box::new(
            Lines::new(reader()?, JSON_LINE_MAX).enumerate().map(|(n, line)| json_piece(n, line?)),
        )),
        Source::Lines => {
            let tab = args.tab;
            Ok(Box::new(
                Lines::new(reader()?, TEXT_LINE_MAX)
                    .enumerate()
                    .map(move |(n, line)| Ok(line_piece(n, line?, tab))),
            ))
        }
        Source::File => {
            let id = path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
            Ok(Box::new(std::iter::once_with(move || Ok(file_piece(id, path)))))
        }
    }
}

fn kind_of(path: &Path, is_dir: bool) -> Source {
    match path.extension().map(|e| e.to_ascii_lowercase()) {
        _ if is_dir => Source::Dir,
        Some(e) if e == "csv" => Source::Csv,
        Some(e) if e == "jsonl" => Source::Jsonl,
        _ => Source::File,
    }
}

/// Rows as items.
fn table<'a>(reader: Box<dyn Read>, id: Option<&str>, form: Option<As>) -> Result<Pieces<'a>, Failure> {
    let (source, passed) = Rows::new(reader);
    let mut rows = csv::ReaderBuilder::new().from_reader(source);
    let head = rows.byte_headers().map_err(|e| table_failure(&e))?;
    if let Some((line, why)) = passed.borrow().front() {
        let message = format!("reading the head of the table: line {line}: {why}");
        return Err(Failure::error(message, "is it a table? --from says what else it may be"));
    }
    let columns = Columns::new(head, id, form)?;
    Ok(Box::new(Table { rows, columns, passed, row: csv::ByteRecord::new(), waits: VecDeque::new() }))
}

fn table_failure(error: &csv::Error) -> Failure {
    Failure::error(format!("reading the table: {error}"), "repair that line")
}

/// The rows of a table below its head.
struct Table {
    rows: csv::Reader<Rows<Box<dyn Read>>>,
    columns: Columns,
    passed: Passed,
    row: csv::ByteRecord,
    /// What is to be given out before the next row is read.
    waits: VecDeque<Result<Piece, Failure>>,
}

impl Table {
    /// Reads a row; what was passed over before it is told first.
    fn read(&mut self) {
        let read = self.rows.read_byte_record(&mut self.row);
        for (line, why) in self.passed.borrow_mut().drain(..) {
            self.waits.push_back(Ok(Piece::Skipped { why: format!("line {line}: {why}") }));
        }
        let line = self.row.position().map_or(0, csv::Position::line);
        match read {
            Err(error) => self.waits.push_back(Err(table_failure(&error))),
            Ok(false) => {}
            Ok(true) => self.waits.push_back(Ok(match self.columns.item(&self.row) {
                Ok((id, value)) => checked(id, value, || format!("line {line}")),
                Err(why) => Piece::Skipped { why: format!("line {line}: {why}") },
            })),
        }
    }
}

impl Iterator for Table {
    type Item = Result<Piece, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.waits.is_empty() {
            self.read();
        }
        self.waits.pop_front()
    }
}

/// An item, if it is within the limits.
fn checked(id: Vec<u8>, value: Vec<u8>, what: impl FnOnce() -> String) -> Piece {
    match too_large(id.len(), value.len() as u64) {
        None => Piece::Item { id, value },
        Some(why) => Piece::Skipped { why: format!("{}: {why}", what()) },
    }
}

fn json_piece(n: usize, line: Option<Vec<u8>>) -> Result<Piece, Failure> {
    let what = || format!("line {}", n + 1);
    let Some(line) = line else { return Ok(Piece::Skipped { why: format!("{}: too long", what()) }) };
    let parsed = serde_json::from_slice::<JsonItem>(&line).map_err(|e| e.to_string());
    Ok(match parsed.and_then(JsonItem::into_item) {
        Ok((id, value)) => checked(id, value, what),
        Err(why) => Piece::Skipped { why: format!("{}: {why}", what()) },
    })
}

fn line_piece(n: usize, line: Option<Vec<u8>>, tab: bool) -> Piece {
    let what = || format!("line {}", n + 1);
    let Some(line) = line else { return Piece::Skipped { why: format!("{}: too long", what()) } };
    if !tab {
        return checked((n + 1).to_string().into_bytes(), line, what);
    }
    match line.iter().position(|&b| b == b'\t') {
        Some(at) => checked(line[..at].to_vec(), line[at + 1..].to_vec(), what),
        None => Piece::Skipped { why: format!("{}: it has no tab", what()) },
    }
}

/// Lines without their end; nothing for one that is longer than allowed.
struct Lines {
    reader: BufReader<Box<dyn Read>>,
    most: usize,
}

impl Lines {
    fn new(reader: Box<dyn Read>, most: usize) -> Self {
        Self { reader: BufReader::with_capacity(64 << 10, reader), most }
    }
}

impl Iterator for Lines {
    type Item = Result<Option<Vec<u8>>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match next_line(&mut self.reader, self.most) {
            Ok(Line::Whole(line) | Line::Unended(line)) => Some(Ok(Some(line))),
            Ok(Line::TooLong) => Some(Ok(None)),
            Ok(Line::End) => None,
            Err(error) => Some(Err(Failure::io("reading lines", &error))),
        }
    }
}

/// The content of a file as an item of that id.
fn file_piece(id: Vec<u8>, path: &Path) -> Piece {
    let skipped = |why: String| Piece::Skipped { why: format!("{}: {why}", path.display()) };
    if let Some(why) = too_large(id.len(), 0) {
        return skipped(why);
    }
    match open_value(path).and_then(|file| read_at_most(file, ITEM_VALUE_MAX)) {
        Err(error) => skipped(error.to_string()),
        Ok(value) => checked(id, value, || path.display().to_string()),
    }
}

/// The files below a directory, in order of their names.
struct Tree {
    root: PathBuf,
    decode: bool,
    stack: Vec<std::vec::IntoIter<PathBuf>>,
}

impl Tree {
    fn open(root: &Path) -> Result<Self, Failure> {
        let listing =
            listing(root).map_err(|e| Failure::io(format_args!("reading {}", root.display()), &e))?;
        let decode = root.join(paths::MARKER).is_file();
        Ok(Self { root: root.to_owned(), decode, stack: vec![listing] })
    }

    fn piece(&mut self, path: &Path) -> Option<Piece> {
        let skipped = |why: &str| Some(Piece::Skipped { why: format!("{}: {why}", path.display()) });
        let kind = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) => return skipped(&error.to_string()),
        };
        if kind.is_dir() {
            match listing(path) {
                Ok(listing) => self.stack.push(listing),
                Err(error) => return skipped(&error.to_string()),
            }
            return None;
        }
        if !kind.is_file() {
            return skipped("neither a file nor a directory");
        }
        let relative = path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_bytes();
        if !self.decode {
            return Some(file_piece(relative.to_vec(), path));
        }
        if relative == paths::MARKER.as_bytes() {
            return None;
        }
        match paths::decode(relative) {
            Some(id) => Some(file_piece(id, path)),
            None => skipped("not a name that export writes"),
        }
    }
}

impl Iterator for Tree {
    type Item = Result<Piece, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(path) = self.stack.last_mut()?.next() else {
                self.stack.pop();
                continue;
            };
            if let Some(piece) = self.piece(&path) {
                return Some(Ok(piece));
            }
        }
    }
}

fn listing(dir: &Path) -> io::Result<std::vec::IntoIter<PathBuf>> {
    let mut entries =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries.into_iter())
}

/// Reads any bytes as what can be imported, in the form that their first one chooses, and as a name of an export.
///
/// # Panics
/// If an item comes out that no file may hold.
pub fn fuzz_import(bytes: &[u8]) {
    let Some((&form, rest)) = bytes.split_first() else { return };
    let reader: Box<dyn Read> = Box::new(io::Cursor::new(rest.to_vec()));
    let lines = |reader, most| Lines::new(reader, most).enumerate();
    let pieces: Pieces<'_> = match form % 5 {
        0 => Box::new(lines(reader, JSON_LINE_MAX).map(|(n, line)| json_piece(n, line?))),
        1 => Box::new(lines(reader, TEXT_LINE_MAX).map(|(n, line)| Ok(line_piece(n, line?, true)))),
        kind => match table(
            reader,
            None,
            [None, Some(As::Json), Some(As::Csv)].get(usize::from(kind) - 2).copied().flatten(),
        ) {
            Ok(pieces) => pieces,
            Err(_) => return,
        },
    };
    for piece in pieces.take_while(Result::is_ok).flatten() {
        if let Piece::Item { id, value } = piece {
            assert_eq!(too_large(id.len(), value.len() as u64), None, "what comes out is an item");
        }
    }
    if let Some(id) = paths::decode(rest) {
        assert_eq!(paths::decode(paths::encode(&id).as_bytes()), Some(id), "an id has its way back");
    }
}

/// All items of a tree, for tests of the way there and back.
#[cfg(test)]
pub(super) fn tree_items(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pieces = Tree::open(dir).unwrap().map(Result::unwrap);
    pieces
        .filter_map(|piece| match piece {
            Piece::Item { id, value } => Some((id, value)),
            Piece::Skipped { .. } => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(pieces: impl Iterator<Item = Piece>) -> usize {
        pieces.filter(|piece| matches!(piece, Piece::Skipped { .. })).count()
    }

    #[test]
    fn each_file_of_a_tree_is_an_item_and_what_is_none_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        std::fs::create_dir_all(root.join("b/c")).unwrap();
        std::fs::write(root.join("a%20"), "1").unwrap();
        std::fs::write(root.join("b/c/d"), "2").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        std::fs::create_dir_all(root.join("long").join("l".repeat(250))).unwrap();
        std::fs::write(root.join("long").join("l".repeat(250)).join("x"), "3").unwrap();
        let large = File::create(root.join("large")).unwrap();
        large.set_len(ITEM_VALUE_MAX as u64 + 1).unwrap();
        assert_eq!(
            tree_items(root),
            [(b"a%20".to_vec(), b"1".to_vec()), (b"b/c/d".to_vec(), b"2".to_vec())],
            "a tree that export did not write is taken as it is"
        );
        assert_eq!(skips(Tree::open(root).unwrap().map(Result::unwrap)), 3);
    }

    fn pieces_of_lines(text: &'static [u8], tab: bool) -> Vec<Piece> {
        let lines = Lines::new(Box::new(text), TEXT_LINE_MAX);
        lines.enumerate().map(|(n, line)| line_piece(n, line.unwrap(), tab)).collect()
    }

    fn item(id: &[u8], value: &[u8]) -> Piece {
        Piece::Item { id: id.to_vec(), value: value.to_vec() }
    }

    #[test]
    fn lines_are_items_by_number_or_by_what_stands_before_the_tab() {
        assert_eq!(pieces_of_lines(b"x\n\ny", false), [item(b"1", b"x"), item(b"2", b""), item(b"3", b"y")]);
        let tabbed = pieces_of_lines(b"a\tb\tc\nno tab\n\tempty id\n", true);
        assert_eq!(tabbed[0], item(b"a", b"b\tc"));
        assert_eq!(skips(tabbed.into_iter()), 2);
    }

    #[test]
    fn rows_that_cannot_be_items_are_told_by_line() {
        let text: &[u8] = b"id,v\n1,a\n,b\n2,c\n";
        let pieces: Vec<_> = table(Box::new(text), None, None).unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces[0], item(b"1", br#"{"id":"1","v":"a"}"#));
        assert_eq!(pieces[1], Piece::Skipped { why: "line 3: its id would be empty".into() });
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_row_that_no_item_can_hold_is_left_out_and_the_next_ones_are_taken() {
        let text = format!("id,value\n1,a\n2,\"{}\"\n3,c\n", "y".repeat(40 << 20));
        let reader = Box::new(io::Cursor::new(text.into_bytes()));
        let pieces: Vec<_> = table(reader, None, None).unwrap().map(Result::unwrap).collect();
        assert_eq!((&pieces[0], &pieces[2], pieces.len()), (&item(b"1", b"a"), &item(b"3", b"c"), 3));
        let Piece::Skipped { why } = &pieces[1] else { panic!("{:?}", pieces[1]) };
        assert!(why.starts_with("line 3: it has more than"), "{why}");
        let head = Box::new(io::Cursor::new(vec![b'x'; 2 << 20]));
        let failure = table(head, None, None).err().expect("no table begins like this").to_string();
        assert!(failure.starts_with("reading the head of the table: line 1: it has more than"), "{failure}");
    }

    #[test]
    fn any_bytes_as_a_table_are_read_without_a_panic() {
        let mut prng = crate::base::Prng::new(3);
        let good = b"id,name\n1,\"a\"\"b\"\n2,c\r\n3,\"d\ne\"\n";
        for _ in 0..5000 {
            let mut bytes = good.to_vec();
            for _ in 0..1 + prng.below(4) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
            }
            if let Ok(pieces) = table(Box::new(io::Cursor::new(bytes)), None, None) {
                pieces.for_each(drop);
            }
        }
    }

    #[test]
    fn the_name_of_a_path_says_what_it_is() {
        assert_eq!(kind_of(Path::new("x.CSV"), false), Source::Csv);
        assert_eq!(kind_of(Path::new("x.csv"), true), Source::Dir);
        assert_eq!(kind_of(Path::new("x.jsonl"), false), Source::Jsonl);
        assert_eq!(kind_of(Path::new("README.md"), false), Source::File);
    }
}
