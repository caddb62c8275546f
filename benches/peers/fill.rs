//! Configurations: what of a template differs from run to run.

use std::net::Ipv4Addr;

use crate::{
    cell::{Cell, What},
    frame,
    request::Request,
};

/// What fills a template's marks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) port: u16,
    pub(crate) backend: u16,
    pub(crate) directory: &'a str,
    /// Where the certificate is.
    pub(crate) folder: &'a str,
}

impl Filling<'_> {
    /// The configuration.
    pub(crate) fn fill(&self, template: &str) -> String {
        let Self { cell, port, backend, directory, folder } = *self;
        let filter = match cell.request {
            Request::Get => include_str!("config/envoy-health-check.yaml").trim_end(),
            _ => "",
        };
        // A load's connections, and the few that stay of what came before it.
        let most = (cell.connections + cell.connections / 2).max(4000);
        let endpoints = cell.count(What::Endpoints).max(cell.count(What::HalfDown));
        let down = if cell.growth.is_some_and(|growth| growth.of == What::HalfDown) {
            endpoints
        } else {
            0
        };
        // A thousand probes every five seconds are work of their own, and not a call's.
        let interval = if cell.growth.is_some() { "1h" } else { "5s" };
        let template = chosen(template, cell.tls);
        let text = repeated(&template, "{address}", addresses(0).take(endpoints));
        let text = repeated(&text, "{down}", addresses(128).take(down));
        let text = repeated(&text, "{route}", addresses(192).take(cell.count(What::Routes) - 1));
        text.replace("{port}", &port.to_string())
            .replace("{backend}", &backend.to_string())
            .replace("{directory}", directory)
            .replace("{folder}", folder)
            .replace("{stream_window}", &frame::STREAM_WINDOW.to_string())
            .replace("{connection_window}", &frame::CONNECTION_WINDOW.to_string())
            .replace("{most_connections}", &most.to_string())
            .replace("{interval}", interval)
            .replace("{workers}", &cell.count(What::Workers).to_string())
            .replace("{health_check}", filter)
    }
}

/// The loopback's addresses from 127.`first`.0.1 on.
fn addresses(first: u8) -> impl Iterator<Item = Ipv4Addr> {
    let start = u32::from(Ipv4Addr::new(127, first, 0, 1));
    (start..).map(Ipv4Addr::from)
}

/// A text without the lines that are for clients with TLS, or without those that are for clients
/// without: they end with a mark.
fn chosen(text: &str, tls: bool) -> String {
    let [wanted, other] = if tls { ["{tls}", "{plain}"] } else { ["{plain}", "{tls}"] };
    let lines = text.lines().filter(|line| !line.ends_with(other));
    lines
        .map(|line| line.strip_suffix(wanted).unwrap_or(line).trim_end().to_owned() + "\n")
        .collect()
}

/// A text whose every line with a mark stands there once for each value.
fn repeated(text: &str, mark: &str, values: impl Iterator<Item = Ipv4Addr>) -> String {
    let values: Vec<_> = values.map(|value| value.to_string()).collect();
    let mut filled = String::new();
    for line in text.split_inclusive('\n') {
        if line.contains(mark) {
            filled.extend(values.iter().map(|value| line.replace(mark, value)));
        } else {
            filled.push_str(line);
        }
    }
    filled
}
