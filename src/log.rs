//! Log lines on their way to standard error. Nothing waits for one: a thread of its own writes them,
//! and a line that finds no room, or cannot be written, is dropped and counted.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Level, warn};
use tracing_subscriber::filter::LevelFilter;

use crate::config::{self, LogFormat};

/// Sends the process's log to standard error from now on, as `config` says.
///
/// # Errors
/// The system grants no thread.
pub fn start(config: &config::Log) -> io::Result<()> {
    // Not the library's handle: a write that never ends would keep its lock.
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let (queue, lines) = Queue::new();
    let counts = Arc::clone(&queue.counts);
    if QUEUE.set(queue).is_err() {
        warn!("logging was set up already");
        return Ok(());
    }
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        write(&lines, &counts, out, |lines| warn!(lines, "log lines dropped"));
    })?;
    let level = LevelFilter::from_level(match config.level {
        config::Level::Error => Level::ERROR,
        config::Level::Warn => Level::WARN,
        config::Level::Info => Level::INFO,
        config::Level::Debug => Level::DEBUG,
        config::Level::Trace => Level::TRACE,
    });
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Line)
        .with_ansi(io::stderr().is_terminal());
    let outcome = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = outcome {
        warn!(error, "logging was set up already");
    }
    Ok(())
}

/// Returns how many lines were dropped since the start.
pub fn dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.counts.dropped.load(SeqCst))
}

/// Gives what is queued a moment to be written.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(Instant::now() + LAST);
    }
}

/// Writes `words` as the last line of all, and gives that a moment.
pub fn end(words: &str) {
    match QUEUE.get() {
        Some(queue) => queue.end(words, Instant::now() + LAST),
        None => eprintln!("{words}"),
    }
}

/// Ends the process with `words` as its last line.
pub fn exit(code: u8, words: &str) -> ! {
    end(words);
    process::exit(code.into())
}

/// What a line is written to.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get()
            && !queue.counts.ended.load(SeqCst)
        {
            queue.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that wait to be written. Taking one in needs no lock: a thread that is stopped while it logs
/// stops no other.
#[derive(Debug)]
struct Queue {
    lines: SyncSender<Box<[u8]>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that are queued or being written, and their bytes.
    lines: AtomicUsize,
    bytes: AtomicUsize,
    dropped: AtomicU64,
    /// The last words are said, or being said.
    ended: AtomicBool,
}

impl Queue {
    fn new() -> (Self, Receiver<Box<[u8]>>) {
        let (lines, queue) = sync_channel(LINES);
        (Self { lines, counts: Arc::default() }, queue)
    }

    /// Takes a line in where there is room for it.
    fn push(&self, line: &[u8]) -> bool {
        let counts = &self.counts;
        let before = counts.bytes.fetch_add(line.len(), SeqCst);
        counts.lines.fetch_add(1, SeqCst);
        let taken = before + line.len() <= BYTES && self.lines.try_send(line.into()).is_ok();
        if !taken {
            counts.dropped.fetch_add(1, SeqCst);
            counts.done(line);
        }
        taken
    }

    /// Waits until nothing is queued, or until then.
    fn flush(&self, until: Instant) {
        while self.counts.lines.load(SeqCst) > 0 && Instant::now() < until {
            thread::sleep(GLANCE);
        }
    }

    /// Queues `words` behind everything else, and waits until they are written, or until then.
    fn end(&self, words: &str, until: Instant) {
        if self.counts.ended.swap(true, SeqCst) {
            // Another thread ends the process, by its own words.
            return thread::sleep(LAST);
        }
        let line = format!("{words}\n");
        while !self.push(line.as_bytes()) && Instant::now() < until {
            thread::sleep(GLANCE);
        }
        self.flush(until);
    }
}

impl Counts {
    fn done(&self, line: &[u8]) {
        self.bytes.fetch_sub(line.len(), SeqCst);
        self.lines.fetch_sub(1, SeqCst);
    }
}

/// Writes lines for as long as there may be more. Once lines are written again after some were
/// dropped, tells how many, at most once in each [`PAUSE`].
fn write(lines: &Receiver<Box<[u8]>>, counts: &Counts, mut out: impl Write, tell: impl Fn(u64)) {
    let (mut told, mut told_at) = (0, None::<Instant>);
    let mut is_read = true;
    loop {
        match lines.recv_timeout(PAUSE) {
            Ok(line) => {
                is_read = write_all(&mut out, &line).is_ok();
                if !is_read {
                    counts.dropped.fetch_add(1, SeqCst);
                }
                counts.done(&line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let dropped = counts.dropped.load(SeqCst);
        if is_read && dropped > told && told_at.is_none_or(|at| at.elapsed() >= PAUSE) {
            tell(dropped - told);
            (told, told_at) = (dropped, Some(Instant::now()));
        }
    }
}

/// Writes one line, also where standard error is non-blocking, as a terminal that is shared may be.
fn write_all(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(GLANCE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

static QUEUE: OnceLock<Queue> = OnceLock::new();
/// The most that may wait: an incident's worth, and little memory.
const LINES: usize = 2048;
const BYTES: usize = 1 << 20;
/// Between two lines that tell how many were dropped.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the end may wait for lines to be written.
const LAST: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// A reader that takes lines only while it is allowed to.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<Vec<u8>>, AtomicBool)>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.0.1.load(SeqCst) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Pipe {
        fn read(&self, read: bool) {
            self.0.1.store(read, SeqCst);
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// A queue that a thread of its own writes to `out`, and what it tells of dropped lines.
    fn written_to(out: impl Write + Send + 'static) -> (Queue, mpsc::Receiver<u64>) {
        let ((queue, lines), (tell, told)) = (Queue::new(), mpsc::channel());
        let counts = Arc::clone(&queue.counts);
        thread::spawn(move || write(&lines, &counts, out, |lines| _ = tell.send(lines)));
        (queue, told)
    }

    #[test]
    fn a_pipe_that_is_not_read_holds_nothing_up_and_what_is_dropped_is_told_later() {
        let pipe = Pipe::default();
        let (queue, told) = written_to(pipe.clone());
        let taken = (0..3 * LINES).filter(|_| queue.push(b"line\n")).count();
        // One more may be with the thread that writes.
        assert!((LINES..=LINES + 1).contains(&taken), "{taken}");
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "told to nobody");
        pipe.read(true);
        queue.flush(soon());
        assert_eq!(pipe.text().lines().count(), taken);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok((3 * LINES - taken) as u64));
        assert_eq!(queue.counts.bytes.load(SeqCst), 0);
    }

    #[test]
    fn few_lines_that_are_long_are_bounded_too() {
        let (queue, _lines) = Queue::new();
        let line = vec![b'x'; BYTES / 4];
        assert_eq!((0..9).filter(|_| queue.push(&line)).count(), 4);
    }

    #[test]
    fn a_pipe_that_is_closed_ends_nothing() {
        struct Closed(Pipe);
        impl Write for Closed {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match self.0.write(bytes) {
                    Ok(written) => Ok(written),
                    Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let pipe = Pipe::default();
        let (queue, told) = written_to(Closed(pipe.clone()));
        assert!((0..9).all(|_| queue.push(b"lost\n")));
        queue.flush(soon());
        assert_eq!(queue.counts.dropped.load(SeqCst), 9);
        // Whoever opens it again is told.
        pipe.read(true);
        queue.push(b"seen\n");
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(9));
        assert_eq!(pipe.text(), "seen\n");
    }

    #[test]
    fn the_last_words_come_last_and_wait_no_longer_than_they_may() {
        let pipe = Pipe::default();
        let (queue, _told) = written_to(pipe.clone());
        (0..3 * LINES).for_each(|_| _ = queue.push(b"line\n"));
        let begun = Instant::now();
        queue.end("the end", begun + Duration::from_millis(50));
        assert!(begun.elapsed() >= Duration::from_millis(50));
        queue.counts.ended.store(false, SeqCst);
        pipe.read(true);
        queue.end("the end", soon());
        assert_eq!(pipe.text().lines().last(), Some("the end"));
    }
}
