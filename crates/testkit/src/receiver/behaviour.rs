//! What an endpoint does with a request, as a list of steps.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Bytes),
    /// Sends a piece this many times, with a pause before each.
    SendTimes {
        piece: Bytes,
        times: usize,
        pause: Duration,
    },
    /// Sends a piece until the other side has had enough.
    SendForEver(Bytes),
    Wait(Duration),
    /// Closes in order.
    Close,
    /// Closes with a reset.
    Reset,
    /// Neither answers nor closes until the other side does.
    Hang,
}

/// What an endpoint does. After the last step it waits for the next request.
#[derive(Clone, Debug)]
pub struct Behaviour(Arc<[Step]>);

impl Behaviour {
    /// These steps.
    pub fn steps(steps: impl Into<Vec<Step>>) -> Self {
        Self(steps.into().into())
    }

    /// Answers with a status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::answer(status, &[], b"")
    }

    /// Answers with a status, headers and a body; adds its length.
    pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut answer = format!("HTTP/1.1 {status} x\r\n");
        for (name, value) in headers {
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
        if status != 204 && status != 304 {
            answer.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        answer.push_str("\r\n");
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(body);
        Self::raw(answer)
    }

    /// Sends these bytes.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::steps([Step::Send(bytes.into())])
    }

    /// Sends these bytes and closes.
    pub fn raw_then_close(bytes: impl Into<Bytes>) -> Self {
        Self::steps([Step::Send(bytes.into()), Step::Close])
    }

    pub fn close() -> Self {
        Self::steps([Step::Close])
    }

    pub fn reset() -> Self {
        Self::steps([Step::Reset])
    }

    pub fn hang() -> Self {
        Self::steps([Step::Hang])
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        self.with_steps_before([Step::Wait(delay)])
    }

    /// The same, and then this.
    #[must_use]
    pub fn then(self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    fn with_steps_before<const N: usize>(self, steps: [Step; N]) -> Self {
        Self(steps.into_iter().chain(self.0.iter().cloned()).collect())
    }

    pub(super) fn as_steps(&self) -> &[Step] {
        &self.0
    }
}
