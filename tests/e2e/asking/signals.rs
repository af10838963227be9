//! Signals: while it waits they cancel the request, and while the command runs they are the command's.

use countersign_tests::{Click, Fault, Home, Relay, Running, binary};
use rustix::process::Signal;

use super::{ACTIONS, Asker, RUN, not_run};

#[tokio::test]
async fn a_signal_cancels_what_is_not_decided() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP")] {
        let asking = asker.ask("deploy", &RUN);
        let id = asking.request().await;
        asking.said("ready_for_approval").await;
        asking.signal(signal);
        not_run(&asker, &asking.ended().await, 5, &format!("cancelled: by {name}"));
        assert_eq!(gateway.status(&id).await["status"], "cancelled");
    }
}

/// The answer to the first call hangs, so it is asked for again before the request can be cancelled.
#[tokio::test]
async fn a_signal_cancels_what_is_being_asked() {
    let gateway = Home::new(ACTIONS).start().await;
    // It takes calls and never answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let relay = Relay::start(Some(hanging.local_addr().expect("it has an address"))).await;
    let asker = Asker::through(&relay);
    let asking = asker.ask("deploy", &[&["--no-receipt"], &RUN[..]].concat());
    relay.called("/api/guard/request", 1).await;
    relay.lead_to(Some(gateway.address()));
    asking.signal(Signal::TERM);
    not_run(&asker, &asking.ended().await, 5, "cancelled: by SIGTERM, while it was asked");
    assert_eq!(gateway.status(&relay.made()[0].0).await["status"], "cancelled");
}

/// Each call in turn is never answered: the first signal gives it a little time, and the second ends it at once.
#[tokio::test]
async fn a_second_signal_ends_it_with_what_is_known() {
    let gateway = Home::new(ACTIONS).start().await;
    for (path, code, said) in [
        ("/api/guard/request", 7, "while it was asked; whether it was asked is not known"),
        ("/api/guard/consume", 7, "whether the approval was consumed is not known"),
        ("/api/guard/outcome", 0, "whether the outcome was reported is not known"),
    ] {
        let relay = Relay::start(Some(gateway.address())).await;
        relay.fault(path, Fault::Silence);
        let asker = Asker::through(&relay);
        let asking = asker.ask("deploy", &RUN);
        if path != "/api/guard/request" {
            gateway.click_ok(&Click::approve("U0ALICE", &asking.request().await)).await;
        }
        relay.called(path, 1).await;
        asking.signal(Signal::TERM);
        asking.signal(Signal::INT);
        let ended = asking.ended().await;
        assert_eq!(ended.code, Some(code), "{path}: {ended:?}");
        assert!(ended.stderr.contains(said), "{path}: {ended:?}");
        assert_eq!(asker.file("ran").is_some(), code == 0, "{path}");
    }
}

/// Runs a command of a shell in the foreground of a terminal, and types Ctrl-C once the command has started.
const TYPES: &str = r"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp('sh', ['sh', '-c', sys.argv[1]])
said, typed = b'', False
while True:
    try:
        said += os.read(terminal, 4096)
    except OSError:
        break
    if b'started' in said and not typed:
        typed = True
        os.write(terminal, b'\x03')
os.waitpid(pid, 0)
";

/// Counts each SIGINT, after which its parent is to pass on SIGTERM, and ends with that. A shell takes two
/// for one.
const COUNTS: &str = r"
import os, signal
waited = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, waited)
print('started', flush=True)
told = 0
while signal.sigwait(waited) == signal.SIGINT:
    told += 1
    os.kill(os.getppid(), signal.SIGTERM)
open('told', 'w').write(str(told))
";

/// The terminal sends it to the command, whatever the standard input of `ask` is.
#[tokio::test]
async fn what_is_typed_reaches_the_command_once() {
    let gateway = Home::new(ACTIONS).start().await;
    let relay = Relay::start(Some(gateway.address())).await;
    let asker = Asker::through(&relay);
    std::fs::write(asker.path().join("counts.py"), COUNTS).expect("written");
    std::fs::write(asker.path().join("terminal.py"), TYPES).expect("written");
    let line = format!(
        "echo '{{}}' | {} ask scale --params-file - --repo acme/shop --requester slack:U0REQ --why 'Ship it' \
         -- python3 counts.py",
        binary().display()
    );
    let url = relay.url();
    let variables = [("COUNTERSIGN_URL", url.as_str())];
    // The kernel may make one of two that come at almost the same time.
    for nth in 1..=5 {
        let typing = Running::other("python3", asker.path(), &["terminal.py", &line], &variables);
        relay.called("wait-sse", nth).await;
        gateway.click_ok(&Click::approve("U0ALICE", &relay.made()[nth - 1].0)).await;
        assert_eq!(typing.ended().await.code, Some(0));
        assert_eq!(asker.file("told").as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let gateway = Home::new(ACTIONS).start().await;
    let asker = Asker::of(&gateway);
    // It ends by itself only if nobody tells it.
    let script = "trap 'echo told > told; exit 7' TERM; echo started >&2; while :; do sleep 0.05; done";
    let asking = asker.ask("deploy", &["--", "sh", "-c", script]);
    let id = asking.request().await;
    gateway.click_ok(&Click::approve("U0ALICE", &id)).await;
    asking.said("started").await;
    asking.signal(Signal::TERM);
    let ended = asking.ended().await;
    assert!(ended.code == Some(1) && ended.stderr.contains("exit code 7"), "{ended:?}");
    assert_eq!(asker.file("told").as_deref(), Some("told\n"));
    assert_eq!(gateway.status(&id).await["use"], "failed");
}
