//! Instructions a request, by callgrind: two runs of different length, so that starting and
//! stopping cancel out.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;

use crate::{
    bench::{self, Bench},
    cell::Span,
    extent::Extent,
    load::Count,
    options::Options,
    subject::Installed,
};

/// Calls of the shorter and the longer run.
const CALLS: [u64; 2] = [2_000, 10_000];

/// Prints a line for each kind of head.
pub(crate) fn count(options: &Options) -> anyhow::Result<()> {
    let bench = Bench::start(options)?;
    let upbeat = bench::upbeat(&options.upbeat()?)?;
    for name in ["1 KiB, same heads", "1 KiB"] {
        let [short, long] = CALLS.map(|calls| run(&bench, &upbeat, name, calls));
        let each = (long? - short?) / (CALLS[1] - CALLS[0]);
        println!("{each} instructions a request: {name}, 4 connections × 32");
    }
    Ok(())
}

fn run(bench: &Bench, upbeat: &Installed, name: &str, calls: u64) -> anyhow::Result<u64> {
    let cells = Extent::Fast.cells();
    let cell = cells.iter().find(|cell| cell.name == name).context("no such cell")?;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("callgrind-{}-{calls}", std::process::id()));
    let options = format!("--callgrind-out-file={}", file.display());
    let before = ["valgrind", "--tool=callgrind", "--quiet", &options].map(str::to_owned);
    let mut running = bench.ready(upbeat, cell, &before)?;
    let count = Count { calls, within: Duration::from_secs(120) };
    let span = Span { warm: Duration::ZERO, window: Duration::ZERO };
    let outcome = bench.load(&running, cell, span, Some(count))?;
    anyhow::ensure!(outcome.requests == calls, "{outcome:?}");
    running.process.stop();
    let text = fs::read_to_string(&file).context("valgrind left no counts")?;
    fs::remove_file(&file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")).context("no totals")?;
    Ok(total.trim().parse()?)
}
