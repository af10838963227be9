//! Constructors of Slack's blocks, and how much of a message's room a block takes.

use serde::Serialize;
use slack_morphism::prelude::*;

use super::text;

/// A part of a message, made to fit into some room.
pub(super) struct Part {
    pub(super) block: SlackBlock,
    /// Whether it shows every character of what it is about.
    pub(super) whole: bool,
}

/// The room of a block beside its JSON: Slack adds members to each block, and counts them too.
const PER_BLOCK: usize = 125;

/// The room that a block takes in a message. Slack does not document how it counts the blocks of a message; the JSON
/// and [`PER_BLOCK`] were never less than what it was seen to count.
pub(super) fn cost(block: &SlackBlock) -> usize {
    json_width(block) + PER_BLOCK
}

/// The room that a part of a block takes.
pub(super) fn json_width(part: &impl Serialize) -> usize {
    // Parts of blocks are made of strings, numbers and lists: they always serialise.
    let json = serde_json::to_string(part).unwrap_or_default();
    json.encode_utf16().count() + 1
}

/// Text that Slack does not parse, on one line, at most `most` wide.
pub(super) fn plain(words: &str, most: usize) -> SlackBlockPlainText {
    let fitted = text::inline(words, most);
    SlackBlockPlainText::new(fitted.text).with_emoji(false)
}

/// Our own text, in which everything from outside is already escaped.
pub(super) fn mrkdwn(words: impl Into<String>) -> SlackBlockMarkDownText {
    // Without `verbatim`, Slack would make links of what looks like channels and URLs.
    SlackBlockMarkDownText::new(words.into()).with_verbatim(true)
}

/// A paragraph of our own text.
pub(super) fn section(words: impl Into<String>) -> SlackBlock {
    SlackSectionBlock::new().with_text(mrkdwn(words).into()).into()
}

/// Our own text, in small print.
pub(super) fn small_print(words: impl Into<String>) -> SlackBlock {
    SlackContextBlock::new(vec![mrkdwn(words).into()]).into()
}

/// A block of rich text. Slack shows consecutive sections on one line, so they are joined by line breaks.
pub(super) fn rich(elements: Vec<SlackRichTextElement>) -> SlackBlock {
    let mut joined = Vec::new();
    for element in elements {
        match (joined.last_mut(), element) {
            (Some(SlackRichTextElement::Section(before)), SlackRichTextElement::Section(after)) => {
                before.elements.push(words("\n"));
                before.elements.extend(after.elements);
            }
            (_, element) => joined.push(element),
        }
    }
    SlackRichTextBlock::new(joined).into()
}

/// A line of rich text.
pub(super) fn line(elements: Vec<SlackRichTextInlineElement>) -> SlackRichTextElement {
    SlackRichTextSection::new(elements).into()
}

/// Our own text in rich text.
pub(super) fn words(words: impl Into<String>) -> SlackRichTextInlineElement {
    SlackRichTextText::new(words.into()).into()
}

/// Our own text in rich text, as a heading.
pub(super) fn heading(words: impl Into<String>) -> SlackRichTextInlineElement {
    SlackRichTextText::new(words.into()).bold().into()
}

/// Our own text in rich text, in place of a value or as a note.
pub(super) fn remark(words: impl Into<String>) -> SlackRichTextInlineElement {
    SlackRichTextText::new(words.into()).italic().into()
}

/// Short text from outside on a line, with a note if it was cut, and the number of characters that were.
pub(super) fn literal(words: &str, most: usize) -> (Vec<SlackRichTextInlineElement>, usize) {
    if words.is_empty() {
        return (vec![remark("empty")], 0);
    }
    let fitted = text::inline(words, most);
    let cut = (fitted.cut > 0).then(|| remark(format!(" ({})", cut_note(fitted.cut))));
    let shown = (!fitted.text.is_empty()).then(|| SlackRichTextText::new(fitted.text).code().into());
    (shown.into_iter().chain(cut).collect(), fitted.cut)
}

/// Prose from outside as a quote, with a note if it was cut, and the number of characters that were. The space around it
/// and the form of its line breaks are not its content.
pub(super) fn quote(words: &str, lines: usize, most: usize) -> (Vec<SlackRichTextElement>, usize) {
    let words = words.trim().replace("\r\n", "\n");
    let fitted = text::prose(&words, lines, most);
    if fitted.text.is_empty() {
        return (vec![line(vec![remark("blank")])], words.chars().count());
    }
    let quote = SlackRichTextQuote::new(vec![fitted.text.into()]);
    let cut = (fitted.cut > 0).then(|| line(vec![remark(cut_note(fitted.cut))]));
    (std::iter::once(quote.into()).chain(cut).collect(), fitted.cut)
}

/// The note of how much of a text is not shown.
fn cut_note(cut: usize) -> String {
    format!("cut: {}", text::counted(cut, "more character"))
}

/// Text from outside in a box.
pub(super) fn preformatted(fitted: String) -> SlackRichTextElement {
    SlackRichTextPreformatted::new(vec![fitted.into()]).into()
}

/// A button. Its label is cut to fit; its ids must fit.
pub(super) fn button(action_id: String, label: &str, value: &str) -> SlackBlockButtonElement {
    const MOST: usize = 75;
    SlackBlockButtonElement::new(plain(label, MOST).into())
        .with_action_id(action_id.into())
        .with_value(value.to_owned())
}

/// A row of buttons.
pub(super) fn row(buttons: Vec<SlackBlockButtonElement>) -> SlackBlock {
    SlackActionsBlock::new(buttons.into_iter().map(Into::into).collect()).into()
}
