//! The state folder beside the database: private folders for attempts, and for tasks across attempts.
//!
//! It is made when the first task asks for a folder:
//!
//! ```text
//! <database>-state/attempts/<task id>.<epoch>/   until the attempt ends
//!                  state/<task id>/              until the task ends
//!                  trash/                        what is being removed
//! ```

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use parking_lot::Mutex;

use super::info::new_uuid;
use super::removal::remove_tree;
use super::{TaskError, TaskId};

const ATTEMPTS: &str = "attempts";
const STATE: &str = "state";
const TRASH: &str = "trash";

/// The state folder of a server.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    /// Tasks with a folder in `state`. Filled by attempts and by [`stored`](Self::stored), emptied by
    /// [`forget`](Self::forget).
    stateful: Mutex<HashSet<TaskId>>,
}

impl StateFolder {
    /// `path` need not exist. Discards the folders that attempts of an earlier server left, so no other
    /// server may be using it.
    pub(crate) fn open(path: PathBuf) -> Self {
        let folder = Self { path, stateful: Mutex::default() };
        folder.move_to_trash(ATTEMPTS);
        folder
    }

    /// Removes what is in the trash, and returns the tasks that have a folder. Blocks.
    pub(crate) fn tidy(&self) -> Vec<TaskId> {
        for name in names(&self.path.join(TRASH)) {
            self.remove_from_trash(&name);
        }
        let ids = names(&self.path.join(STATE));
        let ids: Vec<_> = ids.iter().filter_map(|name| name.parse().ok()).collect();
        self.stateful.lock().extend(&ids);
        ids
    }

    /// Removes the folder of a task that has ended.
    pub(crate) fn forget(self: &Arc<Self>, id: TaskId) {
        if self.stateful.lock().remove(&id) {
            self.discard(&format!("{STATE}/{id}"));
        }
    }

    /// Moves a folder away at once, and removes it in the background: that may take long.
    fn discard(self: &Arc<Self>, folder: &str) {
        if let Some(name) = self.move_to_trash(folder) {
            let state = Arc::clone(self);
            tokio::task::spawn_blocking(move || state.remove_from_trash(&name));
        }
    }

    /// Returns the name of the folder in the trash.
    fn move_to_trash(&self, folder: &str) -> Option<String> {
        let from = self.path.join(folder);
        if !from.exists() {
            return None;
        }
        let name = new_uuid().to_string();
        let moved = self.create(TRASH).and_then(|trash| fs::rename(&from, trash.join(&name)));
        let warn = |error: &io::Error| {
            tracing::warn!(%error, folder = %from.display(), "cannot remove a private folder");
        };
        moved.inspect_err(warn).ok().map(|()| name)
    }

    fn remove_from_trash(&self, name: &str) {
        let trash = self.path.join(TRASH);
        let removed = Dir::open_ambient_dir(&trash, ambient_authority())
            .and_then(|trash| remove_tree(&trash, name));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            let folder = trash.join(name);
            tracing::warn!(%error, folder = %folder.display(), "cannot remove a private folder");
        }
    }

    /// Creates a folder that only the server's user can enter, and the folders on the way to it.
    fn create(&self, folder: &str) -> io::Result<PathBuf> {
        let path = self.path.join(folder);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(path)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The private folders of one attempt.
#[derive(Debug)]
pub(crate) struct AttemptFolders {
    state: Arc<StateFolder>,
    id: TaskId,
    epoch: i64,
    /// Written by the task's code, which makes the folder, and by the runner, which removes it.
    work: Mutex<Work>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Unused,
    Made,
    /// The attempt has ended. Abandoned threads get no more folders.
    Over,
}

impl AttemptFolders {
    pub(crate) fn new(state: Arc<StateFolder>, id: TaskId, epoch: i64) -> Self {
        Self { state, id, epoch, work: Mutex::new(Work::Unused) }
    }

    /// The folder of the attempt.
    pub(super) fn work_dir(&self) -> Result<PathBuf, TaskError> {
        let mut work = self.work.lock();
        if *work == Work::Over {
            return Err(TaskError::Cancelled);
        }
        let path = self.make(&self.work_name())?;
        *work = Work::Made;
        Ok(path)
    }

    /// The folder of the task.
    pub(super) fn state_dir(&self) -> Result<PathBuf, TaskError> {
        let work = self.work.lock();
        if *work == Work::Over {
            return Err(TaskError::Cancelled);
        }
        self.state.stateful.lock().insert(self.id);
        self.make(&format!("{STATE}/{}", self.id))
    }

    /// Ends the attempt, whose folder is removed.
    pub(crate) fn end(&self) {
        if std::mem::replace(&mut *self.work.lock(), Work::Over) == Work::Made {
            self.state.discard(&self.work_name());
        }
    }

    fn work_name(&self) -> String {
        format!("{ATTEMPTS}/{}.{}", self.id, self.epoch)
    }

    fn make(&self, folder: &str) -> Result<PathBuf, TaskError> {
        self.state.create(folder).map_err(|error| {
            let path = self.state.path.join(folder);
            TaskError::failed(format!("cannot create `{}`: {error}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn attempt(state: &Arc<StateFolder>, id: TaskId, epoch: i64) -> AttemptFolders {
        AttemptFolders::new(Arc::clone(state), id, epoch)
    }

    /// Waits until the trash is empty.
    async fn until_tidy(path: &Path) {
        while !names(&path.join(TRASH)).is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_folder_is_made_when_it_is_asked_for_and_goes_with_its_attempt() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tasks.db-state");
        let state = Arc::new(StateFolder::open(path.clone()));
        let id = TaskId::new();
        attempt(&state, id, 1).end();
        assert!(!path.exists(), "nobody has asked for a folder");
        let folders = attempt(&state, id, 2);
        let work = folders.work_dir().unwrap();
        assert_eq!(work, path.join(format!("attempts/{id}.2")));
        assert_eq!(work, folders.work_dir().unwrap());
        for private in [&path, &work] {
            assert_eq!(private.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        fs::create_dir(work.join("closed")).unwrap();
        fs::set_permissions(work.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let kept = folders.state_dir().unwrap();
        folders.end();
        assert!(!work.exists() && kept.exists());
        until_tidy(&path).await;
        for refused in [folders.work_dir(), folders.state_dir()] {
            assert!(matches!(refused, Err(TaskError::Cancelled)));
        }
    }

    #[tokio::test]
    async fn the_state_of_a_task_stays_until_the_task_has_ended() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tasks.db-state");
        let state = Arc::new(StateFolder::open(path.clone()));
        let (id, other) = (TaskId::new(), TaskId::new());
        let kept = attempt(&state, id, 1).state_dir().unwrap();
        fs::write(kept.join("checkpoint"), "step 7").unwrap();
        attempt(&state, other, 1).state_dir().unwrap();
        let work = attempt(&state, id, 1).work_dir().unwrap();
        fs::write(path.join("state/no-task"), "").unwrap();

        // A crash: nothing was ended.
        let state = Arc::new(StateFolder::open(path.clone()));
        assert!(!work.exists());
        let mut found = state.tidy();
        found.sort();
        assert_eq!(found, [id, other]);
        assert_eq!(names(&path.join(TRASH)), Vec::<String>::new());
        let again = attempt(&state, id, 2).state_dir().unwrap();
        assert_eq!(fs::read(again.join("checkpoint")).unwrap(), b"step 7");
        state.forget(other);
        state.forget(id);
        state.forget(id);
        assert_eq!(names(&path.join(STATE)), ["no-task"]);
        until_tidy(&path).await;
    }
}
