//! Runs the real binary from outside and watches it: the crash run, the power-cut
//! run and the bench. Knows the outer contract only.

pub mod bench;
pub mod crash;
pub mod http;
pub mod isolation;
pub mod load;
pub mod memory;
pub mod observe;
pub mod powercut;
pub mod process;
pub mod receiver;
pub mod tools;
pub mod traced;
pub mod world;

use std::time::Duration;

/// Polls `condition` until it gives a value; says what it waited for if it never does.
///
/// # Errors
/// When `patience` is over, with `what` in the text.
pub async fn wait_for<T, F>(what: &str, patience: Duration, mut condition: F) -> anyhow::Result<T>
where
    F: AsyncFnMut() -> anyhow::Result<Option<T>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let mut last = None;
    loop {
        match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if tokio::time::Instant::now() >= deadline {
            let error = anyhow::anyhow!("waited {patience:?} in vain for {what}");
            return Err(match last {
                Some(last) => last.context(error),
                None => error,
            });
        }
        pause.tick().await;
    }
}
