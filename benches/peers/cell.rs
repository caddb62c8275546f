//! What is measured: one load, run against each subject in turn.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::request::{Heads, Request};

/// One load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) request: Request,
    pub(crate) heads: Heads,
    pub(crate) connections: usize,
    /// Calls or streams at a time on each connection.
    pub(crate) streams: usize,
    /// Whether clients speak TLS; the backend never does.
    pub(crate) tls: bool,
    /// Where cells differ in the size of something.
    pub(crate) growth: Option<Growth>,
}

/// How the load is paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// Each answer draws the next call.
    Closed,
    /// So many calls a second, whether answers come or not.
    Open {
        /// Calls a second, on all connections together.
        rate: u64,
    },
    /// Streams that stay open; on each a message goes out when the last one came back.
    Echo,
    /// One call a connection, then nothing: what a connection costs in memory.
    Idle,
    /// A connection for each call.
    Connect,
    /// What connections cost in memory at a stage of their life.
    Memory(Stage),
}

/// When memory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Before the first call.
    Fresh,
    /// While each answer draws the next call.
    Busy,
    /// When all calls have ended.
    Emptied,
    /// When the connections are closed too: what is left of them.
    Closed,
}

/// How long a cell is looked at.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Before anything counts.
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
}

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

pub(crate) fn cell(
    name: &str,
    mode: Mode,
    request: Request,
    connections: usize,
    streams: usize,
) -> Cell {
    let (name, heads) = (name.to_owned(), Heads::Varying);
    Cell { name, mode, request, heads, connections, streams, tls: false, growth: None }
}
