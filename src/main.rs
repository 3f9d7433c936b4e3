//! The `hot-backup` command; everything it does is in the library's `cli` room.

use std::process::ExitCode;

fn main() -> ExitCode {
    hot_backup::cli::run(std::env::args_os())
}
