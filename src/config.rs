//! Configuration: YAML in, one checked [`Config`] out, or every problem at once.
//!
//! The text passes through three steps: `environment` substitutes `${NAME}`, `source` reads the
//! YAML as a `document` (the shape that the JSON Schema shows too, with `limits`, and `value` for
//! scalars that have a meaning of their own), and `rules` turns that into what is `checked`: the [`Config`] that
//! the rest of the program takes its sections from. `lines` remembers where each key stands, and
//! `written` what was said, to be shown and compared.

mod bounded;
mod checked;
mod credentials;
mod document;
mod environment;
mod limits;
mod lines;
mod rules;
mod source;
mod value;
mod view;
mod written;

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub use self::bounded::{LARGEST, read_bounded};
pub use self::checked::{
    Access, Admin, Auth, Check, Clients, Config, CredentialsFile, Discovery, Dns, Endpoint, Family,
    File, GrpcCheck, Health, HttpCheck, Jwt, Kept, KeyPair, KeysFrom, Listener, ListenerTls,
    Lookup, Match, Policy, Probe, Retry, Route, Service, Tenants, Upstream, UpstreamTls,
};
pub use self::credentials::{Credentials, Hash, Jwks, NoKey, San, Tokens, check_tenant, hash};
pub use self::document::{
    Admission, AllDown, AllDownPolicy, Drain, Ejection, Level, LoadBalancing, Log, LogFormat,
    NotServingAs, ProxyProtocol, ProxyVersion, Records, Reload, RetryStatus,
};
pub use self::limits::{ClientLimits, Frames, Limits, LimitsPer, Priorities, Rate, WindowUpdates};
pub use self::value::{Buffer, Cap, Quorum, Range, Share, Watch, Workers};
pub use self::view::View;
pub use self::written::{Difference, Written};

impl Config {
    /// Reads and checks the file at `path`, substituting `${NAME}` from the process environment.
    ///
    /// # Errors
    /// Every problem found, in the order of the file's lines.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let environment = |name: &str| std::env::var(name).ok();
        Self::parse(&Self::read(path)?, environment)?.with_files(environment)
    }

    /// The same with what stands in the files of credentials that it names. Without this nobody in
    /// them is known.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn with_files(
        mut self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        for auth in self.listeners.iter_mut().filter_map(|listener| listener.auth.as_mut()) {
            for file in &auth.files {
                problems.extend(file.read(&mut auth.credentials, &environment));
            }
        }
        if let (Some(file), Some(tokens)) = (&self.admin.token_file, &mut self.admin.tokens) {
            problems.extend(tokens.read(file));
        }
        match problems.is_empty() {
            true => Ok(self),
            false => Err(Problems(problems)),
        }
    }

    /// What would change from this one to `other`: what they say, and who is known by files that
    /// they name alike.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = self.written.differences(&other.written);
        let mut differ = |path: String| {
            let told =
                found.iter().any(|it| it.path.starts_with(&path) || path.starts_with(&it.path));
            if !told {
                let hidden = || Some("***".to_owned());
                found.push(Difference { path, from: hidden(), to: hidden() });
            }
        };
        for listener in &self.listeners {
            let known = |config: &Self| {
                let auth = config.listeners.iter().find(|it| it.name == listener.name);
                auth.and_then(|it| it.auth.as_ref()).map(|auth| auth.credentials.clone())
            };
            if known(self) != known(other) {
                differ(lines::join("listeners", &listener.name) + ".auth");
            }
        }
        if self.admin.tokens != other.admin.tokens {
            differ("admin.tokens".to_owned());
        }
        found
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<String, Problems> {
        std::fs::read_to_string(path).map_err(|error| {
            Problems(vec![Problem {
                path: path.display().to_string(),
                message: format!("cannot be read: {error}"),
                line: None,
            }])
        })
    }

    /// Checks `text`, substituting `${NAME}` by what `environment` answers.
    ///
    /// # Errors
    /// Every problem found, in the order of the text's lines.
    pub fn parse(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let (text, unset) = environment::substitute(text, environment);
        let mut problems = match source::read(&text) {
            Ok((document, lines, mut problems)) => {
                source::conceal(&mut problems);
                let mut config = rules::check(document, &lines, &mut problems);
                if problems.is_empty() && unset.is_empty() {
                    config.written = Written::of(&text, &config);
                    config.lines = lines;
                    return Ok(config);
                }
                problems
            }
            // With the values it may well be YAML.
            Err(_) if !unset.is_empty() => Vec::new(),
            Err(Problems(mut problems)) => {
                source::conceal(&mut problems);
                problems
            }
        };
        problems.retain(|problem| unset.iter().all(|unset| unset.line != problem.line));
        problems.extend(unset);
        problems.sort_by_key(|problem| problem.line);
        Err(Problems(problems))
    }

    /// The files of certificates, keys and credentials that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let auth = self.listeners.iter().filter_map(|it| it.auth.as_ref());
        let credentials = auth.flat_map(|it| &it.files).map(|it| &it.path);
        let credentials = credentials.chain(self.admin.token_file.iter().map(|it| &it.path));
        let listeners = self.listeners.iter().filter_map(|it| it.tls.as_ref());
        let listeners = listeners.chain(&self.admin.tls);
        let upstreams = self.upstreams.iter().filter_map(|it| it.tls.as_ref());
        let all = listeners.flat_map(ListenerTls::files);
        let issuers = self.listeners.iter().filter_map(|it| it.keys_from()?.tls.as_ref());
        let upstreams = upstreams.chain(issuers);
        all.chain(upstreams.flat_map(UpstreamTls::files)).chain(credentials).cloned().collect()
    }

    /// The problem with the line of its key, for what is found wrong after the text was checked.
    pub fn locate(&self, problem: Problem) -> Problem {
        self.lines.problem(&problem.path, problem.message)
    }
}

/// The JSON Schema (2020-12) of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(document::Document).to_value()
}

/// One mistake: where it is, what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's place, such as `upstreams.otlp.probe.timeout`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// The line, counted from 1, where the text has one for it.
    pub line: Option<usize>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
        }
    }
}

/// All mistakes of one configuration, one a line when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One checked listener with these keys beside the required ones, for the tests of the modules above.
#[cfg(test)]
pub(crate) fn listener(keys: &str) -> Listener {
    let rest = "upstreams: { u: { endpoints: ['127.0.0.1:1'], probe: { checks: [{ tcp: {} }] } } }";
    let listener = format!("{{ name: l, address: '127.0.0.1:0', upstream: u, {keys} }}");
    let config = Config::parse(&format!("listeners: [{listener}]\n{rest}"), |_| None);
    config.expect("a good configuration").listeners.remove(0)
}

/// The checked administrative server with these keys, for the tests of the modules above.
#[cfg(test)]
pub(crate) fn admin(keys: &str) -> Admin {
    let rest = "listeners: [{ name: l, address: '127.0.0.1:0' }]
upstreams: { u: { endpoints: ['127.0.0.1:1'], probe: { checks: [{ tcp: {} }] } } }";
    let config = Config::parse(&format!("admin: {{ {keys} }}\n{rest}"), |_| None);
    config.expect("a good configuration").admin
}

/// One checked upstream, for the tests of the modules above.
#[cfg(test)]
pub(crate) fn upstream(text: &str) -> Upstream {
    let rest = "listeners: [{ name: health, address: '127.0.0.1:0' }]";
    let mut config = Config::parse(&format!("{rest}\nupstreams: {{ u: {text} }}"), |_| None)
        .expect("a good configuration");
    config.upstreams.remove(0)
}
