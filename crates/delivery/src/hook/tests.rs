//! The state of a webhook through attempts, waits and ends.
