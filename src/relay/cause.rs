//! Why a link ends.

use std::{fmt, io};

use crate::{http2::frame::Reason, upstream::Fault};

/// Why a link ends, in words for whose call was on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// The peer ended its side.
    Closed,
    /// The socket failed.
    Failed(io::ErrorKind),
    /// The peer broke the protocol, by this end's judgement.
    Broken(Reason),
    /// The endpoint's SETTINGS did not come in time.
    Unsettled,
    /// The peer took nothing of what was sent, for too long.
    Stalled,
    /// A PING had no answer in time, nor had anything else come.
    Silent,
    /// This end had no use for it any more: idle, old, or told to go.
    Retired,
}

impl Cause {
    /// What it is of an endpoint, where it is its fault.
    pub(super) fn fault(self) -> Option<Fault> {
        match self {
            Self::Closed => Some(Fault::Closed),
            Self::Failed(_) | Self::Broken(_) => Some(Fault::Reset),
            Self::Unsettled | Self::Stalled | Self::Silent => Some(Fault::Timeout),
            Self::Retired => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the endpoint"),
            Self::Failed(io::ErrorKind::ConnectionReset) => f.write_str("reset by the endpoint"),
            Self::Failed(kind) => write!(f, "its socket failed: {kind}"),
            Self::Broken(reason) => {
                write!(f, "closed by the proxy, since the endpoint broke the protocol: {reason}")
            }
            Self::Unsettled => f.write_str("closed by the proxy, since no SETTINGS came"),
            Self::Stalled => {
                f.write_str("closed by the proxy, since the endpoint read nothing for too long")
            }
            Self::Silent => f.write_str("closed by the proxy, since a PING had no answer"),
            Self::Retired => f.write_str("closed by the proxy, idle or old"),
        }
    }
}
