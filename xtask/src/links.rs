//! Checks the links and tables of our documents.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Checks the relative links of every Markdown file of the project: the file must exist, and so must the heading. Rows of
/// tables must have as many cells as their heads: what is more is not shown.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut documents = Vec::new();
    collect(root, &mut documents)?;
    ensure!(!documents.is_empty(), "found no documents to check");
    let (mut broken, mut crooked) = (Vec::new(), Vec::new());
    let mut links = 0;
    for document in &documents {
        let text = read(document)?;
        crooked.extend(crooked_rows(&text).into_iter().map(|line| format!("{}:{line}", document.display())));
        for (line, target) in targets(&text) {
            links += 1;
            if let Some(problem) = problem(document, target) {
                broken.push(format!("{}:{line}: `{target}`: {problem}", document.display()));
            }
        }
    }
    println!("{links} links in {} documents", documents.len());
    ensure!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    ensure!(
        crooked.is_empty(),
        "rows with more or fewer cells than their table's head:\n{}",
        crooked.join("\n")
    );
    let index = root.join("docs/README.md");
    let unlisted = unlisted(&index, &documents, &read(&index)?);
    ensure!(unlisted.is_empty(), "docs/README.md does not list {}", unlisted.join(", "));
    Ok(())
}

/// The documents beside an index that it has no link to.
fn unlisted(index: &Path, documents: &[PathBuf], text: &str) -> Vec<String> {
    let listed: Vec<&str> = targets(text).into_iter().map(|(_, target)| target).collect();
    let beside =
        documents.iter().filter(|document| document.parent() == index.parent() && *document != index);
    let names = beside.filter_map(|document| Some(document.file_name()?.to_str()?.to_owned()));
    names.filter(|name| !listed.contains(&name.as_str())).collect()
}

fn collect(folder: &Path, documents: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !["node_modules", "target"].contains(&name) {
            collect(&path, documents)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    Ok(())
}

/// The link targets of a Markdown text with their lines, code left out.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every other piece between backticks is code.
        for prose in line.split('`').step_by(2) {
            let opened = prose.split("](").skip(1);
            found.extend(opened.filter_map(|rest| rest.split(')').next()).map(|target| (number + 1, target)));
        }
    }
    found
}

/// The lines of rows that have more or fewer cells than the head of their table. A `|` of text is written `\|`, in code, too.
fn crooked_rows(text: &str) -> Vec<usize> {
    let (mut fenced, mut head) = (false, None);
    let mut crooked = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        fenced ^= line.starts_with("```");
        if fenced || !line.starts_with('|') {
            head = None;
            continue;
        }
        let cells = line.matches('|').count() - line.matches("\\|").count();
        if cells != *head.get_or_insert(cells) {
            crooked.push(number + 1);
        }
    }
    crooked
}

fn problem(document: &Path, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) =
        target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
    let path = if file.is_empty() { document.to_owned() } else { document.parent()?.join(file) };
    if !path.exists() {
        return Some("there is no such file".into());
    }
    let heading = heading?;
    let text = fs::read_to_string(&path).ok()?;
    let known = text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
    (!known).then(|| format!("there is no heading `{heading}`"))
}

/// The anchor of a heading: lower case, words joined by hyphens, other characters dropped.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        })
        .collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_links_and_leaves_code_alone() {
        let text = "a [b](c.md) and `[x](no.md)` and [d](e.md#f)\n```\n[x](no.md)\n```\n[g](#h)";
        assert_eq!(targets(text), [(1, "c.md"), (1, "e.md#f"), (5, "#h")]);
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_head_of_its_table() {
        let text = "| a | b |\n|---|---|\n| c \\| d | e |\n| f |\n\n```\n| g |\n| h | i |\n```\n| j |\n|---|\n| k | l |";
        assert_eq!(crooked_rows(text), [4, 12]);
    }

    #[test]
    fn a_missing_file_or_heading_is_a_problem() -> Result<()> {
        let document = crate::root()?.join("README.md");
        assert!(problem(&document, "no-such-file.md").is_some());
        assert!(problem(&document, "#no-such-heading").is_some());
        assert_eq!(problem(&document, "LICENSE"), None);
        assert_eq!(anchor("## What it's for, and `how`"), "what-its-for-and-how");
        Ok(())
    }

    #[test]
    fn a_document_that_the_index_lacks_is_named() {
        let documents = ["docs/README.md", "docs/A.md", "docs/B.md", "README.md", "policies/README.md"]
            .map(PathBuf::from);
        let unlisted = unlisted(Path::new("docs/README.md"), &documents, "[A](A.md) and `[B](B.md)`");
        assert_eq!(unlisted, ["B.md"]);
    }
}
