//! Upbeat and every other proxy that is installed, in turn, on the same core at the same work.
//!
//! `cargo bench --bench peers -- [--fast|--full] [--peers a,b] [--json FILE] [--svg FILE]`
//!
//! The proxy under test has a core of its own; the load and the backend, which are written for low
//! cost, share another. A proxy is started anew for each run, and subjects take turns within each
//! cell, so that what else the machine does falls on all alike. Figures of one run compare;
//! figures of two machines, or of two days, do not.
//!
//! ```text
//! main  options                   which cells, which subjects
//! bench  instructions             starts subject and load for each run, on their cores
//! extent  growth                  which loads: the usual ones, those that differ in a size
//! subject  fill  process  usage   one proxy; its configuration; its process and what that used
//! child  part                     parts in processes of their own, and what these have
//! load  backend  splice           each of them
//! cell  request                   one load, and what its calls ask for
//! head  body                      requests as the exporters of OpenTelemetry send them
//! pipe  streams  hpack  frame     HTTP/2, as little of it as that takes
//! tls                             around it, where a cell says so
//! report  outcome                 the table, the picture, the file
//! ```

mod backend;
mod bench;
mod body;
mod cell;
mod child;
mod clock;
mod extent;
mod fill;
mod frame;
mod growth;
mod head;
mod hpack;
mod instructions;
mod load;
mod options;
mod outcome;
mod part;
mod pipe;
mod process;
mod report;
mod request;
mod splice;
mod streams;
mod subject;
mod tls;
mod usage;

use std::fs;

use clap::Parser;

use crate::{
    bench::Bench,
    options::{Options, Part},
};

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match &options.part {
        Some(Part::Child(child)) => return child.run(),
        Some(Part::Instructions) => return instructions::count(&options),
        None => {}
    }
    let report = Bench::start(&options)?.run(&options)?;
    print!("{}", report.table());
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(file) = &options.svg {
        fs::write(file, report.picture())?;
    }
    Ok(())
}
