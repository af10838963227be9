//! The program `countersign`: the crates under `host/`, put together.

// The command line, and the settings of the gateway.
pub mod config;

// The gateway, put together.
pub mod app;
pub mod shutdown;

// How callers, admins and operators reach it.
pub mod http;
pub mod telemetry;

// What is answered to what people do in Slack.
mod slack_press;

// For trying things out.
pub mod dev;
