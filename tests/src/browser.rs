//! A headless browser, driven over the DevTools protocol: it does what a person does with a mouse and a keyboard.
//!
//! One command at a time, which is enough for these tests. Errors of the page are kept.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{ambient, within};

const READY: &str = "DevTools listening on ";

/// Flags of the browser: no access to the network beyond this machine, and no screen.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-GB",
    "--remote-debugging-port=0",
];

/// One browser at a time: each uses a core or two, and the tests beside it depend on time.
static TURN: Semaphore = Semaphore::const_new(1);

/// A page in a browser of its own. Dropping it ends the browser.
#[derive(Debug)]
pub struct Page {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last_id: u64,
    errors: Vec<String>,
    // The folder is dropped after the browser that writes in it.
    _process: Process,
    _profile: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Page {
    /// Opens a URL in a window of this size.
    ///
    /// # Panics
    /// If there is no Chromium, or it does not start.
    pub async fn open(url: &str, width: u32, height: u32) -> Page {
        let turn = TURN.acquire().await.expect("nobody closes it");
        let profile = tempfile::tempdir().expect("there is room for a temporary folder");
        let (process, endpoint) = Process::start(&profile).await;
        let connecting = tokio_tungstenite::connect_async(&endpoint);
        let (socket, _) = within("the browser", connecting).await.expect("the browser takes a connection");
        let mut page = Page {
            socket,
            session: String::new(),
            last_id: 0,
            errors: Vec::new(),
            _process: process,
            _profile: profile,
            _turn: turn,
        };
        let target = page.command("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.command("Target.attachToTarget", attach).await;
        page.session = attached["sessionId"].as_str().expect("a session").to_owned();
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        page.command("Emulation.setDeviceMetricsOverride", size).await;
        page.command("Emulation.setTimezoneOverride", json!({"timezoneId": "Etc/UTC"})).await;
        for domain in ["Page", "Runtime", "Log"] {
            page.command(&format!("{domain}.enable"), json!({})).await;
        }
        page.command("Page.navigate", json!({"url": url})).await;
        page
    }

    /// Waits until a JavaScript expression is true on the page, and returns its value.
    ///
    /// # Panics
    /// If it never becomes true.
    pub async fn wait_for(&mut self, expression: &str) -> Value {
        let script = format!(
            "new Promise((resolve) => {{
                const look = () => {{
                    const found = ({expression});
                    if (!found) return;
                    observer.disconnect();
                    resolve(found instanceof Node ? true : found);
                }};
                const observer = new MutationObserver(look);
                observer.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
                look();
            }})"
        );
        self.evaluate(&script).await
    }

    /// Evaluates JavaScript, and awaits it if it is a promise.
    ///
    /// # Panics
    /// If it throws.
    pub async fn evaluate(&mut self, script: &str) -> Value {
        let arguments = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let answer = self.command("Runtime.evaluate", arguments).await;
        assert!(answer["exceptionDetails"].is_null(), "{script}\n{answer}");
        answer["result"]["value"].clone()
    }

    /// Waits for an element that can be clicked, and clicks in its middle. The selector is CSS.
    ///
    /// # Panics
    /// If it never appears, or is covered.
    pub async fn click(&mut self, selector: &str) {
        let quoted = json!(selector);
        self.wait_for(&format!(
            "(() => {{ const one = document.querySelector({quoted}); return one && !one.disabled && one; }})()"
        ))
        .await;
        let place = self
            .evaluate(&format!(
                "(() => {{
                    const one = document.querySelector({quoted});
                    one.scrollIntoView({{block: 'center', behavior: 'instant'}});
                    const box = one.getBoundingClientRect();
                    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                    const hit = document.elementFromPoint(x, y);
                    return {{x, y, hit: one === hit || one.contains(hit) || (hit?.contains(one) ?? false)}};
                }})()"
            ))
            .await;
        assert_eq!(place["hit"], true, "`{selector}` is covered: {place}");
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({"type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1});
            self.command("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Replaces the text of an input.
    ///
    /// # Panics
    /// If it never appears.
    pub async fn fill(&mut self, selector: &str, text: &str) {
        let quoted = json!(selector);
        self.wait_for(&format!("document.querySelector({quoted})")).await;
        self.evaluate(&format!(
            "(() => {{ const one = document.querySelector({quoted}); one.focus(); one.select(); }})()"
        ))
        .await;
        self.command("Input.insertText", json!({"text": text})).await;
    }

    /// Chooses an option of a select by its value.
    ///
    /// # Panics
    /// If it never appears.
    pub async fn choose(&mut self, selector: &str, value: &str) {
        let (quoted, value) = (json!(selector), json!(value));
        self.wait_for(&format!(
            "[...(document.querySelector({quoted})?.options ?? [])].some((one) => one.value === {value})"
        ))
        .await;
        self.evaluate(&format!(
            "(() => {{
                const one = document.querySelector({quoted});
                one.value = {value};
                one.dispatchEvent(new Event('change', {{bubbles: true}}));
            }})()"
        ))
        .await;
    }

    /// A screenshot of the page: a PNG.
    ///
    /// # Panics
    /// If it fails.
    pub async fn screenshot(&mut self) -> Vec<u8> {
        // Waits for two frames first, so that the newest changes are in it.
        self.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve(true))))")
            .await;
        let taken = self.command("Page.captureScreenshot", json!({"format": "png"})).await;
        let png = base64(taken["data"].as_str().unwrap_or_default());
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 1000, "no PNG: {} bytes", png.len());
        png
    }

    /// Errors of the page so far: exceptions, and loads that its security policy or the network refused.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        let answered = within(&format!("the browser to do {method}"), self.send(method, parameters)).await;
        answered.unwrap_or_else(|error| panic!("{method}: {error:#}; errors of the page: {:?}", self.errors))
    }

    async fn send(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).await?;
        loop {
            let message = self.socket.next().await.context("the browser hung up")??;
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text)?;
            if message["id"] == id {
                if !message["error"].is_null() {
                    bail!("{}", message["error"]);
                }
                return Ok(message["result"].clone());
            }
            self.notice(&message);
        }
    }

    fn notice(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                let details = &parameters["exceptionDetails"];
                self.errors.push(details["exception"]["description"].as_str().unwrap_or("?").to_owned());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.errors.push(parameters["entry"]["text"].to_string());
            }
            _ => {}
        }
    }
}

/// The browser, and everything that it starts.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Starts it, and waits for the address of its DevTools.
    async fn start(profile: &TempDir) -> (Process, String) {
        let mut child = Command::new(ambient::chromium())
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            // It makes a folder there that it leaves behind when it is killed.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A process group of its own, so that its child processes can be killed with it.
            .process_group(0)
            .spawn()
            .expect("Chromium can be started");
        let stderr = child.stderr.take().expect("it is piped");
        let process = Process(child);
        let (found, ready) = oneshot::channel();
        thread::spawn(move || {
            let mut found = Some(found);
            let mut output = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(endpoint) = line.strip_prefix(READY)
                    && let Some(found) = found.take()
                {
                    // This fails if the test has failed meanwhile, which is fine.
                    let _ = found.send(Ok(endpoint.to_owned()));
                }
                output.push_str(&line);
                output.push('\n');
            }
            if let Some(found) = found {
                let _ = found.send(Err(output));
            }
        });
        let endpoint =
            within("Chromium to start", ready).await.expect("the thread sends the address or the output");
        (process, endpoint.unwrap_or_else(|output| panic!("Chromium did not start: {output}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This fails if all of them have exited already, which is fine.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Decodes base64 as DevTools sends it.
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let [.., byte] = (bits >> count).to_be_bytes();
            bytes.push(byte);
        }
    }
    bytes
}
