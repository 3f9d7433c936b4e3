//! The guided set-up of two machines, played on loopback with real processes.

use crate::support::{here, loopback_addresses, missing, program, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// `setup` in `dir`; it ends with the test.
fn setup(dir: &Path, words: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.arg("setup").args(words).arg("--dir").arg(dir).env_remove("HOT_BACKUP_DIR");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ends(child: Child) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// The code that the first machine shows.
fn code_of(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().strip_prefix("code: ").unwrap_or_else(|| panic!("{line}")).to_owned()
}

fn types(child: &mut Child, text: &str) {
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
}

fn serves(dir: &Path) -> Child {
    let mut command = Command::new(program());
    command.arg("serve").arg("--dir").arg(dir).args(["--die-with-parent", &std::process::id().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn two_machines_are_set_up_by_one_code_and_the_pair_is_checked() {
    let root = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| root.path().join(name));
    let [at_a, at_b] = loopback_addresses().map(|address: std::net::SocketAddr| address.to_string());
    let of_a = ["--role", "primary", "--name", "a", "--listen", &at_a, "--peer", &at_b];
    let of_b = ["--role", "standby", "--name", "b", "--listen", &at_b, "--peer", &at_a];
    let mut first = setup(&a, &[&of_a[..], &["--offer", "--patience", "60"]].concat());
    let code = code_of(&mut first);
    // A wrong code first: nothing is trusted, and the right one still counts.
    let wrong = if code == "0000-0000" { "0000-0001" } else { "0000-0000" };
    let mut second = setup(&b, &[&of_b[..], &["--join", "--patience", "60"]].concat());
    types(&mut second, wrong);
    let (exit, told) = ends(second);
    assert_eq!(exit, Some(1), "{told}");
    assert!(told.contains("the code that was typed is not the one"), "{told}");
    assert!(!b.join("peers").exists());
    // What is there already is gone on with.
    let mut second = setup(&b, &["--join", "--patience", "60"]);
    types(&mut second, &format!("{code}\n"));
    let (exit, told) = ends(second);
    assert_eq!(exit, Some(0), "{told}");
    for words in ["is a node already", "a is trusted as the peer", "each machine reaches the other"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (exit, told) = ends(first);
    assert_eq!(exit, Some(0), "{told}");
    for words in
        ["has a wrong code", "b is trusted as the peer", "each machine reaches the other", "made node a in "]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains(&code), "it is shown once, on stdout");
    let (exit, told) = ends(setup(&a, &["--check", "--patience", "0"]));
    assert_eq!(exit, Some(1), "{told}");
    let mut nodes = [serves(&b), serves(&a)];
    for dir in [&a, &b] {
        let (exit, told) = ends(setup(dir, &["--check", "--patience", "60"]));
        assert_eq!(exit, Some(0), "{told}");
        assert!(told.starts_with("the pair works: "), "{told}");
    }
    for node in &mut nodes {
        node.kill().unwrap();
        node.wait().unwrap();
    }
}

#[test]
fn without_a_terminal_what_is_missing_is_named_and_nothing_is_made() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a");
    let (exit, told) = ends(setup(&dir, &["--role", "primary", "--name", "a", "--offer"]));
    assert_eq!(exit, Some(2), "{told}");
    assert!(
        told.contains("setting up a node: --peer: it has to be given where nobody can be asked"),
        "{told}"
    );
    assert!(!dir.exists());
}

#[test]
fn in_a_terminal_it_asks_for_what_no_flag_says() {
    if missing(here!(), &["script"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a");
    let [own, peer] = loopback_addresses().map(|address: std::net::SocketAddr| address.to_string());
    let line = format!("{} setup --dir {}", program(), dir.display());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let mut input = terminal.stdin.take().unwrap();
    let mut output = terminal.stdout.take().unwrap();
    let mut shown = String::new();
    let answers = [
        ("primary or the standby", "perhaps"),
        ("say primary or standby", ""),
        ("primary or the standby", "primary"),
        ("2. What is this node called", "first"),
        ("3. Which is the other machine", &peer),
        ("4. At which address", &own),
        ("7. Does the other machine show a code", "later"),
        ("next: start the node", ""),
    ];
    let mut from = 0;
    for (question, answer) in answers {
        wait_until(question, || {
            let mut bytes = [0; 1];
            while !shown[from..].contains(question) {
                if output.read(&mut bytes).unwrap_or(0) == 0 {
                    panic!("it ended before {question}: {shown}");
                }
                shown.push(char::from(bytes[0]));
            }
            Some(())
        });
        from += shown[from..].find(question).unwrap() + question.len();
        if !answer.is_empty() {
            writeln!(input, "{answer}").unwrap();
        }
    }
    let mut rest = String::new();
    let _ = output.read_to_string(&mut rest);
    assert!(terminal.wait().unwrap().success(), "{shown}{rest}");
    assert!(std::fs::read_to_string(dir.join("config.toml")).unwrap().contains("name = \"first\""));
}
