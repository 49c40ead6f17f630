//! The endpoints: what they do with a request, by the seed. They note down every
//! request that reached them, whatever becomes of the sender meanwhile.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_egress::{AttemptReport, Identity, Request, Target};
use tidings_sender::Attempts;
use tidings_types::{AttemptCode, BoxFuture, WebhookId};
use tokio::{sync::oneshot, task::JoinSet};

use crate::trace::Trace;

/// How long a dead endpoint outlives the schedule, in milliseconds: long enough for
/// notifications to be given up.
const DEAD: u64 = 20_000;

/// How an endpoint behaves until the end of the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    Ok,
    /// Answers after up to so many milliseconds.
    Slow(u64),
    /// Fails so many times for each notification.
    FailFirst(u32),
    /// Fails until so many milliseconds after the start.
    FailUntil(u64),
    /// Fails so often in 100 requests.
    Flaky(u32),
    /// Answers 410 so often in 100 requests.
    Gone(u32),
    /// Does not answer so often in 100 requests.
    Hanging(u32),
    /// Fails also for [`DEAD`] after the schedule.
    Dead,
}

impl Script {
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..16) {
            0..=2 => Self::Ok,
            3..=5 => Self::Slow(*crate::plan::pick(rng, &[100, 250, 800])),
            6..=8 => Self::FailFirst(rng.random_range(1..5)),
            9 | 10 => Self::FailUntil(rng.random_range(1000..12_000)),
            11 | 12 => Self::Flaky(rng.random_range(10..60)),
            13 => Self::Gone(rng.random_range(5..40)),
            14 => Self::Hanging(rng.random_range(10..60)),
            _ => Self::Dead,
        }
    }
}

/// A request as its endpoint saw it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) webhook: WebhookId,
    pub(crate) notification: String,
    pub(crate) attempt: u32,
    /// When the sender began, when the endpoint had it, and when the answer left.
    pub(crate) started: u64,
    pub(crate) arrived: u64,
    pub(crate) answered: Option<u64>,
    pub(crate) accepted: bool,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
struct Inner {
    trace: Trace,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    scripts: BTreeMap<WebhookId, Script>,
    calls: Vec<Call>,
    /// How often a notification was seen, and whether it was accepted once.
    seen: BTreeMap<(WebhookId, String), (u32, bool)>,
    calm_since: Option<u64>,
    answers: JoinSet<()>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

/// All endpoints. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints(Arc<Inner>);

/// What happens to one request.
struct Fate {
    call: usize,
    status: u16,
    out: Duration,
    back: Option<Duration>,
}

impl Endpoints {
    pub(crate) fn new(seed: u64, scripts: BTreeMap<WebhookId, Script>, trace: Trace) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed ^ 0xe4d),
            scripts,
            calls: Vec::new(),
            seen: BTreeMap::new(),
            calm_since: None,
            answers: JoinSet::new(),
        };
        Self(Arc::new(Inner { trace, state: Mutex::new(state) }))
    }

    /// From now on all answer well, the dead ones later.
    pub(crate) fn calm(&self) {
        self.0.state.lock().calm_since = Some(self.0.trace.now());
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.state.lock().calls.clone()
    }

    /// Notes a request down and draws what becomes of it.
    fn take(&self, request: &Request) -> Option<Fate> {
        let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let notification = text("webhook-id")?.to_owned();
        let attempt = text("x-eds-attempt")?.parse().ok()?;
        let now = self.0.trace.now();
        let mut state = self.0.state.lock();
        while state.answers.try_join_next().is_some() {}
        let script = state.scripts.get(&request.webhook).copied()?;
        let key = (request.webhook, notification.clone());
        let (times, was_accepted) = state.seen.get(&key).copied().unwrap_or_default();
        let hundred = state.rng.random_range(0..100);
        let out = state.rng.random_range(1..6);
        let mut back = Some(state.rng.random_range(1..20));
        let has_recovered = state
            .calm_since
            .is_some_and(|since| !matches!(script, Script::Dead) || now >= since + DEAD);
        let mut status = match script {
            Script::Slow(most) if !has_recovered => {
                back = Some(state.rng.random_range(1..=most));
                200
            }
            Script::FailFirst(first) if !has_recovered && times < first => 500,
            Script::FailUntil(until) if !has_recovered && now < until => 503,
            Script::Flaky(often) if !has_recovered && hundred < often => 500,
            Script::Gone(often) if !has_recovered && hundred < often => 410,
            Script::Hanging(often) if !has_recovered && hundred < often => {
                back = None;
                0
            }
            Script::Dead if !has_recovered => 503,
            Script::Ok
            | Script::Slow(_)
            | Script::FailFirst(_)
            | Script::FailUntil(_)
            | Script::Flaky(_)
            | Script::Gone(_)
            | Script::Hanging(_)
            | Script::Dead => 200,
        };
        // An endpoint that has a notification takes it again.
        if was_accepted {
            status = 200;
            back = back.or(Some(1));
        }
        let (out, back) = (Duration::from_millis(out), back.map(Duration::from_millis));
        // What answers too late is not accepted.
        if back.is_some_and(|back| out + back + Duration::from_millis(20) >= request.timeout) {
            status = 500;
        }
        let accepted = status == 200;
        state.seen.insert(key, (times + 1, was_accepted || accepted));
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let arrived = now + millis(out);
        state.calls.push(Call {
            webhook: request.webhook,
            notification,
            attempt,
            started: now,
            arrived,
            answered: back.map(|back| arrived + millis(back)),
            accepted,
            headers: request.headers.clone(),
            body: request.body.clone(),
        });
        Some(Fate { call: state.calls.len() - 1, status, out, back })
    }
}

impl Attempts for Endpoints {
    fn attempt(&self, request: Request) -> BoxFuture<'static, AttemptReport> {
        let endpoints = self.clone();
        Box::pin(async move {
            let started = tokio::time::Instant::now();
            let Some(fate) = endpoints.take(&request) else {
                return AttemptReport::without_answer(AttemptCode::BadConfig);
            };
            let Fate { call, status, out, back } = fate;
            let trace = endpoints.0.trace.clone();
            let text = request.headers.get("webhook-id").cloned();
            trace.note(format_args!(
                "request {call} of {text:?} to {:?}: {status}",
                request.webhook
            ));
            let (answer, answered) = oneshot::channel();
            // The endpoint goes on whether or not the sender does.
            endpoints.0.state.lock().answers.spawn(async move {
                tokio::time::sleep_until(started + out).await;
                let Some(back) = back else {
                    // Keeps the line open.
                    std::future::pending::<()>().await;
                    return;
                };
                tokio::time::sleep_until(started + out + back).await;
                // The sender may be gone.
                answer.send(status).unwrap_or_default();
            });
            let end = started + request.timeout;
            let report = match tokio::time::timeout_at(end, answered).await {
                Ok(Ok(200)) => AttemptReport {
                    http_status: 200,
                    written: true,
                    ..AttemptReport::without_answer(AttemptCode::Delivered)
                },
                Ok(Ok(status)) => AttemptReport {
                    http_status: status,
                    written: true,
                    ..AttemptReport::without_answer(AttemptCode::Http)
                },
                Ok(Err(_closed)) => AttemptReport::without_answer(AttemptCode::ConnectionReset),
                Err(_late) => AttemptReport::without_answer(AttemptCode::Timeout),
            };
            AttemptReport { duration: started.elapsed(), ..report }
        })
    }

    fn look(
        &self,
        _target: Arc<Target>,
        _identity: Option<Arc<Identity>>,
    ) -> BoxFuture<'static, Option<bool>> {
        Box::pin(async { None })
    }

    fn forget(&self, _webhook: WebhookId) {}
}
