import os
os.chdir('crates')
def sub(p,a,b,n=1):
    s=open(p).read()
    assert a in s,(p,a)
    s=s.replace(a,b) if n==0 else s.replace(a,b,n)
    open(p,'w').write(s)
p='delivery/src/lib.rs'
sub(p,'mod checkpoint;\n','mod adapt;\nmod breaker;\nmod checkpoint;\n')
sub(p,'pub use checkpoint::','pub use breaker::{Pace, TRIPS_AT};\npub use checkpoint::')
s=open(p).read()
s=s.replace('''    Asks, FAILED_IN_A_ROW_LIMIT, Gate,''','''    Asks, Gate,''')
open(p,'w').write(s)
p='delivery/src/process.rs'
sub(p,'''    pub suspend: SuspendRules,
''','''    pub suspend: SuspendRules,
    /// How broken webhooks are probed.
    pub pace: Pace,
''')
sub(p,'''            suspend: SuspendRules::default(),
''','''            suspend: SuspendRules::default(),
            pace: Pace::default(),
''')
sub(p,'use crate::{Room, SuspendRules};','use crate::{Pace, Room, SuspendRules};')
sub(p,'''    pub in_flight: [usize; 2],
    /// Facts made''','''    pub in_flight: [usize; 2],
    /// Of them, those of suspects: webhooks that fail, come back, or have not
    /// accepted anything yet.
    pub suspects: usize,
    /// Facts made''')
sub(p,'''            urgent: urgent_places.saturating_sub(urgent),
''','''            urgent: urgent_places.saturating_sub(urgent),
            // Healthy traffic keeps three quarters.
            suspect: (self.limits.in_flight / 4).max(1).saturating_sub(self.suspects),
            is_crowded: standard + urgent >= self.limits.in_flight / 4 * 3,
''')
p='delivery/src/gate.rs'
sub(p,'''//! lane, how many failed in a row, since when it only fails, when it answered 410,
//! its rate limit, and until when it asked for a pause.
''','''//! lane, its breaker and what concurrency it takes, since when it only fails, when it
//! answered 410, its rate limit, and until when it asked for a pause.
''')
sub(p,'''/// After so many failed attempts in a row nothing new is taken up until an open
/// notification gets through.
pub const FAILED_IN_A_ROW_LIMIT: u32 = 8;

''','''/// A webhook that has not accepted anything yet may have so many in flight.
const UNPROVEN: usize = 2;
/// In a crowded process one webhook may have so many in flight.
const CROWDED: usize = 8;
/// When a suspect asks again that found the pool of suspects full.
const POOL_IS_FULL: Duration = Duration::from_millis(200);

''')
sub(p,'use crate::{Rules, rate::RateLimit};','use crate::{Pace, Rules, adapt::Adaptive, breaker::Breaker, rate::RateLimit};')
sub(p,'''    pub urgent: usize,
}''','''    pub urgent: usize,
    /// Places that suspects may take.
    pub suspect: usize,
    /// Three quarters of all places are taken.
    pub is_crowded: bool,
}

/// One question to a gate.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub lane: Lane,
    pub asks: Asks,
    /// Of an open one: whether it is due by its ladder.
    pub is_due: bool,
    /// How many open notifications the webhook has.
    pub open: usize,
    pub room: Room,
    pub now: Timestamp,
}''')
sub(p,'''    failed_in_a_row: u32,
    failing_since: Option<Timestamp>,
    gone: Vec''','''    breaker: Breaker,
    pace: Pace,
    adaptive: Adaptive,
    /// Whether it has accepted anything, as far as is known.
    is_proven: bool,
    failing_since: Option<Timestamp>,
    gone: Vec''')
sub(p,'''            failed_in_a_row: 0,
            failing_since: None,
            gone: Vec::new(),
        }
    }

''','''            breaker: Breaker::default(),
            pace: Pace::default(),
            adaptive: Adaptive::default(),
            is_proven: false,
            failing_since: None,
            gone: Vec::new(),
        }
    }

    /// How it is probed when it is broken.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

''')
s=open(p).read()
i=s.index('    /// The one question.'); j=s.index('    /// The endpoint asks for no request within')
s=s[:i]+'''    /// The one question.
    pub fn may_start(&self, ask: &Ask) -> Verdict {
        let Ask { lane, asks, is_due, open, room, now } = *ask;
        match self.standing {
            Standing::Active => {}
            Standing::Inactive | Standing::Suspended | Standing::Deleted => {
                return Verdict::NotActive;
            }
        }
        if self.breaker.is_open() {
            if asks == Asks::New && !self.breaker.takes_up(open, now) {
                return Verdict::Failing;
            }
            if self.in_flight() > 0 {
                // One probe at a time.
                return Verdict::Full;
            }
            if let Some(wake) = self.breaker.wait_until(is_due, open, now) {
                return Verdict::WaitUntil(wake);
            }
        }
        let process_full = match lane {
            Lane::Standard => room.any == 0,
            Lane::Urgent => room.any + room.urgent == 0,
        };
        let is_greedy = room.is_crowded && self.in_flight() >= CROWDED;
        if process_full || is_greedy || self.in_flight[index(lane)] >= self.share(lane, now) {
            return Verdict::Full;
        }
        if self.is_suspect() && room.suspect == 0 {
            return Verdict::WaitUntil(now + POOL_IS_FULL);
        }
        if self.paused_until > now {
            return Verdict::WaitUntil(self.paused_until);
        }
        self.rate.wait_until(now).map_or(Verdict::Go, Verdict::WaitUntil)
    }

    /// Whether its requests count among those of the suspects.
    pub fn is_suspect(&self) -> bool {
        !self.is_proven || self.breaker.is_suspect()
    }

    /// Whether something of its log should be read: not while the next probe is far.
    pub fn reads_on(&self, open: usize, now: Timestamp) -> bool {
        self.breaker.takes_up(open, now)
    }

    /// When the next probe of a broken webhook may start.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.breaker.probe_at()
    }

    /// Whether one that waits may be tried before it is due, as a probe.
    pub fn probes_early(&self, open: usize, now: Timestamp) -> bool {
        self.in_flight() == 0 && self.breaker.early_probe(open).is_some_and(|at| at <= now)
    }

    /// How many requests it may have in flight now.
    pub fn limit(&self, now: Timestamp) -> usize {
        let trusted = if self.is_proven { usize::MAX } else { UNPROVEN };
        let recovering = self.breaker.limit(now, &self.pace).unwrap_or(usize::MAX);
        self.max_in_flight.min(self.adaptive.limit()).min(trusted).min(recovering)
    }

'''+s[j:]
s=s.replace('''    pub fn takes_up(&self, open: usize) -> bool {
        self.standing == Standing::Active && !(self.is_failing() && open > 0)
    }''','''    pub fn takes_up(&self, open: usize, now: Timestamp) -> bool {
        self.standing == Standing::Active && self.breaker.takes_up(open, now)
    }''')
s=s.replace('''    fn share(&self, lane: Lane) -> usize {
        match lane {
            Lane::Standard if self.has_urgent => (self.max_in_flight - 1).max(1),
            Lane::Standard => self.max_in_flight,
            Lane::Urgent => {
                self.max_in_flight.saturating_sub''','''    fn share(&self, lane: Lane, now: Timestamp) -> usize {
        let limit = self.limit(now);
        match lane {
            Lane::Standard if self.has_urgent => limit.saturating_sub(1).max(1),
            Lane::Standard => limit,
            Lane::Urgent => {
                limit.saturating_sub''')
s=s.replace('''    /// An attempt was accepted: the webhook is well.
    pub fn succeeded(&mut self) {
        self.resume();
        self.failed_in_a_row = 0;
''','''    /// An attempt took so long: what concurrency the endpoint takes follows.
    pub fn answered(&mut self, failed: bool, took: Duration) {
        self.adaptive.ended(failed, took, self.max_in_flight);
    }

    /// An attempt was accepted: the webhook is well.
    pub fn succeeded(&mut self, now: Timestamp) {
        self.resume();
        self.is_proven = true;
        self.breaker.succeeded(now, &self.pace);
''')
s=s.replace('''        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        let since''','''        self.breaker.failed(now, &self.pace);
        let since''')
s=s.replace('''    pub fn set(&mut self, standing: Standing, rules: &Rules) {
        if standing == Standing::Active && self.standing != Standing::Active {
            self.succeeded();
        }''','''    pub fn set(&mut self, standing: Standing, rules: &Rules, now: Timestamp) {
        if standing == Standing::Active && self.standing != Standing::Active {
            self.resume();
            self.breaker.trust(now);
            self.failing_since = None;
            self.gone.clear();
        }''')
s=s.replace('''        self.failed_in_a_row >= FAILED_IN_A_ROW_LIMIT
''','''        self.breaker.is_open()
''')
s=s.replace('''    pub fn failed_in_a_row(&self) -> u32 {
        self.failed_in_a_row
''','''    pub fn failed_in_a_row(&self) -> u32 {
        self.breaker.failed_in_a_row()
''')
s=s.replace('''        self.failed_in_a_row = failed_in_a_row;
''','''        self.breaker.restore(failed_in_a_row);
        // It was served before, and did not fail.
        self.is_proven = failing_since.is_none();
''')
head,tests=s.split('#[cfg(test)]')
tests=tests.replace('const ROOM: Room = Room { any: 100, urgent: 10 };','const ROOM: Room = Room { any: 100, urgent: 10, suspect: 100, is_crowded: false };\n\n    fn ask(lane: Lane, asks: Asks, open: usize, now: Timestamp) -> Ask {\n        Ask { lane, asks, is_due: true, open, room: ROOM, now }\n    }\n\n    fn proven(rules: &Rules) -> Gate {\n        let mut gate = Gate::new(Standing::Active, rules);\n        gate.succeeded(at(0));\n        gate\n    }')
import re
tests=re.sub(r'may_start\((Lane::\w+), (\w+::\w+|asks), (\d), ROOM, ([^)]*\)?)\)', r'may_start(&ask(\1, \2, \3, \4))', tests)
tests=tests.replace('may_start(Lane::Standard, Asks::New, 0, room, at(9))','may_start(&Ask { room, ..ask(Lane::Standard, Asks::New, 0, at(9)) })').replace('may_start(Lane::Urgent, Asks::New, 0, room, at(9))','may_start(&Ask { room, ..ask(Lane::Urgent, Asks::New, 0, at(9)) })')
tests=tests.replace('Room { any: 0, urgent: 1 }','Room { any: 0, urgent: 1, ..ROOM }')
tests=tests.replace('let mut gate = Gate::new(Standing::Active, &rules(max));','let mut gate = proven(&rules(max));').replace('let gate = Gate::new(Standing::Active, &rules(64));','let gate = proven(&rules(64));').replace('let mut gate = Gate::new(Standing::Active, &rules(64));','let mut gate = proven(&rules(64));')
tests=tests.replace('gate.succeeded();','gate.succeeded(at(100));')
i=tests.index('    #[test]\n    fn after_eight_failures'); j=tests.index('    #[test]\n    fn three_410s')
tests=tests[:i]+'''    #[test]
    fn after_eight_failures_in_a_row_it_is_probed_until_one_gets_through() {
        let mut gate = proven(&rules(64));
        let suspend = SuspendRules::default();
        for _ in 0..8 {
            assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 9, at(9))), Verdict::Go);
            assert_eq!(gate.failed(at(9), &suspend), None);
        }
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 9, at(9))), Verdict::Failing);
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::Open, 9, at(9))), Verdict::Go);
        gate.started(Lane::Standard, at(9));
        assert_eq!(gate.may_start(&ask(Lane::Urgent, Asks::Open, 9, at(9))), Verdict::Full);
        gate.finished(Lane::Standard);
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 9, at(10))), Verdict::Go);
        gate.succeeded(at(10));
        assert_eq!((gate.limit(at(10)), gate.limit(at(20))), (1, 2), "slow start");
    }

    #[test]
    fn suspects_have_a_quarter_and_a_crowded_process_gives_each_its_share() {
        let unproven = Gate::new(Standing::Active, &rules(64));
        let full = Room { suspect: 0, ..ROOM };
        let new = Ask { room: full, ..ask(Lane::Standard, Asks::New, 0, at(9)) };
        assert!(matches!(unproven.may_start(&new), Verdict::WaitUntil(_)));
        let mut gate = proven(&rules(64));
        let crowded = Room { is_crowded: true, ..full };
        let new = Ask { room: crowded, ..new };
        for _ in 0..CROWDED {
            assert_eq!(gate.may_start(&new), Verdict::Go);
            gate.started(Lane::Standard, at(9));
        }
        assert_eq!(gate.may_start(&new), Verdict::Full);
    }

'''+tests[j:]
s=head+'#[cfg(test)]'+tests
open(p,'w').write(s)
p='delivery/src/breaker.rs'
sub(p,'''    /// An attempt failed; `due` is when the next open notification is due by its
    /// ladder.
''','''    /// Its owner says that it is repaired: it starts slowly, with a clean slate.
    pub(crate) fn trust(&mut self, now: Timestamp) {
        self.failed_in_a_row = 0;
        self.gap = Duration::ZERO;
        self.recovers_since = Some(now);
    }

    /// When the next probe may start, if it is open.
    pub(crate) fn probe_at(&self) -> Option<Timestamp> {
        self.is_open().then_some(self.probe_at)
    }

    /// An attempt failed.
''')
p='delivery/src/entry.rs'
sub(p,'''    /// The log has acknowledged its number.
''','''    /// Its attempt is a probe before it was due: not a step of its ladder.
    pub(crate) is_early: bool,
    /// The log has acknowledged its number.
''')
p='delivery/src/hook.rs'
sub(p,'''    /// When the gate wants to be asked again.
''','''    /// What it has in flight that counts among the suspects of the process.
    suspects: usize,
    /// When the gate wants to be asked again.
''')
sub(p,'            wake: None,\n','            suspects: 0,\n            wake: None,\n')
sub(p,'self.gate.set(standing, &self.rules);','self.gate.set(standing, &self.rules, now);\n        self.count_suspects(process);')
sub(p,'''                first.filter(later).into_iter().chain(self.wake.filter(later)).min()
''','''                let others = self.wake.into_iter().chain(self.gate.probe_at());
                first.into_iter().chain(others).filter(later).min()
''')
sub(p,'''    fn say(&mut self''','''    /// Brings what counts among the suspects of the process up to date.
    fn count_suspects(&mut self, process: &mut Process) {
        let now = if self.gate.is_suspect() { self.gate.in_flight() } else { 0 };
        process.suspects = (process.suspects + now).saturating_sub(self.suspects);
        self.suspects = now;
    }

    fn say(&mut self''')
p='delivery/src/hook/log.rs'
sub(p,'''        self.remembered.clear();
''','''        self.remembered.clear();
        process.suspects = process.suspects.saturating_sub(self.suspects);
        self.suspects = 0;
''')
p='delivery/src/hook/order.rs'
sub(p,'!self.gate.takes_up(open)','!self.gate.takes_up(open, now)')
p='delivery/src/hook/take_up.rs'
sub(p,'''    pub fn reading(&self, partition: Partition, process: &Process) -> Reading {''','''    pub fn reading(&self, partition: Partition, now: Timestamp, process: &Process) -> Reading {''')
sub(p,'''            Standing::Active if self.gate.is_failing() && self.open() > 0 => return Reading::Stop,
''','''            Standing::Active if !self.gate.reads_on(self.open(), now) => return Reading::Stop,
''')
sub(p,'''        self.wake = None;
''','''        self.wake = None;
        self.gate.set_pace(process.limits.pace);
''')
sub(p,'''            let first = state.waiting.first().filter(|(due, _)| ends_all || *due <= now);
''','''            let early = self.gate.probes_early(self.open(), now);
            let first = state.waiting.first().filter(|(due, _)| ends_all || early || *due <= now);
''')
sub(p,'''        let (lane, open_now) = (entry.lane, self.open());
        if !self.may_start(lane, Asks::Open, open_now, now, process) {
            return Some(Step::Idle);
        }''','''        let lane = entry.lane;
        let is_due = entry.totals.due <= now;
        if !self.may_start(lane, Asks::Open, is_due, now, process) {
            return Some(Step::Idle);
        }''')
sub(p,'''        state.stop_waiting(at.offset);
        let open = state.open.get_mut(&at.offset)?;
        let step''','''        state.stop_waiting(at.offset);
        let open = state.open.get_mut(&at.offset)?;
        open.is_early = !is_due;
        let step''')
sub(p,'''        *process.place(lane) += 1;
        Some(step)''','''        *process.place(lane) += 1;
        self.count_suspects(process);
        Some(step)''')
sub(p,'''        if !self.may_start(entry.lane, Asks::New, open_now, now, process) {''','''        if !self.may_start(entry.lane, Asks::New, false, now, process) {''')
sub(p,'''        *process.place(entry.lane) += 1;
''','''        *process.place(entry.lane) += 1;
        self.count_suspects(process);
''')
sub(p,'''        asks: Asks,
        open: usize,
        now: Timestamp,''','''        asks: Asks,
        is_due: bool,
        now: Timestamp,''')
sub(p,'''        match self.gate.may_start(lane, asks, open, process.room(), now) {''','''        let (open, room) = (self.open(), process.room());
        match self.gate.may_start(&Ask { lane, asks, is_due, open, room, now }) {''')
sub(p,'    Arrived, Asks,','    Arrived, Ask, Asks,')
sub(p,'''                is_numbered: false,
''','''                is_early: false,
                is_numbered: false,
''')
p='delivery/src/hook/log.rs'
sub(p,'''                    joined: false,
''','''                    joined: false,
                    is_early: false,
''')
p='delivery/src/lib.rs'
sub(p,'    Asks, Gate,','    Ask, Asks, Gate,')
p='delivery/src/hook/attempts.rs'
sub(p,'''        *place = place.saturating_sub(1);
''','''        *place = place.saturating_sub(1);
        self.count_suspects(process);
''')
sub(p,'''        let (entry, joined, deadline) = (open.entry, open.joined, open.deadline);
''','''        let (entry, joined, deadline) = (open.entry, open.joined, open.deadline);
        let is_early = std::mem::take(&mut open.is_early);
''')
sub(p,'''            self.gate.succeeded();
''','''            self.gate.answered(false, report.attempt.duration);
            self.gate.succeeded(now);
            self.count_suspects(process);
''')
sub(p,'''        self.proposal = self.gate.failed(now, &process.limits.suspend).or(self.proposal);
''','''        self.gate.answered(true, report.attempt.duration);
        self.proposal = self.gate.failed(now, &process.limits.suspend).or(self.proposal);
        self.count_suspects(process);
''')
sub(p,'''        } else {
            totals.ladder_step = totals''','''        } else if is_early && !gone && self.gate.standing() == Standing::Active {
            // A probe is an attempt but not a step: it stays due as it was.
        } else {
            totals.ladder_step = totals''')
p='sender/src/service/turn.rs'
sub(p,'row.hook.reading(partition, &self.process)','row.hook.reading(partition, now, &self.process)')
sub(p,'''    fn adjust_reading(&mut self, key: RowKey) {
''','''    fn adjust_reading(&mut self, key: RowKey) {
        let now = self.now();
''')
p='tidings/src/app/parts.rs'
sub(p,'''            sabotage: self.sabotage,
            ..Limits::default()''','''            pace: if settings.dev { Pace::quick() } else { Pace::default() },
            sabotage: self.sabotage,
            ..Limits::default()''')
sub(p,'use tidings_delivery::{Ladder, Ladders, Limits, SuspendRules};','use tidings_delivery::{Ladder, Ladders, Limits, Pace, SuspendRules};')
import re
p='delivery/src/gate.rs'
s=open(p).read()
s=s.replace('''    pub fn failed(&mut self, now: Timestamp, rules: &SuspendRules) -> Option<Proposal> {
        self.breaker.failed(now, &self.pace);''','''    /// `is_same`: the last failed attempt was of the same notification. One that nobody
    /// takes does not make its webhook broken.
    pub fn failed(
        &mut self,
        now: Timestamp,
        is_same: bool,
        rules: &SuspendRules,
    ) -> Option<Proposal> {
        if !is_same || self.breaker.is_open() {
            self.breaker.failed(now, &self.pace);
        }''')
head,tests=s.split('#[cfg(test)]')
tests=re.sub(r'gate\.failed\(at\(([^&]*)\), &', r'gate.failed(at(\1), false, &', tests)
open(p,'w').write(head+'#[cfg(test)]'+tests)
p='delivery/src/hook/attempts.rs'
sub(p,'''self.gate.failed(now, &process.limits.suspend)''','''self.gate.failed(now, is_same, &process.limits.suspend)''')
sub(p,'''        self.gate.answered(true''','''        let is_same = self.last_failed.replace(at) == Some(at);
        self.gate.answered(true''')
sub('delivery/src/hook.rs','''    /// What it has in flight that''','''    /// Whose attempt failed last.
    last_failed: Option<At>,
    /// What it has in flight that''')
sub('delivery/src/hook.rs','            suspects: 0,\n','            last_failed: None,\n            suspects: 0,\n')
p='delivery/src/hook/tests.rs'
sub(p,'''    hook.add_partition(0, 0);
    (hook, Process::new(Limits::default()))''','''    hook.add_partition(0, 0);
    // It has accepted something before.
    hook.gate.succeeded(Timestamp::ZERO);
    (hook, Process::new(Limits { pace: crate::Pace::quick(), ..Limits::default() }))''')
p='delivery/src/hook/order_tests.rs'
sub(p,'Process::new(Limits::default())','Process::new(Limits { pace: crate::Pace::quick(), ..Limits::default() })',0)
