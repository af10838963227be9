//! A command or script to be carried out, and the partition that it is about.

use redis::Cmd;

use super::script::Script;

/// The tag of a partition, such as `{cs:3}`: its keys begin with it, and its channel has it as its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tag(String);

impl Tag {
    pub(super) fn of_partition(namespace: &str, partition: u16) -> Tag {
        Tag(format!("{{{namespace}:{partition}}}"))
    }

    /// That of what concerns no request.
    pub(super) fn of_meta(namespace: &str) -> Tag {
        Tag(format!("{{{namespace}:meta}}"))
    }

    /// A tag as it is written, with its braces.
    pub(super) fn parse(text: &str) -> Tag {
        Tag(text.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}:{name}", self.0)
    }
}

/// A command or script with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    what: What,
    tag: Tag,
    arguments: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Script(&'static Script),
    Command(&'static str),
    /// A command without a key, for one server of a Cluster.
    Routed(&'static str),
}

impl Call {
    pub(super) fn script(script: &'static Script, tag: &Tag) -> Call {
        Call { what: What::Script(script), tag: tag.clone(), arguments: Vec::new() }
    }

    /// A script whose first arguments are an operation id, and whether a WAIT follows.
    pub(super) fn once(script: &'static Script, tag: &Tag, waits: bool) -> Call {
        let operation = format!("{:032x}", fastrand::u128(..));
        Call::script(script, tag).text(&operation).text(if waits { "wait" } else { "" })
    }

    /// A command with the key of this name.
    pub(super) fn command(name: &'static str, tag: &Tag, key: impl std::fmt::Display) -> Call {
        let call = Call { what: What::Command(name), tag: tag.clone(), arguments: Vec::new() };
        call.text(&tag.key(key))
    }

    /// A command whose key, or channel, is the tag itself.
    pub(super) fn of_tag(name: &'static str, tag: &Tag) -> Call {
        let call = Call { what: What::Command(name), tag: tag.clone(), arguments: Vec::new() };
        call.text(tag.as_str())
    }

    /// A command without a key, for the server that has the partition.
    pub(super) fn routed(name: &'static str, tag: &Tag) -> Call {
        Call { what: What::Routed(name), tag: tag.clone(), arguments: Vec::new() }
    }

    /// A command without a key.
    pub(super) fn bare(name: &'static str, tag: &Tag) -> Call {
        Call { what: What::Command(name), tag: tag.clone(), arguments: Vec::new() }
    }

    pub(super) fn bytes(mut self, argument: impl Into<Vec<u8>>) -> Call {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn text(self, argument: &str) -> Call {
        self.bytes(argument)
    }

    pub(super) fn number(self, argument: impl Into<u64>) -> Call {
        self.bytes(argument.into().to_string())
    }

    /// Empty if there is none.
    pub(super) fn optional(self, argument: Option<u64>) -> Call {
        match argument {
            Some(number) => self.number(number),
            None => self.text(""),
        }
    }

    /// Appends the arguments of each item, after their number.
    pub(super) fn each<T>(self, items: &[T], append: impl FnMut(Call, &T) -> Call) -> Call {
        let counted = self.number(items.len() as u64);
        items.iter().fold(counted, append)
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Whether a Cluster cannot tell by the command which server it is for.
    pub(super) fn is_routed(&self) -> bool {
        matches!(self.what, What::Routed(_))
    }

    /// As Redis takes it: a script by its digest, or, if Redis has not seen it yet, by its source.
    pub(super) fn to_command(&self, by_source: bool) -> Cmd {
        let mut command = match self.what {
            What::Command(name) | What::Routed(name) => redis::cmd(name),
            What::Script(script) => {
                let (name, text) =
                    if by_source { ("EVAL", &script.source) } else { ("EVALSHA", &script.digest) };
                let mut command = redis::cmd(name);
                // Two keys, neither of which is there: while a Cluster moves a slot, a script that names one would be carried
                // out by the new server, which has nothing of the partition yet. With two it is refused until all is moved.
                command.arg(text).arg(2).arg(self.tag.as_str()).arg(self.tag.key("none"));
                command
            }
        };
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}
