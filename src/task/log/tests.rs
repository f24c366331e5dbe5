//! The file of a log under any sequence of writes, and lines from any bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;
use tracing::{Instrument, debug, info, info_span, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

use super::file::{HEAD, TAIL, read_text};
use super::*;

const SECOND: i64 = 1_796_000_000;

fn now() -> Timestamp {
    Timestamp::from_micros(SECOND * 1_000_000 + 7_000)
}

fn line_of(text: &str) -> String {
    let time = now().to_string();
    format!("{}Z out {text}\n", &time[..time.len() - 4])
}

/// What is kept of these lines.
fn kept(lines: &[String]) -> Vec<u8> {
    let mut head = 0;
    let mut size = 0;
    while head < lines.len() && size + lines[head].len() <= HEAD {
        size += lines[head].len();
        head += 1;
    }
    let mut tail = lines.len();
    size = 0;
    while tail > head && size + lines[tail - 1].len() <= TAIL {
        tail -= 1;
        size += lines[tail].len();
    }
    let left_out: usize = lines[head..tail].iter().map(String::len).sum();
    let mark = match left_out {
        0 => String::new(),
        bytes => format!("[… {bytes} bytes left out …]\n"),
    };
    [lines[..head].concat(), mark, lines[tail..].concat()].concat().into_bytes()
}

#[derive(Clone, Debug)]
enum Step {
    /// That many lines of that length.
    Lines(usize, usize),
    Flush,
    /// The server is killed in the middle of a line, and another one goes on.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_usize..300, 0_usize..8000).prop_map(|(count, length)| Step::Lines(count, length)),
        3 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_first_and_the_last_lines_are_kept(steps in prop::collection::vec(step(), 1..24)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("logs/a.log");
        let mut file = LogFile::new(path.clone());
        let mut pending = Pending::default();
        let mut lines = Vec::new();
        let (mut seen, mut position) = (0, 0);
        for step in steps {
            let crashed = matches!(step, Step::Crash);
            match step {
                Step::Lines(count, length) => for _ in 0..count {
                    let text = format!("{}{}", lines.len(), "x".repeat(length));
                    pending.add(now(), LogSource::Stdout, text.as_bytes());
                    lines.push(line_of(&text));
                }
                Step::Flush | Step::Crash => {
                    let (text, gap) = pending.take();
                    file.append(&text, gap).unwrap();
                    prop_assert!(read_text(&path).unwrap().unwrap().text == kept(&lines));
                    // A reader that is slow misses some, and is told how much.
                    let (read, next) = file.read(position, 100_000).unwrap();
                    position = next;
                    seen += counted(&read);
                }
            }
            if crashed {
                let size = file.total().unwrap();
                let mut raw = fs::OpenOptions::new().append(true).open(&path).unwrap();
                io::Write::write_all(&mut raw, b"2026-11-27T10:45:21.123Z out half of").unwrap();
                file = LogFile::new(path.clone());
                prop_assert_eq!(file.total().unwrap(), size);
            }
        }
        let (text, gap) = pending.take();
        file.append(&text, gap).unwrap();
        file.settle().unwrap();
        let expected = kept(&lines);
        prop_assert!(fs::read(&path).unwrap() == expected);
        let total: usize = lines.iter().map(String::len).sum();
        prop_assert_eq!(read_text(&path).unwrap(), Some(LogText { text: expected, total: total as u64 }));
        loop {
            let (read, next) = file.read(position, 100_000).unwrap();
            if read.is_empty() {
                break;
            }
            position = next;
            seen += counted(&read);
        }
        prop_assert_eq!(seen, total);
    }

    #[test]
    fn any_bytes_become_whole_lines(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..4)
    ) {
        let mut pending = Pending::default();
        for text in &texts {
            pending.add(now(), LogSource::Stdout, text);
        }
        let (text, gap) = pending.take();
        prop_assert_eq!(gap, None);
        let text = String::from_utf8(text).unwrap();
        prop_assert!(!text.contains('\0'));
        for line in text.lines() {
            prop_assert!(line.starts_with(line_of("").trim_end()), "{}", line);
            prop_assert!(line.len() < 9000, "{} bytes", line.len());
        }
        prop_assert!(text.is_empty() || text.ends_with('\n'));
    }
}

/// Number of bytes that a reader has got or knows it has missed.
fn counted(text: &[u8]) -> usize {
    let lines = str::from_utf8(text).unwrap().split_inclusive('\n');
    let of = |line: &str| match line.strip_prefix("[… ") {
        Some(mark) => mark.split(' ').next().unwrap().parse().unwrap(),
        None => line.len(),
    };
    lines.map(of).sum()
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    let mut pending = Pending::default();
    pending.add(now(), LogSource::Stdout, bytes);
    let text = String::from_utf8(pending.take().0).unwrap();
    text.lines().map(|line| line[line_of("").len() - 1..].to_owned()).collect()
}

#[test]
fn a_text_is_cut_into_lines() {
    assert_eq!(lines_of(b"one"), ["one"]);
    assert_eq!(lines_of(b"one\r\n"), ["one"]);
    assert_eq!(lines_of(b""), [""]);
    assert_eq!(lines_of(b"one\n\ntwo\n"), ["one", "", "two"]);
    assert_eq!(lines_of(b"5%\r10%\r"), ["5%\r10%"]);
    assert_eq!(lines_of(b"a\0b\xffc\x1b[1m"), ["a\u{fffd}b\u{fffd}c\u{1b}[1m"]);
    let long = lines_of("ü".repeat(10_000).as_bytes());
    assert_eq!(long.len(), 3);
    assert!(long[0].ends_with('ü') && long[1].starts_with("…ü") && long[2].starts_with("…ü"));
    assert_eq!(long.concat().matches('ü').count(), 10_000);
}

#[test]
fn the_last_lines_of_a_text_are_found() {
    for (lines, expected) in
        [(0, ""), (1, "c\n"), (2, "b\nc\n"), (3, "a\nb\nc\n"), (9, "a\nb\nc\n")]
    {
        assert_eq!(tail_lines(b"a\nb\nc\n", lines), expected.as_bytes(), "{lines}");
    }
    assert_eq!(tail_lines(b"", 3), b"");
}

/// A folder of logs that does not exist yet.
fn logs() -> (TempDir, Arc<LogFolder>) {
    let folder = TempDir::new().unwrap();
    let logs = LogFolder::start(folder.path().join("state/logs")).unwrap();
    (folder, logs)
}

fn text_of(log: &TaskLog) -> String {
    log.close();
    String::from_utf8(log.finish(1_000_000).unwrap().text).unwrap()
}

#[test]
fn a_log_without_lines_has_no_file() {
    let (folder, logs) = logs();
    let log = logs.log(TaskId::new(), 1);
    assert!(!log.close());
    log.line(LogSource::Stdout, "too late");
    log.flush();
    assert!(!folder.path().join("state").exists());
    assert_eq!(logs.entries().unwrap().count(), 0);
}

#[test]
fn files_are_private_and_listed_until_they_are_removed() {
    let (folder, logs) = logs();
    let id = TaskId::new();
    let log = logs.log(id, 2);
    log.line(LogSource::Stderr, "one");
    log.line(LogSource::Server, "two");
    log.flush();
    let mode = |path: &str| {
        let path = folder.path().join(path);
        path.metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("state"), mode("state/logs")), (0o700, 0o700));
    assert_eq!(mode(&format!("state/logs/{id}.2.log")), 0o600);
    fs::write(folder.path().join("state/logs/of-another-program"), "precious").unwrap();
    let entries: Vec<_> = logs.entries().unwrap().collect();
    assert_eq!((entries.len(), entries[0].id, entries[0].attempt), (1, id, 2));
    assert!(entries[0].bytes > 0);
    assert!(text_of(&log).ends_with("Z server two\n"));
    logs.remove(id, 2).unwrap();
    logs.remove(id, 2).unwrap();
    assert_eq!(logs.read(id, 2).unwrap(), None);
    assert_eq!(logs.entries().unwrap().count(), 0);
}

#[test]
fn a_log_goes_on_where_a_killed_server_left_it() {
    let (_folder, logs) = logs();
    let id = TaskId::new();
    let first = logs.log(id, 1);
    first.line(LogSource::Stdout, "before");
    first.flush();
    let second = logs.log(id, 1);
    second.line(LogSource::Stdout, "after");
    let text = text_of(&second);
    let said: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let note = "server the attempt runs again after an interruption";
    assert_eq!(said, ["out before", note, "out after"]);
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let (folder, logs) = logs();
    fs::write(folder.path().join("state"), "in the way").unwrap();
    let log = logs.log(TaskId::new(), 1);
    log.line(LogSource::Stdout, "lost");
    log.flush();
    fs::remove_file(folder.path().join("state")).unwrap();
    log.line(LogSource::Stdout, "kept");
    let text = text_of(&log);
    let lost = line_of("lost").len();
    assert!(
        text.contains(&format!("server {lost} bytes of this log could not be written\n")),
        "{text}"
    );
    assert!(text.ends_with("out kept\n"), "{text}");
}

#[test]
fn a_flood_takes_bounded_memory_and_disk() {
    let (_folder, logs) = logs();
    let id = TaskId::new();
    let log = logs.log(id, 1);
    let line = "x".repeat(4000);
    for _ in 0..16_000 {
        log.line(LogSource::Stdout, &line);
    }
    log.close();
    let end = log.finish(10_000).unwrap();
    let LogText { text, total } = logs.read(id, 1).unwrap().unwrap();
    assert!(text.ends_with(&end.text) && end.text.len() > 4000 && end.text.len() <= 10_000);
    assert_eq!(end.total, total);
    assert!(total > 64_000_000, "{total}");
    assert!(text.len() > HEAD + TAIL - 10_000 && text.len() < HEAD + TAIL + 100, "{}", text.len());
}

#[tokio::test]
async fn events_in_the_span_of_a_task_are_lines_of_its_log() {
    let (_folder, logs) = logs();
    let log = logs.log(TaskId::new(), 1);
    let quiet = tracing_subscriber::fmt::layer()
        .with_writer(io::sink)
        .with_filter(tracing_subscriber::filter::LevelFilter::ERROR);
    let subscriber = tracing_subscriber::registry().with(quiet).with(task_logs());
    let _guard = tracing::subscriber::set_default(subscriber);
    let span = info_span!("task");
    attach(&span, &log);
    async {
        info!(width = 3, name = "a", "loaded {}", "image");
        debug!("too fine");
        tokio::task::yield_now().await;
        info_span!("inner").in_scope(|| warn!("in a span of its own"));
        warn!(target: "task_server::manager::attempt::run", "the server's");
    }
    .instrument(span)
    .await;
    info!("outside");
    let text = text_of(&log);
    let said: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(said, ["log INFO loaded image width=3 name=\"a\"", "log WARN in a span of its own"]);
}
