//! Follows the tasks folder: each file in it declares a task type.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use super::super::registry::TypeEntry;
use super::load::{Loaded, check_owner, load};
use super::{Program, RegisteredTask, python, supervisor};
use crate::task::{DeclaredName, TaskType};

/// Interval between two looks. A change counts at the second look that sees it, so within 2 s.
const INTERVAL: Duration = Duration::from_millis(800);
/// Maximum number of declared types. A claim looks for tasks of each type.
const MAX_TYPES: usize = 256;
/// Class files of these names would hide the module of the helper.
const HELPER_MODULES: [&str; 2] = ["base", "task_server"];

/// Where declared types come from.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    /// The tasks folder, which need not exist.
    pub folder: PathBuf,
    /// Folder for copies of class files.
    pub state: PathBuf,
    /// CPU slots of this server.
    pub cpu_slots: usize,
}

impl FolderOptions {
    /// File that is locked while processes of tasks may be alive.
    pub(super) fn lock(&self) -> PathBuf {
        self.state.join("processes.lock")
    }

    /// Waits for the processes of an earlier run of this server, or kills them if nobody else does.
    ///
    /// # Errors
    /// If the lock file cannot be locked.
    pub fn await_earlier(&self) -> io::Result<()> {
        match self.lock().try_exists()? {
            true => supervisor::await_earlier(&self.lock(), &self.state),
            false => Ok(()),
        }
    }

    /// Creates the lock file, which supervisors expect to exist.
    pub(super) fn create_lock(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.state)?;
        File::options().append(true).create(true).open(self.lock()).map(drop)
    }
}

/// The tasks folder and what was read from it.
#[derive(Debug)]
pub struct TasksFolder {
    options: FolderOptions,
    /// By name of the type.
    types: BTreeMap<DeclaredName, Declared>,
}

/// One declared type.
#[derive(Debug, Default)]
struct Declared {
    /// The files as the last look found them.
    files: Files,
    /// Whether they were read in that state.
    read: bool,
    /// The latest version that could be loaded.
    working: Option<Arc<Program>>,
    /// The one before, while the import of the latest goes on.
    earlier: Option<Arc<Program>>,
    entry: Option<TypeEntry>,
    import: Option<JoinHandle<Result<(), String>>>,
}

/// The files of a type, each with what changes when it is written.
type Files = Vec<(PathBuf, Signature)>;

/// Times, size, inode and mode of a file.
type Signature = (Option<SystemTime>, u64, u64, u32);

impl TasksFolder {
    /// Reads what is there now.
    pub async fn open(options: FolderOptions) -> Self {
        let mut folder = Self { options, types: BTreeMap::new() };
        folder.look(true).await;
        folder
    }

    /// The declared types as they are now.
    pub fn types(&self) -> Vec<TypeEntry> {
        self.types.values().filter_map(|declared| declared.entry.clone()).collect()
    }

    /// Resolves when the declared types have changed.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.look(false).await {
                return;
            }
        }
    }

    /// Looks at the folder. A file counts once it is unchanged since the last look, or else `at_once`:
    /// an editor may not have finished it. Returns whether a type has changed.
    async fn look(&mut self, at_once: bool) -> bool {
        let found = find(&self.options.folder).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let folder = self.options.folder.display();
                tracing::warn!(%error, "cannot read the tasks folder `{folder}`");
            }
            BTreeMap::new()
        });
        let mut changed = false;
        for name in found.keys() {
            if self.types.len() < MAX_TYPES || self.types.contains_key(name) {
                self.types.entry(*name).or_default();
            } else {
                tracing::warn!("ignored `{}`: there are {MAX_TYPES} types", name.as_str());
            }
        }
        for (name, declared) in &mut self.types {
            let files = found.get(name).cloned().unwrap_or_default();
            let same = files == declared.files;
            if (same || at_once) && !(declared.read && same) {
                declared.files = files;
                declared.load(*name, &self.options).await;
                changed = true;
            } else {
                (declared.read, declared.files) = (declared.read && same, files);
            }
            changed |= declared.imported(*name).await;
        }
        self.types.retain(|_, declared| !(declared.read && declared.files.is_empty()));
        changed
    }
}

impl Declared {
    /// Reads the files. What is broken keeps its predecessor.
    async fn load(&mut self, name: DeclaredName, options: &FolderOptions) {
        self.read = true;
        self.abort_import();
        if self.files.is_empty() {
            self.entry = None;
            return;
        }
        let files: Vec<_> = self.files.iter().map(|(path, _)| path.clone()).collect();
        let loaded = match check_name(name, &files).and_then(|()| check_owner(&options.folder)) {
            Ok(()) => load(name.as_str(), &files, options).await,
            Err(problem) => Err(problem),
        };
        match loaded {
            Ok(Loaded { program, import }) => {
                let options = options.clone();
                self.import = import.map(|arguments| {
                    tokio::spawn(async move { python::import(&arguments, &options).await })
                });
                let entry = program.register(None);
                // Until its import fails, the new version counts.
                let earlier = self.working.replace(program);
                self.earlier = earlier.filter(|_| self.import.is_some());
                self.set(name, entry);
            }
            Err(problem) => self.fail(name, problem),
        }
    }

    /// Takes the result of an import in the background. Returns whether it changed the type.
    async fn imported(&mut self, name: DeclaredName) -> bool {
        let Some(import) = self.import.take_if(|import| import.is_finished()) else { return false };
        match import.await {
            Ok(Err(problem)) => {
                self.working = self.earlier.take();
                self.fail(name, problem);
                true
            }
            _ => {
                self.earlier = None;
                false
            }
        }
    }

    fn fail(&mut self, name: DeclaredName, problem: String) {
        tracing::warn!(task.r#type = name.as_str(), problem, "this task type has a problem");
        let entry = match &self.working {
            Some(program) => program.register(Some(problem)),
            None => RegisteredTask::broken(problem),
        };
        self.set(name, entry);
    }

    fn set(&mut self, name: DeclaredName, task: RegisteredTask) {
        if task.about().problem.is_none() {
            tracing::info!(task.r#type = name.as_str(), "task type declared");
        }
        self.entry = Some((TaskType::Declared(name), Arc::new(task)));
    }

    fn abort_import(&mut self) {
        if let Some(import) = self.import.take() {
            import.abort();
        }
    }
}

/// Finds the files of each type. A class file that a manifest names belongs to that manifest's type only
/// if both have the same name, so others stay types of their own.
fn find(folder: &Path) -> io::Result<BTreeMap<DeclaredName, Files>> {
    let mut found: BTreeMap<_, Files> = BTreeMap::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_type =
            path.extension().is_some_and(|extension| extension == "toml" || extension == "py");
        if !is_type || stem.starts_with(['.', '_']) || HELPER_MODULES.contains(&&*stem) {
            continue;
        }
        let (Some(name), Ok(file)) = (nearest_name(&stem), path.metadata()) else { continue };
        let signature = (file.modified().ok(), file.len(), file.ino(), file.mode());
        found.entry(name).or_default().push((path, signature));
    }
    for files in found.values_mut() {
        files.sort();
    }
    Ok(found)
}

/// The name itself, or the one that a file of an invalid name is shown under, with that problem.
fn nearest_name(stem: &str) -> Option<DeclaredName> {
    let lower = stem.to_ascii_lowercase();
    let word: String =
        lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(64).collect();
    DeclaredName::new(&word)
        .or_else(|| DeclaredName::new(&format!("t{word}").chars().take(64).collect::<String>()))
}

fn check_name(name: DeclaredName, files: &[PathBuf]) -> Result<(), String> {
    let stems = files.iter().filter_map(|file| file.file_stem()?.to_str());
    if let Some(stem) = stems.into_iter().find(|stem| *stem != name.as_str()) {
        return Err(format!(
            "`{stem}` cannot be the name of a task type: expected a lower-case letter, then up to 63 \
             lower-case letters, digits and underscores, such as `{}`",
            name.as_str()
        ));
    }
    if TaskType::builtin_named(name.as_str()).is_some() {
        let file = files.first().and_then(|file| file.file_name()).unwrap_or_default();
        return Err(format!(
            "{}: `{}` is a built-in type: give the file another name",
            file.to_string_lossy(),
            name.as_str()
        ));
    }
    Ok(())
}
