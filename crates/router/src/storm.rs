//! Sees when a topic's records go bad all at once (`reliability-security.md`
//! §7.8): the producer's schema has changed then, and setting everything aside
//! would be loss in disguise. The topic is paused instead.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tidings_types::{Instant, TopicName};

use crate::config::StormRule;

/// Steps in which the time of the rule is counted.
const STEPS: u64 = 6;

/// What all owners of this process have seen of each topic. Bounded by the number
/// of event topics.
#[derive(Debug)]
pub(crate) struct Storms {
    rule: StormRule,
    topics: Mutex<BTreeMap<TopicName, Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Bad records and all records of each step.
    steps: [(u64, u64); 6],
    /// The number of the step that was counted last.
    current: u64,
    paused_until: Option<Instant>,
}

impl Storms {
    pub(crate) fn new(rule: StormRule) -> Self {
        Self { rule, topics: Mutex::default() }
    }

    /// Counts one record. `true` when this one makes it a storm.
    pub(crate) fn note(&self, topic: &TopicName, is_bad: bool, now: Instant) -> bool {
        let mut topics = self.topics.lock();
        if !topics.contains_key(topic) {
            topics.insert(topic.clone(), Counts::default());
        }
        let Some(counts) = topics.get_mut(topic) else { return false };
        let step = step(now, self.rule.within);
        counts.move_to(step);
        let (bad, all) = &mut counts.steps[place(step)];
        *all += 1;
        if !is_bad {
            return false;
        }
        *bad += 1;
        let (bad, all) =
            counts.steps.iter().fold((0, 0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
        let is_storm = bad >= self.rule.records && bad * 100 > all * self.rule.percent;
        if is_storm {
            *counts = Counts { paused_until: Some(now + self.rule.pause), ..Counts::default() };
        }
        is_storm
    }

    /// Until when the topic is paused, if it is.
    pub(crate) fn paused_until(&self, topic: &TopicName, now: Instant) -> Option<Instant> {
        self.topics.lock().get(topic)?.paused_until.filter(|until| *until > now)
    }
}

impl Counts {
    /// Forgets what is older than the rule's time.
    fn move_to(&mut self, step: u64) {
        let passed = step.saturating_sub(self.current).min(STEPS);
        for behind in 0..passed {
            self.steps[place(step - behind)] = (0, 0);
        }
        self.current = self.current.max(step);
    }
}

fn step(now: Instant, within: Duration) -> u64 {
    let length = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX) / STEPS;
    now.as_nanos() / length.max(1)
}

fn place(step: u64) -> usize {
    usize::try_from(step % STEPS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storms() -> (Storms, TopicName) {
        (Storms::new(crate::Config::default().storm), TopicName::new("t"))
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn a_hundred_bad_records_in_a_minute_pause_the_topic_for_a_minute() {
        let (storms, topic) = storms();
        for _ in 0..99 {
            assert!(!storms.note(&topic, true, at(100)));
        }
        assert_eq!(storms.paused_until(&topic, at(100)), None);
        assert!(storms.note(&topic, true, at(110)));
        assert_eq!(storms.paused_until(&topic, at(169)), Some(at(170)));
        assert_eq!(storms.paused_until(&topic, at(170)), None);
        assert_eq!(storms.paused_until(&TopicName::new("other"), at(120)), None);
        assert!(!storms.note(&topic, true, at(171)), "counted anew after the pause");
    }

    #[test]
    fn few_among_many_are_no_storm() {
        let (storms, topic) = storms();
        for _ in 0..20_000 {
            storms.note(&topic, false, at(100));
        }
        for bad in 1..=202 {
            assert!(!storms.note(&topic, true, at(101)), "{bad} are not more than one percent");
        }
        assert!(storms.note(&topic, true, at(101)));
    }

    #[test]
    fn a_slow_trickle_is_no_storm() {
        let (storms, topic) = storms();
        for second in 0..1_000 {
            assert!(!storms.note(&topic, true, at(second)), "{second}");
        }
    }
}
