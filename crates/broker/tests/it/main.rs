//! The conformance suite of the seam, and what only the local broker promises.
//!
//! No test of the suite asks which broker it runs on: it gets a [`lab::Lab`],
//! which makes one and brings it up again after a crash. Each test is run once
//! per broker by the list below; another broker is another line of it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod appending;
mod groups;
mod kafka_only;
mod lab;
mod local_only;
mod no_brokers;
mod reading;
mod topics;

/// Makes one test of each function for each store of the local broker.
macro_rules! on_local {
    ($($area:ident: $($name:ident),+ $(,)?;)+) => {
        mod memory {
            $($(#[tokio::test(start_paused = true)]
            async fn $name() {
                crate::$area::$name(crate::lab::Lab::memory()).await;
            })+)+
        }

        mod disk {
            $($(#[tokio::test(start_paused = true)]
            async fn $name() {
                crate::$area::$name(crate::lab::Lab::disk()).await;
            })+)+
        }
    };
}

/// Makes one test of each function for each broker.
macro_rules! conformance {
    ($($area:ident: $($name:ident),+ $(,)?;)+) => {
        on_local! { $($area: $($name),+;)+ }

        mod kafka {
            $($(#[tokio::test]
            async fn $name() {
                crate::$area::$name(crate::lab::Lab::kafka().await).await;
            })+)+
        }
    };
}

conformance! {
    appending:
        records_keep_their_order_and_content,
        an_append_answers_with_consecutive_offsets,
        concurrent_appends_to_a_partition_keep_the_order_of_their_calls,
        what_was_acknowledged_survives_a_crash,
        what_a_reader_has_seen_survives_a_crash,
        an_append_over_several_partitions_may_fail_in_part,
        what_is_appended_in_order_stands_only_behind_its_first,
        a_record_at_the_limit_passes_and_one_byte_more_does_not,
        an_appender_that_dies_leaves_whole_batches_only,
        an_empty_batch_is_no_record;
    reading:
        a_read_goes_on_where_the_last_one_ended,
        a_read_of_old_records_gives_what_was_appended,
        a_reader_waits_and_is_woken_by_an_append,
        a_reader_takes_turns_between_partitions,
        a_dropped_poll_loses_nothing,
        a_paused_partition_gives_nothing_until_it_is_resumed,
        a_partition_that_is_assigned_anew_is_not_paused_any_more,
        an_unassigned_partition_gives_nothing_more,
        a_reader_may_be_assigned_before_its_topic_exists_anywhere,
        reading_beyond_the_end_is_an_error,
        reading_a_trimmed_offset_names_the_first_one,
        an_offset_is_found_by_time,
        an_offset_by_time_is_exact_when_times_jump,
        many_idle_partitions_and_one_append;
    topics:
        a_topic_is_created_described_listed_and_deleted,
        a_deleted_topic_comes_back_empty,
        illegal_topics_are_refused,
        partitions_are_added_under_load,
        a_trim_removes_what_is_before_it,
        a_trim_to_the_end_keeps_the_end_over_a_crash,
        many_topics;
    groups:
        a_lone_member_gets_everything,
        a_join_moves_half_after_the_old_owner_has_polled_again,
        a_leave_hands_over_at_once,
        a_dead_members_partitions_are_handed_over_after_its_session,
        a_member_that_does_not_poll_is_expelled_and_cannot_commit,
        a_waiting_poll_keeps_the_member_alive,
        no_partition_has_two_owners,
        committed_positions_keep_their_metadata_over_a_crash,
        added_partitions_reach_the_group;
}

/// What cannot be seen on a Kafka node within a test: its retention looks every
/// few minutes, and its syncs are its own.
mod own_time {
    on_local! {
        appending: many_appenders_share_a_sync, an_append_in_order_is_one_sync;
        topics:
            retention_removes_what_is_too_old_and_nothing_else,
            erased_records_leave_in_order_and_the_end_stays;
    }
}
