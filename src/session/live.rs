//! The sessions that a worker has now, for whoever asks to see them.
//!
//! Each worker keeps its own list, on its own thread, so that a session enters and leaves it without a lock or an atomic
//! operation. The list is read by the worker itself, when it is asked to by message, a page at a time.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use slab::Slab;
use tokio::sync::oneshot;

use crate::cluster::{Cluster, Endpoint};
use crate::listener::ClientAddr;
use crate::traffic::Traffic;

/// Sessions listed in one go. The worker serves nobody meanwhile: 10 us.
const PAGE: usize = 512;

thread_local! {
    static LIVE: RefCell<Slab<Arc<Live>>> = const { RefCell::new(Slab::new()) };
}

/// What can be seen of a session while it lives.
#[derive(Debug)]
pub struct Live {
    pub cluster: Arc<Cluster>,
    pub client: ClientAddr,
    pub began: Instant,
    /// Set once it is connected.
    pub endpoint: ArcSwapOption<Endpoint>,
    pub traffic: Traffic,
}

/// A session's place in the list of its worker, left on drop.
#[derive(Debug)]
pub(super) struct Listed {
    live: Arc<Live>,
    index: usize,
}

/// Asks a worker for a part of its list.
#[derive(Debug)]
pub struct Query {
    from: usize,
    reply: oneshot::Sender<Page>,
}

/// Some sessions, and where to go on.
#[derive(Debug, Default)]
pub struct Page {
    pub sessions: Vec<Arc<Live>>,
    /// `None` at the end.
    pub next: Option<usize>,
}

impl Listed {
    /// On the list of this thread.
    pub(super) fn enter(cluster: Arc<Cluster>, client: ClientAddr) -> Listed {
        let live = Arc::new(Live {
            cluster,
            client,
            began: Instant::now(),
            endpoint: ArcSwapOption::empty(),
            traffic: Traffic::default(),
        });
        // Without a list, at the very end of the thread, nobody asks for it either.
        let index = LIVE.try_with(|list| list.borrow_mut().insert(live.clone())).unwrap_or(usize::MAX);
        Listed { live, index }
    }
}

impl std::ops::Deref for Listed {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let _ = LIVE.try_with(|list| {
            let mut list = list.borrow_mut();
            // Not somebody else's place, should it ever be dropped on another thread.
            if list.get(self.index).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
                list.remove(self.index);
            }
            if list.is_empty() && list.capacity() > PAGE {
                // What a flood left of it goes with its last session.
                list.shrink_to_fit();
            }
        });
    }
}

impl Query {
    pub(crate) fn new(from: usize) -> (Query, oneshot::Receiver<Page>) {
        let (reply, page) = oneshot::channel();
        (Query { from, reply }, page)
    }

    /// Answers from the list of this thread.
    pub(crate) fn answer(self) {
        let page = LIVE.try_with(|list| page(&list.borrow(), self.from)).unwrap_or_default();
        // Whoever asked may have left.
        let _ = self.reply.send(page);
    }
}

/// Sessions that come or go between two pages are in one, in none, but never in both.
fn page(list: &Slab<Arc<Live>>, from: usize) -> Page {
    let end = from.saturating_add(PAGE).min(list.capacity());
    let sessions = (from..end).filter_map(|index| list.get(index)).cloned().collect();
    Page { sessions, next: Some(end).filter(|end| *end < list.capacity()) }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::route::Options;

    fn enter(count: usize) -> Vec<Listed> {
        let cluster = Arc::new(Cluster::new(Options::named("test"), CancellationToken::new()));
        (0..count).map(|_| Listed::enter(cluster.clone(), ClientAddr::Unix)).collect()
    }

    fn listed() -> usize {
        let mut from = Some(0);
        let mut count = 0;
        while let Some(at) = from {
            let (query, mut page) = Query::new(at);
            query.answer();
            let page = page.try_recv().unwrap();
            assert!(page.sessions.len() <= PAGE);
            count += page.sessions.len();
            from = page.next;
        }
        count
    }

    #[test]
    fn a_list_is_read_by_pages_and_holds_whoever_is_there() {
        assert_eq!(listed(), 0);
        let mut sessions = enter(3 * PAGE + 7);
        assert_eq!(listed(), 3 * PAGE + 7);
        sessions.drain(10..2 * PAGE);
        assert_eq!(listed(), PAGE + 17);
        drop(sessions);
        assert_eq!(listed(), 0);
    }

    #[test]
    fn a_session_that_is_dropped_on_another_thread_takes_nobody_off_its_list() {
        let ours = enter(1);
        std::thread::spawn(|| enter(1)).join().unwrap();
        let theirs = std::thread::spawn(|| enter(1)).join().unwrap();
        drop(theirs);
        assert_eq!(listed(), ours.len());
    }
}
