//! Requests at a rate that does not depend on the replies: each is due at a fixed time.
//!
//! A closed loop sends less to a slow proxy and so omits the waits of requests that it did not send (coordinated
//! omission). Here the connections take turns, and the wait of a request for its connection counts from the time at
//! which it was due.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::poll::Poll;

pub(super) const TOKEN: u64 = u64::MAX;

pub(super) struct Pace {
    /// The timeout of epoll is no finer than a millisecond.
    timer: OwnedFd,
    interval: Duration,
    connections: u64,
    start: Instant,
    /// The number of requests due so far.
    due: u64,
}

impl Pace {
    pub(super) fn new(poll: &Poll, per_second: f64, connections: usize) -> io::Result<Pace> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.watch_input(&timer, TOKEN)?;
        let interval = Duration::from_secs_f64(1.0 / per_second);
        Ok(Pace { timer, interval, connections: connections as u64, start: Instant::now(), due: 0 })
    }

    /// Starts the schedule now.
    pub(super) fn restart(&mut self, now: Instant) -> io::Result<()> {
        (self.start, self.due) = (now, 0);
        let interval = Timespec { tv_sec: 0, tv_nsec: self.interval.subsec_nanos().into() };
        let setting = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }

    /// Consumes the timer's expirations: the clock decides what is due.
    pub(super) fn fired(&self) {
        rustix::io::read(&self.timer, &mut [0; 8]).ok();
    }

    /// Returns the connection that is due and since when; to be called until it returns `None`.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let (connection, round) = (self.due % self.connections, self.due / self.connections);
        let at = self.at(connection, round);
        (at <= now).then(|| {
            self.due += 1;
            (connection as usize, at)
        })
    }

    /// Returns since when a connection with this many requests should have sent the next one: `None` if it is not due.
    pub(super) fn overdue(&self, connection: usize, sent: u64) -> Option<Instant> {
        let nth = sent * self.connections + connection as u64;
        (nth < self.due).then(|| self.at(connection as u64, sent))
    }

    fn at(&self, connection: u64, round: u64) -> Instant {
        let nth = round * self.connections + connection;
        self.start + Duration::from_nanos(self.interval.as_nanos() as u64 * nth)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Pace, Poll};

    #[test]
    fn late_connection_has_waited_since_it_was_due() {
        let poll = Poll::new().expect("epoll");
        let mut pace = Pace::new(&poll, 1000.0, 2).expect("a timer");
        let start = Instant::now();
        pace.restart(start).expect("a timer");
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(pace.next_due(after(1)), Some((0, start)));
        // It has sent once, and is due again at 2 ms.
        assert_eq!(pace.overdue(0, 1), None);
        assert_eq!(pace.next_due(after(1)), Some((1, after(1))));
        assert_eq!(pace.next_due(after(1)), None);
        assert_eq!(pace.next_due(after(5)), Some((0, after(2))));
        // It became due while it was busy; at 5 ms it is due since 2 ms.
        assert_eq!(pace.overdue(0, 1), Some(after(2)));
        assert_eq!(pace.overdue(1, 1), None, "its turn is still to come");
    }
}
