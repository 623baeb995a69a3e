//! The answers to a CONNECT that is not accepted: status codes (RFC 9110) with `proxy-status` (RFC 9209). Pure.

use std::fmt;

use crate::ending::Ending;

/// Why a peer does not connect a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub status: u16,
    /// The value of `proxy-status`, with an error type of RFC 9209, 2.3.
    pub(super) proxy_status: &'static str,
}

impl Refusal {
    /// The request is not one that this version serves.
    pub const MALFORMED: Refusal =
        Refusal { status: 400, proxy_status: "ambassador; error=http_protocol_error" };
    /// The identity of the peer is not in `peers`.
    pub const NOT_ALLOWED: Refusal =
        Refusal { status: 403, proxy_status: "ambassador; error=http_request_denied" };
    /// There is no export of this name.
    pub const NO_SUCH_EXPORT: Refusal =
        Refusal { status: 404, proxy_status: "ambassador; error=destination_not_found" };
    /// A limit is reached.
    pub const LIMIT: Refusal =
        Refusal { status: 429, proxy_status: "ambassador; error=connection_limit_reached" };
    /// The process stops, or has not read its routes yet.
    pub const UNAVAILABLE: Refusal =
        Refusal { status: 503, proxy_status: "ambassador; error=destination_unavailable" };

    /// Returns the answer to a session that ended so before it was connected.
    pub fn of(ending: Ending) -> Refusal {
        let (status, proxy_status) = match ending {
            // A peer further on has refused for good: another attempt would have the same answer.
            Ending::Denied | Ending::PeerRefused => return Refusal::NOT_ALLOWED,
            Ending::RateLimited | Ending::TooMany | Ending::HoldFull => return Refusal::LIMIT,
            Ending::ConnectFailed | Ending::UpstreamReset | Ending::TlsFailed => {
                (502, "ambassador; error=connection_refused")
            }
            Ending::TunnelLost | Ending::PeerRevoked => (502, "ambassador; error=connection_terminated"),
            Ending::HoldExpired => (504, "ambassador; error=connection_timeout"),
            Ending::Local => (503, "ambassador; error=proxy_internal_error"),
            Ending::NoEndpoint
            | Ending::Drained
            | Ending::Finished
            | Ending::DownstreamReset
            | Ending::Idle
            | Ending::HalfCloseTimeout
            | Ending::LeftWhileHeld
            | Ending::MaxDuration
            | Ending::Unhealthy
            | Ending::Cut
            | Ending::ProxyHeader
            | Ending::UnknownName => return Refusal::UNAVAILABLE,
        };
        Refusal { status, proxy_status }
    }
}

/// The status of a peer that did not accept a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Returns whether to give up at once: another attempt would have the same answer.
    pub fn is_final(self) -> bool {
        matches!(self.0, 400 | 403 | 404)
    }

    /// Returns what to do.
    pub(super) fn help(self) -> Option<&'static str> {
        match self.0 {
            403 => Some("check `peers`, `allow` and `deny` of the export on the peer"),
            404 => Some("`ambassador status` on the peer lists its exports"),
            429 => Some("the access log of the peer names the limit"),
            502..=504 => Some("`ambassador status` on the peer shows why"),
            _ => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.0 {
            400 => "the request is malformed",
            403 => "this host may not use the export",
            404 => "no such export",
            429 => "a limit is reached",
            502 => "the service refuses connections",
            503 => "no endpoint, or the peer is stopping",
            504 => "no endpoint answered in time",
            _ => return write!(f, "the peer answered {}", self.0),
        };
        write!(f, "the peer answered {}: {what}", self.0)
    }
}
