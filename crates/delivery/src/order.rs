//! The order of one webhook's notifications: the numbers of its lanes, and queues
//! of which only the first is sent.
//!
//! A queue holds the open notifications of one order key in one lane (of all of
//! them, under `strict`), by number. A queue whose first has failed is stuck: it
//! holds only itself. So does one whose first is held, since an operator stopped its
//! event type.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tidings_types::Lane;

use crate::{At, Entry};

/// The queue of a webhook in strict order.
pub(crate) const STRICT: u128 = 0;
/// Of each queue that moves, so many notifications count as work in hand...
const COUNTED: usize = 64;
/// ...and with so much in hand in its lane nothing more is taken up.
const IN_HAND: usize = 512;

/// Where a numbered notification stands in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The order key, hashed.
    pub key: u128,
    /// Order key and type, hashed, of a type that is a state: a newer one may take
    /// its place.
    pub state: Option<u128>,
}

#[derive(Debug, Default)]
struct Queue {
    places: BTreeMap<u64, (At, Option<u128>)>,
    is_stuck: bool,
    /// Its first waits until an operator lets its event type go on.
    is_held: bool,
}

impl Queue {
    fn counts(&self) -> Counts {
        let places = self.places.len();
        if self.is_held {
            Counts { behind_held: places.saturating_sub(1), ..Counts::default() }
        } else if self.is_stuck {
            Counts::default()
        } else {
            Counts { in_hand: places.min(COUNTED), moving: places, behind_held: 0 }
        }
    }
}

/// What the queues of a lane hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Those that move, at most [`COUNTED`] of each...
    in_hand: usize,
    /// ...and in all.
    moving: usize,
    /// Behind the first ones of queues that are held.
    behind_held: usize,
}

/// Numbers and queues. Bounded by the open notifications.
#[derive(Debug, Default)]
pub(crate) struct Order {
    numbers: [u64; 2],
    queues: HashMap<(Lane, u128), Queue>,
    /// The numbers that stand in queues of keys.
    keyed: [BTreeSet<u64>; 2],
    counts: [Counts; 2],
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Standard => 0,
        Lane::Urgent => 1,
    }
}

impl Order {
    /// The next number of a lane.
    pub(crate) fn next_number(&mut self, lane: Lane) -> u64 {
        let number = &mut self.numbers[index(lane)];
        *number += 1;
        *number
    }

    /// The last numbers given: standard, urgent.
    pub(crate) fn numbers(&self) -> [u64; 2] {
        self.numbers
    }

    /// Never gives a number up to these again.
    pub(crate) fn restore(&mut self, standard: u64, urgent: u64) {
        let [before_standard, before_urgent] = self.numbers;
        self.numbers = [before_standard.max(standard), before_urgent.max(urgent)];
    }

    /// Puts a notification into its queue. Says whether it is the first, and which
    /// one was the first before.
    pub(crate) fn push(&mut self, entry: &Entry) -> Option<(bool, Option<At>)> {
        let queued = entry.queue?;
        let number = entry.totals.number;
        if queued.key != STRICT {
            self.keyed[index(entry.lane)].insert(number);
        }
        Some(self.change((entry.lane, queued.key), |queue| {
            let before = queue.places.first_key_value().map(|(first, (at, _))| (*first, *at));
            queue.places.insert(number, (entry.at, queued.state));
            let is_first = before.is_none_or(|(first, _)| number < first);
            queue.is_held &= !is_first;
            (is_first, before.map(|(_, at)| at))
        }))
    }

    /// Takes a notification out. Gives the one whose turn it is now, if that
    /// changed.
    pub(crate) fn remove(&mut self, entry: &Entry) -> Option<At> {
        let of = (entry.lane, entry.queue?.key);
        if of.1 != STRICT {
            self.keyed[index(entry.lane)].remove(&entry.totals.number);
        }
        let next = self.change(of, |queue| {
            let (first, _) = queue.places.first_key_value()?;
            let was_first = *first == entry.totals.number;
            queue.places.remove(&entry.totals.number);
            if !was_first {
                return None;
            }
            queue.is_stuck = false;
            queue.is_held = false;
            queue.places.first_key_value().map(|(_, (at, _))| *at)
        });
        if self.queues.get(&of).is_some_and(|queue| queue.places.is_empty()) {
            self.queues.remove(&of);
        }
        next
    }

    pub(crate) fn is_first(&self, entry: &Entry) -> bool {
        let Some(queued) = entry.queue else { return true };
        self.queues
            .get(&(entry.lane, queued.key))
            .and_then(|queue| queue.places.first_key_value())
            .is_none_or(|(first, _)| *first == entry.totals.number)
    }

    /// Whether, of those that the webhook had ordered by key before its order was strict,
    /// one with a smaller number stands in the lane still.
    pub(crate) fn waits_for_keyed(&self, entry: &Entry) -> bool {
        entry.queue.is_some_and(|queued| queued.key == STRICT)
            && self.keyed[index(entry.lane)]
                .first()
                .is_some_and(|first| *first < entry.totals.number)
    }

    /// The first of its queue has failed.
    pub(crate) fn stick(&mut self, entry: &Entry) {
        if let Some(queued) = entry.queue
            && self.is_first(entry)
        {
            self.change((entry.lane, queued.key), |queue| queue.is_stuck = true);
        }
    }

    /// The first of its queue is held, or goes on.
    pub(crate) fn hold(&mut self, entry: &Entry, is_held: bool) {
        if let Some(queued) = entry.queue
            && self.is_first(entry)
        {
            self.change((entry.lane, queued.key), |queue| queue.is_held = is_held);
        }
    }

    /// Whether it stands in a queue that is held.
    pub(crate) fn is_held(&self, entry: &Entry) -> bool {
        let queue = entry.queue.and_then(|queued| self.queues.get(&(entry.lane, queued.key)));
        queue.is_some_and(|queue| queue.is_held)
    }

    /// How many wait behind the first ones of queues that are held.
    pub(crate) fn behind_held(&self) -> usize {
        self.counts.iter().map(|lane| lane.behind_held).sum()
    }

    /// In the queue of `entry`, if it is stuck: those in whose place a newer state
    /// stands, oldest first.
    pub(crate) fn superseded(&self, entry: &Entry) -> Vec<At> {
        let queue = entry.queue.and_then(|queued| self.queues.get(&(entry.lane, queued.key)));
        let Some(queue) = queue.filter(|queue| queue.is_stuck) else { return Vec::new() };
        let mut newer = HashSet::new();
        let mut over: Vec<At> = Vec::new();
        for (at, state) in queue.places.values().rev() {
            if state.is_some_and(|state| !newer.insert(state)) {
                over.push(*at);
            }
        }
        over.reverse();
        over
    }

    /// Whether another notification of a lane may be taken up. Queues that are stuck or
    /// held do not count, so that the others go on; but a queue that moves and is long must
    /// not push others out. What is in hand in one lane holds up none of the other.
    pub(crate) fn has_room(&self, lane: Lane, open: usize, max_open: usize) -> bool {
        let Counts { in_hand, moving, .. } = self.counts[index(lane)];
        let crowds_out = open >= max_open / 2 && moving >= max_open / 4;
        in_hand < IN_HAND && !crowds_out
    }

    /// Whether another one may join the strict queue: no more than are numbered in
    /// one go, for the rest waits in the topic.
    pub(crate) fn has_strict_room(&self) -> bool {
        let queue = self.queues.get(&(Lane::Standard, STRICT));
        queue.is_none_or(|queue| queue.places.len() < COUNTED)
    }

    fn change<T>(&mut self, of: (Lane, u128), change: impl FnOnce(&mut Queue) -> T) -> T {
        let queue = self.queues.entry(of).or_default();
        let before = queue.counts();
        let given = change(queue);
        let now = queue.counts();
        let all = &mut self.counts[index(of.0)];
        all.in_hand = all.in_hand + now.in_hand - before.in_hand;
        all.moving = all.moving + now.moving - before.moving;
        all.behind_held = all.behind_held + now.behind_held - before.behind_held;
        given
    }
}

#[cfg(test)]
mod tests {
    use tidings_types::{NotificationId, RunId};

    use super::*;
    use crate::Totals;

    fn entry(number: u64, key: u128, state: Option<u128>) -> Entry {
        Entry {
            at: At { partition: 0, offset: number * 10 },
            notification: NotificationId::from_bytes([1; 16]),
            run: RunId::FIRST,
            lane: Lane::Standard,
            totals: Totals { number, ..Totals::default() },
            queue: Some(Queued { key, state }),
        }
    }

    #[test]
    fn only_the_first_of_a_key_has_its_turn_and_the_next_follows() {
        let mut order = Order::default();
        assert_eq!(order.push(&entry(2, 7, None)), Some((true, None)));
        assert_eq!(order.push(&entry(3, 7, None)), Some((false, Some(entry(2, 7, None).at))));
        assert_eq!(order.push(&entry(4, 8, None)), Some((true, None)));
        // A takeover may bring them in any order.
        assert_eq!(order.push(&entry(1, 7, None)), Some((true, Some(entry(2, 7, None).at))));
        assert_eq!(order.remove(&entry(3, 7, None)), None);
        assert_eq!(order.remove(&entry(1, 7, None)), Some(entry(2, 7, None).at));
        assert_eq!(order.remove(&entry(2, 7, None)), None);
        let counts = Counts { in_hand: 1, moving: 1, behind_held: 0 };
        assert_eq!(order.counts, [counts, Counts::default()]);
        assert_eq!(order.remove(&entry(4, 8, None)), None);
        assert_eq!((order.counts, order.queues.len()), ([Counts::default(); 2], 0));
    }

    #[test]
    fn a_stuck_queue_leaves_all_room_to_the_others() {
        let mut order = Order::default();
        for number in 1..=10_000 {
            order.push(&entry(number, 7, None));
        }
        let room = |order: &Order, max_open| order.has_room(Lane::Standard, 10_000, max_open);
        assert!(room(&order, 100_000));
        assert!(!room(&order, 20_000), "a long queue that moves does not push others out");
        order.stick(&entry(1, 7, None));
        assert!(room(&order, 20_000));
        for number in 0..512 {
            assert!(room(&order, 100_000));
            order.push(&entry(20_000 + number, u128::from(number) + 100, None));
        }
        assert!(!room(&order, 100_000));
        assert!(order.has_room(Lane::Urgent, 10_000, 100_000), "the other lane goes on");
    }

    #[test]
    fn a_queue_is_held_while_its_first_is() {
        let mut order = Order::default();
        let [first, second, third] = [1, 2, 3].map(|number| entry(number, 7, None));
        order.push(&second);
        order.push(&third);
        order.hold(&third, true);
        assert!(!order.is_held(&third), "it is not the first");
        order.hold(&second, true);
        assert!(order.is_held(&third));
        let held = Counts { behind_held: 1, ..Counts::default() };
        assert_eq!(order.counts, [held, Counts::default()]);
        // A takeover may bring them in any order.
        order.push(&first);
        assert!(!order.is_held(&third));
        assert_eq!(order.behind_held(), 0);
        order.hold(&first, true);
        assert_eq!(order.behind_held(), 2);
        order.remove(&first);
        order.hold(&second, true);
        order.hold(&second, false);
        let moves = Counts { in_hand: 2, moving: 2, behind_held: 0 };
        assert_eq!(order.counts, [moves, Counts::default()]);
    }

    #[test]
    fn a_newer_state_supersedes_the_older_ones_of_a_stuck_queue() {
        let mut order = Order::default();
        for (number, state) in [(1, Some(5)), (2, Some(5)), (3, None), (4, Some(6)), (5, Some(5))] {
            order.push(&entry(number, 7, state));
        }
        assert_eq!(order.superseded(&entry(1, 7, None)), []);
        order.stick(&entry(1, 7, None));
        let superseded = order.superseded(&entry(1, 7, None));
        assert_eq!(superseded, [1, 2].map(|number| entry(number, 7, None).at));
    }
}
