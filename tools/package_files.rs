//! Makes what a package holds beside the program: `cargo run --example package-files -- DIR`.
//!
//! `DIR/man` gets a manual page for each command, `DIR` itself completions for bash, zsh and fish. All of it comes from the
//! definition of the command line, so it says what the program says.

use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

fn make(dir: &Path) -> io::Result<()> {
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(hot_backup::cli::definition(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut hot_backup::cli::definition(), "hot-backup", dir)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: package-files DIR");
        return ExitCode::from(2);
    };
    match make(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("package-files: writing to {dir}: {error}");
            ExitCode::from(2)
        }
    }
}
