//! Limits the log lines about a problem that may occur many times per second.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts the occurrences of one problem.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    logged_at: Option<Instant>,
    count: u64,
}

impl LogThrottle {
    /// Counts an occurrence. If a line is due, returns the number of occurrences since the last one.
    pub(crate) fn hit(&mut self) -> Option<u64> {
        self.count += 1;
        if self.logged_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return None;
        }
        self.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_occurrence_is_logged_and_then_one_line_per_interval() {
        let mut throttle = LogThrottle::default();
        assert_eq!([throttle.hit(), throttle.hit(), throttle.hit()], [Some(1), None, None]);
        tokio::time::advance(INTERVAL).await;
        assert_eq!([throttle.hit(), throttle.hit()], [Some(3), None]);
    }
}
