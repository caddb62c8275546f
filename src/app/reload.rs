//! When the configuration's file is read again: at SIGHUP, and when it says something else.

use std::{io, path::PathBuf};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::info;

use crate::config::{Config, Problems, Reload};

/// Looks at the file of a configuration.
///
/// Its content is compared and not its time: a Kubernetes ConfigMap is swapped by a link to
/// another directory, and a time says nothing of files that are copied.
#[derive(Debug)]
pub(super) struct Reloader {
    path: PathBuf,
    hangup: Signal,
    /// SIGHUP came, and the file was not read since.
    asked: bool,
    /// What was read last and told.
    told: Content,
    /// What the last look saw, where that is something else.
    seen: Option<Content>,
    due: Instant,
}

type Content = Result<String, Problems>;

impl Reloader {
    /// Follows the file that `config` was loaded from.
    ///
    /// # Errors
    /// The process may not handle SIGHUP.
    pub(super) fn new(path: PathBuf, config: &Config) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let now = Config::read(&path);
        // It may have changed since it was loaded.
        let same = |text: &String| parse(text).is_ok_and(|now| now.written == config.written);
        let told = if now.as_ref().is_ok_and(same) { now } else { Ok(String::new()) };
        Ok(Self { path, hangup, asked: false, told, seen: None, due: Instant::now() })
    }

    /// What the file says, once that is to be known. Dropping the future loses nothing.
    pub(super) async fn next(&mut self, config: &Reload) -> Result<Config, Problems> {
        self.due = self.due.min(Instant::now() + config.interval);
        loop {
            if !self.asked {
                tokio::select! {
                    _ = self.hangup.recv() => {
                        info!(signal = "SIGHUP", file = %self.path.display(), "reading the configuration");
                        self.asked = true;
                    }
                    () = sleep_until(self.due), if config.watch => {}
                }
            }
            let path = self.path.clone();
            // The file may be on a network that hangs.
            let read = spawn_blocking(move || Config::read(&path)).await;
            let content = read.expect("reading a file does not panic");
            self.due = Instant::now() + config.interval;
            if self.is_news(&content) {
                self.told.clone_from(&content);
                self.seen = None;
                self.asked = false;
                return content.and_then(|text| parse(&text));
            }
        }
    }

    /// Whether it is another content than the last, and will stay: a file that is being written
    /// may well be YAML halfway. One who says SIGHUP knows.
    fn is_news(&mut self, content: &Content) -> bool {
        if self.asked {
            return true;
        }
        if *content == self.told {
            self.seen = None;
            return false;
        }
        let stays = self.seen.as_ref() == Some(content);
        self.seen = Some(content.clone());
        stays
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, |name| std::env::var(name).ok())
}
