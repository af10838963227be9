package quorum

import rego.v1

approvers := {"U0ALICE", "U0BOB", "U0CAROL"}

needed := 2

answer := "denied" if {
	input.event.act == "deny"
	input.event.by in approvers
} else := "requester_may_not_approve" if {
	approves
	input.event.by == input.request.requester
} else := "already_approved" if {
	approves
	input.event.by in approved
} else := "satisfied" if {
	approves
	count(approved) + 1 >= needed
} else := "waiting" if {
	approves
} else := "no_say"

approves if {
	input.event.act == "approve"
	input.event.by in approvers
}

# Everybody whose earlier approval counts.
approved contains event.by if {
	some event in input.history
	event.act == "approve"
	event.by in approvers
	event.by != input.request.requester
}
