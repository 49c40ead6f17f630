//! Says what happens next to a notification: retry ladder, deadline, what a
//! webhook's state allows, duplicates, resends that join, how far a partition may
//! be trimmed, and the state that survives in checkpoints.
//!
//! Pure: no I/O, no clock, no randomness of its own, no logging. [`Hook`] is the
//! state machine of one webhook; [`SlotFold`] makes its state at a takeover;
//! [`Fence`] says who owns a slot. The `sender` service turns [`Step`]s into
//! requests and [`Fact`]s into records.

mod adapt;
mod alarm;
mod breaker;
mod checkpoint;
mod entry;
mod fence;
mod fold;
mod gate;
mod hook;
mod ladder;
mod order;
mod own_fault;
mod partition;
mod process;
mod rate;
mod remembered;
pub mod retry_after;
mod rules;

pub use alarm::{Alarm, Notice, NoticeKind, Suspended};
pub use breaker::{Failed, Pace, TRIPS_AT};
pub use checkpoint::{Assembler, Checkpoint, Folded, PART_ENTRIES, Part};
pub use entry::{Arrived, At, AttemptFact, Entry, Fact, FactKind, Report, Totals};
pub use fence::{Fence, Proof, TookOrder};
pub use fold::{MarkSeen, OutcomeSeen, SlotEvent, SlotFold};
pub use gate::{
    Ask, Asks, Condition, Gate, Health, Proposal, Room, Standing, SuspendRules, Verdict,
};
pub use hook::{Attempt, Hook, Reading, Step};
pub use ladder::{Ladder, LadderError, Ladders, MAX_STEPS, MAX_WAIT};
pub use order::Queued;
pub use own_fault::{OwnFault, Turn};
pub use process::{Counts, Limits, Process};
pub use remembered::Remembered;
pub use rules::Rules;
