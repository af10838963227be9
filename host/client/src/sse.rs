//! Server-sent events, as the gateway sends them.

/// The most that is kept of an event that has not ended, in bytes.
const MOST_BYTES: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// `state` or `heartbeat`; empty if it has no name.
    pub(crate) name: String,
    /// What `Last-Event-ID` resumes after.
    pub(crate) id: Option<String>,
    /// How long to wait before connecting again, in milliseconds.
    pub(crate) retry_ms: Option<u64>,
    pub(crate) data: String,
}

/// Cuts a stream into events, however its bytes come.
#[derive(Debug, Default)]
pub(crate) struct Events {
    bytes: Vec<u8>,
}

/// An event is longer than any of a gateway's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Events {
    /// Takes what came.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.bytes.len() + bytes.len() > MOST_BYTES {
            return Err(TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next event of which all is there.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let end = self.bytes.windows(2).position(|two| two == b"\n\n")?;
        let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
        let mut event = Event::default();
        for line in String::from_utf8_lossy(&block).lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "id" => event.id = Some(value.to_owned()),
                "retry" => event.retry_ms = value.parse().ok(),
                "data" if event.data.is_empty() => value.clone_into(&mut event.data),
                "data" => {
                    event.data.push('\n');
                    event.data.push_str(value);
                }
                _ => {}
            }
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_their_bytes_come() {
        let text = "retry: 2000\n\nevent: state\nid: 7\ndata: {\"a\":\"ü\"}\n\n: note\n\ndata: one\ndata:two\n\nhalf";
        for size in 1..text.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(size) {
                events.push(part).unwrap();
                found.extend(std::iter::from_fn(|| events.next()));
            }
            let state = Event {
                name: "state".into(),
                id: Some("7".into()),
                data: "{\"a\":\"ü\"}".into(),
                ..Event::default()
            };
            let two_lines = Event { data: "one\ntwo".into(), ..Event::default() };
            let retry = Event { retry_ms: Some(2000), ..Event::default() };
            assert_eq!(found, [retry, state, Event::default(), two_lines], "{size}");
        }
    }

    #[test]
    fn an_endless_event_is_not_kept() {
        let mut events = Events::default();
        let part = vec![b'x'; 1 << 20];
        let pushed: Vec<bool> = (0..5).map(|_| events.push(&part).is_ok()).collect();
        assert_eq!(pushed, [true, true, true, true, false]);
    }
}
