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
    /// In front of the gateway at this address, as the documents say to configure it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn in_front_of(gateway: SocketAddr) -> Nginx {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        // Bound here and inherited, so that the system chooses the port, and calls wait until nginx takes them.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        fcntl_setfd(&listener, FdFlags::empty()).expect("a listener can be inherited");
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
               server {{\n\
                 listen {address};\n\
                 location / {{\n\
                   proxy_pass http://{gateway};\n\
                   proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
                   proxy_set_header Host $host;\n\
                 }}\n\
               }}\n\
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
