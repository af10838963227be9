//! The links of a request. Callers send them, so each one shows the host that it leads to.

use countersign_core::lifecycle::Link;
use slack_morphism::prelude::*;

use super::blocks::{json_width, line, remark, rich, words};
use super::text::{self, counted};

/// The block of links, at most `most` wide; `None` if there are no links.
pub(super) fn links(links: &[Link], most: usize) -> Option<SlackBlock> {
    const AROUND: usize = 420;
    const LABEL: usize = 80;
    const HOST: usize = 60;
    let mut room = most.checked_sub(AROUND)?;
    let mut parts = vec![words("Links: ")];
    let mut left_out = 0;
    for link in links {
        let label = text::inline(&link.label, LABEL).text;
        let host = host(&link.url);
        let code = SlackRichTextStyle::new().with_code(true);
        let mut shown = Vec::new();
        if parts.len() > 1 {
            shown.push(words(" · "));
        }
        match host {
            Some(host) => {
                let url = SlackRelaxedUrl(link.url.clone());
                shown.push(SlackRichTextLink::new(url).with_text(label).with_style(code).into());
                // The caller chose the label, which may name another site than the URL does.
                shown.push(words(format!(" ({})", text::inline(host, HOST).text)));
            }
            None => {
                shown.push(SlackRichTextText::new(label).code().into());
                shown.push(remark(" (not a web address)"));
            }
        }
        let takes = json_width(&shown);
        if takes > room || link.label.is_empty() {
            left_out += 1;
        } else {
            room -= takes;
            parts.extend(shown);
        }
    }
    if left_out > 0 {
        parts.push(remark(format!(" and {} left out", counted(left_out, "more link"))));
    }
    (!links.is_empty()).then(|| rich(vec![line(parts)]))
}

/// The host of a URL that is safe to make a link of.
pub(super) fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty() && !host.contains('@'))?;
    let odd = |c: char| c.is_whitespace() || "<>\"|\\`{}^".contains(c);
    (text::is_plain(url) && !url.contains(odd)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_urls_become_links() {
        let rows = [
            ("https://ci.example/run?x=1&y=2#z", Some("ci.example")),
            ("http://[::1]:80/", Some("[::1]:80")),
            ("https://", None),
            ("javascript:alert(1)", None),
            ("https://good.example@evil.example/", None),
            ("https://x.example/|label", None),
            ("https://x.example/>", None),
            ("https://x.example/a b", None),
            ("https://x.example/\u{200b}", None),
        ];
        for (url, expected) in rows {
            assert_eq!(host(url), expected, "{url}");
        }
    }
}
