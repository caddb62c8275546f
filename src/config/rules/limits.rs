//! The rules of limits: none of them may shut out what every client does.

use bytesize::ByteSize;

use super::{
    super::{
        limits::{ClientLimits, Limits, LimitsPer},
        value::Buffer,
    },
    Checker,
};

impl Checker<'_> {
    pub(super) fn limits_per(&mut self, path: &str, limits: &LimitsPer) {
        for (key, limits) in [("tenant", limits.tenant), ("address", limits.address)] {
            if let Some(limits) = limits {
                self.client_limits(&format!("{path}.{key}"), &limits);
            }
        }
    }

    fn client_limits(&mut self, path: &str, limits: &ClientLimits) {
        let ClientLimits { calls_per_second, burst, bytes_per_second, bytes_burst, max_in_flight } =
            *limits;
        if calls_per_second.is_none() && bytes_per_second.is_none() && max_in_flight.is_none() {
            let words = "calls_per_second, bytes_per_second or max_in_flight is required";
            self.problem(path, words);
        }
        self.at_least_one(&format!("{path}.calls_per_second"), calls_per_second);
        self.at_least_one(&format!("{path}.burst"), burst);
        self.at_least_one(&format!("{path}.max_in_flight"), max_in_flight);
        for (key, size) in [("bytes_per_second", bytes_per_second), ("bytes_burst", bytes_burst)] {
            if size.is_some_and(|size| size.as_u64() == 0) {
                self.problem(&format!("{path}.{key}"), "must be more than 0");
            }
        }
        for (key, is_idle, needs) in [
            ("burst", burst.is_some() && calls_per_second.is_none(), "calls_per_second"),
            (
                "bytes_burst",
                bytes_burst.is_some() && bytes_per_second.is_none(),
                "bytes_per_second",
            ),
        ] {
            if is_idle {
                self.problem(&format!("{path}.{key}"), format!("says nothing without {needs}"));
            }
        }
    }

    pub(super) fn limits(&mut self, limits: &Limits) {
        let frames = &limits.frames;
        for (key, number) in [
            ("max_connections", limits.max_connections),
            ("max_concurrent_streams", limits.max_concurrent_streams),
            ("max_watches_per_connection", limits.max_watches_per_connection),
            ("max_watches", limits.max_watches),
            ("max_upstream_connections", limits.max_upstream_connections),
            ("max_upstream_header_frames", limits.max_upstream_header_frames),
            ("max_upstream_frames.burst", limits.max_upstream_frames.burst),
            ("max_upstream_frames.rate", limits.max_upstream_frames.rate),
            ("upstream_resets.burst", limits.upstream_resets.burst),
            ("upstream_resets.rate", limits.upstream_resets.rate),
            ("address_resets.burst", limits.address_resets.burst),
            ("address_resets.rate", limits.address_resets.rate),
            ("frames.resets.burst", frames.resets.burst),
            ("frames.resets.rate", frames.resets.rate),
            ("frames.pings.burst", frames.pings.burst),
            ("frames.pings.rate", frames.pings.rate),
            ("frames.settings.burst", frames.settings.burst),
            ("frames.settings.rate", frames.settings.rate),
            ("frames.unknown.burst", frames.unknown.burst),
            ("frames.unknown.rate", frames.unknown.rate),
            ("frames.priorities.burst", frames.priorities.burst),
            ("frames.priorities.rate", frames.priorities.rate),
            ("frames.priorities.per_stream", frames.priorities.per_stream),
            ("frames.window_updates.burst", frames.window_updates.burst),
            ("frames.window_updates.rate", frames.window_updates.rate),
            ("frames.window_updates.per_stream", frames.window_updates.per_stream),
            ("frames.window_updates.per_data", frames.window_updates.per_data),
            ("frames.empty_data.burst", frames.empty_data.burst),
            ("frames.empty_data.rate", frames.empty_data.rate),
            ("frames.faults.burst", frames.faults.burst),
            ("frames.faults.rate", frames.faults.rate),
            ("frames.late_resets.burst", frames.late_resets.burst),
            ("frames.late_resets.rate", frames.late_resets.rate),
            ("frames.goaways.burst", frames.goaways.burst),
            ("frames.goaways.rate", frames.goaways.rate),
            ("frames.refused_calls.burst", frames.refused_calls.burst),
            ("frames.refused_calls.rate", frames.refused_calls.rate),
        ] {
            self.at_least_one(&format!("limits.{key}"), Some(number));
        }
        for (key, time) in [
            ("handshake_timeout", limits.handshake_timeout),
            ("first_request_timeout", limits.first_request_timeout),
            ("frame_timeout", limits.frame_timeout),
            ("idle_timeout", limits.idle_timeout),
            ("send_timeout", limits.send_timeout),
            ("message_timeout", limits.message_timeout),
            ("max_connection_age", limits.max_connection_age),
            ("max_connection_age_grace", limits.max_connection_age_grace),
            ("client_ping_interval", limits.client_ping_interval),
            ("client_ping_timeout", limits.client_ping_timeout),
            ("max_upstream_connection_age", limits.max_upstream_connection_age),
            ("upstream_ping_interval", limits.upstream_ping_interval),
            ("upstream_ping_timeout", limits.upstream_ping_timeout),
            ("upstream_suspect_timeout", limits.upstream_suspect_timeout),
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
        for (key, size) in [
            ("max_connection_buffer", Buffer::Size(limits.max_connection_buffer)),
            ("max_worker_buffer", limits.max_worker_buffer),
        ] {
            if let Buffer::Size(size) = size
                && size < ByteSize::mib(1)
            {
                self.problem(
                    &format!("limits.{key}"),
                    format!("must be at least 1 MiB, not {size}"),
                );
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
