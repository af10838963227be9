//! A stream of server-sent events, read as a browser would.

use serde_json::Value;

use crate::wire::{Call, Connection, Framing, Head, Reply};
use crate::within;

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `state` or `heartbeat`; empty if only a field such as `retry` was sent.
    pub name: String,
    /// What `Last-Event-ID` resumes after.
    pub id: Option<String>,
    /// How long to wait before reconnecting, in milliseconds.
    pub retry: Option<u64>,
    /// The data, as text.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The request's status, of a `state` event.
    #[must_use]
    pub fn status(&self) -> String {
        self.json()["status"].as_str().unwrap_or_default().to_owned()
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    framing: Framing,
    text: String,
}

impl Stream {
    /// Opens a stream; anything but 200 is an error, and is the answer.
    pub(crate) async fn open(
        mut connection: Connection,
        call: &Call,
    ) -> anyhow::Result<Result<Stream, Reply>> {
        let (head, framing) = connection.start(call).await?;
        if head.status != 200 {
            return Ok(Err(connection.finish(head, framing).await?));
        }
        check_head(&head);
        Ok(Ok(Stream { connection, framing, text: String::new() }))
    }

    /// The next event or lone field; `None` once the gateway has ended the stream. The wait is bounded by
    /// the caller.
    ///
    /// # Errors
    /// If the connection breaks off.
    pub async fn receive(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if let Some(event) = parse(&block) {
                    return Ok(Some(event));
                }
                continue;
            }
            match self.connection.part(&mut self.framing).await? {
                None => return Ok(None),
                Some(part) => self.text.push_str(&String::from_utf8_lossy(&part)),
            }
        }
    }

    /// The next event or lone field; `None` once the gateway has ended the stream.
    ///
    /// # Panics
    /// If the connection breaks off, or nothing comes in time.
    pub async fn next(&mut self) -> Option<Event> {
        within("an event", self.receive())
            .await
            .unwrap_or_else(|error| panic!("the stream broke off: {error:#}"))
    }

    /// The next `state` event.
    ///
    /// # Panics
    /// If the stream ends instead, or nothing comes in time.
    pub async fn state(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on until a state comes");
            if event.name == "state" {
                return event;
            }
        }
    }

    /// Everything up to the end of the stream.
    ///
    /// # Panics
    /// As [`Stream::next`].
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn check_head(head: &Head) {
    let content_type = head.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/event-stream"), "a stream of `{content_type}`");
}

/// A block of fields; `None` if it holds comments only.
fn parse(block: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut fields = 0;
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.name = value.to_owned(),
            "id" => event.id = Some(value.to_owned()),
            "retry" => event.retry = value.parse().ok(),
            "data" if event.data.is_empty() => event.data = value.to_owned(),
            "data" => event.data = format!("{}\n{value}", event.data),
            _ => continue,
        }
        fields += 1;
    }
    (fields > 0).then_some(event)
}
