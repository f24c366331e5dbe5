//! A folder with the tools of other languages, and a running server.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{ADDRESS, DOCUMENT, TSC};
use crate::common::Server;
use crate::common::blocks::fenced_blocks;

/// Files of one test, and the server they use.
pub(super) struct Workplace {
    pub(super) server: Server,
    tools: PathBuf,
    /// Below the tools, because node looks for packages in parent folders.
    folder: TempDir,
}

impl Workplace {
    /// Skips the test and returns `None` if there are no tools.
    pub(super) fn new() -> Option<Self> {
        let Some(tools) = env::var_os("CLIENT_TOOLS").map(PathBuf::from) else {
            crate::common::skips::skip("needs tools; .ci/clients installs them and runs this");
            return None;
        };
        let folder = TempDir::new_in(&tools).unwrap();
        fs::write(folder.path().join("package.json"), r#"{ "type": "module" }"#).unwrap();
        Some(Self { server: Server::start(&[]), tools, folder })
    }

    /// Adds the files of the document in this language.
    pub(super) fn with_blocks(language: &str) -> Option<Self> {
        let place = Self::new()?;
        for block in fenced_blocks(DOCUMENT) {
            if let Some(file) = block.title.filter(|_| block.language.starts_with(language)) {
                place.add(file, &block.text);
            }
        }
        Some(place)
    }

    /// Adds a file with the address of the running server.
    pub(super) fn add(&self, name: &str, text: &str) {
        let text = text.replace(ADDRESS, &self.server.url(""));
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) fn python(&self, file: &str) -> String {
        self.tool("python/bin/python", file)
    }

    pub(super) fn node(&self, file: &str) -> String {
        self.tool("python/bin/node", file)
    }

    /// Type-checks these files.
    pub(super) fn tsc(&self, files: &str) {
        self.tool("node_modules/.bin/tsc", &format!("{TSC} {files}"));
    }

    /// Runs a tool; returns its output.
    pub(super) fn tool(&self, tool: &str, args: &str) -> String {
        let tool = self.tools.join(tool);
        let args: Vec<_> = args.split_whitespace().collect();
        let printed = output(tool.to_str().unwrap(), &args, Some(self.folder.path()));
        printed.unwrap_or_else(|failure| panic!("{failure}"))
    }
}

/// Runs a program; returns its output, or all of its messages if it failed.
pub(super) fn output(
    program: &str,
    args: &[&str],
    folder: Option<&Path>,
) -> Result<String, String> {
    let mut command = Command::new(program);
    if let Some(tools) = env::var_os("CLIENT_TOOLS").map(PathBuf::from) {
        // The tools call each other.
        let own = [tools.join("python/bin")].into_iter();
        let path = env::var_os("PATH").unwrap_or_default();
        command.env("PATH", env::join_paths(own.chain(env::split_paths(&path))).unwrap());
    }
    let output = command
        .args(args)
        .current_dir(folder.unwrap_or(Path::new(".")))
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {args:?} failed:\n{printed}\n{said}"))
}
