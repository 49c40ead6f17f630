//! A task that is not polled for a while, as a process that the machine has put
//! to sleep.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct State {
    is_hung: bool,
    waiting: Vec<Waker>,
}

/// Lets the futures that it was given to hang, and go on. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hang(Arc<Mutex<State>>);

impl Hang {
    pub(crate) fn hang(&self) {
        self.0.lock().is_hung = true;
    }

    pub(crate) fn resume(&self) {
        let mut state = self.0.lock();
        state.is_hung = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn is_hung(&self) -> bool {
        self.0.lock().is_hung
    }

    fn poll_free(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if !state.is_hung {
            return Poll::Ready(());
        }
        // Bounded: one entry for each poll of a hung task, which wakes it never.
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits while it hangs.
    pub(crate) async fn free(self) {
        poll_fn(|context| self.poll_free(context)).await;
    }

    /// Runs `work`, which is not polled while it hangs.
    pub(crate) async fn around<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| match self.poll_free(context) {
            Poll::Ready(()) => work.as_mut().poll(context),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
