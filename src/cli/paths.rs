//! Relative paths of `submit`: resolved in the shell's folder if the server shares that folder, else left
//! to the server, which resolves them in its first root.

use std::env;
use std::path::PathBuf;

use serde::Deserialize;

use super::client::{Client, Request};
use super::parameters::TaskArgs;
use super::terminal::print_note;
use crate::task::machine;

/// Response of `GET /roots`.
#[derive(Deserialize)]
struct Roots {
    machine: Option<String>,
    roots: Vec<PathBuf>,
}

impl Roots {
    /// Returns the shell's folder if the server runs on this machine and may use it.
    fn shared_folder(&self) -> Option<PathBuf> {
        let same_machine = self.machine.is_some() && self.machine == machine();
        let folder = env::current_dir().ok().filter(|_| same_machine)?;
        self.roots.iter().any(|root| folder.starts_with(root)).then_some(folder)
    }
}

/// Makes relative paths absolute where the folder is shared, and prints the file that each one means.
pub(super) async fn make_absolute(client: &Client, task: &mut TaskArgs) {
    let paths = [("input", &mut task.input), ("output", &mut task.output)];
    let is_relative = |path: &String| !path.is_empty() && !path.starts_with(['/', '~']);
    let relative = paths.into_iter().filter_map(|(name, path)| Some((name, path.as_mut()?)));
    let mut relative = relative.filter(|(_, path)| is_relative(path)).peekable();
    if relative.peek().is_none() {
        return;
    }
    // Older servers lack this route.
    let Ok(answer) = client.json(Request::get("/roots")).await else { return };
    let Ok(roots) = client.parse::<Roots>(&answer) else { return };
    let shared = roots.shared_folder();
    let Some(start) = shared.as_ref().or(roots.roots.first()) else { return };
    for (name, path) in relative {
        // `components` drops each `.`.
        let absolute: PathBuf = start.join(&*path).components().collect();
        let place = if shared.is_some() { "" } else { " on the server" };
        print_note(&format!("{name}: {}{place}", absolute.display()));
        if shared.is_some()
            && let Some(text) = absolute.to_str()
        {
            text.clone_into(path);
        }
    }
}
