//! Architecture rules the compiler does not check: which layer may import which.
//!
//! Lower layers never import upper ones; only `app` and `cli` import everything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Packages the project is built on.
const PACKAGES: [&str; 10] = [
    "tokio",
    "axum",
    "serde",
    "serde_json",
    "sqlx",
    "tiktoken-rs",
    "tracing",
    "uuid",
    "thiserror",
    "async-trait",
];

/// First version of each package without a published fault, and that fault. Packages missing from
/// `Cargo.lock` are not checked.
const FIXED_IN: [(&str, &str, &str); 7] = [
    ("tokio", "1.44.2", "a broadcast channel clones values without a lock"),
    ("bytes", "1.11.1", "an integer overflows in BytesMut::reserve"),
    ("h2", "0.4.16", "published advisories"),
    ("time", "0.3.47", "a crafted date exhausts the stack"),
    ("rustls-webpki", "0.103.13", "published advisories"),
    ("libsqlite3-sys", "0.37.0", "SQLite below 3.51.3 can corrupt a database in WAL mode"),
    ("tracing-subscriber", "0.3.20", "log lines carry the terminal escapes of clients"),
];

/// Layers, lowest first.
const LAYERS: [&str; 8] = ["task", "tasks", "store", "manager", "http", "config", "app", "cli"];

/// Layers a file may import; `None` if it may import all. `file` is a path below `src`.
fn allowed(file: &str) -> Option<&'static [&'static str]> {
    let layer = layer(file);
    Some(match layer {
        "task" => &["task"],
        "tasks" if file == "tasks/registry.rs" || file == "tasks/mod.rs" => &["tasks", "task"],
        "tasks" => &["task"],
        "store" => &["store", "task"],
        "manager" => &["manager", "store", "tasks", "task"],
        "http" => &["http", "manager", "tasks", "task"],
        "config" => &["config", "task"],
        "app" | "cli" | "main" | "lib" => return None,
        other => panic!("src/{file}: unknown layer `{other}`"),
    })
}

/// Layer of a file; `file` is a path below `src`.
fn layer(file: &str) -> &str {
    file.split('/').next().map_or("", |first| first.strip_suffix(".rs").unwrap_or(first))
}

/// Forbidden imports in `source`, one sentence each.
fn violations(file: &str, source: &str) -> Vec<String> {
    let Some(allowed) = allowed(file) else { return Vec::new() };
    imported_layers(file, source)
        .into_iter()
        .filter(|import| !allowed.contains(&import.as_str()))
        .map(|import| format!("src/{file} imports crate::{import}, allowed are {allowed:?}"))
        .collect()
}

/// First segments of all paths that start at the crate root.
fn imported_layers(file: &str, source: &str) -> BTreeSet<String> {
    let code = without_comments(source);
    let mut found: BTreeSet<String> = code.split("crate::").skip(1).flat_map(first_names).collect();
    // A `super` for each level of the file's path leads to the crate root as well. In an inline
    // module it does not, so only names of layers count there.
    let depth = file.split('/').filter(|part| *part != "mod.rs").count();
    let to_root = "super::".repeat(depth);
    let by_super = code.split(&to_root).skip(1).flat_map(first_names);
    found.extend(by_super.filter(|name| LAYERS.contains(&name.as_str())));
    found
}

/// Extracts `a` from `a::b`, and `a` and `c` from `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |path: &str| -> String {
        path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[index + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn without_comments(source: &str) -> String {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Path below `src` and text of each source file.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        let name = path.strip_prefix(&root).expect("below src").to_str().expect("a name");
        (name.replace('\\', "/"), text)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn lower_layers_never_import_upper_ones() {
    let found: Vec<_> =
        sources().iter().flat_map(|(file, source)| violations(file, source)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    for (file, source) in sources() {
        assert!(source.starts_with("//! "), "src/{file} does not begin with a `//!` comment");
    }
}

#[test]
fn the_packages_of_the_project_are_dependencies_and_are_used() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest: toml::Table =
        fs::read_to_string(manifest).expect("Cargo.toml").parse().expect("TOML");
    let code: Vec<_> = sources().iter().map(|(_, source)| without_comments(source)).collect();
    for package in PACKAGES {
        assert!(manifest["dependencies"].get(package).is_some(), "{package} is not a dependency");
        let path = format!("{}::", package.replace('-', "_"));
        assert!(code.iter().any(|code| code.contains(&path)), "{package} is not used");
    }
}

#[test]
fn the_check_sees_every_way_to_write_an_import() {
    for source in [
        "use crate::http::Router;",
        "pub use crate::{http, task};",
        "use crate::{\n    task::{TaskId, TaskInfo},\n    http::{self, Router},\n};",
        "fn f() { crate::http::serve() }",
        "use super::super::http::Router;",
    ] {
        let found = violations("store/writer.rs", source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert!(found[0].contains("src/store/writer.rs imports crate::http"), "{found:?}");
    }
}

#[test]
fn the_check_knows_the_rules_of_each_layer() {
    for (file, import) in [
        ("task/context.rs", "tasks"),
        ("tasks/dummy.rs", "tasks"),
        ("tasks/tokenize/cut.rs", "manager"),
        ("tasks/registry.rs", "manager"),
        ("store/mod.rs", "manager"),
        ("manager/runner.rs", "http"),
        ("http/routes.rs", "store"),
        ("http/routes.rs", "config"),
        ("config.rs", "app"),
    ] {
        let source = format!("use crate::{import}::Something;");
        assert_eq!(violations(file, &source).len(), 1, "{file} may import {import}");
    }
    for (file, import) in [
        ("tasks/dummy.rs", "task"),
        ("tasks/registry.rs", "task"),
        ("store/writer.rs", "task"),
        ("manager/runner.rs", "store"),
        ("http/routes.rs", "manager"),
        ("app.rs", "http"),
        ("cli/serve.rs", "config"),
    ] {
        let source = format!("// crate::nothing\nuse crate::{import}::Something;");
        assert!(violations(file, &source).is_empty(), "{file} may not import {import}");
    }
}

/// Parses `1.44.2` into its numbers. Ignores a suffix after `-` or `+`.
fn version(text: &str) -> Vec<u64> {
    let numbers = text.split(['-', '+']).next().expect("a version");
    numbers.split('.').map(|number| number.parse().expect("a number")).collect()
}

/// Packages in `Cargo.lock` below their minimum version, one sentence each.
fn outdated(lock: &str) -> Vec<String> {
    let lock: toml::Table = lock.parse().expect("TOML");
    let mut found = Vec::new();
    for package in lock["package"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().expect("a string");
        for (name, fixed, fault) in FIXED_IN {
            if text("name") == name && version(text("version")) < version(fixed) {
                found.push(format!("{name} {}: fixed in {fixed}: {fault}", text("version")));
            }
        }
    }
    found
}

/// Offline replacement for `cargo deny check advisories`, which has to fetch the list of
/// advisories.
#[test]
fn no_package_is_older_than_the_repair_of_its_known_faults() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(lock).expect("Cargo.lock");
    assert!(lock.contains("name = \"tokio\""), "Cargo.lock names no packages");
    let found = outdated(&lock);
    assert!(found.is_empty(), "{found:#?}");
    let old = "[[package]]\nname = \"tokio\"\nversion = \"1.44.1\"\n";
    assert_eq!(outdated(old).len(), 1);
}
