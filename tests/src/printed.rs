//! The output of a process, while it runs and after.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::watch;

use crate::PATIENCE;

/// One output of a process, read to its end by a thread.
#[derive(Debug)]
pub(crate) struct Printed {
    text: Arc<Mutex<String>>,
    /// Changes with each line.
    pub(crate) lines: watch::Receiver<usize>,
    /// Closed when the output has ended.
    open: Arc<Mutex<Receiver<()>>>,
}

impl Printed {
    pub(crate) fn read(
        output: impl Read + Send + 'static,
        mut each: impl FnMut(&str) + Send + 'static,
    ) -> Printed {
        let text = Arc::new(Mutex::new(String::new()));
        let (held, open) = mpsc::channel::<()>();
        let shared = Arc::clone(&text);
        let (count, lines) = watch::channel(0);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
                drop(text);
                count.send_modify(|count| *count += 1);
                each(&line);
            }
            drop(held);
        });
        Printed { text, lines, open: Arc::new(Mutex::new(open)) }
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end of the output, while other tasks go on.
    pub(crate) async fn closed(&self) {
        let open = Arc::clone(&self.open);
        let ended = tokio::task::spawn_blocking(move || {
            // Nothing is ever sent: this returns when the other end is dropped.
            let _ = open.lock().unwrap_or_else(PoisonError::into_inner).recv();
        });
        ended.await.expect("waiting does not panic");
    }

    /// Waits for the end of the output of a process that is gone.
    pub(crate) fn ended(&self, name: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = open.recv_timeout(PATIENCE);
        assert!(matches!(ended, Err(mpsc::RecvTimeoutError::Disconnected)), "its {name} is still open");
    }
}
