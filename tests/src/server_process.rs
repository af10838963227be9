//! A server of somebody else's, as a process that says on its standard error where it listens.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use tokio::sync::oneshot;

use crate::printed::Printed;
use crate::within;

/// The process, and what it logs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    name: &'static str,
    child: Child,
    log: Printed,
}

impl ServerProcess {
    /// Starts it, and waits until it says where it listens: `marker`, the address, and a character that is in none.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) async fn start(
        name: &'static str,
        mut command: Command,
        marker: &'static str,
    ) -> (ServerProcess, SocketAddr) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
        let (sender, ready) = oneshot::channel();
        let mut sender = Some(sender);
        let log = child.stderr.take().expect("its output is piped");
        let log = Printed::read(log, move |line| {
            let address = line.split_once(marker).and_then(|(_, rest)| rest.split(['"', ' ']).next());
            if let Some(address) = address.and_then(|address| address.parse().ok())
                && let Some(sender) = sender.take()
            {
                // This fails if the test has given up, which is fine.
                let _ = sender.send(address);
            }
        });
        let process = ServerProcess { name, child, log };
        match within(&format!("{name} to start"), ready).await {
            Ok(address) => (process, address),
            Err(_) => panic!("{name} did not start: {}", process.log.text()),
        }
    }

    /// Ends it: nothing answers at its address any more.
    pub(crate) fn kill(&mut self) {
        // This fails if it has exited already, which is fine.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {} logged:\n{}---", self.name, self.log.text());
            return;
        }
        // A child process that is still running would keep the output open.
        self.log.ended("log");
    }
}
