//! A copy of the sources, and its build.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files and folders the server is built from.
const SOURCES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "migrations", "src"];

/// File contents by path below the project folder.
pub(super) type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Reads the current sources.
pub(super) fn sources() -> Tree {
    fn collect(root: &Path, below: &Path, tree: &mut Tree) {
        let path = root.join(below);
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                collect(root, &below.join(entry.unwrap().file_name()), tree);
            }
        } else {
            tree.insert(below.to_owned(), fs::read(path).unwrap());
        }
    }
    let mut tree = Tree::new();
    for name in SOURCES {
        collect(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(name), &mut tree);
    }
    tree
}

/// Builds the tree, runs the unit tests of the guide, and returns the server binary; `None` if
/// cargo is not installed.
///
/// The tree has a fixed place and only changed files are written, so a second run compiles as
/// little as possible. Dependencies are not compiled at all: the build shares the intermediate
/// build folder of this test. It must not share the target folder, or it would overwrite the binary
/// that other tests use. So the final binary goes to its own folder, and a different version number
/// keeps the two packages apart in the shared one.
pub(super) fn build(mut tree: Tree, snippets: String) -> Option<PathBuf> {
    let workshop = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = workshop.join("guide/tree");
    let target = workshop.join("guide/target");

    let manifest = tree.get_mut(Path::new("Cargo.toml")).unwrap();
    let mut parsed: toml::Table = str::from_utf8(manifest).unwrap().parse().unwrap();
    parsed["package"]["version"] = "0.0.0-guide".into();
    parsed.insert("workspace".to_owned(), toml::Table::new().into());
    for kind in ["test", "example", "bench"] {
        parsed.remove(kind);
    }
    *manifest = toml::to_string(&parsed).unwrap().into_bytes();
    let modules = tree.get_mut(Path::new("src/tasks/mod.rs")).unwrap();
    modules.extend(b"mod guide_snippets;\n");
    tree.insert("src/tasks/guide_snippets.rs".into(), snippets.into_bytes());
    // Cargo builds the binary along with an integration test. `cargo build` would recompile many
    // dependencies: without those of the tests they have other features.
    tree.insert("tests/binary.rs".into(), b"//! Nothing.\n".into());
    write_changes(&root, &tree);

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(&root)
        .args(["test", "--offline", "--lib", "--test", "binary", "--"])
        .args(["tasks::my_task::", "every_type_accepts_its_own_defaults"])
        .env("CARGO_BUILD_BUILD_DIR", workshop.parent().unwrap())
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_BUILD_TARGET")
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the code of the guide fails:\n{stdout}\n{stderr}");
    assert!(stdout.contains("test tasks::my_task::tests::"), "no unit test ran:\n{stdout}");
    for file in ["my_task.rs", "image_process.rs", "guide_snippets.rs"] {
        assert!(!stderr.contains(&format!("src/tasks/{file}")), "the compiler warns:\n{stderr}");
    }
    Some(target.join("debug/task-server"))
}

/// Makes the folder contain exactly these files.
fn write_changes(root: &Path, tree: &Tree) {
    for (path, bytes) in tree {
        let path = root.join(path);
        if fs::read(&path).is_ok_and(|found| found == *bytes) {
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    remove_others(root, root, tree);
}

fn remove_others(root: &Path, folder: &Path, tree: &Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root).unwrap();
        if path.is_dir() && tree.keys().any(|file| file.starts_with(below)) {
            remove_others(root, &path, tree);
        } else if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if !tree.contains_key(below) {
            fs::remove_file(path).unwrap();
        }
    }
}
