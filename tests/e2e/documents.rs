//! What the documents say exists, exists.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Markdown files of the repository, without what is built or downloaded.
fn documents(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            documents(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// Text without fenced blocks and inline code, in which nothing is a link or a heading.
fn prose(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// Targets of `[text](target)`.
fn links(lines: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines {
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for after in outside.split("](").skip(1) {
            found.extend(after.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    found
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(lines: &[String]) -> HashSet<String> {
    let headings = lines.iter().filter(|line| line.starts_with('#'));
    let anchor = |heading: &String| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c })
            .collect::<String>()
    };
    headings.map(anchor).collect()
}

/// Folders whose paths the documents name in inline code.
const FOLDERS: [&str; 5] = ["crates/", "deploy/", "docs/", "k8s/", "tests/"];

/// Paths of the repository in inline code, without patterns.
fn paths(lines: &[String]) -> Vec<String> {
    let code = lines
        .iter()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    code.flat_map(str::split_whitespace)
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains(['*', '{', '<', '…']))
        .map(|word| word.trim_end_matches(['.', ',', ';', ':']).to_owned())
        .collect()
}

#[test]
fn every_path_in_a_document_exists() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    let mut files = Vec::new();
    documents(root, &mut files)?;
    let mut missing = Vec::new();
    for file in &files {
        for path in paths(&prose(&std::fs::read_to_string(file)?)) {
            if !root.join(&path).exists() {
                missing.push(format!("{}: {path}", file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "missing paths: {missing:#?}");
    Ok(())
}

#[test]
fn every_link_in_a_document_leads_to_something() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    let mut files = Vec::new();
    documents(root, &mut files)?;
    let mut dead = Vec::new();
    for file in &files {
        let lines = prose(&std::fs::read_to_string(file)?);
        for link in links(&lines) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => file.clone(),
                _ => file.parent().unwrap_or(root).join(path),
            };
            let there = match anchor {
                "" => target.exists(),
                _ => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&prose(&text)).contains(anchor)),
            };
            if !there {
                dead.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
    Ok(())
}
