//! Loads one declared type from its files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command;
use super::manifest::{Manifest, Runs};
use super::python::{self, HELPER, Interpreter, Metadata};
use super::template::Placeholder;
use super::{FolderOptions, Program};

/// Maximum size of a manifest or a class file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Name of the helper in the state folder.
const HELPER_NAME: &str = "task_server_helper.py";

/// A type that has been loaded.
pub(super) struct Loaded {
    pub(super) program: Arc<Program>,
    /// Command that tries to import a class file.
    pub(super) import: Option<Vec<String>>,
}

/// Loads the type of this name from its files.
///
/// # Errors
/// The problem, which begins with the name of the file.
pub(super) async fn load(
    name: &str,
    files: &[PathBuf],
    options: &FolderOptions,
) -> Result<Loaded, String> {
    for file in files {
        check_owner(file)?;
    }
    options
        .create_lock()
        .map_err(|error| format!("cannot write to `{}`: {error}", options.state.display()))?;
    let with_extension = |extension: &str| {
        files.iter().find(|file| file.extension().is_some_and(|found| found == extension))
    };
    let (file, manifest) = match with_extension("toml") {
        Some(file) => (file, Manifest::parse(&read(file)?)),
        None => {
            let file = with_extension("py").ok_or("no manifest and no Python file")?;
            (file, of_class(file).await)
        }
    };
    let in_file = |problem: String| format!("{}: {problem}", name_of(file));
    let manifest = manifest.map_err(in_file)?;
    if manifest.cpus > options.cpu_slots {
        return Err(in_file(format!(
            "cpus = {} is more than this server has (--cpu-slots {})",
            manifest.cpus, options.cpu_slots
        )));
    }
    let loaded = match &manifest.runs {
        Runs::Command(_) => {
            check_program(&manifest, &options.folder).map_err(in_file)?;
            program(manifest, Vec::new(), None, options)
        }
        Runs::Python { file, interpreter } => {
            let source = options.folder.join(file);
            let class = Class::read(name, &source, interpreter.as_deref(), options).await?;
            let manifest = manifest.described_by(class.description.as_deref());
            program(manifest, class.run, Some(class.import), options)
        }
    };
    let faults = loaded.program.register(None).faults_in_defaults();
    match faults.first() {
        Some(fault) => {
            let loc: Vec<_> = fault.loc.iter().filter_map(|part| part.as_str()).collect();
            Err(in_file(format!("the default of {} does not fit: {}", loc.join("."), fault.msg)))
        }
        None => Ok(loaded),
    }
}

fn program(
    manifest: Manifest,
    python: Vec<String>,
    import: Option<Vec<String>>,
    options: &FolderOptions,
) -> Loaded {
    let folder = options.folder.clone();
    let program = Program { manifest, folder, lock: options.lock(), python };
    Loaded { program: Arc::new(program), import }
}

/// The manifest of a class file that has no other: its script metadata.
async fn of_class(file: &Path) -> Result<Manifest, String> {
    let metadata = Metadata::of(&read(file)?)?;
    Manifest::of_class(&metadata.manifest(), &name_of(file))
}

/// A class file, ready to be run.
struct Class {
    description: Option<String>,
    run: Vec<String>,
    import: Vec<String>,
}

impl Class {
    /// Parses the file, and keeps a copy of it.
    async fn read(
        name: &str,
        source: &Path,
        interpreter: Option<&str>,
        options: &FolderOptions,
    ) -> Result<Self, String> {
        let in_file = |problem: String| format!("{}: {problem}", name_of(source));
        let text = read(source)?;
        let metadata = Metadata::of(&text).map_err(in_file)?;
        let interpreter = Interpreter::choose(interpreter, &metadata, &options.folder);
        let copies = options.state.join("tasks");
        let copy = copies.join(name).join(name_of(source));
        let helper = options.state.join(HELPER_NAME);
        keep(&copy, &text)
            .and_then(|()| keep(&helper, HELPER))
            .map_err(|error| format!("cannot write to `{}`: {error}", options.state.display()))?;
        let arguments = |verb| interpreter.arguments(&helper, verb, source, &copy);
        let description = python::check(&arguments("check"), options).await.map_err(in_file)?;
        Ok(Self { description, run: arguments("run"), import: arguments("import") })
    }
}

/// Writes a file unless it has this text already. Whoever has the old one open keeps it.
fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Checks that the program can be started, as far as it does not depend on parameters.
fn check_program(manifest: &Manifest, folder: &Path) -> Result<(), String> {
    let Runs::Command(templates) = &manifest.runs else { return Ok(()) };
    let in_folder = |placeholder: &Placeholder| match placeholder {
        Placeholder::Folder => Some(folder.to_string_lossy().into_owned()),
        _ => None,
    };
    let Some(program) = templates.first().and_then(|program| program.fill(in_folder)) else {
        return Ok(());
    };
    command::find(&program, manifest.env.get("PATH").map(String::as_str)).map(drop)
}

/// Fails if other users may change the file or folder, since they could run programs with the rights of
/// the server.
pub(super) fn check_owner(path: &Path) -> Result<(), String> {
    let found =
        path.metadata().map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!(
            "{}: other users may write to it (mode {mode:o}): run `chmod go-w {}`",
            name_of(path),
            path.display()
        ));
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let text = read().map_err(|error| format!("{}: cannot read it: {error}", name_of(file)))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{}: it is larger than {MAX_FILE_BYTES} bytes", name_of(file)));
    }
    Ok(text)
}

/// Name of a file without its folder.
fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
