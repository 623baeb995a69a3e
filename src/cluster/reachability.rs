//! Whether sessions reach an endpoint, and the last error. Written by sessions without a lock, read by the control plane and
//! `status`.

use std::fmt;
use std::io;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use rustix::io::Errno;

use crate::connect::cause;
use crate::tls::TlsFailure;
use crate::tunnel::TunnelError;

/// Why a connect failed: an error code of the system, never zero, or that of a [`TunnelError`] or a [`TlsFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError(u16);

/// Codes from here on are those of [`TlsFailure`], above those of the system.
const TLS: u16 = 1 << 13;

/// Codes from here on are those of [`TunnelError`].
const TUNNEL: u16 = 1 << 14;

impl ConnectError {
    /// Returns the code of an error, or the closest one for an error without a code.
    pub fn of(error: &io::Error) -> ConnectError {
        if let Some(error) = TunnelError::of(error) {
            return ConnectError(TUNNEL | error.code());
        }
        if let Some(failure) = TlsFailure::in_error(error) {
            return ConnectError(TLS | failure.code());
        }
        let errno = Errno::from_io_error(error).unwrap_or(match error.kind() {
            io::ErrorKind::TimedOut => Errno::TIMEDOUT,
            io::ErrorKind::AddrNotAvailable => Errno::ADDRNOTAVAIL,
            io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
            _ => Errno::IO,
        });
        ConnectError(u16::try_from(errno.raw_os_error()).unwrap_or(TLS - 1))
    }

    fn tunnel_error(self) -> Option<TunnelError> {
        TunnelError::from_code(self.0.checked_sub(TUNNEL)?)
    }

    fn tls_failure(self) -> Option<TlsFailure> {
        TlsFailure::from_code(self.0.checked_sub(TLS)?)
    }

    /// Returns whether to give up at once: another attempt would have the same result.
    pub(super) fn is_final(self) -> bool {
        matches!(self.tunnel_error(), Some(TunnelError::Refused(status)) if status.is_final())
    }

    /// Returns what to do, if the error is one of a peer or of TLS.
    pub(crate) fn help(self) -> Option<&'static str> {
        match self.tls_failure() {
            Some(failure) => failure.help(),
            None => self.tunnel_error()?.help(),
        }
    }

    /// Returns the error with what to do, for logs.
    pub(crate) fn one_line(self) -> String {
        match self.help() {
            Some(help) => format!("{self} ({help})"),
            None => self.to_string(),
        }
    }

    /// Returns whether one side does not trust the other.
    pub(super) fn is_tls(self) -> bool {
        self.tls_failure().is_some() || matches!(self.tunnel_error(), Some(TunnelError::Tls { .. }))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.tunnel_error() {
            return error.fmt(f);
        }
        if let Some(failure) = self.tls_failure() {
            return failure.fmt(f);
        }
        f.write_str(&cause(&io::Error::from_raw_os_error(i32::from(self.0))))
    }
}

/// The event of an endpoint that wakes the monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    #[default]
    Failure,
    Recovery,
    /// None, because the endpoint was just reported.
    Nothing,
}

/// Whether the last connect failed, and the last error.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    /// The code of the last error in 16 bits, and above them its time in milliseconds since the endpoint joined. Zero for none.
    last: AtomicU64,
    failing: AtomicBool,
    /// An [`Awaited`]. Written by the control plane alone.
    awaited: AtomicU8,
}

impl Reachability {
    /// Records an error. Returns whether to wake the monitor.
    pub(super) fn failed(&self, error: ConnectError, after: Duration) -> bool {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms << 16 | u64::from(error.0), Relaxed);
        // In this order, as in `set_awaited`, so that one of the two sees what the other has written.
        self.failing.store(true, SeqCst);
        self.awaited.load(SeqCst) == Awaited::Failure as u8
    }

    /// Records an answer. Returns whether to wake the monitor.
    pub(super) fn answered(&self) -> bool {
        // Read first: in the usual case this must not take the cache line from other workers.
        if !self.failing.load(Relaxed) {
            return false;
        }
        self.failing.store(false, SeqCst);
        self.awaited.load(SeqCst) == Awaited::Recovery as u8
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(SeqCst)
    }

    /// Returns the last error, and when it happened after the endpoint joined.
    pub(super) fn last(&self) -> Option<(ConnectError, Duration)> {
        let last = self.last.load(Relaxed);
        let code = u16::try_from(last & 0xffff).ok().filter(|code| *code != 0)?;
        Some((ConnectError(code), Duration::from_millis(last >> 16)))
    }

    /// Sets the event that wakes the monitor. Returns whether it has happened already.
    pub(super) fn set_awaited(&self, awaited: Awaited) -> bool {
        if self.awaited.load(Relaxed) == awaited as u8 {
            return false;
        }
        self.awaited.store(awaited as u8, SeqCst);
        match awaited {
            Awaited::Failure => self.is_failing(),
            Awaited::Recovery => !self.is_failing(),
            Awaited::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_lower_case_causes() {
        let check =
            |error: io::Error, expected: &str| assert_eq!(ConnectError::of(&error).to_string(), expected);
        check(Errno::CONNREFUSED.into(), "connection refused");
        check(Errno::NETUNREACH.into(), "network is unreachable");
        check(io::ErrorKind::TimedOut.into(), "connection timed out");
        check(Errno::NOTSOCK.into(), "socket operation on non-socket");
        assert_eq!(cause(&io::ErrorKind::WriteZero.into()), "write zero");
    }

    #[test]
    fn last_error_is_kept_after_a_recovery_and_only_the_awaited_event_wakes() {
        let (reachability, error) = (Reachability::default(), ConnectError::of(&Errno::CONNREFUSED.into()));
        assert!(!reachability.answered());
        assert!(reachability.failed(error, Duration::from_millis(70_000)));
        assert!(!reachability.set_awaited(Awaited::Recovery));
        assert!(!reachability.failed(error, Duration::from_millis(70_001)));
        assert!(reachability.is_failing() && reachability.answered() && !reachability.answered());
        assert_eq!(reachability.last(), Some((error, Duration::from_millis(70_001))));
        assert!(!reachability.set_awaited(Awaited::Nothing));
        assert!(!reachability.failed(error, Duration::ZERO));
        assert!(reachability.set_awaited(Awaited::Failure), "it has failed in the meantime");
    }
}
