//! Outputs of unfinished tasks: no two tasks may write the same one, and none may be inside another.
//!
//! An output is stored as its canonical path, that of a folder with a slash at the end: so the paths inside
//! a folder follow it in the index.

use std::collections::BTreeMap;
use std::ops::Bound;

use sqlx::{Row, SqliteConnection};

use super::columns::parse;
use super::schema::number;
use super::statements::OverRows;
use super::transaction::Transaction;
use crate::store::change::{NewTask, Refused};
use crate::task::TaskId;

/// Outputs per query.
const STEP: usize = 1024;

pub(super) const OWNERS: OverRows = OverRows {
    columns: &["output_key"],
    sql: "SELECT tasks.output_key, id FROM tasks INDEXED BY tasks_output \
     WHERE tasks.output_key IN (SELECT output_key FROM new) \
       AND tasks.output_key IS NOT NULL AND status IN ('pending', 'running')",
};

// One is enough for a conflict.
pub(super) const INSIDE: OverRows = OverRows {
    columns: &["folder", "beyond"],
    sql: "SELECT tasks.output_key, id FROM new CROSS JOIN tasks INDEXED BY tasks_output \
     ON tasks.output_key = (SELECT min(inside.output_key) FROM tasks AS inside INDEXED BY tasks_output \
        WHERE inside.output_key > folder AND inside.output_key < beyond \
          AND inside.output_key IS NOT NULL AND inside.status IN ('pending', 'running')) \
     WHERE tasks.output_key IS NOT NULL AND tasks.status IN ('pending', 'running')",
};

/// Whether an unfinished task has a folder as its output.
pub(super) async fn has_folders(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let folders = "SELECT EXISTS (SELECT 1 FROM tasks INDEXED BY tasks_output \
         WHERE output_key IS NOT NULL AND status IN ('pending', 'running') \
           AND substr(output_key, -1) = '/')";
    Ok(number(connection, folders).await? != 0)
}

pub(super) fn is_folder(output: &str) -> bool {
    output.ends_with('/')
}

/// Outputs that conflict with new ones, and the tasks that write them.
pub(super) struct Owners {
    by_output: BTreeMap<String, TaskId>,
    /// Whether an unfinished task, or a new one, has a folder as its output. If not, only equal outputs
    /// conflict.
    folders: bool,
}

impl Owners {
    /// Reads the owners that matter for these tasks.
    pub(super) async fn read(
        transaction: &mut Transaction<'_>,
        tasks: &[&NewTask],
        folders: bool,
    ) -> sqlx::Result<Self> {
        let mut owners = Self { by_output: BTreeMap::new(), folders };
        let new = || tasks.iter().filter_map(|task| task.output_key.as_deref());
        let mut wanted: Vec<&str> = new().collect();
        let others: Vec<String> = new().filter(|_| folders).map(other_kind).collect();
        if folders {
            wanted.extend(new().flat_map(around));
            wanted.extend(others.iter().map(String::as_str));
            wanted.sort_unstable();
            wanted.dedup();
        }
        for step in wanted.chunks(STEP) {
            let rows = transaction.read(&OWNERS, step, |row, &output| {
                row.text(output);
            });
            owners.add(&rows.await?)?;
        }
        let new_folders: Vec<&str> = new().filter(|output| is_folder(output)).collect();
        for step in new_folders.chunks(STEP) {
            let rows = transaction.read(&INSIDE, step, |row, &folder| {
                row.text(folder).text(&*beyond(folder));
            });
            owners.add(&rows.await?)?;
        }
        Ok(owners)
    }

    fn add(&mut self, rows: &[sqlx::sqlite::SqliteRow]) -> sqlx::Result<()> {
        for row in rows {
            self.by_output.insert(row.try_get(0)?, parse(row.try_get(1)?)?);
        }
        Ok(())
    }

    /// Gives an output to a task, unless it conflicts with another.
    pub(super) fn claim(&mut self, output: &str, id: TaskId) -> Result<(), Refused> {
        if let Some(owner) = self.by_output.get(output) {
            return Err(Refused::OutputInUse(*owner));
        }
        if self.folders
            && let Some(owner) = self.overlapping(output)
        {
            return Err(Refused::OutputOverlaps(owner));
        }
        self.by_output.insert(output.to_owned(), id);
        Ok(())
    }

    fn overlapping(&self, output: &str) -> Option<TaskId> {
        let owner = |output: &str| self.by_output.get(output).copied();
        let inside = || {
            let from_here =
                self.by_output.range::<str, _>((Bound::Included(output), Bound::Unbounded));
            let mut inside = from_here.take_while(|(other, _)| other.starts_with(output));
            inside.next().filter(|_| is_folder(output)).map(|(_, owner)| *owner)
        };
        around(output).find_map(owner).or_else(|| owner(&other_kind(output))).or_else(inside)
    }
}

/// Folders that contain this output.
fn around(output: &str) -> impl Iterator<Item = &str> {
    let parents = output.trim_end_matches('/').match_indices('/');
    parents.map(|(slash, _)| &output[..=slash])
}

/// The same path as a folder instead of a file, or the reverse.
fn other_kind(output: &str) -> String {
    output.strip_suffix('/').map_or_else(|| format!("{output}/"), str::to_owned)
}

/// First text after all paths inside a folder.
fn beyond(folder: &str) -> String {
    // '0' follows '/'.
    format!("{}0", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_around_an_output_are_its_folders() {
        for (output, expected) in [
            ("/a", &["/"][..]),
            ("/a/b", &["/", "/a/"]),
            ("/a/b/", &["/", "/a/"]),
            ("/ä/日本/c", &["/", "/ä/", "/ä/日本/"]),
        ] {
            assert_eq!(around(output).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn folders_conflict_with_what_is_around_and_inside() {
        let id = TaskId::new();
        for (first, second, conflicts) in [
            ("/a/b", "/a/b", true),
            ("/a/b/", "/a/b/", true),
            ("/a/b", "/a/b/", true),
            ("/a/b/", "/a/b", true),
            ("/a/", "/a/b", true),
            ("/a/b", "/a/", true),
            ("/a/b/c/d/", "/a/", true),
            ("/a/", "/a/b/c/d/", true),
            ("/a/b", "/a/b/c", false),
            ("/a/b/", "/a/bc", false),
            ("/a/b/", "/a/b0", false),
            ("/a/b/", "/a/b.txt", false),
            ("/a/b/", "/a/c/", false),
        ] {
            let mut owners = Owners { by_output: BTreeMap::new(), folders: true };
            owners.claim(first, id).unwrap();
            assert_eq!(owners.claim(second, id).is_err(), conflicts, "{first} and {second}");
        }
    }
}
