//! Code blocks of the guide, and their effect on the sources.

use std::path::Path;

use super::GUIDE;
use super::workshop::{Tree, sources};
use crate::common::blocks::{Block, fenced_blocks};

fn blocks() -> Vec<Block> {
    fenced_blocks(GUIDE)
}

/// The files of the tasks folder, by name.
pub(super) fn tasks_folder() -> Vec<(&'static str, String)> {
    let in_folder = |block: Block| Some((block.title?.strip_prefix("tasks.d/")?, block.text));
    blocks().into_iter().filter_map(in_folder).collect()
}

/// Text of the only block in this language that contains `words`.
pub(super) fn block(language: &str, words: &str) -> String {
    let mut found: Vec<_> = blocks();
    found.retain(|block| block.language == language && block.text.contains(words));
    assert_eq!(found.len(), 1, "blocks of {language} with `{words}`");
    found.remove(0).text
}

/// The sources after the guide's changes, and a summary of those.
pub(super) struct Applied {
    pub(super) tree: Tree,
    /// Files the guide adds.
    pub(super) new_files: Vec<&'static str>,
    /// Lines added to existing files, each as `FILE: LINE`.
    pub(super) added_lines: Vec<String>,
}

pub(super) fn apply_guide() -> Applied {
    let mut applied = Applied { tree: sources(), new_files: Vec::new(), added_lines: Vec::new() };
    let before: Vec<_> = applied.tree.keys().cloned().collect();
    for block in blocks() {
        match (block.language, block.title) {
            ("rust", Some(file)) => {
                let folder = Path::new(file).with_extension("");
                applied.tree.retain(|path, _| !path.starts_with(&folder));
                if applied.new_files.contains(&file) {
                    let text = applied.tree.get_mut(Path::new(file)).unwrap();
                    text.extend([b"\n", block.text.as_bytes()].concat());
                } else {
                    applied.tree.insert(file.into(), block.text.into_bytes());
                    applied.new_files.push(file);
                }
            }
            ("diff", Some(file)) => {
                let text = applied.tree.get_mut(Path::new(file));
                let text = text.unwrap_or_else(|| panic!("there is no {file} to patch"));
                *text = patched(str::from_utf8(text).unwrap(), &block.text, file).into_bytes();
                let added = block.text.lines().filter_map(|line| line.strip_prefix('+'));
                applied.added_lines.extend(added.map(|line| format!("{file}: {}", line.trim())));
            }
            // See `programs`.
            ("python" | "toml" | "sh", Some(_)) | ("rust" | "bash" | "json", None) => {}
            (language, title) => panic!("no test handles blocks of `{language}` {title:?}"),
        }
    }
    applied.new_files.retain(|file| {
        let folder = Path::new(file).with_extension("");
        !before.iter().any(|path| path == Path::new(file) || path.starts_with(&folder))
    });
    applied
}

/// Adds the `+` lines of a diff. The other lines must follow each other in `text`, except that a
/// line `…` stands for any number of lines.
fn patched(text: &str, diff: &str, file: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    let mut here = None;
    let mut added = Vec::new();
    let mut gap = true;
    for line in diff.lines() {
        if let Some(line) = line.strip_prefix('+') {
            added.push(line);
        } else if line.trim() == "…" {
            gap = true;
        } else {
            let line = line.strip_prefix(' ').unwrap();
            let from = here.unwrap_or(0);
            let steps = lines[from..].iter().position(|found| *found == line);
            let found = steps.filter(|steps| gap || *steps == 0).map(|steps| from + steps);
            let found = found.unwrap_or_else(|| panic!("`{line}` is not next in {file}:\n{text}"));
            here = Some(found + added.len() + 1);
            lines.splice(found..found, added.drain(..));
            gap = false;
        }
    }
    assert!(added.is_empty(), "the diff of {file} has no line after {added:?}");
    lines.join("\n") + "\n"
}

/// The untitled Rust blocks as one file. Methods become those of a task with the parameters of the
/// guide's task; statements become the body of a function that has a context.
pub(super) fn snippets() -> String {
    let mut file = String::from(
        "//! The short examples of the guide.
#![allow(dead_code, unreachable_code, unused_imports, unused_variables)]
#![deny(unused_must_use)]
",
    );
    let snippets = blocks().into_iter().filter(|block| block.language == "rust");
    let snippets = snippets.filter(|block| block.title.is_none());
    for (number, Block { text, .. }) in snippets.enumerate() {
        let item = if text.starts_with("async fn execute(") {
            format!("#[async_trait] impl Task for MyCustomTask {{ {text} }}")
        } else if text.starts_with("fn ") {
            format!("#[async_trait] impl Task for MyCustomTask {{ {text} {NO_EXECUTE} }}")
        } else {
            format!("impl MyCustomTask {{ {STATEMENTS} {{ {text} Ok(json!(null)) }} }}")
        };
        file += &format!(
            "mod snippet_{number} {{
    use std::io::{{BufRead, BufReader, Write}};
    use std::time::Duration;
    use serde_json::json;
    use crate::task::*;
    struct MyCustomTask {{ param1: String, param2: usize }}
    {item}
}}
"
        );
    }
    file
}

const NO_EXECUTE: &str =
    "async fn execute(self: Box<Self>, _: TaskContext) -> TaskResult { unreachable!() }";
const STATEMENTS: &str = "async fn statements(&self, ctx: TaskContext) -> TaskResult";
