//! The rules of limits: none of them may shut out what every client does.

use bytesize::ByteSize;

use super::{
    super::limits::{Limits, LimitsPer},
    Checker,
};

impl Checker<'_> {
    pub(super) fn limits_per(&mut self, path: &str, limits: &LimitsPer) {
        for (key, rate) in [("tenant", limits.tenant), ("address", limits.address)] {
            let calls = rate.map(|rate| rate.calls_per_second);
            self.at_least_one(&format!("{path}.{key}.calls_per_second"), calls);
            let burst = rate.and_then(|rate| rate.burst);
            self.at_least_one(&format!("{path}.{key}.burst"), burst);
        }
    }

    pub(super) fn limits(&mut self, limits: &Limits) {
        let frames = &limits.frames;
        for (key, number) in [
            ("max_connections", limits.max_connections),
            ("max_concurrent_streams", limits.max_concurrent_streams),
            ("max_upstream_connections", limits.max_upstream_connections),
            ("frames.resets.burst", frames.resets.burst),
            ("frames.resets.rate", frames.resets.rate),
            ("frames.pings.burst", frames.pings.burst),
            ("frames.pings.rate", frames.pings.rate),
            ("frames.settings.burst", frames.settings.burst),
            ("frames.settings.rate", frames.settings.rate),
            ("frames.unknown.burst", frames.unknown.burst),
            ("frames.unknown.rate", frames.unknown.rate),
            ("frames.priorities.burst", frames.priorities.burst),
            ("frames.priorities.per_stream", frames.priorities.per_stream),
            ("frames.window_updates.burst", frames.window_updates.burst),
            ("frames.window_updates.per_stream", frames.window_updates.per_stream),
            ("frames.window_updates.per_data", frames.window_updates.per_data),
            ("frames.empty_data", frames.empty_data),
            ("frames.faults", frames.faults),
        ] {
            self.at_least_one(&format!("limits.{key}"), Some(number));
        }
        for (key, time) in [
            ("handshake_timeout", limits.handshake_timeout),
            ("idle_timeout", limits.idle_timeout),
            ("send_timeout", limits.send_timeout),
            ("max_connection_age", limits.max_connection_age),
            ("max_upstream_connection_age", limits.max_upstream_connection_age),
            ("upstream_ping_interval", limits.upstream_ping_interval),
            ("upstream_ping_timeout", limits.upstream_ping_timeout),
        ] {
            self.positive(&format!("limits.{key}"), Some(time));
        }
        for (key, size) in [
            ("max_header_list_size", limits.max_header_list_size),
            ("max_upstream_header_list_size", limits.max_upstream_header_list_size),
        ] {
            if !(1024..=1 << 20).contains(&size.as_u64()) {
                let message = format!("must be from 1 KiB to 1 MiB, not {size}");
                self.problem(&format!("limits.{key}"), message);
            }
        }
        if limits.max_replay_size > ByteSize::mib(16) {
            let size = limits.max_replay_size;
            let message = format!("must be at most 16 MiB, what a worker keeps in all, not {size}");
            self.problem("limits.max_replay_size", message);
        }
        for (key, fields, least, what) in [
            ("max_header_fields", limits.max_header_fields, 6, "call"),
            ("max_upstream_header_fields", limits.max_upstream_header_fields, 3, "response"),
        ] {
            if fields < least {
                let message =
                    format!("must be at least {least}, which every gRPC {what} has, not {fields}");
                self.problem(&format!("limits.{key}"), message);
            }
        }
    }
}
