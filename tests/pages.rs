//! Proves that the README and the pages in `docs` hold together and speak of what is there: links lead somewhere, each
//! page says what it is for, the tables of keys and commands are the program's own. What the pages show of a session is
//! typed into a shell beside a real pair, and its output compared.

use crate::docs::{blocks, commands, documents, help, none, pages, quoted, read, runbooks};
use crate::layering::{Source, root};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The README is read at one sitting.
const README_MAX: usize = 170;
/// Prose is read in editors and on terminals; rows of tables and shown output are as long as they are.
const LINE_MAX: usize = 120;
/// What the first session of each page begins with: the block of the README up to this word.
const TAKEOVER: &str = "\nkill -9";
/// How long a node may take to show what a page says: machines are busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The targets of links and pictures in a document, outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let code = blocks(text);
    let prose = text.lines().filter(|line| !code.contains(line));
    let parts = prose.flat_map(|line| line.split("](").skip(1));
    parts.filter_map(|part| part.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The anchor that a heading has.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}

#[test]
fn links_in_documents_lead_to_files_and_headings_that_are_there() {
    let mut wrong = Vec::new();
    let mut looked = 0;
    for document in documents() {
        let dir = root().join(&document);
        let dir = dir.parent().expect("a document is in a directory");
        for target in links(&read(&document)).iter().filter(|target| !target.contains("://")) {
            looked += 1;
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { root().join(&document) } else { dir.join(path) };
            let Ok(text) = std::fs::read_to_string(&path) else {
                wrong.push(format!("{document}: {target} is not there"));
                continue;
            };
            let mut headings = text.lines().filter_map(|line| line.split_once("# "));
            if !heading.is_empty() && !headings.any(|(_, title)| anchor(title) == heading) {
                wrong.push(format!("{document}: {target}: no such heading"));
            }
        }
    }
    none(&wrong);
    assert!(looked > 30, "the search finds {looked} links only");
}

#[test]
fn the_readme_is_short_and_leads_to_every_page_and_each_page_says_what_it_is_for_and_leads_back() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_MAX, "{lines} lines: move what is not needed at first to a page in docs");
    let mut wrong = Vec::new();
    for page in pages() {
        if !links(&readme).contains(&page) {
            wrong.push(format!("the README does not lead to {page}"));
        }
        let text = read(&page);
        let first = text.split("\n## ").next().unwrap_or_default();
        let prose = first.split("\n\n").nth(1).unwrap_or_default();
        if !text.starts_with("# ") || !prose.starts_with("This page ") || !prose.contains("../README.md)") {
            wrong.push(format!(
                "{page} does not begin with a title, \"This page ..\" and a link to the README"
            ));
        }
    }
    none(&wrong);
}

#[test]
fn lines_of_prose_in_the_readme_and_the_pages_fit_the_screen() {
    let mut wrong = Vec::new();
    for document in pages().iter().chain(&runbooks()).map(String::as_str).chain(["README.md"]) {
        let text = read(document);
        let code = blocks(&text);
        let prose = text.lines().filter(|line| !line.starts_with(['|', '!']) && !code.contains(line));
        let long = prose.filter(|line| line.chars().count() > LINE_MAX);
        wrong.extend(long.map(|line| format!("{document}: {line}")));
    }
    none(&wrong);
}

#[test]
fn the_page_of_the_configuration_has_the_keys_as_the_program_knows_them() {
    let reference = hot_backup::node::config_file::reference();
    let page = read("docs/configuration.md");
    assert!(page.contains(&reference), "put this into docs/configuration.md:\n{reference}");
}

#[test]
fn the_page_of_watching_has_the_metrics_that_a_node_serves() {
    let row = |metric: &hot_backup::node::http::Described| {
        format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind, metric.label, metric.help)
    };
    let table: String = hot_backup::node::http::described().iter().map(row).collect();
    assert!(table.lines().count() > 30, "{table}");
    let head = "|---|---|---|---|\n";
    let page = read("docs/observe.md");
    assert!(page.contains(&format!("{head}{table}\n")), "put this into docs/observe.md:\n{table}");
}

#[test]
fn the_page_of_the_redis_protocol_names_every_command_of_the_door() {
    let page = quoted(&read("docs/redis.md")).join(" ");
    let known: Vec<_> = page.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let table = read("src/doors/resp/table.rs");
    let names = table.match_indices("spec(\"").map(|(at, start)| &table[at + start.len()..]);
    let names: Vec<_> = names.filter_map(|rest| rest.split('"').next()).map(str::to_uppercase).collect();
    assert!(names.len() > 50, "the search finds {names:?} only");
    let missing: Vec<_> = names.iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A row for each command that does something, in the order of the help, with the first sentence of its help.
fn rows(words: &[String], out: &mut String) {
    for name in commands(&help(words)).into_iter().filter(|name| name != "help") {
        let words: Vec<_> = words.iter().cloned().chain([name]).collect();
        let text = help(&words);
        if !commands(&text).is_empty() {
            rows(&words, out);
            continue;
        }
        let about = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        writeln!(out, "| `hot-backup {}` | {about} |", words.join(" ")).expect("writing to a string");
    }
}

#[test]
fn the_page_of_commands_lists_every_command_of_the_program_with_its_own_words() {
    let mut table = String::from("| command | does |\n|---|---|\n");
    rows(&[], &mut table);
    assert!(table.lines().count() > 30, "{table}");
    let page = read("docs/commands.md");
    assert!(page.contains(&format!("\n{table}\n")), "put this into docs/commands.md:\n{table}");
}

#[test]
fn help_speaks_to_people_and_names_no_types_of_the_source() {
    fn look(words: &[String], wrong: &mut Vec<String>) {
        let text = help(words);
        for word in text.split(|c: char| !c.is_alphanumeric()) {
            // Units: KiB, MiB.
            let word = word.strip_suffix("iB").unwrap_or(word);
            let mut pairs = word.chars().zip(word.chars().skip(1));
            if pairs.any(|(a, b)| a.is_lowercase() && b.is_uppercase()) {
                wrong.push(format!("hot-backup {} --help says {word}", words.join(" ")));
            }
        }
        for name in commands(&text).into_iter().filter(|name| name != "help") {
            look(&words.iter().cloned().chain([name]).collect::<Vec<_>>(), wrong);
        }
    }
    let mut wrong = Vec::new();
    look(&[], &mut wrong);
    none(&wrong);
}

#[test]
fn the_pictures_are_text_for_light_and_dark_and_show_what_the_demo_says_today() {
    for picture in ["docs/pictures/pair.svg", "docs/pictures/demo.svg"] {
        let text = read(picture);
        assert!(text.contains("<text ") && text.contains("prefers-color-scheme: dark"), "{picture}");
        assert!(!text.contains(root().to_str().unwrap()), "{picture} names a directory of this machine");
    }
    let source: String = Source::all("src/cli/demo").into_iter().map(|source| source.text).collect();
    let picture = read("docs/pictures/demo.svg");
    let lines: Vec<_> = picture.split("preserve\">    ok   ").skip(1).collect();
    assert!(lines.len() > 8, "{lines:?}");
    for line in lines {
        let words = line.split(['(', '<']).next().unwrap().replace("&#x27;", "'");
        let words: Vec<_> = words.split_whitespace().collect();
        assert!(
            words.windows(4).all(|some| source.contains(&some.join(" "))),
            "the demo does not say {words:?}: draw the pictures again with tools/pictures.py"
        );
    }
}

/// A command that a page shows, and what it shows of its output.
#[derive(Debug, PartialEq)]
struct Shown {
    command: String,
    output: String,
}

/// The sessions of a page: blocks of `console`, in which commands begin with `$ `.
fn shown(text: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for block in text.split("\n```console\n").skip(1) {
        for line in block.split("\n```").next().unwrap_or_default().lines() {
            match (line.strip_prefix("$ "), all.last_mut()) {
                (Some(command), _) => all.push(Shown { command: command.to_owned(), output: String::new() }),
                (None, Some(last)) => last.output += &format!("{line}\n"),
                (None, None) => panic!("output before a command: {line}"),
            }
        }
    }
    all
}

/// Whether a page's line fits a line that was printed: `..` stands for anything.
fn fits(told: &str, found: &str) -> bool {
    let mut parts = told.split("..");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether what a page shows is what was printed, line by line; empty lines at the end do not count.
fn agrees(told: &str, found: &str) -> bool {
    let (told, found) = (told.trim_end(), found.trim_end());
    told.lines().count() == found.lines().count() && told.lines().zip(found.lines()).all(|(a, b)| fits(a, b))
}

/// A shell with the program on its path, in an empty directory and a network of its own; all that it started ends with
/// it.
struct Shell {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

impl Shell {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hot-backup"), bin.join("hot-backup")).unwrap();
        let path = format!("{}:{}:/usr/sbin:/sbin", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut process = Command::new("timeout")
            .args(["--kill-after=5", "300", "unshare", "--net", "--pid", "--fork", "--kill-child", "bash"])
            .current_dir(dir.path())
            .env("PATH", path)
            .env_remove("HOT_BACKUP_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut shell = Self { process, input, output: BufReader::new(output), _dir: dir };
        shell.say("ip link set lo up");
        shell
    }

    /// What a command prints, errors included.
    fn say(&mut self, command: &str) -> String {
        const END: &str = "--- that was all";
        // A shell that forgets what it started says nothing of its end in between.
        let forget = "disown -a 2>/dev/null";
        writeln!(self.input, "{{ {command}\n}} 2>&1 </dev/null; {forget}; echo; echo '{END}'").unwrap();
        let mut found = String::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the shell ended at {command}: {found}");
            if line.trim_end() == END {
                return found;
            }
            found += &line;
        }
    }

    /// Types a command until it prints what a page shows; what it printed at last if it does not.
    fn shows(&mut self, shown: &Shown) -> Result<(), String> {
        // What only looks may be asked again: a node may take a moment to get there.
        let looks = ["status", "list ", "incidents", " get ", "-p 7002", "nbdinfo", "show"];
        let may_repeat = looks.iter().any(|word| shown.command.contains(word));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.say(&shown.command);
            if agrees(&shown.output, &found) {
                return Ok(());
            }
            if !may_repeat || Instant::now() > deadline {
                return Err(format!(
                    "$ {}\nthe page shows:\n{}\nit prints:\n{found}",
                    shown.command, shown.output
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn tier_what_the_pages_show_of_a_session_is_what_the_program_prints() {
    crate::support::tier!("root", "redis-cli", "unshare", "ip", "bash", "nbdinfo", "nbdcopy", "qemu-img");
    let readme = read("README.md");
    let block =
        readme.split("## A pair in five minutes").nth(1).and_then(|part| part.split("```sh\n").nth(1));
    let begin = block.and_then(|block| block.split(TAKEOVER).next()).unwrap();
    let mut wrong = Vec::new();
    let mut looked = 0;
    for page in pages().into_iter().chain(runbooks()) {
        let all = shown(&read(&page));
        if all.is_empty() {
            continue;
        }
        let mut shell = Shell::start();
        // What the nodes log goes aside.
        let begin = begin.replace("hot-backup serve --dir B &", "hot-backup serve --dir B 2>B.log &");
        shell.say(&begin.replace("hot-backup serve --dir A &", "hot-backup serve --dir A 2>A.log &"));
        for one in &all {
            looked += 1;
            if let Err(text) = shell.shows(one) {
                wrong.push(format!("{page}: {text}"));
                break;
            }
        }
    }
    none(&wrong);
    assert!(looked > 50, "the search finds {looked} commands only");
}

#[test]
fn what_a_page_shows_is_compared_line_by_line_and_two_dots_stand_for_anything() {
    let page = "text\n```console\n$ a b\nc .. d\n\n$ e\n```\n```sh\n$ not this\n```\n";
    let expected = [("a b", "c .. d\n\n"), ("e", "")];
    let expected = expected.map(|(c, o)| Shown { command: c.to_owned(), output: o.to_owned() });
    assert_eq!(shown(page), expected);
    assert!(agrees("c .. d\n\n", "c 1 d\n") && agrees("c ..\n", "c 1 d\n") && agrees("", "\n"));
    assert!(
        !agrees("c .. d\n", "c 1 e\n") && !agrees("c\n", "c\nd\n") && !agrees("c\n", "") && !fits("c", "cc")
    );
    assert!(agrees("a..b..c\n", "a1b2c\n") && !agrees("a..b..c\n", "a1c\n"));
    assert_eq!(links("[a](b.md#c) and ![d](e.svg)\n```\n[f](g)\n```\n"), ["b.md#c", "e.svg"]);
    assert_eq!(anchor("10. When things fail"), "10-when-things-fail");
    assert_eq!(anchor("What an \"ok\" means"), "what-an-ok-means");
}
