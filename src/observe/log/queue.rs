//! The way of log lines: from any thread through a bounded queue to a thread of its own, which writes them in batches.
//!
//! Neither a lock nor a system call is on the way of a line, unless it is the first one after a quiet time: then it wakes the
//! thread, and is written at once. While lines keep coming, the thread collects them for [`PAUSE`] and writes them together.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for a slow reader: at 200 bytes each, 1.6 MB. Half a second of the most connections that a core can end. The
/// empty queue takes 32 bytes a line.
const LINES_MAX: usize = 8192;

/// Between two writes under load: 200 writes a second, and no line is later than this.
const PAUSE: Duration = Duration::from_millis(5);

/// The most that one write carries: what a pipe holds.
const BATCH_BYTES: usize = 64 << 10;

/// How long the end waits for a slow reader.
const END_MAX: Duration = Duration::from_secs(1);

/// Takes lines, and drops those that do not fit.
pub(super) struct Queue {
    lines: SyncSender<Vec<u8>>,
    thread: Thread,
    state: Arc<State>,
}

/// Waits, when dropped, until all lines are written.
pub(super) struct End {
    thread: Thread,
    state: Arc<State>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Default)]
struct State {
    /// The thread waits to be woken.
    sleeps: AtomicBool,
    ends: AtomicBool,
    dropped: AtomicUsize,
}

/// Starts the thread, which writes to `out`.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Queue, End)> {
    let (lines, queued) = sync_channel(LINES_MAX);
    let (alive, ended) = sync_channel(0);
    let state = Arc::new(State::default());
    let shared = state.clone();
    let handle = thread::Builder::new().name("log".to_owned()).spawn(move || {
        write_lines(&queued, &shared, out);
        drop::<SyncSender<()>>(alive);
    })?;
    let thread = handle.thread().clone();
    Ok((Queue { lines, thread: thread.clone(), state: state.clone() }, End { thread, state, ended }))
}

impl Queue {
    fn push(&self, line: &[u8]) {
        if self.lines.try_send(line.to_vec()).is_err() {
            self.state.dropped.fetch_add(1, Relaxed);
            return;
        }
        // With the fence in `write_lines`: either the thread sees the line, or we see that it sleeps.
        fence(SeqCst);
        if self.state.sleeps.load(Relaxed) && self.state.sleeps.swap(false, Relaxed) {
            self.thread.unpark();
        }
    }
}

/// A whole line with each call, as tracing's formatter writes them.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'q> MakeWriter<'q> for Queue {
    type Writer = &'q Queue;

    fn make_writer(&'q self) -> &'q Queue {
        self
    }
}

fn write_lines(lines: &Receiver<Vec<u8>>, state: &State, mut out: impl Write) {
    loop {
        // Read before the queue: what was queued before the end is written.
        let ends = state.ends.load(Acquire);
        let batch = collect(lines);
        if !batch.is_empty() {
            // A reader that is gone needs no line.
            let _ = out.write_all(&batch);
            if batch.len() < BATCH_BYTES && !ends {
                thread::park_timeout(PAUSE);
            }
        } else if ends {
            return;
        } else if !state.sleeps.swap(true, Relaxed) {
            // Once more round, for a line that came before the flag was set.
            fence(SeqCst);
        } else {
            thread::park();
        }
    }
}

fn collect(lines: &Receiver<Vec<u8>>) -> Vec<u8> {
    let mut batch = Vec::new();
    while batch.len() < BATCH_BYTES
        && let Ok(line) = lines.try_recv()
    {
        batch.extend_from_slice(&line);
    }
    batch
}

impl End {
    pub(super) fn dropped(&self) -> usize {
        self.state.dropped.load(Relaxed)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.state.ends.store(true, Release);
        self.thread.unpark();
        let _ = self.ended.recv_timeout(END_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Hands each write on to the test.
    struct Batches(Sender<Vec<u8>>);

    impl Write for Batches {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Stalls in each write until the test drops its other end.
    struct Stalled(Batches, Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.0.write(bytes);
            let _ = self.1.recv();
            written
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LINE: &[u8] = b"a line\n";

    #[test]
    fn line_after_a_quiet_time_is_written_at_once() {
        let (sent, batches) = channel();
        let (queue, _end) = start(Batches(sent)).unwrap();
        for _ in 0..20 {
            queue.push(LINE);
            assert_eq!(batches.recv_timeout(Duration::from_secs(10)).unwrap(), LINE);
            while !queue.state.sleeps.load(Relaxed) {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn lines_of_many_threads_are_all_written_at_the_end_in_few_writes() {
        const THREADS: usize = 4;
        const LINES: usize = 1_000;
        let (sent, batches) = channel();
        let (queue, end) = start(Batches(sent)).unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..LINES).for_each(|_| queue.push(LINE)));
            }
        });
        assert_eq!(end.dropped(), 0);
        drop(end);
        let batches: Vec<Vec<u8>> = batches.try_iter().collect();
        assert_eq!(batches.concat(), LINE.repeat(THREADS * LINES));
        assert!(batches.len() < THREADS * LINES / 4, "{} writes", batches.len());
    }

    #[test]
    fn stalled_reader_delays_nobody_and_costs_the_lines_that_do_not_fit() {
        const TOO_MANY: usize = 100;
        let (go, stalled) = channel();
        let (sent, batches) = channel();
        let (queue, end) = start(Stalled(Batches(sent), stalled)).unwrap();
        queue.push(LINE);
        assert_eq!(batches.recv().unwrap(), LINE);
        (0..LINES_MAX + TOO_MANY).for_each(|_| queue.push(LINE));
        assert_eq!(end.dropped(), TOO_MANY);
        drop(go);
        drop(end);
        let batches: Vec<Vec<u8>> = batches.try_iter().collect();
        assert_eq!(batches.concat(), LINE.repeat(LINES_MAX));
    }
}
