//! Planted faults: each leaves one rule of the protocol out, so that a test can
//! show that its checker would see it (`reference/protocol-model.md`).

use std::{fmt, str::FromStr};

/// One rule that a service is told to break. Services get it in their deps;
/// production passes [`Sabotage::None`], and only `--dev` and the simulation may
/// pass another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sabotage {
    #[default]
    None,
    // ---- sender -----------------------------------------------------------
    /// Rule: remembered ids.
    NoRememberedIds,
    /// Rule: refill of the ids at takeover.
    NoRefill,
    /// Rule: a checkpoint says, for offsets from the next one on, what outcomes said.
    NoFoldedInCheckpoint,
    /// Rule: an attempt starts only within half of the session since the last poll.
    NoLivenessCheck,
    /// Rule: a record is acknowledged at the offset after its owner's previous one.
    NoConsecutiveOffsetCheck,
    /// Rule: records name their owner's `took`.
    RecordsWithoutTook,
    /// Rule: a trim uses the state of the last mark.
    TrimWithoutMark,
    /// Rule: a takeover writes checkpoints and a mark before it goes on.
    NoTakeoverCheckpoint,
    /// Rule: an owner takes over again if the group still names it.
    NoRetake,
    /// Rule: outcomes carry totals.
    OutcomesAsDifferences,
    /// Rule: a resend joins only if no end has been handed to the log.
    JoinAfterEnd,
    /// Rule: the parts of a checkpoint are cut from one moment.
    MixedCheckpointParts,
    /// Rule: only what stands before the last mark counts.
    UseBeyondMark,
    /// Loses an outcome instead of appending it.
    DropOutcome,
    /// Reports a delivery that never happened.
    InventDelivered,
    /// Sends to a webhook of another tenant.
    WrongTenantWebhook,
    // ---- router -----------------------------------------------------------
    /// Rule: an offset that is decided already is not decided again.
    DecideAnew,
    /// Rule: commit only after the deliveries are acknowledged.
    CommitBeforeDeliveries,
    /// Rule: write-ahead in `routed` before deliveries.
    NoWriteAhead,
    /// Rule: `took` fencing of `routed`.
    NoRoutedFencing,
    // ---- broker -----------------------------------------------------------
    /// Rule: durable before it is acknowledged.
    AckBeforeFsync,
}

impl Sabotage {
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::NoRememberedIds,
        Self::NoRefill,
        Self::NoFoldedInCheckpoint,
        Self::NoLivenessCheck,
        Self::NoConsecutiveOffsetCheck,
        Self::RecordsWithoutTook,
        Self::TrimWithoutMark,
        Self::NoTakeoverCheckpoint,
        Self::NoRetake,
        Self::OutcomesAsDifferences,
        Self::JoinAfterEnd,
        Self::MixedCheckpointParts,
        Self::UseBeyondMark,
        Self::DropOutcome,
        Self::InventDelivered,
        Self::WrongTenantWebhook,
        Self::DecideAnew,
        Self::CommitBeforeDeliveries,
        Self::NoWriteAhead,
        Self::NoRoutedFencing,
        Self::AckBeforeFsync,
    ];

    /// The name on a command line: `ack-before-fsync`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Whether this is the rule to break.
    pub fn is(self, rule: Self) -> bool {
        self == rule
    }
}

/// A name that no planted fault has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSabotage(String);

impl fmt::Display for UnknownSabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no planted fault; there are", self.0)?;
        Sabotage::ALL.iter().try_for_each(|known| write!(f, " {}", known.name()))
    }
}

impl std::error::Error for UnknownSabotage {}

impl FromStr for Sabotage {
    type Err = UnknownSabotage;

    fn from_str(text: &str) -> Result<Self, UnknownSabotage> {
        let found = Self::ALL.iter().find(|known| known.name() == text);
        found.copied().ok_or_else(|| UnknownSabotage(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_fault_is_found_by_its_name() {
        for known in Sabotage::ALL {
            assert_eq!(known.name().parse(), Ok(*known));
        }
        assert_eq!(Sabotage::AckBeforeFsync.name(), "ack-before-fsync");
        assert!("nothing".parse::<Sabotage>().is_err());
    }
}
