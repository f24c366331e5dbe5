//! Task classes in Python: their metadata, their interpreter and the helper that runs them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

use super::supervisor::{Ended, Order, Supervised};
use super::{FolderOptions, command};

/// Runs task classes; see the comment at its top.
pub(crate) const HELPER: &str = include_str!("helper.py");

/// Time limit for parsing a file.
const CHECK_TIME: Duration = Duration::from_secs(2);
/// Time limit for importing a file: some libraries take long.
const IMPORT_TIME: Duration = Duration::from_secs(60);
/// Maximum length of the helper's answer.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Inline script metadata, which stand in a comment block.
/// Source: PEP 723, <https://peps.python.org/pep-0723/>.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) dependencies: Vec<String>,
    #[serde(rename = "requires-python")]
    pub(super) requires_python: Option<String>,
    tool: Tool,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Tool {
    #[serde(rename = "task-server")]
    task_server: toml::Table,
}

impl Metadata {
    /// Reads the metadata of a file's text, if it has any.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let Some(block) = block(text)? else { return Ok(Self::default()) };
        toml::from_str(&block).map_err(|error| format!("script metadata: {}", error.message()))
    }

    /// The manifest among them, as TOML.
    pub(super) fn manifest(&self) -> String {
        self.tool.task_server.to_string()
    }
}

/// The content of the block `# /// script`.
fn block(text: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines();
    if !lines.any(|line| line.trim_end() == "# /// script") {
        return Ok(None);
    }
    let mut content = Vec::new();
    for line in lines {
        match line.strip_prefix('#') {
            Some(rest) if rest.trim_end() == " ///" => return Ok(Some(content.join("\n"))),
            Some(rest) => content.push(rest.strip_prefix(' ').unwrap_or(rest)),
            None => break,
        }
    }
    Err("script metadata: the closing line `# ///` is missing".to_owned())
}

/// Starts Python for a file: a program and its first arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Interpreter(pub(super) Vec<String>);

impl Interpreter {
    /// Chooses the interpreter: the one that the manifest names, a virtual environment in the tasks
    /// folder, uv if there are dependencies to install, or `python3`.
    pub(super) fn choose(named: Option<&str>, metadata: &Metadata, folder: &Path) -> Self {
        let environment = folder.join(".venv/bin/python");
        let command = if let Some(named) = named {
            vec![named.replace("{folder}", &folder.to_string_lossy())]
        } else if environment.exists() {
            vec![environment.to_string_lossy().into_owned()]
        } else if !metadata.dependencies.is_empty() && command::find("uv", None).is_ok() {
            let mut command: Vec<_> =
                ["uv", "run", "--no-project", "--quiet"].map(str::to_owned).into();
            if let Some(version) = &metadata.requires_python {
                command.extend(["--python".to_owned(), version.clone()]);
            }
            for dependency in &metadata.dependencies {
                command.extend(["--with".to_owned(), dependency.clone()]);
            }
            command.push("python".to_owned());
            command
        } else {
            vec!["python3".to_owned()]
        };
        Self(command)
    }

    /// Arguments that have the helper do something with a copy of a file.
    pub(super) fn arguments(
        &self,
        helper: &Path,
        verb: &str,
        file: &Path,
        copy: &Path,
    ) -> Vec<String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let helper = ["-u".to_owned(), path(helper), verb.to_owned(), path(file), path(copy)];
        self.0.iter().cloned().chain(helper).collect()
    }
}

/// What the helper says of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Checked {
    pub(super) description: Option<String>,
    problem: Option<String>,
}

/// Parses a file without running it. Returns the description of its task class.
///
/// # Errors
/// The problem of the file, such as a syntax error.
pub(super) async fn check(
    arguments: &[String],
    options: &FolderOptions,
) -> Result<Option<String>, String> {
    let checked = ask(arguments, options, CHECK_TIME, "parsing it").await?;
    Ok(checked.description)
}

/// Imports a file, which runs its top level.
///
/// # Errors
/// The last line of the traceback.
pub(super) async fn import(arguments: &[String], options: &FolderOptions) -> Result<(), String> {
    ask(arguments, options, IMPORT_TIME, "importing it").await.map(drop)
}

/// Runs the helper and returns its answer. Kills it and all that it has started afterwards.
async fn ask(
    arguments: &[String],
    options: &FolderOptions,
    limit: Duration,
    what: &str,
) -> Result<Checked, String> {
    let order = Order {
        argv: arguments.iter().map(OsString::from).collect(),
        env: command::environment(&[], &BTreeMap::new(), 1).into_iter().collect(),
        folder: options.folder.clone(),
        stdin: Vec::new(),
        memory: None,
        grace: Duration::ZERO,
        lock: options.lock(),
    };
    let cannot = |error: io::Error| format!("cannot start Python: {error}");
    let (process, stdout, stderr) = Supervised::start(order).await.map_err(cannot)?;
    let read = async {
        // Ends with the answer: what an import has started may go on.
        let answer = first_line(stdout);
        tokio::join!(answer, beginning(stderr))
    };
    let answered = timeout(limit, read).await;
    process.stop(Duration::ZERO);
    let ended = process.ended().await;
    let Ok((answer, errors)) = answered else {
        return Err(format!("{what} took longer than {} s", limit.as_secs()));
    };
    match serde_json::from_slice(&answer) {
        Ok(Checked { problem: Some(problem), .. }) => Err(problem),
        Ok(checked) => Ok(checked),
        Err(_) => {
            let errors = String::from_utf8_lossy(&errors);
            let last = errors.lines().rev().find(|line| !line.trim().is_empty());
            let reason = match ended {
                Ended::NotStarted(reason) => reason,
                _ => last.unwrap_or("it ended without an answer").to_owned(),
            };
            Err(format!("`{}` cannot check it: {reason}", arguments[0]))
        }
    }
}

/// The first line of a stream, of a bounded length.
async fn first_line(pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut line = Vec::new();
    // An error ends the line as the end of the stream does.
    let _ = BufReader::new(pipe).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line).await;
    line
}

/// The beginning of a stream.
async fn beginning(pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    // As above.
    let _ = pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).await;
    bytes
}
