//! How long each step of a task took.

use std::time::{Duration, Instant};

/// The steps of a task, in their order.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<(String, Duration)>);

impl Steps {
    /// Runs a step, and prints how long it took.
    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let value = step();
        let time = started.elapsed();
        println!("step: {name}: {} s", time.as_secs());
        self.0.push((name.to_owned(), time));
        value
    }

    /// Formats all steps with their seconds.
    pub(crate) fn table(&self) -> String {
        let total = ("total", self.0.iter().map(|(_, time)| *time).sum());
        let rows = self.0.iter().map(|(name, time)| (name.as_str(), *time)).chain([total]);
        rows.map(|(name, time)| format!("{:6}  {name}\n", time.as_secs())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_seconds_of_each_step_and_of_all() {
        let mut steps = Steps(vec![("build".to_owned(), Duration::from_secs(200))]);
        assert_eq!(steps.run("test", || 1), 1);
        assert_eq!(steps.table(), "   200  build\n     0  test\n   200  total\n");
    }
}
