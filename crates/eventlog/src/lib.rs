//! The view behind history and resend: what became of every event and of every
//! notification, folded from `tidings.routed` and `tidings.outcomes`.
//!
//! The view is never the only copy. It can be thrown away at any time and is
//! rebuilt from the two topics; a rebuilt view gives the same answers, because the
//! fold gives the same state whatever the order in which partitions were read.
//! Reading the topics is the `recorder`'s work; this crate knows no broker.
//!
//! Start with [`EventLog`], the handle that everyone reads through, and
//! [`Writer`], which one task in a process has. How rows are laid out, and why so
//! few of them are written, stands in `rows`.

mod account;
mod batch;
mod explain;
mod facts;
mod fold;
mod item;
mod log;
mod metrics;
mod notification;
mod overlay;
mod pack;
mod query;
mod retain;
mod rows;
mod store;
mod tried;
mod view;
mod wire;

pub use account::{Account, AccountRow};
pub use batch::{Batch, Record, Source};
pub use explain::{Life, Published, Subject, Verdict};
pub use item::{
    AttemptItem, AttemptList, Cursor, CursorError, Item, Page, Places, Status, UndeliveredGroup,
};
pub use log::{Backing, EventLog, Limits, OpenError, Opened, ReadError, WriteError, Writer};
pub use metrics::Metrics;
pub use store::{MemoryDisk, StoreError};
pub use view::Applied;
