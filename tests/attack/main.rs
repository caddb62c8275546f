//! Attacks on a proxy, each beside a victim: a well-behaved client with 200 unary calls of 1 KiB a
//! second on a connection of its own, which must see no error and a 99th percentile within
//! max(2 × calm, calm + 5 ms). What is calm was measured before, and is meanwhile, at a twin of the
//! proxy that nobody attacks. Prints each row's figures beside their bounds; ends with 1 where one
//! is over.
//!
//! `cargo test` runs what takes seconds, on a debug build, whose victim calls less and may be late:
//! what is held then are the bounds in frames, bytes and streams. `cargo test --release --test
//! attack -- --slow` holds all of it. Others are attacked by `--target`; see `tests/peers/attacks`.
//!
//! ```text
//! main  options  report             which rows, and what came of them
//! flow  slow  volleys  queue  endpoints    the attacks, by subject
//! scene  subject  victim            one row's run; the proxy; the victim
//! crowd  raw                        the attacker's connections
//! fixture                           what tests/it and benches/peers share with it
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod connections;
mod crowd;
mod endpoints;
mod fixture;
mod floods;
mod flow;
mod heads;
mod hostile;
mod options;
mod process;
mod queue;
mod raw;
mod report;
mod scene;
mod slow;
mod subject;
mod victim;
mod volleys;

use std::{fs, pin::Pin, process::ExitCode, sync::Mutex, thread, time::Duration};

use anyhow::anyhow;
use clap::Parser;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, timeout},
};

use crate::{options::Options, report::Outcome, scene::Scene};

/// An attack: starts the proxy by [`Scene::begin`], and notes figures.
type Attack =
    for<'a> fn(&'a mut Scene<'_>) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// A row of the table.
struct Row {
    id: &'static str,
    words: &'static str,
    when: When,
    /// Whether other proxies can be attacked so: it needs no keys and no endpoint of its own.
    peers: bool,
    attack: Attack,
}

/// When a row is run.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Always.
    Quick,
    /// With `--slow`, or by its name.
    Slow,
    /// By its name alone: it is over today.
    Known,
}

/// A row; with `peers` one for other proxies too.
macro_rules! row {
    ($id:literal, $when:ident, peers, $attack:path, $words:literal) => {
        Row {
            id: $id,
            words: $words,
            when: When::$when,
            peers: true,
            attack: |it| Box::pin($attack(it)),
        }
    };
    ($id:literal, $when:ident, $attack:path, $words:literal) => {
        Row {
            id: $id,
            words: $words,
            when: When::$when,
            peers: false,
            attack: |it| Box::pin($attack(it)),
        }
    };
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row!("1", Quick, peers, volleys::rapid_reset, "200 000 pairs of HEADERS and RST_STREAM"),
    row!("2", Quick, peers, volleys::patient_reset, "40 calls a second, each reset"),
    row!("3", Quick, peers, volleys::made_you_reset, "what makes the proxy reset streams"),
    row!("4", Quick, peers, heads::continuations, "a header block that does not end"),
    row!("5", Quick, peers, heads::dripped, "a header block, a byte at a time"),
    row!("6", Quick, peers, heads::hpack_bomb, "HPACK bomb with a pinned window"),
    row!("7", Quick, peers, heads::too_large, "a MiB of header fields, 25 000 header fields"),
    row!("8", Quick, peers, floods::pings, "100 000 PING"),
    row!("9", Quick, peers, floods::settings, "100 000 SETTINGS beside 100 streams"),
    row!("10", Quick, peers, floods::unheeded, "a million PRIORITY, a million unknown frames"),
    row!("11", Quick, peers, floods::window_updates, "a million WINDOW_UPDATE of 1"),
    row!("12", Quick, peers, floods::empty, "empty DATA, empty HEADERS"),
    row!("13", Quick, flow::small_writes, "DATA of one byte on 64 streams for a slow endpoint"),
    row!("14", Quick, peers, flow::closed_window, "100 answers without a window"),
    row!("15", Quick, peers, flow::slow_reader, "answers read at a byte a second"),
    row!("16", Quick, slow::slow_bodies, "bodies of a byte a second on 100 streams"),
    row!("17", Quick, connections::silent, "1000 silent sockets"),
    row!("18", Quick, connections::idle, "idle connections"),
    row!("19", Quick, connections::over_the_cap, "connections over the cap"),
    row!("20", Quick, connections::out_of_descriptors, "400 connections, 256 descriptors"),
    row!("21", Quick, connections::handshakes, "500 TLS handshakes a second"),
    row!("22", Quick, peers, calls::too_many_streams, "2000 streams"),
    row!("23", Quick, peers, calls::huge_prefix, "a prefix that says 1 GiB"),
    row!("24", Quick, peers, calls::zeros, "zeros, gzipped"),
    row!("25", Quick, peers, heads::smuggled, "requests that are something else behind it"),
    row!("26", Quick, peers, heads::paths, "paths that are no method's"),
    row!("27", Quick, calls::trailers, "odd trailers"),
    row!("28", Quick, hostile::endpoints, "hostile endpoints"),
    row!("29", Quick, peers, calls::cancels, "5000 cancels a second"),
    row!("30", Quick, peers, flow::small_answers, "1000 answers of five bytes at once"),
    row!("31", Quick, peers, floods::small_frames, "DATA frames of one byte"),
    row!("32", Quick, calls::checks, "50 000 Checks a second"),
    row!("33", Quick, process::terminated, "SIGTERM under load"),
    row!("34", Quick, process::soak, "endpoints that come and go"),
    row!("A1", Quick, peers, flow::unread_answers, "768 answers of 300 KiB that nobody reads"),
    row!("A2", Quick, flow::unread_whole_answers, "128 answers of 100 kB without a window, all timeouts 2 s"),
    row!("A3", Quick, slow::unfinished_requests, "512 requests of a head and a byte, endpoint of 100 streams"),
    row!("A4", Quick, flow::waiting_bodies, "84 MiB of bodies that wait for room"),
    row!("A5", Quick, endpoints::stuck_endpoint, "100 uploads of 400 kB, one endpoint of two takes nothing"),
    row!("A6", Quick, peers, volleys::open_and_leave, "connections that open 128 calls and close"),
    row!("A7a", Quick, endpoints::blamed_by_deadlines, "48 unfinished calls with a deadline"),
    row!("A7b", Quick, endpoints::blamed_by_resets, "calls that the endpoint resets"),
    row!("A8", Quick, heads::small_list, "heads that an endpoint does not take"),
    row!("A9", Quick, queue::ten_thousand_waiting, "10 240 calls that wait"),
    row!("A10a", Quick, calls::window_by_bytes, "20 000 WINDOW_UPDATE of a byte over 120 streams"),
    row!("A10b", Quick, calls::indexed_checks, "indexed Checks"),
    row!("A10c", Slow, connections::idle_tick, "8000 idle connections"),
    row!("A10d", Quick, heads::heads_that_err, "14 KB heads of 1100 new names"),
    row!("A10e", Quick, calls::forged_tokens, "forged tokens"),
    row!("A11", Quick, heads::fresh_names, "heads with a new name of 4 KB each"),
    row!("A12", Quick, calls::watches, "12 800 Watch streams"),
    row!("A13", Quick, connections::full_of_greeters, "all connections taken by greeters"),
    row!("A14", Quick, connections::too_old, "what would keep an old connection"),
    row!("A15", Quick, heads::heads_in_crumbs, "an endpoint that writes heads in crumbs"),
    row!("A16", Quick, calls::answered_early, "600 calls answered early"),
    row!("A17", Quick, calls::deadlines, "100 deadlines a second"),
    row!("A18", Quick, calls::empty_before_message, "empty DATA before each message"),
    row!("B1", Quick, endpoints::swallowed, "a connection to the endpoint that swallows all"),
];

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if options.list {
        ROWS.iter().for_each(|row| println!("{:>4}  {}", row.id, row.words));
        ELSEWHERE.iter().for_each(|(id, words, by)| println!("{id:>4}  {words}: {by}"));
        return Ok(ExitCode::SUCCESS);
    }
    let behind = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    behind.block_on(async {});
    let rows = Mutex::new(ROWS.iter().filter(|row| options.runs(row)));
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        // Rows mostly wait; where times count nothing else runs beside one.
        for _ in 0..if options.is_strict() { 1 } else { 2 } {
            scope.spawn(|| attack(&rows, &options, &behind, &outcomes));
        }
    });
    let mut outcomes = outcomes.into_inner()?;
    if !options.is_strict() {
        again(&mut outcomes, &options, &behind)?;
    }
    outcomes.sort_by_key(|outcome: &Outcome| ROWS.iter().position(|row| row.id == outcome.row));
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&outcomes)?)?;
    }
    let over = outcomes.iter().filter(|outcome| !outcome.ok()).count();
    println!("{} rows, {over} over", outcomes.len());
    let missed = outcomes.is_empty() && options.names_rows();
    for (id, words, by) in ELSEWHERE {
        println!("{id:>4}  {words}: by {by}");
    }
    let known: Vec<_> = ROWS.iter().filter(|it| it.when == When::Known).map(|it| it.id).collect();
    if !known.is_empty() && !options.names_rows() {
        println!("known to be over, and not run: {}", known.join(" "));
    }
    Ok(if over > 0 || missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs rows that were over once more, each alone: other rows and programs may have had the cores.
fn again(outcomes: &mut [Outcome], options: &Options, behind: &Runtime) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for outcome in outcomes.iter_mut() {
        let row = ROWS.iter().find(|row| row.id == outcome.row);
        for _ in 0..AGAIN {
            if let Some(row) = row.filter(|_| !outcome.ok()) {
                *outcome = runtime.block_on(run(row, options, behind));
                println!("again, alone: {}", outcome.line());
            }
        }
    }
    Ok(())
}

/// Runs rows until none is left.
fn attack(
    rows: &Mutex<impl Iterator<Item = &'static Row>>,
    options: &Options,
    behind: &Runtime,
    outcomes: &Mutex<Vec<Outcome>>,
) {
    // The attacker is on another machine, in truth: what it costs here is not to slow the others.
    _ = rustix::process::nice(5);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    loop {
        let Some(row) = rows.lock().unwrap().next() else { return };
        let outcome = runtime.block_on(run(row, options, behind));
        println!("{}", outcome.line());
        outcomes.lock().unwrap().push(outcome);
    }
}

impl Options {
    fn runs(&self, row: &Row) -> bool {
        let can = self.target.is_none() || row.peers;
        let now = match row.when {
            When::Quick => true,
            When::Slow => self.slow || self.names_rows(),
            When::Known => self.names_rows() || self.target.is_some(),
        };
        can && now && self.wants(row.id, row.words)
    }
}

/// Runs a row; once more where nothing but the victim's latency was over, since another program
/// may have had the core.
async fn run(row: &Row, options: &Options, behind: &Runtime) -> Outcome {
    let started = Instant::now();
    let mut outcome = once(row, options, behind).await;
    if outcome.is_late_only() {
        outcome = once(row, options, behind).await;
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome
}

async fn once(row: &Row, options: &Options, behind: &Runtime) -> Outcome {
    let attack = async {
        let mut scene = Scene::new(options, behind).await?;
        (row.attack)(&mut scene).await?;
        scene.end().await
    };
    let limit = timeout(LIMIT, attack).await;
    let (figures, failure) = match limit.unwrap_or_else(|_| Err(anyhow!("not over in {LIMIT:?}"))) {
        Ok(figures) => (figures, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    let peer = options.peer.clone();
    Outcome { row: row.id, attack: row.words, peer, figures, failure, seconds: 0.0 }
}

/// Rows that are another program's, and how it is run.
const ELSEWHERE: [(&str, &str, &str); 2] = [
    ("35", "h2spec strict, gRPC interop", "tests/peers/run target/release/upbeat h2spec"),
    ("36", "frame-sequence fuzzing", "tests/fuzz/run SECONDS"),
];

/// How often a row that was over is run again.
const AGAIN: usize = 2;
/// How long one row may take.
const LIMIT: Duration = Duration::from_secs(400);
