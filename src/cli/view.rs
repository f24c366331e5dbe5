//! Progress display: bars on a terminal, lines elsewhere, or JSON.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::exit::{Exit, Failure};
use super::record::Record;
use super::terminal::{escape, print_json, print_note, report};

/// Steps of a bar: tenths of a percent.
const STEPS: u64 = 1000;

/// Maximum number of bars, so that they fit on a screen. Further tasks are only counted.
const MAX_BARS: usize = 16;

pub(super) enum View {
    /// Bars on standard error.
    Bars(Bars),
    /// Lines on standard error, with the last one printed by task.
    Lines(HashMap<String, String>),
    /// Records on standard output, one per line.
    Json,
}

/// A bar per running task, and a summary below them if there are several tasks.
pub(super) struct Bars {
    all: MultiProgress,
    by_id: HashMap<String, ProgressBar>,
    summary: Option<ProgressBar>,
    tally: Tally,
}

/// Number of ended tasks.
#[derive(Default)]
struct Tally {
    tasks: usize,
    ended: HashMap<String, Exit>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ended", self.ended.len(), self.tasks)?;
        for (exit, what) in [(Exit::Failed, "failed"), (Exit::Cancelled, "cancelled")] {
            let count = self.ended.values().filter(|&&end| end == exit).count();
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
            let style = ProgressStyle::with_template("{msg}").expect("the template is valid");
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
        if let Some(exit) = task.exit() {
            self.tally.ended.insert(id.clone(), exit);
            match self.by_id.remove(&id) {
                // Of several bars, ended ones make room for others.
                Some(bar) if self.summary.is_some() => bar.finish_and_clear(),
                Some(bar) => bar.abandon(),
                None => {}
            }
        }
        if let Some(summary) = &self.summary {
            summary.set_message(self.tally.to_string());
        }
    }

    /// Returns the bar of a task: of a single task always, of several only while it runs.
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
    /// Chooses between bars and lines on standard error.
    pub(super) fn on_stderr(tasks: usize) -> Self {
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
                let line = format!("{id} {} {} {message}", escape(&task.status), task.percent());
                if printed.get(&id) != Some(&line) {
                    print_note(&line);
                    printed.insert(id, line);
                }
            }
            Self::Json => print_json(&record.json)?,
        }
        Ok(())
    }

    /// Reports something without disturbing the bars.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.all.suspend(|| report(text)),
            Self::Lines(_) | Self::Json => report(text),
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} [{bar:10}] {percent:>3}% {wide_msg}";
    ProgressStyle::with_template(template).expect("the template is valid").progress_chars("=> ")
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
            tally.ended.insert(id.to_owned(), exit);
        }
        assert_eq!(tally.to_string(), "3/60 ended, 1 failed, 1 cancelled");
    }

    #[test]
    fn running_tasks_have_a_bar_until_they_end() {
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
        assert_eq!(bars.by_id.len(), 1, "ended tasks make room");
        assert_eq!(bars.tally.to_string(), "37/60 ended, 2 failed");
    }
}
