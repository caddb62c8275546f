//! How much is measured, and which cells that are: all but those of growth.

use std::time::Duration;

use crate::{
    cell::{Cell, Mode, Span, cell},
    request::{Heads, Request},
};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// For the next step of work: three minutes at most.
    Fast,
    /// For the README: 25 minutes at most.
    Full,
}

impl Extent {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Full => "full",
        }
    }

    /// How often each subject is measured, with the others in between.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Fast => 2,
            Self::Full => 4,
        }
    }

    /// How long all of it may take. A slow machine gets fewer rounds.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::Fast => Duration::from_secs(165),
            Self::Full => Duration::from_secs(24 * 60),
        }
    }

    pub(crate) fn span(self) -> Span {
        let [warm, window] = match self {
            Self::Fast => [150, 450],
            Self::Full => [300, 1500],
        };
        Span { warm: Duration::from_millis(warm), window: Duration::from_millis(window) }
    }

    /// How long a cell is looked at. What grows has to be there first: connections to a thousand
    /// endpoints, and on each of many connections the first calls, which fill its tables.
    pub(crate) fn span_of(self, cell: &Cell) -> Span {
        let span = self.span();
        let many = |count: usize| count > 200;
        match cell.growth {
            None => span,
            Some(growth) if many(growth.to) => Span { warm: 5 * SETTLED, window: 3 * span.window },
            Some(_) => Span { warm: SETTLED, window: 3 * span.window },
        }
    }

    /// Every cell but those of growth, small ones first.
    pub(crate) fn cells(self) -> Vec<Cell> {
        use Heads::{Constant, Varying};
        let mut cells = vec![
            closed("1 KiB, same heads", 1 << 10, false, Constant, 4, 32),
            closed("1 KiB", 1 << 10, false, Varying, 4, 32),
            closed("1 KiB, 200 connections", 1 << 10, false, Varying, 200, 1),
            closed("16 KiB", 16 << 10, false, Varying, 4, 16),
            closed("256 KiB", 256 << 10, false, Varying, 4, 4),
            closed("1 MiB", 1 << 20, false, Varying, 4, 2),
        ];
        if self == Self::Full {
            cells.extend([
                closed("16 KiB, same heads", 16 << 10, false, Constant, 4, 16),
                closed("16 KiB gzip", 16 << 10, true, Varying, 4, 16),
                closed("256 KiB gzip", 256 << 10, true, Varying, 4, 4),
            ]);
        }
        let export = Request::Export { bytes: 1 << 10, gzip: false };
        cells.extend([
            cell("1 KiB at 8000/s", Mode::Open { rate: 8000 }, export, 4, 128),
            cell("streams of 64 B", Mode::Echo, Request::Echo { bytes: 64 }, 4, 8),
            cell("connects", Mode::Connect, export, 16, 1),
            cell("idle connections", Mode::Idle, export, 1000, 1),
            cell("health checks by gRPC", Mode::Closed, Request::Check, 4, 32),
            cell("health checks by GET", Mode::Closed, Request::Get, 4, 32),
            under_tls(closed("1 KiB", 1 << 10, false, Varying, 4, 32)),
            under_tls(closed("16 KiB", 16 << 10, false, Varying, 4, 16)),
            under_tls(cell("connects", Mode::Connect, export, 16, 1)),
            under_tls(cell("idle connections", Mode::Idle, export, 1000, 1)),
        ]);
        if self == Self::Full {
            cells.extend([
                under_tls(closed("256 KiB", 256 << 10, false, Varying, 4, 4)),
                under_tls(closed("1 KiB, 200 connections", 1 << 10, false, Varying, 200, 1)),
                under_tls(cell("1 KiB at 8000/s", Mode::Open { rate: 8000 }, export, 4, 128)),
            ]);
        }
        cells
    }
}

/// After which little changes any more.
const SETTLED: Duration = Duration::from_millis(700);

fn closed(
    name: &str,
    bytes: usize,
    gzip: bool,
    heads: Heads,
    connections: usize,
    streams: usize,
) -> Cell {
    let request = Request::Export { bytes, gzip };
    Cell { heads, ..cell(name, Mode::Closed, request, connections, streams) }
}

/// The same with TLS between clients and proxy. Each connection has a handshake of its own: none is
/// resumed.
fn under_tls(cell: Cell) -> Cell {
    Cell { name: format!("TLS: {}", cell.name), tls: true, ..cell }
}
