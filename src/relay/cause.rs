//! Why a link ends.

use std::io;

use crate::{http2::frame::Reason, upstream::Fault};

/// Why a link ends, in words for whose call was on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// The peer ended its side.
    Closed,
    /// The socket failed.
    Failed(io::ErrorKind),
    /// The peer broke the protocol, by this end's judgement, or passed the bound of this key.
    Broken(Reason, Option<&'static str>),
    /// The client's SETTINGS did not come in time.
    Unspoken,
    /// A frame or a header block was not whole in time.
    Unfinished,
    /// The endpoint's SETTINGS did not come in time.
    Unsettled,
    /// The peer took nothing of what was sent, for too long.
    Stalled,
    /// A PING had no answer in time, nor had anything else come.
    Silent,
    /// The client asked nothing in time.
    Unasked,
    /// The client was idle when another one came, and all places were taken.
    MadeRoom,
    /// The client asked for nothing but what it cannot have.
    Erring,
    /// The client was asked to end, and calls went on for longer than the grace.
    Overdue,
    /// This end had no use for it any more: idle, old, or told to go.
    Retired,
}

impl Cause {
    /// What it is of an endpoint, where it is its fault.
    pub(super) fn fault(self) -> Option<Fault> {
        match self {
            Self::Closed => Some(Fault::Closed),
            Self::Failed(_) | Self::Broken(..) => Some(Fault::Reset),
            Self::Unsettled | Self::Unfinished | Self::Stalled | Self::Silent => {
                Some(Fault::Timeout)
            }
            Self::Retired
            | Self::Unspoken
            | Self::Unasked
            | Self::MadeRoom
            | Self::Erring
            | Self::Overdue => None,
        }
    }

    /// Whether this end closed a connection whose peer may still be reading.
    pub(super) fn is_ours(self) -> bool {
        match self {
            Self::Retired
            | Self::Unspoken
            | Self::Unfinished
            | Self::Unasked
            | Self::Erring
            | Self::Overdue => true,
            // The one is waited for, and the others read nothing any more.
            Self::MadeRoom | Self::Stalled | Self::Silent | Self::Unsettled => false,
            Self::Closed | Self::Failed(_) | Self::Broken(..) => false,
        }
    }

    /// The reason by which metrics count it, where the peer is to blame for it.
    pub(super) fn blame(self) -> Option<&'static str> {
        match self {
            Self::Broken(_, Some(key)) => Some(key),
            Self::Broken(reason, None) => Some(reason.label()),
            Self::Unspoken => Some("handshake_timeout"),
            Self::Unfinished => Some("frame_timeout"),
            Self::Unsettled => Some("settings_timeout"),
            Self::Stalled => Some("send_timeout"),
            Self::Silent => Some("ping_timeout"),
            Self::Unasked => Some("first_request_timeout"),
            Self::MadeRoom => Some("max_connections"),
            Self::Erring => Some("refused_calls"),
            Self::Overdue => Some("max_connection_age_grace"),
            Self::Closed | Self::Failed(_) | Self::Retired => None,
        }
    }

    /// Says it in words, for whom `peer` is the other end.
    pub(super) fn says(self, peer: &str) -> String {
        match self {
            Self::Closed => format!("closed by the {peer}"),
            Self::Failed(io::ErrorKind::ConnectionReset) => format!("reset by the {peer}"),
            Self::Failed(kind) => format!("its socket failed: {kind}"),
            Self::Broken(_, Some(key)) => {
                format!("closed by the proxy, since more came than the limit {key} allows")
            }
            Self::Broken(reason, None) => {
                format!("closed by the proxy, since the {peer} broke the protocol: {reason}")
            }
            Self::Unsettled | Self::Unspoken => {
                "closed by the proxy, since no SETTINGS came".into()
            }
            Self::Unfinished => "closed by the proxy, since a frame was not whole in time".into(),
            Self::Stalled => {
                format!("closed by the proxy, since the {peer} read nothing for too long")
            }
            Self::Erring => {
                "closed by the proxy, since what was asked was refused, again and again".into()
            }
            Self::Silent => "closed by the proxy, since a PING had no answer".into(),
            Self::Unasked => "closed by the proxy, since nothing was asked".into(),
            Self::MadeRoom => "closed by the proxy, to make room for another client".into(),
            Self::Overdue => {
                "closed by the proxy, since it was asked to end and had its grace".into()
            }
            Self::Retired => "closed by the proxy, idle or old".into(),
        }
    }
}
