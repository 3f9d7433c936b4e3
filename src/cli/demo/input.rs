//! Real input for the demo: the project's own text files when there is a checkout, else those built into this
//! program; and a table of facts about them.

use super::super::failure::Failure;
use crate::base::{crc32c, read_at_most};
use std::fs;
use std::path::{Path, PathBuf};

/// What is taken of a checkout at most.
const FILES_MAX: usize = 2000;
const FILE_BYTES_MAX: usize = 1 << 20;

/// Text that is always at hand.
const BUILT_IN: [(&str, &str); 3] = [
    ("src/cli/demo/input.rs", include_str!("input.rs")),
    ("src/cli/demo/pair.rs", include_str!("pair.rs")),
    ("src/base/limits.rs", include_str!("../../base/limits.rs")),
];

/// Files to import, and what must be found of them afterwards.
pub(super) struct Input {
    /// A directory of text files.
    pub(super) docs: PathBuf,
    /// A table of facts about them.
    pub(super) table: PathBuf,
    /// Id and content of each file.
    pub(super) items: Vec<(String, Vec<u8>)>,
    /// Where they come from.
    pub(super) origin: String,
}

/// Lays out the input below `root`.
pub(super) fn prepare(root: &Path) -> Result<Input, Failure> {
    let (origin, items) = match checkout() {
        Some(dir) => (dir.display().to_string(), texts_of(&dir)),
        None => ("this program".to_owned(), built_in()),
    };
    let (docs, table) = (root.join("input"), root.join("inventory.csv"));
    write(&docs, &table, &items)
        .map_err(|e| Failure::io(format_args!("laying out the input in {}", root.display()), &e))?;
    Ok(Input { docs, table, items, origin })
}

fn write(docs: &Path, table: &Path, items: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    let mut rows = csv::Writer::from_path(table)?;
    rows.write_record(["path", "bytes", "lines", "crc32c"])?;
    for (path, text) in items {
        let target = docs.join(path);
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&target, text)?;
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        rows.write_record([
            path,
            &text.len().to_string(),
            &lines.to_string(),
            &format!("{:08x}", crc32c(text)),
        ])?;
    }
    rows.flush()
}

fn built_in() -> Vec<(String, Vec<u8>)> {
    BUILT_IN.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

/// The project's directory, if this runs in one: cargo names it, or the current directory is below it.
fn checkout() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = std::env::current_dir().ok();
    let above = here.iter().flat_map(|dir| dir.ancestors()).map(Path::to_owned);
    cargo.into_iter().chain(above).find(|dir| {
        let manifest = read(&dir.join("Cargo.toml")).unwrap_or_default();
        String::from_utf8_lossy(&manifest).contains("name = \"hot-backup\"")
            && dir.join("src/main.rs").is_file()
    })
}

/// The content of a file that is not too large for the demo.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    read_at_most(fs::File::open(path)?, FILE_BYTES_MAX)
}

/// Rust and Markdown files below a directory, in order.
fn texts_of(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut texts = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                    dirs.push(path);
                }
                continue;
            }
            let is_text = path.extension().is_some_and(|e| e == "rs" || e == "md");
            let wanted = is_text && metadata.is_file();
            let relative = path.strip_prefix(root).ok().and_then(Path::to_str).filter(|p| p.len() <= 255);
            if let (true, Some(relative), Ok(text)) = (wanted, relative, read(&path)) {
                texts.push((relative.to_owned(), text));
            }
        }
    }
    texts.sort();
    texts.truncate(FILES_MAX);
    if texts.is_empty() { built_in() } else { texts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_found_and_its_texts_are_laid_out_with_a_table() {
        let temp = tempfile::tempdir().unwrap();
        let input = prepare(temp.path()).unwrap();
        let main = input.items.iter().find(|(path, _)| path == "src/main.rs");
        assert!(main.is_some(), "run by cargo, the project's own files are the input");
        assert!(input.items.iter().all(|(path, _)| !path.starts_with("target/")));
        for (path, text) in &input.items {
            assert_eq!(fs::read(input.docs.join(path)).unwrap(), *text);
        }
        let table = fs::read_to_string(&input.table).unwrap();
        assert_eq!(table.lines().count(), input.items.len() + 1);
    }
}
