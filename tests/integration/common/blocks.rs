//! Code blocks of Markdown documents.

/// A fenced code block.
pub(crate) struct Block {
    pub(crate) language: &'static str,
    pub(crate) title: Option<&'static str>,
    pub(crate) text: String,
}

pub(crate) fn fenced_blocks(document: &'static str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
        let title = rest.strip_prefix("title=\"").and_then(|rest| rest.strip_suffix('"'));
        let text = lines.by_ref().take_while(|line| *line != "```");
        let text = text.flat_map(|line| [line, "\n"]).collect();
        blocks.push(Block { language, title, text });
    }
    blocks
}
