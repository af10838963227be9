//! Messages as they come. One that could be read in two ways, with a number that loses digits or a key that comes twice, is
//! refused before the protocol's library makes values of it: people would see something else than was sent.

use countersign_core::json;
use rmcp::RoleServer;
use rmcp::model::{ErrorData, RequestId, ServerJsonRpcMessage};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use serde::Deserialize;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    DuplexStream, duplex,
};
use tokio::sync::mpsc;

use crate::MOST_BYTES;

/// How much of the input is under way, in bytes.
const BUFFER: usize = 1 << 16;

/// The answer to a message, if it is one that is refused. What is no JSON at all is left to the protocol's library.
pub(crate) fn refusal(message: &[u8]) -> Option<ServerJsonRpcMessage> {
    #[derive(Deserialize)]
    struct Head {
        id: Option<RequestId>,
    }
    let text = std::str::from_utf8(message).ok()?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let refused = json::parse(text.as_bytes()).err()?;
    if !json::is_json(text) {
        return None;
    }
    let id = serde_json::from_str::<Head>(text).ok().and_then(|head| head.id);
    Some(ServerJsonRpcMessage::error(ErrorData::invalid_params(refused.to_string(), None), id))
}

/// Messages in lines, without those that are refused, which are answered here.
pub(crate) struct Lines<W: AsyncWrite> {
    lines: AsyncRwTransport<RoleServer, DuplexStream, W>,
    refusals: mpsc::Receiver<ServerJsonRpcMessage>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Lines<W> {
    pub(crate) fn new(input: impl AsyncRead + Send + Unpin + 'static, output: W) -> Lines<W> {
        let (inside, outside) = duplex(BUFFER);
        let (sender, refusals) = mpsc::channel(8);
        tokio::spawn(pass(input, inside, sender));
        let lines = AsyncRwTransport::new_server(outside, output).with_max_line_length(MOST_BYTES);
        Lines { lines, refusals }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for Lines<W> {
    type Error = std::io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = std::io::Result<()>> + Send + 'static {
        self.lines.send(message)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            tokio::select! {
                biased;
                // In a task of its own, since this future may be dropped at any time.
                Some(refusal) = self.refusals.recv() => drop(tokio::spawn(self.lines.send(refusal))),
                message = self.lines.receive() => return message,
            }
        }
    }

    async fn close(&mut self) -> std::io::Result<()> {
        self.lines.close().await
    }
}

/// Passes lines on, until one side is closed.
async fn pass(
    input: impl AsyncRead + Unpin,
    mut output: DuplexStream,
    refusals: mpsc::Sender<ServerJsonRpcMessage>,
) {
    let (mut input, mut line) = (BufReader::new(input), Vec::new());
    // A line that is too long comes in parts, and is dropped by the transport.
    let mut is_part = false;
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    loop {
        line.clear();
        match (&mut input).take(most).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        // The last line may end with the input.
        let is_cut = !line.ends_with(b"\n") && line.len() > MOST_BYTES;
        let refusal = if is_cut || is_part { None } else { refusal(&line) };
        is_part = is_cut;
        let is_passed = match refusal {
            Some(refusal) => refusals.send(refusal).await.is_ok(),
            None => output.write_all(&line).await.is_ok(),
        };
        if !is_passed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;

    fn call(id: &str, params: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0",{id}"method":"tools/call","params":{{"name":"request_approval","arguments":{{"params":{params}}}}}}}"#
        )
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (params, why) in [
            (r#"{"a":9007199254740991.4}"#, "`params.arguments.params.a`"),
            (r#"{"a":1e-400}"#, "`params.arguments.params.a`"),
            (r#"{"a":9007199254740993}"#, "`params.arguments.params.a`"),
            (r#"{"a":1,"a":2}"#, "`params.arguments.params.a`"),
        ] {
            for (id, expected) in [(r#""id":7,"#, json!(7)), (r#""id":"x","#, json!("x")), ("", Value::Null)]
            {
                let said = refusal(format!("\u{feff}{}\r\n", call(id, params)).as_bytes()).unwrap();
                let said = serde_json::to_value(said).unwrap();
                assert_eq!((&said["error"]["code"], &said["id"]), (&json!(-32602), &expected), "{said}");
                assert!(said["error"]["message"].as_str().unwrap().contains(why), "{said}");
            }
        }
        for passed in [call(r#""id":7,"#, r#"{"a":0.1,"b":[1,"\u00e4"]}"#).as_str(), "{", "", "1e", "null"] {
            assert!(refusal(passed.as_bytes()).is_none(), "{passed}");
        }
    }

    /// The lines around one that is refused or too long come through.
    #[tokio::test]
    async fn other_lines_pass() {
        let (input, output) = duplex(64);
        let (sender, mut refusals) = mpsc::channel(8);
        let long = format!("{{\"a\":1,\"a\":{}}}", " ".repeat(2 * MOST_BYTES));
        let refused = call(r#""id":7,"#, r#"{"a":1,"a":2}"#);
        let sent = format!("first\n{refused}\n{long}\nlast\n{refused}");
        let writing = tokio::spawn(async move {
            let (mut from, to) = duplex(BUFFER);
            let passing = tokio::spawn(pass(to, input, sender));
            from.write_all(sent.as_bytes()).await.unwrap();
            drop(from);
            passing.await.unwrap();
        });
        let mut lines = BufReader::new(output).lines();
        let mut lengths = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            lengths.push(line.len());
        }
        writing.await.unwrap();
        assert_eq!(lengths, [5, long.len(), 4]);
        for is_there in [true, true, false] {
            assert_eq!(refusals.recv().await.is_some(), is_there);
        }
    }
}
