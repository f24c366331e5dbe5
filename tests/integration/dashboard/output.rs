//! Outputs on the page of a task, and the overview.

use std::fs;

use serde_json::json;

use crate::common::{dummy, tokenize};
use crate::dashboard::{open, page_of};

/// A red pixel as BMP.
const IMAGE: [u8; 58] = [
    0x42, 0x4d, 58, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0,
    24, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0,
];

#[tokio::test]
async fn an_output_is_previewed_and_can_be_saved() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    server.write("in.txt", "some text");
    let id = server.submit(tokenize("in.txt", "tokens.json")).await;
    server.wait_for(&id, "completed").await;
    browser.open(&page_of(&id)).await;
    browser
        .until("document.querySelector('.preview pre')?.textContent.includes('\"token_count\": 2')")
        .await;
    let link = format!(
        "document.querySelector('a[download]').getAttribute('href') === '/tasks/{id}/output'"
    );
    browser.until(&link).await;
    fs::remove_file(server.folder().join("tokens.json")).unwrap();
    browser.open(&page_of(&id)).await;
    browser.until_text("the output can no longer be read").await;

    server.write("in.bmp", IMAGE);
    let body = json!({
        "task_type": "image_process", "parameters": { "width": 8, "height": 6, "format": "PNG" },
        "input_file_path": "in.bmp", "output_file_path": "out.png",
    });
    let id = server.submit(body).await;
    server.wait_for(&id, "completed").await;
    browser.open(&page_of(&id)).await;
    browser.until("document.querySelector('.preview img')?.naturalWidth === 8").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_files_of_an_output_folder_are_listed() {
    let Some((server, browser)) = open(&[], "/dashboard").await else { return };
    server.write("in.txt", "some text");
    let id = server.submit(tokenize("in.txt", "out")).await;
    server.wait_for(&id, "completed").await;
    // No shipped task writes a folder.
    fs::remove_file(server.folder().join("out")).unwrap();
    fs::create_dir_all(server.folder().join("out/sub dir")).unwrap();
    server.write("out/.task-server.json", json!({ "task_id": id }).to_string());
    server.write("out/sub dir/a#b.txt", "0123456789");
    browser.open(&page_of(&id)).await;
    browser.until("document.querySelector('.files code')?.textContent === 'sub dir/a#b.txt'").await;
    let link = format!(
        "document.querySelector('.files a[download]').getAttribute('href') === \
         '/tasks/{id}/output/sub%20dir/a%23b.txt'"
    );
    browser.until(&link).await;
    browser.until("document.querySelectorAll('a[download]').length === 1").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_overview_counts() {
    let Some((server, browser)) = open(&[], "/dashboard/overview").await else { return };
    for _ in 0..3 {
        let id = server.submit(dummy(0.0)).await;
        server.wait_for(&id, "completed").await;
    }
    browser.until("document.querySelector('.tile.completed strong')?.textContent === '3'").await;
    browser.until("document.querySelector('[aria-label=Throughput] svg').ariaLabel.includes('3 completed')").await;
    browser.click(".tile.completed").await;
    browser.until("document.querySelectorAll('tbody tr').length === 3").await;
}
