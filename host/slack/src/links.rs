//! The links of a request. Callers send them, so each one shows where it leads to.

use countersign_core::lifecycle::Link;
use slack_morphism::prelude::*;
use url::Url;

use super::blocks::{Part, heading, json_width, line, remark, rich, words};
use super::text::{self, counted};

/// Slack's limit on a link.
const URL: usize = 3000;

/// The links of a request, at most `most` wide; `None` if there are none, or no room for any.
pub(super) fn links(links: &[Link], most: usize) -> Option<Part> {
    const AROUND: usize = 420;
    /// No longer text goes into one element.
    const LONGEST: usize = 3000;
    let mut room = most.checked_sub(AROUND)?;
    let mut parts = vec![heading("Links")];
    let mut left_out = 0;
    for link in links {
        let mut shown = vec![words("\n")];
        shown.extend(label(link));
        shown.extend(address(link));
        let takes = json_width(&shown);
        if takes > room || takes > LONGEST {
            left_out += 1;
        } else {
            room -= takes;
            parts.extend(shown);
        }
    }
    if left_out > 0 {
        parts.push(remark(format!("\nand {}", counted(left_out, "more link"))));
    }
    let block = rich(vec![line(parts)]);
    (!links.is_empty()).then_some(Part { block, whole: left_out == 0 })
}

/// The label, which may name another site than the URL does.
fn label(link: &Link) -> Vec<SlackRichTextInlineElement> {
    let label = text::inline(&link.label, usize::MAX).text;
    let label = (!label.is_empty()).then(|| SlackRichTextText::new(label).code().into());
    label.into_iter().chain([words(" ")]).collect()
}

/// The URL in full. It can be followed if it is one that a browser reads as it is shown.
fn address(link: &Link) -> Vec<SlackRichTextInlineElement> {
    match target(&link.url) {
        Some(target) => {
            vec![SlackRichTextLink::new(SlackRelaxedUrl(target.clone())).with_text(target).into()]
        }
        None if link.url.is_empty() => vec![remark("(no address)")],
        None => {
            let url = SlackRichTextText::new(text::inline(&link.url, usize::MAX).text).code();
            vec![url.into(), remark(" (not a web address)")]
        }
    }
}

/// Where a browser goes for a URL; `None` if it is none of the web, or not safe to make a link of.
///
/// A host of other letters than ASCII is in punycode, and one that is written as a number is the address that it is: so a
/// host that only looks like another one does not.
pub(super) fn target(url: &str) -> Option<String> {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let odd = |c: char| c.is_whitespace() || "<>\"|\\`{}^".contains(c);
    if !is_web || !text::is_visible(url) || url.contains(odd) {
        return None;
    }
    let url = Url::parse(url).ok()?;
    let names_a_user = !url.username().is_empty() || url.password().is_some();
    let url = Some(url).filter(|url| url.has_host() && !names_a_user).map(String::from);
    url.filter(|url| url.len() <= URL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_urls_become_links_and_show_where_they_lead_to() {
        let rows = [
            ("https://ci.example/run?x=1&y=2#z", Some("https://ci.example/run?x=1&y=2#z")),
            ("http://[::1]:8080/", Some("http://[::1]:8080/")),
            ("https://ci.example", Some("https://ci.example/")),
            // The first letter of the host is Cyrillic.
            ("https://\u{430}cme.example/login", Some("https://xn--cme-5cd.example/login")),
            ("https://acm\u{435}.example/", Some("https://xn--acm-tdd.example/")),
            ("https://bücher.example/größe", Some("https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe")),
            ("https://ＡＣＭＥ.example/", Some("https://acme.example/")),
            ("https://acme.example%2eevil.example/", Some("https://acme.example.evil.example/")),
            ("https://2130706433/", Some("https://127.0.0.1/")),
            ("https://", None),
            ("javascript:alert(1)", None),
            ("https://good.example@evil.example/", None),
            ("https://@evil.example/", Some("https://evil.example/")),
            ("https://x.example/|label", None),
            ("https://x.example/>", None),
            ("https://x.example/a b", None),
            ("https://x.example/\u{200b}", None),
            ("https://xn--0.example/", None),
        ];
        for (url, expected) in rows {
            assert_eq!(target(url).as_deref(), expected, "{url}");
        }
    }
}
