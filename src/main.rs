//! The `upbeat` command.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives memory back to the system a tenth of a second after it was freed (`.cargo/config.toml`), also
/// where the process then idles. The system's allocator keeps 17 MiB a minute after ten connections
/// have filled their buffers (row 6 of `tests/attack`), and mimalloc more; the three cost the same
/// instructions a call. TLS's C code has the same one: the system's keeps 2.4 MiB of 2000 connections
/// under TLS (row 18).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    upbeat::cli::main()
}
