//! Serves a listener again after an error or a panic, with the same socket: `status` shows it as open, and its backlog is kept.

use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

/// The pause before a listener is served again. Connections wait in the backlog.
const PAUSE: Duration = Duration::from_secs(1);

/// Calls `serve` until it has completed, or has failed after `stop`. A panic is a defect of this program, and ends only the connections
/// that the listener was about to admit.
pub(super) async fn run<F: Future<Output = io::Result<()>>>(
    stop: &CancellationToken,
    mut serve: impl FnMut() -> F,
) {
    loop {
        match AssertUnwindSafe(serve()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, "listener failed, and is served again"),
            Err(panic) => {
                let why = message(&*panic);
                tracing::error!(
                    why,
                    "listener panicked, which is a defect of this program; it is served again"
                );
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn listener_is_served_again_after_a_panic_and_after_an_error() {
        let mut runs = 0;
        let stop = CancellationToken::new();
        let served = run(&stop, || {
            runs += 1;
            let this = runs;
            async move {
                match this {
                    1 => panic!("a defect"),
                    2 => Err(io::Error::other("no memory")),
                    _ => Ok(()),
                }
            }
        });
        served.await;
        assert_eq!(runs, 3);
    }

    #[tokio::test]
    async fn listener_that_fails_after_the_stop_is_not_served_again() {
        let stop = CancellationToken::new();
        stop.cancel();
        let mut runs = 0;
        run(&stop, || {
            runs += 1;
            async { Err(io::Error::other("no memory")) }
        })
        .await;
        assert_eq!(runs, 1);
    }
}
