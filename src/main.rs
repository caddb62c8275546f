//! The `upbeat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    upbeat::cli::main()
}
