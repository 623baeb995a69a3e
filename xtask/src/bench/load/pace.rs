//! Requests at a rate that does not depend on the replies: the n-th is due at its time, whoever is late.
//!
//! A closed loop asks a slow proxy less often, and so forgets what those who would have asked meanwhile had waited.
//! Here the connections take turns, and a request that must wait for its connection has been waiting since it was due.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::poll::Poll;

pub(super) const TOKEN: u64 = u64::MAX;

pub(super) struct Pace {
    /// epoll's own limit knows no less than a millisecond.
    timer: OwnedFd,
    interval: Duration,
    connections: u64,
    start: Instant,
    /// How many were due so far.
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

    /// From now on.
    pub(super) fn restart(&mut self, now: Instant) -> io::Result<()> {
        (self.start, self.due) = (now, 0);
        let interval = Timespec { tv_sec: 0, tv_nsec: self.interval.subsec_nanos().into() };
        let setting = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }

    /// The timer has fired: how often does not matter, for the clock says what is due.
    pub(super) fn fired(&self) {
        rustix::io::read(&self.timer, &mut [0; 8]).ok();
    }

    /// The connection whose turn has come, and since when. To be asked until it says that there is none.
    pub(super) fn turn(&mut self, now: Instant) -> Option<(usize, Instant)> {
        let (connection, round) = (self.due % self.connections, self.due / self.connections);
        let at = self.at(connection, round);
        (at <= now).then(|| {
            self.due += 1;
            (connection as usize, at)
        })
    }

    /// Since when a connection that has asked so often should have asked again: `None` if its turn is still to come.
    pub(super) fn overdue(&self, connection: usize, asked: u64) -> Option<Instant> {
        let nth = asked * self.connections + connection as u64;
        (nth < self.due).then(|| self.at(connection as u64, asked))
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
    fn connections_take_turns_and_a_late_one_has_waited_since_it_was_due() {
        let poll = Poll::new().expect("epoll");
        let mut pace = Pace::new(&poll, 1000.0, 2).expect("a timer");
        let start = Instant::now();
        pace.restart(start).expect("a timer");
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(pace.turn(after(1)), Some((0, start)));
        // It asked once, and its second turn is not yet: at 2 ms.
        assert_eq!(pace.overdue(0, 1), None);
        assert_eq!(pace.turn(after(1)), Some((1, after(1))));
        assert_eq!(pace.turn(after(1)), None);
        assert_eq!(pace.turn(after(5)), Some((0, after(2))));
        // The turn passed while it was busy; at 5 ms it is asked for since 2 ms.
        assert_eq!(pace.overdue(0, 1), Some(after(2)));
        assert_eq!(pace.overdue(1, 1), None, "its turn is still to come");
    }
}
