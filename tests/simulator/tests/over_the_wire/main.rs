//! The simulator as an app sees it: over HTTP and WebSockets.

mod app;

mod clicks;
mod faults;
mod modals;
mod page;
mod sockets;
