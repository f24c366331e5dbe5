//! Shows how tasks get on: bars where a person looks, lines elsewhere, or JSON.

use std::collections::HashMap;
use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::exit::Failure;
use super::record::Record;
use super::terminal::{escape, print_json};

/// Steps of a bar: tenths of percents.
const STEPS: u64 = 1000;

/// Where the news of tasks goes.
pub(super) enum View {
    /// Bars on standard error.
    Bars { all: MultiProgress, by_id: HashMap<String, ProgressBar> },
    /// Lines on standard error, by task the one that was printed last.
    Lines(HashMap<String, String>),
    /// The records as JSON on standard output, one a line.
    Json,
}

impl View {
    /// For a person, on standard error.
    pub(super) fn for_people() -> Self {
        if io::stderr().is_terminal() {
            Self::Bars { all: MultiProgress::new(), by_id: HashMap::new() }
        } else {
            Self::Lines(HashMap::new())
        }
    }

    pub(super) fn show(&mut self, record: &Record) -> Result<(), Failure> {
        let task = &record.task;
        let (id, message) = (escape(&task.task_id), escape(&task.message));
        match self {
            Self::Bars { all, by_id } => {
                let bar = by_id.entry(id).or_insert_with_key(|id| {
                    let bar = ProgressBar::new(STEPS).with_style(style());
                    all.add(bar.with_prefix(id.clone()))
                });
                bar.set_position((task.progress * STEPS as f64 / 100.0) as u64);
                bar.set_message(message);
                if record.exit().is_some() {
                    bar.abandon();
                }
            }
            Self::Lines(printed) => {
                let line = format!("{id} {} {} {message}", escape(&task.status), record.percent());
                if printed.get(&id) != Some(&line) {
                    eprintln!("{line}");
                    printed.insert(id, line);
                }
            }
            Self::Json => print_json(&record.json)?,
        }
        Ok(())
    }

    /// Says something beside the progress.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Bars { all, .. } => all.suspend(|| eprintln!("{text}")),
            Self::Lines(_) | Self::Json => eprintln!("{text}"),
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} [{bar:10}] {percent:>3}% {wide_msg}";
    ProgressStyle::with_template(template)
        .expect("the template has been tried")
        .progress_chars("=> ")
}
