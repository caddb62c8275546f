//! Cells that show what grows: the same load with little and with much of something, and what a
//! connection holds at each stage of its life.

use crate::{
    cell::{Cell, Growth, Mode, Stage, What, cell},
    request::Request,
};

/// Every one.
pub(crate) fn cells() -> Vec<Cell> {
    use What::{Connections, Endpoints, HalfDown, Routes, Workers};
    let export = Request::Export { bytes: 1 << 10, gzip: false };
    // At the lower rate most calls come alone, and what one costs is mostly to be woken for it; at
    // the higher one the work itself shows, and what is lost where fewer calls share a system call.
    let (slow, fast) = (Mode::Open { rate: 8000 }, Mode::Open { rate: 20_000 });
    let closed = Mode::Closed;
    let mut cells = Vec::new();
    let mut grow = |name: &str, of, sizes: [usize; 2], mode, request, streams| {
        for to in sizes {
            let connections = if of == Connections { to } else { 4 };
            let name = format!("growth: {name}={to}");
            let growth = Some(Growth { of, to });
            cells.push(Cell { growth, ..cell(&name, mode, request, connections, streams) });
        }
    };
    grow("endpoints at 8000/s", Endpoints, [1, 1000], slow, export, 128);
    grow("endpoints, half of them down", HalfDown, [1, 500], slow, export, 128);
    // Here one connection's writes carry many calls, and each of a thousand's one.
    grow("endpoints in a closed loop", Endpoints, [1, 1000], closed, export, 32);
    grow("routes", Routes, [1, 1000], closed, export, 32);
    grow("routes by GET", Routes, [1, 1000], closed, Request::Get, 32);
    grow("connections at 8000/s", Connections, [10, 10_000], slow, export, 128);
    grow("connections at 20000/s", Connections, [10, 10_000], fast, export, 128);
    grow("workers", Workers, [1, 2], closed, export, 32);
    let large = Request::Export { bytes: 16 << 10, gzip: false };
    let held = |name, stage, request, connections| {
        cell(&format!("memory: {name}"), Mode::Memory(stage), request, connections, 1)
    };
    cells.extend([
        held("fresh", Stage::Fresh, large, 1000),
        held("busy", Stage::Busy, large, 1000),
        held("emptied", Stage::Emptied, large, 1000),
        // Of larger calls so many would be more than the load can take back in time.
        held("closed", Stage::Closed, export, 10_000),
    ]);
    cells
}
