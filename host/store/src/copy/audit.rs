//! Where an audit entry is kept in the destination.
//!
//! Entries are read in the order in which the source numbers them, and written in that order, so that what is about one
//! request, or about none, stays in the order in which it was written. How entries about different requests are mixed is
//! each backend's affair.

use countersign_core::lifecycle::RequestId;

use super::Home;

/// The log of a partitioned destination that an entry belongs to: the one of its request, and else the one that it was in,
/// if the source has the same partitions.
pub(crate) fn home_of_entry(
    request: Option<RequestId>,
    was_in: Home,
    partitions: u16,
    same_partitions: bool,
) -> Home {
    match (request, was_in) {
        (Some(request), _) => Home::Partition(request.shard().checked_rem(partitions).unwrap_or_default()),
        (None, Home::Partition(partition)) if same_partitions => Home::Partition(partition),
        (None, _) => Home::Meta,
    }
}
