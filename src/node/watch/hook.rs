//! The hook that must succeed before a takeover: a program without a shell, ended at its time.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked at (milliseconds).
const LOOK_MS: u64 = 10;

/// A program that makes sure that the other node does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// It and its arguments.
    pub argv: Vec<String>,
    /// It is ended after this.
    pub limit: Duration,
}

impl Hook {
    /// The program's name.
    #[must_use]
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// Runs it; in its environment `HOT_BACKUP_NODE` and `HOT_BACKUP_PEER` name this node and the one to be fenced.
    ///
    /// # Errors
    /// Why it did not succeed, in words.
    pub fn run(&self, node: &str, peer: &str) -> Result<(), String> {
        let program = self.program();
        let (_, arguments) = self.argv.split_first().ok_or("no program is named")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOT_BACKUP_NODE", node)
            .env("HOT_BACKUP_PEER", peer)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("starting {program}: {error}"))?;
        let until = Instant::now() + self.limit;
        let ended = loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(LOOK_MS)),
                ended => break ended,
            }
        };
        if let Ok(group) = i32::try_from(child.id()) {
            // Whatever it left behind is ended too; nobody may be left.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        match ended {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(format!("{program}: {status}")),
            Ok(None) => {
                let _ = child.wait();
                Err(format!("{program} did not end within {} s, and was ended", self.limit.as_secs_f64()))
            }
            Err(error) => Err(format!("waiting for {program}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(argv: &[&str], ms: u64) -> Hook {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Hook { argv, limit: Duration::from_millis(ms) }
    }

    #[test]
    fn a_hook_succeeds_only_with_exit_code_0_within_its_time() {
        assert_eq!(hook(&["/bin/sh", "-c", "test $HOT_BACKUP_PEER = a"], 20_000).run("b", "a"), Ok(()));
        let failed = hook(&["/bin/false"], 20_000).run("b", "a").unwrap_err();
        assert_eq!(failed, "/bin/false: exit status: 1");
        let late = hook(&["/bin/sleep", "600"], 50).run("b", "a").unwrap_err();
        assert!(late.contains("did not end within 0.05 s"), "{late}");
        assert!(hook(&["/no/such/program"], 50).run("b", "a").is_err());
        assert!(hook(&[], 50).run("b", "a").is_err());
    }
}
