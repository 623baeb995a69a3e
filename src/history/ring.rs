//! The last ten minutes of a route by seconds, and its last 24 hours by minutes. Pure.

use super::compact::{decode, encode};
use super::series::Series;

/// Seconds that are kept.
const SECONDS: usize = 600;
/// Minutes that are kept.
pub(super) const MINUTES: usize = 1_440;
const SECONDS_PER_MINUTE: u64 = 60;

/// What happened in a second, or in a minute: three totals and two maxima.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// New sessions.
    pub sessions: u64,
    /// Sessions that ended by a failure.
    pub failed: u64,
    /// The most sessions held at a time.
    pub held: u64,
    /// The most open sessions at a time.
    pub active: u64,
    /// Bytes in both directions.
    pub bytes: u64,
}

/// The numbers of a period. The totals are per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// As [`Sample::sessions`], per second.
    pub sessions: f64,
    /// As [`Sample::failed`], per second.
    pub failed: f64,
    /// As [`Sample::held`].
    pub held: u64,
    /// As [`Sample::active`].
    pub active: u64,
    /// As [`Sample::bytes`], per second.
    pub bytes: f64,
}

/// Which of the two resolutions to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last ten minutes, by seconds.
    Minutes10,
    /// The last 24 hours, by minutes.
    Hours24,
}

/// What to read: `points` buckets of `step` slots, of which the last one ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    span: Span,
    points: usize,
    step: usize,
}

/// The samples of a route.
#[derive(Debug)]
pub(super) struct Ring {
    seconds: Track,
    minutes: Track,
    /// The seconds of the current minute.
    minute: Sample,
    /// The number of the next second, counted from the start of the process.
    end: u64,
}

/// The series of one resolution.
#[derive(Debug)]
struct Track {
    sessions: Series,
    failed: Series,
    held: Series,
    active: Series,
    bytes: Series,
}

impl Sample {
    /// Adds what happened in `count` seconds that are alike.
    fn add(&mut self, count: u64, second: Sample) {
        let Sample { sessions, failed, held, active, bytes } = second;
        self.sessions = self.sessions.saturating_add(sessions.saturating_mul(count));
        self.failed = self.failed.saturating_add(failed.saturating_mul(count));
        self.held = self.held.max(held);
        self.active = self.active.max(active);
        self.bytes = self.bytes.saturating_add(bytes.saturating_mul(count));
    }

    /// Returns the totals per second.
    #[expect(clippy::cast_precision_loss, reason = "the numbers have 11 significant bits")]
    fn over(self, seconds: u64) -> Bucket {
        let per_second = |total: u64| total as f64 / seconds.max(1) as f64;
        Bucket {
            sessions: per_second(self.sessions),
            failed: per_second(self.failed),
            held: self.held,
            active: self.active,
            bytes: per_second(self.bytes),
        }
    }
}

impl Span {
    /// Returns the number of slots.
    pub fn slots(self) -> usize {
        match self {
            Span::Minutes10 => SECONDS,
            Span::Hours24 => MINUTES,
        }
    }

    /// Returns the length of a slot in seconds.
    fn slot_seconds(self) -> u64 {
        match self {
            Span::Minutes10 => 1,
            Span::Hours24 => SECONDS_PER_MINUTE,
        }
    }
}

impl Resolution {
    /// Divides a span into buckets. `None` unless there is at least one, and at most one for each slot.
    pub fn new(span: Span, points: usize) -> Option<Resolution> {
        let is_valid = (1..=span.slots()).contains(&points);
        is_valid.then(|| Resolution { span, points, step: span.slots().div_ceil(points) })
    }

    /// Returns the number of buckets.
    pub fn points(self) -> usize {
        self.points
    }

    /// Returns the length of a bucket in seconds.
    pub fn step_seconds(self) -> u64 {
        self.step as u64 * self.span.slot_seconds()
    }
}

impl Ring {
    /// Creates a ring that begins at a second. Earlier ones are zeros.
    pub(super) fn starting(end: u64) -> Ring {
        let (seconds, minutes) = (Track::zeros(SECONDS), Track::zeros(MINUTES));
        Ring { seconds, minutes, minute: Sample::default(), end }
    }

    /// Returns the number of the next second.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds `count` seconds that are alike.
    pub(super) fn push(&mut self, count: u64, second: Sample) {
        self.seconds.fill(self.end, count, second);
        let mut left = count;
        while left > 0 {
            let minute = self.end / SECONDS_PER_MINUTE;
            let room = SECONDS_PER_MINUTE - self.end % SECONDS_PER_MINUTE;
            let whole = if room == SECONDS_PER_MINUTE { left / SECONDS_PER_MINUTE } else { 0 };
            let taken = if whole > 0 { whole * SECONDS_PER_MINUTE } else { left.min(room) };
            self.minute.add(taken.min(SECONDS_PER_MINUTE), second);
            self.end += taken;
            left -= taken;
            if self.end.is_multiple_of(SECONDS_PER_MINUTE) {
                self.minutes.fill(minute, whole.max(1), std::mem::take(&mut self.minute));
            }
        }
    }

    /// Returns the buckets, oldest first. `None` for those that ended before `since`, or are not kept.
    pub(super) fn read(&self, resolution: Resolution, since: u64) -> Vec<Option<Bucket>> {
        let Resolution { span, points, step } = resolution;
        let end = self.end.div_ceil(span.slot_seconds());
        let first = end.saturating_sub(span.slots() as u64).max(since / span.slot_seconds());
        let bucket = |point: usize| {
            let behind = |points: usize| (points * step) as u64;
            let to = end.checked_sub(behind(points - point - 1))?;
            let from = end.saturating_sub(behind(points - point)).max(first);
            (from < to).then(|| self.bucket(span, from..to, since))
        };
        (0..points).map(bucket).collect()
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let series = [&self.seconds, &self.minutes].into_iter().flat_map(|track| {
            let Track { sessions, failed, held, active, bytes } = track;
            [sessions, failed, held, active, bytes]
        });
        series.map(Series::heap_bytes).sum()
    }

    fn bucket(&self, span: Span, slots: std::ops::Range<u64>, since: u64) -> Bucket {
        let mut sum = Sample::default();
        let length = span.slot_seconds();
        let to_second = |slot: u64| (slot * length).clamp(since, self.end);
        let seconds = to_second(slots.end) - to_second(slots.start);
        for slot in slots {
            sum.add(1, self.slot(span, slot));
        }
        sum.over(seconds)
    }

    fn slot(&self, span: Span, slot: u64) -> Sample {
        match span {
            Span::Minutes10 => self.seconds.sample(slot),
            Span::Hours24 if slot == self.end / SECONDS_PER_MINUTE => self.minute,
            Span::Hours24 => self.minutes.sample(slot),
        }
    }
}

impl Track {
    fn zeros(visible: usize) -> Track {
        let zeros = || Series::zeros(visible);
        Track { sessions: zeros(), failed: zeros(), held: zeros(), active: zeros(), bytes: zeros() }
    }

    fn fill(&mut self, at: u64, count: u64, sample: Sample) {
        let Sample { sessions, failed, held, active, bytes } = sample;
        self.sessions.fill(at, count, encode(sessions));
        self.failed.fill(at, count, encode(failed));
        self.held.fill(at, count, encode(held));
        self.active.fill(at, count, encode(active));
        self.bytes.fill(at, count, encode(bytes));
    }

    fn sample(&self, at: u64) -> Sample {
        let Track { sessions, failed, held, active, bytes } = self;
        Sample {
            sessions: decode(sessions.value(at)),
            failed: decode(failed.value(at)),
            held: decode(held.value(at)),
            active: decode(active.value(at)),
            bytes: decode(bytes.value(at)),
        }
    }
}

#[cfg(test)]
mod tests;
