//! A proxy in front of a gateway: Debian's nginx, in a folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::ambient;

/// A running nginx. Dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// In front of the gateway at this address, with the configuration of docs/PROXIES.md but for addresses and TLS.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn in_front_of(gateway: SocketAddr) -> Nginx {
        Nginx::changed(gateway, &[])
    }

    /// The same, with these directives in place of others.
    ///
    /// # Panics
    /// If it cannot be started, or one of them is not in the documents.
    #[must_use]
    pub fn changed(gateway: SocketAddr, changes: &[(&str, &str)]) -> Nginx {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        // Bound here and inherited, so that the system chooses the port, and calls wait until nginx takes them.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        fcntl_setfd(&listener, FdFlags::empty()).expect("a listener can be inherited");
        let (listen, server) = (format!("listen {address};"), format!("server {gateway};"));
        let own = [("listen 443 ssl;", listen.as_str()), ("server 127.0.0.1:8080;", server.as_str())];
        let documented = documented();
        let with_tls = own.iter().chain(changes).fold(documented, |text, (from, to)| {
            assert!(text.contains(from), "docs/PROXIES.md has no `{from}`");
            text.replace(from, to)
        });
        let server: Vec<&str> =
            with_tls.lines().filter(|line| !line.trim_start().starts_with("ssl_")).collect();
        let server = server.join("\n");
        let configuration = format!(
            "daemon off;\n\
             worker_processes 1;\n\
             pid nginx.pid;\n\
             error_log stderr;\n\
             events {{}}\n\
             http {{\n\
               access_log off;\n\
               client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
               uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             {server}\n\
             }}\n"
        );
        fs::write(folder.path().join("nginx.conf"), configuration)
            .expect("a temporary folder can be written to");
        let child = Command::new(ambient::nginx())
            .args(["-p", "."])
            .args(["-c", "nginx.conf"])
            .current_dir(folder.path())
            .env_clear()
            .env("NGINX", format!("{};", listener.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("nginx can be run");
        Nginx { address, child, _folder: folder }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // Its worker ends with it, unless it is killed. This fails if it has exited already.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        if !thread::panicking() {
            assert!(matches!(ended, Ok(None)), "nginx ended by itself: {ended:?}");
        }
    }
}

/// The configuration that docs/PROXIES.md shows.
///
/// # Panics
/// If it shows none.
fn documented() -> String {
    let page = fs::read_to_string(ambient::project("docs/PROXIES.md")).expect("there is a page on proxies");
    let block = page.split_once("```nginx\n").and_then(|(_, rest)| rest.split_once("```"));
    block.expect("it shows how to configure nginx").0.to_owned()
}
