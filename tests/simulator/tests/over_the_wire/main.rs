//! The simulator as an app meets it: over HTTP and WebSockets.

mod app;

mod clicks;
mod faults;
mod modals;
mod page;
mod sockets;
