//! The events of the audit log: the one list of their names, and what docs/AUDIT-EVENTS.md says of each.

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditSubject {
    /// A request: the entry has its id, action, status and hashes.
    Request,
    /// A request that was not made: the entry has the action and who asked.
    Unmade,
    /// The rules, or the access file.
    InForce,
    /// What was refused, counted over a minute.
    Rejections,
    /// The log and the store themselves.
    Store,
}

macro_rules! audit_events {
    ($($subject:ident { $($variant:ident = $name:literal, $when:literal, [$($field:literal),*];)* })*) => {
        /// What an entry of the audit log says has happened. Whatever writes an entry takes its name from here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AuditEvent {
            $($(#[doc = $when] $variant,)*)*
        }

        impl AuditEvent {
            /// All of them, in the order in which the reference has them.
            pub const ALL: &'static [AuditEvent] = &[$($(AuditEvent::$variant,)*)*];

            /// As it stands in the log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($(AuditEvent::$variant => $name,)*)* }
            }

            /// The event with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<AuditEvent> {
                AuditEvent::ALL.iter().copied().find(|event| event.as_str() == name)
            }

            /// When it is written: a sentence in Markdown.
            #[must_use]
            pub const fn when(self) -> &'static str {
                match self { $($(AuditEvent::$variant => $when,)*)* }
            }

            /// The fields of its detail, in Markdown; those with a question mark can be absent.
            #[must_use]
            pub const fn fields(self) -> &'static [&'static str] {
                match self { $($(AuditEvent::$variant => &[$($field),*],)*)* }
            }

            /// What it is about.
            #[must_use]
            pub const fn subject(self) -> AuditSubject {
                match self { $($(AuditEvent::$variant => AuditSubject::$subject,)*)* }
            }
        }
    };
}

audit_events! {
    Request {
        Created = "created", "A request was made.", ["`requester`", "`requesterIs`?", "`caller`?", "`owners`?", "`lineageId`", "`rerequestedBy`?", "`rerequesterIs`?"];
        PersonaAcknowledged = "persona_acknowledged", "A person acknowledged the request for a persona.", ["`persona`", "`groupsAsOf`? (when the members of the groups that it counts by were read, if that is long ago)"];
        ApprovalRecorded = "approval_recorded", "A person approved; more approvals may be needed.", ["`edits`? (what the person changed)", "`approvalsReplaced`? (whose earlier approvals the edits took the place of)", "`unseen`? (hidden parameters)", "`consent`? (if not everything had to be read)", "`groupsAsOf`? (when the members of the groups that it counts by were read, if that is long ago)"];
        DenialRecorded = "denial_recorded", "A person denied.", ["`reason`?", "`groupsAsOf`? (when the members of the groups that it counts by were read, if that is long ago)"];
        Withdrawn = "withdrawn", "A person took back what they had recorded.", ["`groupsAsOf`? (when the members of the groups that it counts by were read, if that is long ago)"];
        Escalated = "escalated", "The time of the escalation came.", [];
        Tick = "tick", "A policy had asked to be woken at this time.", [];
        Approved = "approved", "The decision: approved.", ["`decision`", "`approvers`", "`reason`?"];
        Denied = "denied", "The decision: denied.", ["`decision`", "`approvers`", "`reason`?"];
        Expired = "expired", "The request ended without a decision by people: its time was over, or an admin ended it as expired.", ["`decision`", "`approvers`", "`reason`?"];
        Cancelled = "cancelled", "The request was cancelled by its caller or an admin, or superseded.", ["`decision`", "`approvers`", "`reason`?", "`successor`? (the request that superseded it)"];
        Supersedes = "supersedes", "A new request cancelled older ones.", ["`superseded` (their ids)"];
        UnauthorizedAttempt = "unauthorized_attempt", "Somebody acted who may not.", ["`act`", "`code`", "`reasons`?", "`persona`?", "`keys`?"];
        OverrideRejected = "override_rejected", "An approval with edits was refused.", ["`act`", "`code`", "`reasons`?", "`keys` (of the edits; never their values)"];
        Refused = "refused", "Another act was refused.", ["`act`", "`code`", "`reasons`?", "`persona`?"];
        Consumed = "consumed", "The approval was used.", ["`caller`?"];
        OutcomeReported = "outcome_reported", "The caller said what came of the run.", ["`caller`?", "`outcome`", "`detail`?"];
        UseRefused = "use_refused", "A use of the approval was refused.", ["`caller`?", "`act`", "`code`", "`differing`? (keys of parameters)"];
        CancelledByAdmin = "cancelled_by_admin", "An admin cancelled the request; `cancelled` follows.", ["`authentication`", "`address`", "`claimedActor`?"];
        ExpiredByAdmin = "expired_by_admin", "An admin ended the request as expired; `expired` follows.", ["`authentication`", "`address`", "`claimedActor`?"];
        MessageResent = "message_resent", "An admin had the messages of the request delivered again.", ["`authentication`", "`address`", "`claimedActor`?", "`version` (of the request)"];
        WebhookResent = "webhook_resent", "An admin had a dead letter sent again.", ["`authentication`", "`address`", "`claimedActor`?", "`target`", "`deadLetter` (its id)"];
        SlackDeliveryFailed = "slack_delivery_failed", "A message could not be delivered to Slack.", ["`code`", "`channel`", "`message`"];
        SlackMessageShortened = "slack_message_shortened", "Slack refused the message as it was, and a shorter one is delivered.", ["`code`", "`channel`", "`message`"];
        RequestQuarantined = "request_quarantined", "Something in the request breaks when what is due of it is done; it is tried again after an hour, at its expiry, and after a restart. Without a payload hash.", ["`why`"];
    }
    Unmade {
        UnknownAction = "unknown_action", "No rules are in force for the action.", ["`reasons` (empty)"];
        PolicyDenied = "policy_denied", "A policy did not admit the request.", ["`reasons` (codes)"];
        PolicyFailure = "policy_failure", "A policy gave no usable answer. It is also written of an act on a request, with the request's id.", ["`reasons`? (codes; unless it is of an act)", "`act`?", "`code`?", "`failures`? (of an act: `policy`, `kind`, `detail`)"];
        TooLargeToReview = "too_large_to_review", "People could not have read all that they would agree to.", ["`reasons` (empty)"];
        Unsatisfiable = "unsatisfiable", "Nobody could ever have approved the request.", ["`reasons` (codes)"];
    }
    InForce {
        AccessReloaded = "access_reloaded", "The access file was read, and is in force.", ["`source`", "`outcome`", "`hash`", "`previousHash`"];
        AccessReloadHeldBack = "access_reload_held_back", "The access file may be half-written, and nothing has changed.", ["`source`", "`outcome`", "`hash`", "`previousHash`", "`errors`?"];
        AccessReloadFailed = "access_reload_failed", "The access file was refused, and nothing has changed.", ["`source`", "`outcome`", "`hash`", "`previousHash`", "`errors`?"];
        PolicyReloaded = "policy_reloaded", "A policy set was put in force: at start, from the folder, or by an admin.", ["`what`", "`source`", "`outcome`", "`hash`", "`previousHash`", "`signedBy`?", "`authentication`?", "`address`?", "`claimedActor`?"];
        PolicyReloadHeldBack = "policy_reload_held_back", "The folder's policy set is not put in force yet.", ["`what`", "`source`", "`outcome`", "`hash`", "`previousHash`", "`signedBy`?", "`errors`?"];
        PolicyReloadFailed = "policy_reload_failed", "A policy set was not put in force, or what an admin sent was not stored.", ["`what`", "`source`", "`outcome`", "`hash`", "`previousHash`", "`signedBy`?", "`errors`?", "`authentication`?", "`address`?", "`claimedActor`?"];
        PolicyModuleStored = "policy_module_stored", "An admin stored a module.", ["`hash`", "`source`", "`name`", "`version`", "`signedBy`", "`authentication`?", "`address`?", "`claimedActor`?"];
        PolicySetStored = "policy_set_stored", "An admin stored a policy set.", ["`hash`", "`source`", "`signedBy`", "`authentication`?", "`address`?", "`claimedActor`?"];
        PolicyShadowStarted = "policy_shadow_started", "An admin had a policy set evaluated in the shadow.", ["`hash`", "`source`", "`beside`", "`authentication`?", "`address`?", "`claimedActor`?"];
        PolicyShadowStopped = "policy_shadow_stopped", "An admin ended the shadow.", ["`hash`", "`source`", "`authentication`?", "`address`?", "`claimedActor`?"];
        PolicyShadowExplained = "policy_shadow_explained", "An admin explained a kind of difference.", ["`hash`", "`source`", "`about` (the action)", "`kind`", "`why`", "`authentication`?", "`address`?", "`claimedActor`?"];
    }
    Rejections {
        AuthenticationFailures = "authentication_failures", "Callers failed to authenticate.", ["`failures` (`address`, `kind`, `count`)", "`others`?"];
        AdminAuthenticationFailures = "admin_authentication_failures", "Somebody failed to authenticate on an admin route.", ["`failures` (`address`, `kind`, `count`)", "`others`?"];
        CallerRejections = "caller_rejections", "Callers were refused what they may not do.", ["`rejections` (`caller`, `kind`, `count`)", "`others`?"];
        AdminRejections = "admin_rejections", "Admins were refused what they may not do.", ["`rejections` (`admin`, `kind`, `count`)", "`others`?"];
        UseRefusedAgain = "use_refused_again", "Uses of approvals were refused again, after a `use_refused`.", ["`refusals` (`requestId`, `act`, `code`, `caller`, `count`, `differingHash`?)", "`others`?"];
    }
    Store {
        RequestsRemoved = "requests_removed", "[Retention](RETENTION.md) removed ended requests.", ["`requests` (how many)", "`archived` (how many of them are in the archive)"];
        PolicySetRemoved = "policy_set_removed", "[Retention](RETENTION.md#policy-sets) removed a policy set that nothing needed.", ["`hash`", "`modules` (how many went with it)", "`lastUsed`"];
        AuditTrimmed = "audit_trimmed", "[Retention](AUDIT.md#retention) removed the oldest entries of a partition.", ["`partition`", "`removed` (up to which number)", "`until` (milliseconds since 1970)", "`subtrees`", "`signature`"];
        AuditRestarted = "audit_restarted", "`countersign audit accept-loss` began another line of [checkpoints](AUDIT.md#checkpoints), because entries were lost.", ["`before`? (the name of the log)", "`checkpoint`? (digest of its last one)"];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_used_twice() {
        let names: BTreeSet<_> = AuditEvent::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(names.len(), AuditEvent::ALL.len());
    }
}
