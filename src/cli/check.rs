//! `upbeat check`: the problems of a configuration, and what a running proxy would change by it.

use std::process::ExitCode;

use serde_json::Value;

use super::{File, admin::Admin, bad_configuration, block_on, fail, load, say};
use crate::config::{Difference, Written};

/// Arguments of `upbeat check`.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| match arg.get_id().as_str() {
    "config" | "against_running" => arg,
    _ => arg.requires("against_running"),
}))]
pub(super) struct Options {
    #[command(flatten)]
    file: File,
    /// Tell what would change if the running proxy took the file over
    #[arg(long)]
    against_running: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Exit codes: 0 no problems, whatever would change; 78 problems; 1 the proxy cannot be asked.
pub(super) fn run(options: &Options) -> ExitCode {
    let path = &options.file.config;
    let config = match load(path) {
        Ok(config) => config,
        Err(problems) => return bad_configuration(path, &problems),
    };
    let mut text = format!("{}: no problems\n", path.display());
    if options.against_running {
        // Another file may have another address in mind: then nobody answers there, or another one.
        match block_on(options.admin.fetch::<Value>("/config", Some(config.admin.address))) {
            // What it shows has no secrets, so those of the file must not be told from them.
            Ok(running) => {
                let file = Written::shown(config.written.json());
                text += &changes(&Written::shown(running).differences(&file));
            }
            Err(error) => return fail(&error),
        }
    }
    say(&text);
    ExitCode::SUCCESS
}

/// One line a key, and what it comes to.
fn changes(differences: &[Difference]) -> String {
    let mut text = String::new();
    for difference in differences {
        let restart = if difference.needs_restart() { " (needs a restart)" } else { "" };
        text += &format!("{difference}{restart}\n");
    }
    let refused = differences.iter().filter(|it| it.needs_restart()).count();
    text + &match (differences.len(), refused) {
        (0, _) => "nothing would change\n".to_owned(),
        (1, 0) => "1 change, which a reload would apply\n".to_owned(),
        (all, 0) => format!("{all} changes, which a reload would apply\n"),
        (all, refused) => {
            format!("{all} to change, and a reload would refuse all: {refused} need a restart\n")
        }
    }
}
