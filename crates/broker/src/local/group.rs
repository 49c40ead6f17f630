//! The coordinator of groups: who is a member, and who holds which partition.
//!
//! A partition that moves is first revoked from the member that holds it, and
//! given to the next one only when the holder has polled again, has left, or has
//! been silent for its session. Positions of groups are not kept here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings_types::{Instant, Partition, TopicName};
use tokio::sync::Notify;

use super::core::Core;
use crate::seam::GroupEvent;

/// A member of any group; never used twice.
pub(super) type MemberId = u64;

/// A group hands out one topic. Members of one name that ask for another topic
/// are a group of their own, with the same committed positions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    group: Arc<str>,
    topic: TopicName,
}

#[derive(Debug)]
struct Member {
    session: Duration,
    alive: Arc<AtomicU64>,
    notify: Arc<Notify>,
    /// Held, but the member has not been told yet.
    give: BTreeSet<Partition>,
    /// Held and told.
    told: BTreeSet<Partition>,
    /// To be revoked with the next poll.
    take: BTreeSet<Partition>,
    /// Revoked; free when the member polls again.
    leaving: BTreeSet<Partition>,
}

impl Member {
    fn expires(&self) -> Instant {
        Instant::from_nanos(self.alive.load(Ordering::Acquire)) + self.session
    }
}

#[derive(Debug, Default)]
struct Group {
    partitions: u32,
    members: BTreeMap<MemberId, Member>,
    /// Who shall have a partition.
    targets: BTreeMap<Partition, MemberId>,
    /// Who has it, or has not given it back yet.
    holders: BTreeMap<Partition, MemberId>,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupKey, Group>,
    members: BTreeMap<MemberId, GroupKey>,
    last_id: MemberId,
}

/// A member as it joins.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) id: MemberId,
    pub(super) alive: Arc<AtomicU64>,
    pub(super) notify: Arc<Notify>,
}

/// What a poll comes to.
#[derive(Debug)]
pub(super) enum Step {
    Event(GroupEvent),
    /// Nothing now; ask again at this time at the latest.
    Wait(Instant),
    Expelled,
}

impl Groups {
    /// Adds a member. `None` if there is no such topic.
    pub(super) fn join(
        &mut self,
        core: &Core,
        group: &str,
        topic: &TopicName,
        session: Duration,
    ) -> Option<Joined> {
        partitions(core, topic)?;
        let key = GroupKey { group: group.into(), topic: topic.clone() };
        self.last_id += 1;
        let id = self.last_id;
        let joined = Joined {
            id,
            alive: Arc::new(AtomicU64::new(core.clock.monotonic().as_nanos())),
            notify: Arc::default(),
        };
        self.groups.entry(key.clone()).or_default().members.insert(
            id,
            Member {
                session,
                alive: Arc::clone(&joined.alive),
                notify: Arc::clone(&joined.notify),
                give: BTreeSet::new(),
                told: BTreeSet::new(),
                take: BTreeSet::new(),
                leaving: BTreeSet::new(),
            },
        );
        self.members.insert(id, key.clone());
        self.touch(core, &key, true);
        Some(joined)
    }

    /// One turn of a member's poll: it lives, gives back what was revoked before,
    /// and learns what is new.
    pub(super) fn step(&mut self, core: &Core, id: MemberId) -> Step {
        let Some(key) = self.members.get(&id).cloned() else { return Step::Expelled };
        self.touch(core, &key, false);
        let Some(group) = self.groups.get_mut(&key) else { return Step::Expelled };
        let Some(member) = group.members.get_mut(&id) else { return Step::Expelled };
        let now = core.clock.monotonic();
        member.alive.store(now.as_nanos(), Ordering::Release);
        // A poll that gives nothing back finds everything settled.
        let left = std::mem::take(&mut member.leaving);
        if !left.is_empty() {
            for partition in left {
                group.holders.remove(&partition);
            }
            group.settle();
        }
        let Some(member) = group.members.get_mut(&id) else { return Step::Expelled };
        if !member.take.is_empty() {
            member.leaving = std::mem::take(&mut member.take);
            return Step::Event(GroupEvent::Revoked(member.leaving.iter().copied().collect()));
        }
        if !member.give.is_empty() {
            let given = std::mem::take(&mut member.give);
            member.told.extend(&given);
            return Step::Event(GroupEvent::Assigned(given.into_iter().collect()));
        }
        let alive_again = now + member.session / 3;
        let others = group.members.iter().filter(|(other, _)| **other != id);
        let next = others.map(|(_, other)| other.expires()).fold(alive_again, Instant::min);
        Step::Wait(next)
    }

    /// Whether the member may still commit.
    pub(super) fn is_member(&mut self, core: &Core, id: MemberId) -> bool {
        let Some(key) = self.members.get(&id).cloned() else { return false };
        self.touch(core, &key, false);
        self.members.contains_key(&id)
    }

    pub(super) fn leave(&mut self, core: &Core, id: MemberId) {
        let Some(key) = self.members.get(&id).cloned() else { return };
        self.remove(&key, id);
        self.touch(core, &key, true);
    }

    /// Tells the members of all groups over `topic` to look again.
    pub(super) fn wake_topic(&self, topic: &TopicName) {
        for (_, group) in self.groups.iter().filter(|(key, _)| key.topic == *topic) {
            group.wake();
        }
    }

    pub(super) fn wake_all(&self) {
        for group in self.groups.values() {
            group.wake();
        }
    }

    fn remove(&mut self, key: &GroupKey, id: MemberId) {
        self.members.remove(&id);
        if let Some(group) = self.groups.get_mut(key) {
            group.members.remove(&id);
            group.holders.retain(|_, holder| *holder != id);
        }
    }

    /// Expels who has been silent for too long, and shares out anew if who is
    /// there, or how much there is, has changed.
    fn touch(&mut self, core: &Core, key: &GroupKey, mut changed: bool) {
        let now = core.clock.monotonic();
        let Some(group) = self.groups.get_mut(key) else { return };
        let silent: Vec<MemberId> = group
            .members
            .iter()
            .filter(|(_, member)| now >= member.expires())
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            changed = true;
            core.metrics.expelled_members.inc();
            tracing::warn!(group = %key.group, topic = %key.topic, member = id, "member expelled");
            if let Some(member) = self.groups.get(key).and_then(|group| group.members.get(&id)) {
                member.notify.notify_one();
            }
            self.remove(key, id);
        }
        let Some(group) = self.groups.get_mut(key) else { return };
        if group.members.is_empty() {
            self.groups.remove(key);
            return;
        }
        let partitions = partitions(core, &key.topic).unwrap_or(0);
        if changed || partitions != group.partitions {
            group.partitions = partitions;
            group.share_out();
            group.settle();
        }
    }
}

fn partitions(core: &Core, topic: &TopicName) -> Option<u32> {
    core.topics.read().by_name.get(topic).map(|topic| topic.meta.partitions)
}

impl Group {
    fn wake(&self) {
        for member in self.members.values() {
            member.notify.notify_one();
        }
    }

    /// Decides who shall have what: equal shares, moving as little as possible.
    fn share_out(&mut self) {
        let mut shares: BTreeMap<MemberId, Vec<Partition>> =
            self.members.keys().map(|id| (*id, Vec::new())).collect();
        let mut free = Vec::new();
        for partition in 0..self.partitions {
            let keeper = self.targets.get(&partition).and_then(|id| shares.get_mut(id));
            keeper.unwrap_or(&mut free).push(partition);
        }
        let members = self.members.len().max(1);
        let total = usize::try_from(self.partitions).unwrap_or(usize::MAX);
        let (share, mut extra) = (total / members, total % members);
        // Who has most keeps one more, so that nothing moves without need.
        let mut by_load: Vec<MemberId> = shares.keys().copied().collect();
        by_load.sort_by_key(|id| std::cmp::Reverse(shares.get(id).map_or(0, Vec::len)));
        let mut quotas = BTreeMap::new();
        for id in by_load {
            let more = usize::from(extra > 0);
            extra -= more;
            quotas.insert(id, share + more);
        }
        for (id, partitions) in &mut shares {
            let quota = quotas.get(id).copied().unwrap_or(share);
            if partitions.len() > quota {
                free.extend(partitions.split_off(quota));
            }
        }
        free.sort_unstable();
        let mut free = free.into_iter();
        for (id, partitions) in &mut shares {
            let quota = quotas.get(id).copied().unwrap_or(share);
            partitions.extend(free.by_ref().take(quota.saturating_sub(partitions.len())));
        }
        self.targets = shares
            .into_iter()
            .flat_map(|(id, partitions)| partitions.into_iter().map(move |n| (n, id)))
            .collect();
    }

    /// Gives what is free and begins to revoke what is held by the wrong member.
    fn settle(&mut self) {
        let held: BTreeSet<Partition> =
            self.holders.keys().chain(self.targets.keys()).copied().collect();
        for partition in held {
            let target = self.targets.get(&partition).copied();
            let holder = self.holders.get(&partition).copied();
            if let Some(holder) = holder
                && let Some(member) = self.members.get_mut(&holder)
            {
                if target == Some(holder) {
                    if member.take.remove(&partition) {
                        member.told.insert(partition);
                    }
                    continue;
                }
                if member.told.remove(&partition) {
                    member.take.insert(partition);
                    member.notify.notify_one();
                }
                if !member.give.remove(&partition) {
                    continue;
                }
            }
            // Nobody holds it, or the holder never heard of it.
            self.holders.remove(&partition);
            if let Some(target) = target
                && let Some(member) = self.members.get_mut(&target)
            {
                self.holders.insert(partition, target);
                member.give.insert(partition);
                member.notify.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(partitions: u32, members: &[MemberId]) -> Group {
        let mut group = Group { partitions, ..Group::default() };
        for id in members {
            add(&mut group, *id);
        }
        group
    }

    fn add(group: &mut Group, id: MemberId) {
        let member = Member {
            session: Duration::from_secs(1),
            alive: Arc::default(),
            notify: Arc::default(),
            give: BTreeSet::new(),
            told: BTreeSet::new(),
            take: BTreeSet::new(),
            leaving: BTreeSet::new(),
        };
        group.members.insert(id, member);
        group.share_out();
    }

    fn shares(group: &Group) -> Vec<usize> {
        let count = |id| group.targets.values().filter(|target| **target == id).count();
        group.members.keys().map(|id| count(*id)).collect()
    }

    /// Who holds what, and what each member has been told of it.
    fn held(group: &Group) -> (BTreeMap<Partition, MemberId>, Vec<[BTreeSet<Partition>; 4]>) {
        let sets = |member: &Member| {
            [&member.give, &member.told, &member.take, &member.leaving].map(BTreeSet::clone)
        };
        (group.holders.clone(), group.members.values().map(sets).collect())
    }

    #[track_caller]
    fn settle(group: &mut Group) {
        group.settle();
        let before = held(group);
        group.settle();
        assert_eq!(held(group), before);
    }

    #[test]
    fn a_poll_that_changes_nothing_has_nothing_to_settle() {
        let mut group = group(16, &[1, 2]);
        settle(&mut group);
        for member in group.members.values_mut() {
            member.told.extend(std::mem::take(&mut member.give));
        }
        settle(&mut group);
        add(&mut group, 3);
        settle(&mut group);
        let member = group.members.get_mut(&1).unwrap();
        member.leaving = std::mem::take(&mut member.take);
        assert!(!member.leaving.is_empty());
        settle(&mut group);
        for partition in std::mem::take(&mut group.members.get_mut(&1).unwrap().leaving) {
            group.holders.remove(&partition);
        }
        settle(&mut group);
        assert!(!group.members[&3].give.is_empty());
        // What was to be revoked stays, if the newcomer goes before that.
        group.members.remove(&3);
        group.holders.retain(|_, holder| *holder != 3);
        group.share_out();
        settle(&mut group);
    }

    #[test]
    fn shares_differ_by_at_most_one_and_cover_everything() {
        for partitions in 0..20 {
            for members in 1..8_u64 {
                let group = group(partitions, &(1..=members).collect::<Vec<_>>());
                let shares = shares(&group);
                let total: usize = shares.iter().sum();
                assert_eq!(total, usize::try_from(partitions).unwrap());
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn a_join_moves_only_what_the_newcomer_gets() {
        for members in 1..8_u64 {
            let mut group = group(128, &(1..=members).collect::<Vec<_>>());
            let before = group.targets.clone();
            add(&mut group, 99);
            let moved = before.iter().filter(|(n, id)| group.targets[n] != **id).count();
            let newcomer = group.targets.values().filter(|id| **id == 99).count();
            assert_eq!(moved, newcomer);
        }
    }

    #[test]
    fn a_leave_moves_only_what_the_leaver_had() {
        let mut group = group(128, &[1, 2, 3, 4, 5]);
        let before = group.targets.clone();
        group.members.remove(&3);
        group.share_out();
        for (partition, id) in before.iter().filter(|(_, id)| **id != 3) {
            assert_eq!(group.targets[partition], *id);
        }
    }
}
