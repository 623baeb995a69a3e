//! The way of log lines: from any thread into one buffer, which a thread of its own writes in batches.
//!
//! The first line after a quiet time wakes the thread, and is written at once. While lines keep coming, the thread collects them for
//! [`PAUSE`] and writes them together. So a line costs its copy under a lock that is held for the copy alone: the thread takes
//! the buffer as a whole, and writes without the lock.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait for a slow reader: some 8,000 lines, half a second of the most connections that a core can end.
const BYTES_MAX: usize = 2 << 20;

/// Between two writes under load: 100 writes a second, and no line is later than this.
const PAUSE: Duration = Duration::from_millis(10);

/// How much a buffer may keep allocated while it is empty.
const KEPT_BYTES: usize = 64 << 10;

/// How long the end waits for a slow reader.
const END_MAX: Duration = Duration::from_secs(1);

/// Takes lines, and drops those that do not fit.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    thread: Thread,
    waiting: Arc<Mutex<Waiting>>,
}

/// Waits, when dropped, until all lines are written.
pub(super) struct End {
    thread: Thread,
    waiting: Arc<Mutex<Waiting>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

/// What the threads share.
#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: usize,
    /// The thread waits to be woken.
    is_asleep: bool,
    is_ending: bool,
}

/// What the thread is to do next.
enum Next {
    Write,
    Sleep,
    End,
}

/// Starts the thread, which writes to `out`.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Queue, End)> {
    let (alive, ended) = sync_channel(0);
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let shared = waiting.clone();
    let handle = thread::Builder::new().name("log".to_owned()).spawn(move || {
        write_lines(&shared, out);
        drop::<SyncSender<()>>(alive);
    })?;
    let thread = handle.thread().clone();
    Ok((Queue { thread: thread.clone(), waiting: waiting.clone() }, End { thread, waiting, ended }))
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Returns whether the thread must be woken.
    fn push(&mut self, line: &[u8]) -> bool {
        if self.lines.len() + line.len() > BYTES_MAX {
            self.dropped += 1;
            return false;
        }
        self.lines.extend_from_slice(line);
        std::mem::take(&mut self.is_asleep)
    }

    /// Moves what waits to `batch`, which is empty.
    fn next(&mut self, batch: &mut Vec<u8>) -> Next {
        if !self.lines.is_empty() {
            std::mem::swap(&mut self.lines, batch);
            return Next::Write;
        }
        self.is_asleep = !self.is_ending;
        if self.is_ending { Next::End } else { Next::Sleep }
    }
}

impl Queue {
    pub(super) fn push(&self, line: &[u8]) {
        // A statement of its own, so that the thread is not woken to wait for the lock.
        let wakes = locked(&self.waiting).push(line);
        if wakes {
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

fn write_lines(waiting: &Mutex<Waiting>, mut out: impl Write) {
    let mut batch = Vec::new();
    loop {
        let next = locked(waiting).next(&mut batch);
        match next {
            Next::Write => {
                // A reader that is gone needs no line.
                let _ = out.write_all(&batch);
                batch.clear();
                batch.shrink_to(KEPT_BYTES);
                // Cut short by the end.
                thread::park_timeout(PAUSE);
            }
            Next::Sleep => thread::park(),
            Next::End => return,
        }
    }
}

impl End {
    pub(super) fn dropped(&self) -> usize {
        locked(&self.waiting).dropped
    }
}

impl Drop for End {
    fn drop(&mut self) {
        locked(&self.waiting).is_ending = true;
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
            (&queue).write_all(LINE).unwrap();
            assert_eq!(batches.recv_timeout(Duration::from_secs(10)).unwrap(), LINE);
            while !locked(&queue.waiting).is_asleep {
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
                scope.spawn(|| (0..LINES).for_each(|_| (&queue).write_all(LINE).unwrap()));
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
        (&queue).write_all(LINE).unwrap();
        assert_eq!(batches.recv().unwrap(), LINE);
        let fitting = BYTES_MAX / LINE.len();
        (0..fitting + TOO_MANY).for_each(|_| (&queue).write_all(LINE).unwrap());
        assert_eq!(end.dropped(), TOO_MANY);
        drop(go);
        drop(end);
        let batches: Vec<Vec<u8>> = batches.try_iter().collect();
        assert_eq!(batches.concat(), LINE.repeat(fitting));
    }
}
