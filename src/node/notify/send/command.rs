//! A program that is told of a message on its stdin. No shell is between, and it is ended with all that it started.

use super::Message;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked at (milliseconds).
const LOOK_MS: u64 = 20;

/// Runs `argv` with the message as JSON on its stdin.
pub(super) fn run(argv: &[String], seconds: u64, message: &Message) -> Result<String, String> {
    let (program, arguments) = argv.split_first().ok_or("no program is named")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that all of it can be ended.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("starting {program}: {error}"))?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let told = tell(&mut child, message);
    let ended = wait(&mut child, until);
    // Whatever it left behind is ended too.
    end(&child);
    match ended {
        Ok(Some(status)) if status.success() => Ok(outcome(status)),
        Ok(Some(status)) => Err(format!("{program}: {}", outcome(status))),
        Ok(None) => {
            let _ = child.wait();
            Err(format!("{program} did not end within {seconds} s, and was ended"))
        }
        Err(error) => Err(format!("waiting for {program}: {error}")),
    }
    .and_then(|text| {
        told.map(|()| text).or_else(|error| match error.kind() {
            // It need not read it.
            std::io::ErrorKind::BrokenPipe => Ok("exit code 0".to_owned()),
            _ => Err(format!("telling {program}: {error}")),
        })
    })
}

/// A message is shorter than what a pipe takes at once, so this waits for nobody.
fn tell(child: &mut Child, message: &Message) -> std::io::Result<()> {
    let Some(mut stdin) = child.stdin.take() else { return Ok(()) };
    writeln!(stdin, "{}", message.json())
}

fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(LOOK_MS));
    }
}

fn end(child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // Nobody may be left.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

fn outcome(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
