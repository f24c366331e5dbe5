//! No text overlaps another at any window width.

use serde_json::{Value, json};

use crate::dashboard::looks::views;
use crate::dashboard::open;

/// Finds overlapping texts, elements cut off without an ellipsis, squeezed bars, and a page wider
/// than its window; each as a sentence.
const FIND: &str = r#"
const found = [];
const page = document.documentElement;
if (page.scrollWidth > innerWidth) found.push(`the page is ${page.scrollWidth} wide`);
const texts = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode;
  const parent = node.parentElement;
  if (!node.data.trim() || !parent.checkVisibility() || parent.closest('.unseen, .skip, option, textarea')) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const rect of range.getClientRects()) {
    let [left, top, right, bottom] = [rect.left, rect.top, rect.right, rect.bottom];
    for (let around = parent; around; around = around.parentElement) {
      if (getComputedStyle(around).overflowX === 'visible') continue;
      const clip = around.getBoundingClientRect();
      [left, top] = [Math.max(left, clip.left), Math.max(top, clip.top)];
      [right, bottom] = [Math.min(right, clip.right), Math.min(bottom, clip.bottom)];
    }
    if (right - left > 1 && bottom - top > 1) texts.push({ node, left, top, right, bottom });
  }
}
for (const [index, one] of texts.entries()) {
  for (const other of texts.slice(index + 1)) {
    const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    // Letters do not fill the height of their line.
    if (one.node !== other.node && across > 2 && down > 4) {
      found.push(`"${one.node.data.trim()}" and "${other.node.data.trim()}" overlap`);
    }
  }
}
for (const element of document.querySelectorAll('main *, .top *')) {
  const style = getComputedStyle(element);
  const clips = ['hidden', 'clip'].includes(style.overflowX) && style.textOverflow !== 'ellipsis';
  if (clips && element.checkVisibility() && !element.closest('.unseen') && element.scrollWidth > element.clientWidth + 1) {
    found.push(`<${element.localName} class="${element.className}"> cuts off "${element.textContent.slice(0, 80)}"`);
  }
}
for (const bar of document.querySelectorAll('progress')) {
  const { width } = bar.getBoundingClientRect();
  if (bar.checkVisibility() && width < 40) found.push(`a progress bar is ${width} wide`);
}
return found;
"#;

#[tokio::test]
async fn nothing_prints_over_anything_at_any_width() {
    let Some((server, browser)) = open(&["--max-running", "1"], "/dashboard").await else { return };
    let mut wrong = Vec::new();
    for (path, text) in views(&server).await {
        browser.open(&path).await;
        browser.until_text(text).await;
        for width in (320..=1920).step_by(20) {
            browser.resize(width, 900).await;
            let Value::Array(found) = browser.run(FIND, json!([])).await else { panic!("no list") };
            wrong.extend(found.iter().map(|one| format!("{path} at {width}: {one}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
