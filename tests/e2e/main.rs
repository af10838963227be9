//! End-to-end tests: the real program, driven over HTTP. One file for each feature.

mod access;
mod admins;
mod tls;
mod tokens;

mod single_approver;

mod quorum;

mod personas;

mod decision_log;
mod denial;

mod cancellation;
mod withdrawal;

mod expiry;
mod wake_up;

mod rerequest;

mod idempotency;

mod asking;
mod gates;
mod hooks;
mod mcp;
mod pipelines;

mod receipts;
mod reexecution;
mod retention;
mod supersede;
mod unsatisfiable;
mod usage;

mod overrides;

mod hidden_values;
mod payload_hash;
mod planted_secrets;
mod redaction;

mod streams;

mod simultaneous_clicks;

mod bad_weather;
mod slack;
mod slack_security;
mod slow_store;
mod store_trouble;

mod memory;
mod restart;
mod shutdown;

mod crash;

mod bad_input;
mod check_config;
mod rate_limit;

mod bad_policy_sets;
mod clients;
mod contract_versions;
mod listeners;
mod misbehaving_policies;
mod slow_policies;

mod bad_policy_reloads;
mod policy_reloads;
mod shadow_and_replay;
mod signatures;

mod registry;
mod registry_sets;

mod instances;
mod monitoring;
mod operators;
mod outages;
mod requests;
mod spool;
mod store_copy;
mod traces;
mod webhooks;

mod cookbook;
mod import;

mod attacks;
mod audit;
mod health;
mod keys;
mod ledger;

mod slack_page;
