//! Shows how tasks get on: bars where a person looks, lines elsewhere, or JSON.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::exit::{Exit, Failure};
use super::record::Record;
use super::terminal::{escape, print_json, print_note, say};

/// Steps of a bar: tenths of percents.
const STEPS: u64 = 1000;

/// Most bars at once, so that they fit on a screen. Tasks beyond are only counted.
const MAX_BARS: usize = 16;

/// Where the news of tasks goes.
pub(super) enum View {
    /// Bars on standard error.
    Bars(Bars),
    /// Lines on standard error, by task the one that was printed last.
    Lines(HashMap<String, String>),
    /// The records as JSON on standard output, one a line.
    Json,
}

/// A bar for each running task, and below them a summary if there are several tasks.
pub(super) struct Bars {
    all: MultiProgress,
    by_id: HashMap<String, ProgressBar>,
    summary: Option<ProgressBar>,
    tally: Tally,
}

/// How many of the tasks have ended.
#[derive(Default)]
struct Tally {
    tasks: usize,
    ended: HashSet<String>,
    failed: usize,
    cancelled: usize,
}

impl Tally {
    fn count(&mut self, id: &str, exit: Exit) {
        if self.ended.insert(id.to_owned()) {
            self.failed += usize::from(exit == Exit::Failed);
            self.cancelled += usize::from(exit == Exit::Cancelled);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ended", self.ended.len(), self.tasks)?;
        for (count, what) in [(self.failed, "failed"), (self.cancelled, "cancelled")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

impl Bars {
    fn new(tasks: usize) -> Self {
        let all = MultiProgress::new();
        let summary = (tasks > 1).then(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template has been tried");
            all.add(ProgressBar::new_spinner().with_style(style))
        });
        let tally = Tally { tasks, ..Tally::default() };
        Self { all, by_id: HashMap::new(), summary, tally }
    }

    fn show(&mut self, record: &Record) {
        let task = &record.task;
        let id = escape(&task.task_id);
        if let Some(bar) = self.bar(&id, task.status == "running") {
            bar.set_position((task.progress * STEPS as f64 / 100.0) as u64);
            bar.set_message(escape(&task.message));
        }
        if let Some(exit) = record.exit() {
            self.tally.count(&id, exit);
            match self.by_id.remove(&id) {
                // Among several, what has ended makes room.
                Some(bar) if self.summary.is_some() => bar.finish_and_clear(),
                Some(bar) => bar.abandon(),
                None => {}
            }
        }
        if let Some(summary) = &self.summary {
            summary.set_message(self.tally.to_string());
        }
    }

    /// The bar of a task. Of several tasks only those that run have one, and a single one always has.
    fn bar(&mut self, id: &str, runs: bool) -> Option<&ProgressBar> {
        let wanted = self.summary.is_none() || (runs && self.by_id.len() < MAX_BARS);
        if wanted && !self.by_id.contains_key(id) {
            let bar = ProgressBar::new(STEPS).with_style(style()).with_prefix(id.to_owned());
            let bar = match &self.summary {
                Some(summary) => self.all.insert_before(summary, bar),
                None => self.all.add(bar),
            };
            self.by_id.insert(id.to_owned(), bar);
        }
        self.by_id.get(id)
    }
}

impl View {
    /// For a person who watches so many tasks, on standard error.
    pub(super) fn for_people(tasks: usize) -> Self {
        match io::stderr().is_terminal() {
            true => Self::Bars(Bars::new(tasks)),
            false => Self::Lines(HashMap::new()),
        }
    }

    pub(super) fn show(&mut self, record: &Record) -> Result<(), Failure> {
        let task = &record.task;
        match self {
            Self::Bars(bars) => bars.show(record),
            Self::Lines(printed) => {
                let (id, message) = (escape(&task.task_id), escape(&task.message));
                let line = format!("{id} {} {} {message}", escape(&task.status), record.percent());
                if printed.get(&id) != Some(&line) {
                    print_note(&line);
                    printed.insert(id, line);
                }
            }
            Self::Json => print_json(&record.json)?,
        }
        Ok(())
    }

    /// Says something beside the progress, each line with the name of the program.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.all.suspend(|| say(text)),
            Self::Lines(_) | Self::Json => say(text),
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} [{bar:10}] {percent:>3}% {wide_msg}";
    ProgressStyle::with_template(template)
        .expect("the template has been tried")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_each_task_once() {
        let mut tally = Tally { tasks: 60, ..Tally::default() };
        assert_eq!(tally.to_string(), "0/60 ended");
        for (id, exit) in
            [("a", Exit::Done), ("b", Exit::Failed), ("b", Exit::Failed), ("c", Exit::Cancelled)]
        {
            tally.count(id, exit);
        }
        assert_eq!(tally.to_string(), "3/60 ended, 1 failed, 1 cancelled");
    }

    #[test]
    fn of_many_tasks_those_that_run_have_a_bar_until_they_end() {
        let mut bars = Bars::new(60);
        let record = |id: usize, status: &str| {
            let task = serde_json::json!({
                "task_id": id.to_string(), "status": status, "progress": 50, "message": "",
                "created_at": "2026-01-01T00:00:00Z",
            });
            Record::parse(&task.to_string()).unwrap()
        };
        for id in 0..60 {
            bars.show(&record(id, "pending"));
        }
        assert_eq!(bars.by_id.len(), 0);
        for id in 0..40 {
            bars.show(&record(id, "running"));
        }
        assert_eq!(bars.by_id.len(), MAX_BARS);
        for id in 0..37 {
            bars.show(&record(id, if id < 2 { "failed" } else { "completed" }));
        }
        assert_eq!(bars.by_id.len(), 0);
        bars.show(&record(38, "running"));
        assert_eq!(bars.by_id.len(), 1, "what has ended has made room");
        assert_eq!(bars.tally.to_string(), "37/60 ended, 2 failed");
    }
}
