//! When the configuration's file is read again: at SIGHUP, and when it, or a file of certificates
//! or keys that it names, says something else.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::info;

use super::Certificates;
use crate::config::{self, Config, Problems, Reload};

/// Looks at the file of a configuration.
///
/// Its content is compared and not its time: a Kubernetes ConfigMap is swapped by a link to
/// another directory, and a time says nothing of files that are copied.
#[derive(Debug)]
pub(super) struct Reloader {
    path: PathBuf,
    /// What the configuration that was read last names, also if it was refused for one of them.
    files: Vec<PathBuf>,
    hangup: Signal,
    /// SIGHUP came, and the file was not read since.
    asked: bool,
    /// What was read last and told.
    told: Content,
    /// What the last look saw, where that is something else.
    seen: Option<Content>,
    due: Instant,
}

/// What the configuration's file says, and what stands for what is in the files that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    text: Result<String, Problems>,
    files: u64,
}

impl Content {
    fn read(path: &Path, files: &[PathBuf]) -> Self {
        Self { text: Config::read(path), files: hash(files) }
    }
}

impl Reloader {
    /// Follows the file that `config` was loaded from.
    ///
    /// # Errors
    /// The process may not handle SIGHUP.
    pub(super) fn new(path: PathBuf, config: &Config) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let files = config.files();
        let mut told = Content::read(&path, &files);
        // It may have changed since it was loaded.
        let now = told.text.clone().and_then(|text| Config::parse(&text, environment));
        let now = now.and_then(|now| now.with_files(environment));
        if !now.is_ok_and(|now| config.differences(&now).is_empty()) {
            told.text = Ok(String::new());
        }
        Ok(Self { path, files, hangup, asked: false, told, seen: None, due: Instant::now() })
    }

    /// What the file says, once that is to be known. Dropping the future loses nothing.
    pub(super) async fn next(
        &mut self,
        config: &Reload,
    ) -> Result<(Config, Certificates), Problems> {
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
            let (path, files) = (self.path.clone(), self.files.clone());
            // The file may be on a network that hangs.
            let read = spawn_blocking(move || Content::read(&path, &files)).await;
            let content = read.expect("reading a file does not panic");
            self.due = Instant::now() + config.interval;
            if self.is_news(&content) {
                self.told.clone_from(&content);
                self.seen = None;
                self.asked = false;
                let config = content.text.and_then(|text| Config::parse(&text, environment))?;
                self.files = config.files();
                let files = self.files.clone();
                let read = spawn_blocking(move || (hash(&files), load(config)));
                let (seen, loaded) = read.await.expect("reading files does not panic");
                self.told.files = seen;
                return loaded;
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

fn hash(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        config::read_bounded(file, config::LARGEST).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// The configuration with what is in the files that it names.
fn load(config: Config) -> Result<(Config, Certificates), Problems> {
    let config = config.with_files(environment)?;
    let certificates = Certificates::read(&config)?;
    Ok((config, certificates))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
