//! Whether what must run does run.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic, thread,
};

use tracing::error;

use crate::log;

/// Has a panic of any thread or task end the process, its message being the last line of the log: a
/// task that is gone would be missed by nobody, and what it kept true would stay as it was.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            error!(thread = name, %trace, "panicked");
        }
        let payload = panic.payload();
        let literal = payload.downcast_ref::<&str>().copied();
        let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("no message").replace('\n', " ");
        let place = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
        log::exit(SOFTWARE, &format!("upbeat: thread {name} panicked{place}: {message}"));
    }));
}

/// EX_SOFTWARE of sysexits.h: a fault of our own.
const SOFTWARE: u8 = 70;
