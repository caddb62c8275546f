//! Cells that show what grows: the same load with little and with much of something, and what a
//! connection holds at each stage of its life.

use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, Mode, Request, Stage, cell},
    subject::Subject,
};

/// What a cell has more or less of than others of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) of: What,
    pub(crate) to: usize,
}

/// Something that a configuration or a load may have much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// Endpoints of the one upstream, each an address of its own and so a connection of its own.
    Endpoints,
    /// The same, and as many again that nothing listens at.
    HalfDown,
    /// A listener with its upstream and its health service: there is no other routing to grow.
    Routes,
    /// Client connections, at the same rate on all together.
    Connections,
    /// Worker threads, on one core.
    Workers,
}

impl What {
    /// How many times the first value's CPU time the last one's may be.
    pub(crate) fn target(self) -> f64 {
        match self {
            Self::Endpoints | Self::HalfDown | Self::Routes | Self::Workers => 1.1,
            Self::Connections => 1.5,
        }
    }
}

impl Cell {
    /// How many there are of something; elsewhere one.
    pub(crate) fn count(&self, what: What) -> usize {
        self.growth.filter(|growth| growth.of == what).map_or(1, |growth| growth.to)
    }

    /// The name of its series: cells of one are run in turns, so that they compare.
    pub(crate) fn series(&self) -> Option<&str> {
        self.growth.and_then(|_| self.name.rsplit_once('=')).map(|(series, _)| series)
    }
}

/// Whether a subject's template has marks for what a cell grows, and descriptors for it.
pub(crate) fn takes(subject: Subject, cell: &Cell) -> bool {
    /// A bound on what a process may open; the copying proxy needs two for each connection.
    const PAIRS: usize = 8000;
    match cell.growth.map(|growth| growth.of) {
        None => subject != Subject::L4 || cell.connections < PAIRS,
        Some(What::Endpoints | What::Connections) => subject != Subject::L4,
        // Others would send calls to what is down, or have no such thing.
        Some(What::HalfDown | What::Routes | What::Workers) => subject == Subject::Upbeat,
    }
}

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
