//! The menu in a real terminal, by `tmux`.

use crate::support::{Pair, Plan, program, shell, tier, wait_until};
use std::path::Path;

/// A terminal of that size, in which the menu of a node runs. It ends with the test.
struct Terminal {
    name: String,
}

impl Terminal {
    fn start(dir: &Path, width: u16, height: u16) -> Self {
        let name = format!("hb-menu-{}-{width}", std::process::id());
        let terminal = Self { name };
        let (width, height) = (width.to_string(), height.to_string());
        let line = format!("'{}' menu --dir '{}'; echo left; sleep 300", program(), dir.display());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, &line]);
        terminal
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> String {
        shell(&[&["tmux", "-L", &self.name][..], words].concat())
    }

    fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"][..], keys].concat());
    }

    /// Waits until all these words are seen; what is seen then.
    #[track_caller]
    fn shows(&self, words: &[&str]) -> String {
        let mut last = String::new();
        wait_until(&format!("{words:?} on the screen"), || {
            last = self.tmux(&["capture-pane", "-p"]);
            words.iter().all(|word| last.contains(word)).then(|| last.clone())
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = std::process::Command::new("tmux").args(["-L", &self.name, "kill-server"]).output();
    }
}

#[test]
fn tier_the_menu_leads_an_operator_to_a_takeover_in_terminals_of_two_sizes() {
    tier!("tmux");
    let mut pair = Pair::start(&Plan::quick());
    pair.converges();
    let small = Terminal::start(&pair.a.dir, 80, 24);
    let main =
        small.shows(&["a  primary  serving", "1. Status", "9. Special operations", "messages", "Q quit"]);
    assert!(main.lines().all(|line| line.chars().count() <= 80), "{main}");
    // An arrow, the keys of D3, the help of each line.
    small.shows(&["Role, positions, lag"]);
    small.types(&["Down"]);
    small.shows(&["What an item holds"]);
    small.types(&["C-b", "Enter"]);
    small.shows(&["role", "done"]);
    small.types(&["Escape"]);
    small.types(&["5"]);
    small.types(&["2"]);
    small.shows(&["app,orders", "done"]);
    small.types(&["Enter"]);
    small.types(&["x"]);
    small.shows(&["9. Special operations"]);
    small.types(&["q"]);
    small.shows(&["left"]);
    // The primary is gone: the standby takes over, once the epoch was typed.
    pair.a.kill();
    let large = Terminal::start(&pair.b.dir, 132, 50);
    large.shows(&["b  standby", "peer not connected"]);
    large.types(&["9"]);
    large.types(&["2"]);
    let asked = large.shows(&["type ", "the epoch"]);
    let epoch = asked.split("type ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(epoch.parse::<u64>().is_ok(), "{asked}");
    large.types(&["7", "Enter"]);
    large.shows(&["nothing was done"]);
    assert_eq!(pair.b.state(), "standby");
    large.types(&["2"]);
    large.shows(&["type ", "the epoch"]);
    large.types(&[&epoch, "Enter"]);
    large.shows(&["b  primary  serving", "done"]);
    pair.b.serves();
}
