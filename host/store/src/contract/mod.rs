//! The contract: what every backend promises, one function a promise, one file a port.
//!
//! A backend's tests invoke [`store_contract`] once.

pub(crate) mod audit;
pub(crate) mod dispatches;
pub(crate) mod documents;
pub(crate) mod guards;
pub(crate) mod history;
pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod policies;
pub(crate) mod requests;
pub(crate) mod retention;
pub(crate) mod salts;
pub(crate) mod shared;
pub(crate) mod statistics;
pub(crate) mod store;

mod harness;
pub(crate) mod model;

use std::sync::Arc;

use crate::{Archive, Store};

/// A backend with data of its own, which last as long as the value.
pub(crate) trait Backend: Sized {
    /// A backend without data.
    async fn fresh() -> Self;

    /// Opens its data. Every store that was opened before must have been dropped.
    async fn open(&self) -> Arc<dyn Store>;

    /// Opens its data for reading only, beside the stores that are open.
    fn archive(&self) -> Archive;
}

/// A backend that several instances may have open at a time.
pub(crate) trait SharedBackend: Backend {}

/// Defines a test for each promise; with attributes, such as one that has it run only if it is asked for.
macro_rules! store_contract {
    ($(#[$attribute:meta])* $backend:ty) => {
        $crate::contract::store_contract! { $(#[$attribute])* $backend:
            requests {
                a_created_request_can_be_read
                a_repeated_create_gives_the_first_request
                an_idempotency_key_runs_out
                one_of_many_repeated_creates_counts
                a_lineage_is_kept_in_order
                a_lineage_is_read_in_parts
                an_id_is_used_once
                open_requests_are_limited_by_caller_and_action
                one_of_many_creates_is_the_last_that_may_be_open
                a_caller_has_so_many_open_and_no_more
                what_gives_way_does_not_count_towards_the_limit
                a_commit_is_stored_whole
                a_conflict_changes_nothing
                what_was_done_with_an_approval_is_stored
                one_of_many_consumers_wins
                one_of_many_commits_wins
                what_is_due_comes_in_order
                what_is_due_comes_page_by_page
                all_requests_are_listed_newest_first
                what_is_terminal_is_never_due
                open_requests_are_found_by_their_supersede_key
                of_many_with_one_supersede_key_the_last_finds_all
            }
            retention {
                what_has_ended_is_listed_by_when_it_ended
                what_is_removed_is_gone_with_all_that_belongs_to_it
                what_has_changed_is_not_removed
                the_oldest_of_a_lineage_go_first
                a_removed_lineage_is_not_gone_on_with
                it_is_known_until_when_an_idempotency_key_counts
            }
            salts {
                salts_are_read_in_pages
                a_salt_is_replaced_while_it_is_what_it_was
                a_commit_leaves_the_salt_as_it_is_stored
            }
            outbox {
                a_claimed_entry_is_the_claimers_alone
                a_claim_runs_out
                a_claim_is_renewed_by_its_holder
                what_has_waited_for_longest_comes_first
                an_entry_is_ready_whatever_the_clock_said_when_it_was_stored
                an_entry_waits_no_longer_than_the_longest_wait
                each_urgency_has_its_own_place
                each_channel_has_its_own_place
                what_ended_before_it_was_posted_comes_last
                claimers_at_once_share_the_entries
                a_delivered_entry_is_gone
                an_entry_given_back_waits
                an_entry_asked_for_again_is_one_entry
                an_entry_stale_again_is_delivered_again
                a_late_worker_does_not_touch_a_later_claim
                a_late_worker_does_not_remove_a_later_entry
                what_was_delivered_newer_than_asked_for_is_gone
            }
            dispatches {
                a_target_is_told_of_everything_in_order
                a_dispatch_is_the_claimers_alone
                a_claim_of_a_dispatch_is_renewed_by_its_holder
                a_removed_request_has_no_dispatches
                what_is_new_while_a_target_is_told_is_told_next
                a_failed_dispatch_keeps_its_schedule_and_a_held_one_does_not
                no_target_hides_another
                a_dispatch_waits_no_longer_than_the_longest_pause
                a_dead_letter_waits_until_it_is_revived
                dispatches_of_a_target_are_dropped
                a_conflict_enqueues_no_dispatch
                claimers_at_once_share_the_dispatches
                reopening_keeps_the_dispatches
            }
            messages {
                a_post_is_kept_in_order
                one_of_many_posts_wins
                a_post_is_kept_with_its_audit_entries
                stale_posts_come_in_order
                each_channel_has_its_stale_posts
                a_post_waits_no_longer_than_the_longest_wait
                a_refresh_is_claimed_once
            }
            policies {
                pinned_content_is_kept_by_its_hash
                signatures_are_kept_with_what_they_are_over
                policy_sets_are_kept_by_their_hash
                changes_of_the_set_in_force_are_kept_in_order
                one_of_many_changes_wins
                open_requests_are_counted_by_policy
                a_removed_policy_set_is_gone_with_what_goes_with_it
                a_policy_set_stays_if_anything_has_changed
                an_archive_reads_policy_sets_beside_the_store
            }
            guards {
                a_nonce_is_claimed_once
                a_nonce_is_stored_with_its_write
                what_stores_nothing_uses_no_nonce_up
                a_nonce_is_used_by_one_of_many_writes
                one_of_two_outcomes_is_stored
            }
            documents {
                documents_are_kept_by_key
                a_document_is_replaced_by_one_of_those_who_read_it
            }
            audit {
                audit_entries_stay_in_order
                entries_are_numbered_without_gaps
                entries_about_a_request_are_found
                entries_of_a_period_are_found
                a_checkpoint_follows_the_one_before_it
                the_oldest_entries_of_a_partition_are_removed
            }
            statistics {
                counters_add_up
                open_requests_are_counted
                waiting_personas_are_counted
            }
            store {
                what_is_unknown_is_none
                it_can_be_pinged
                maintenance_removes_what_expired_long_ago_alone
                what_expired_by_a_clock_that_was_ahead_counts_again
                reopening_keeps_everything
            }
            model {
                it_behaves_like_the_model
            }
            history {
                a_history_is_linearizable
            }
        }
    };
    (#[$attribute:meta] $backend:ty: $($port:ident { $($promise:ident)* })*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$attribute]
            async fn $promise() {
                $crate::contract::$port::$promise::<$backend>().await;
            }
        )*)*
    };
    ($backend:ty: $($port:ident { $($promise:ident)* })*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::contract::$port::$promise::<$backend>().await;
            }
        )*)*
    };
}
pub(crate) use store_contract;

/// Defines a test for each promise of a store that is shared.
macro_rules! shared_contract {
    ($(#[$attribute:meta])* $backend:ty) => {
        $crate::contract::store_contract! { $(#[$attribute])* $backend:
            shared {
                what_one_stores_the_other_reads
                instances_at_once_decide_once
                changes_of_others_are_heard
                instances_have_one_clock
                a_lease_has_one_holder
                requests_are_claimed_for_one_archive
                instances_know_of_each_other
                instances_know_how_far_their_audit_files_are
                a_bucket_is_shared
                another_instance_goes_on
            }
            history {
                a_history_of_several_instances_is_linearizable
            }
        }
    };
}
pub(crate) use shared_contract;
