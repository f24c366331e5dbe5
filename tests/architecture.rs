//! The architecture rules that the compiler does not know: which layer may import which.
//!
//! Lower layers never import upper ones; only `app` and `cli` import everything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The packages that the project is built on.
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

/// The first versions of packages without a fault that was published, and what the fault was. A
/// package that is not used is not asked for.
const FLOORS: [(&str, &str, &str); 7] = [
    ("tokio", "1.44.2", "a broadcast channel clones values without a lock"),
    ("bytes", "1.11.1", "an integer overflows in BytesMut::reserve"),
    ("h2", "0.4.16", "published advisories"),
    ("time", "0.3.47", "a crafted date exhausts the stack"),
    ("rustls-webpki", "0.103.13", "published advisories"),
    ("libsqlite3-sys", "0.37.0", "SQLite below 3.51.3 can corrupt a database in WAL mode"),
    ("tracing-subscriber", "0.3.20", "log lines carry the terminal escapes of clients"),
];

/// The layers, from the lowest up.
const LAYERS: [&str; 8] = ["task", "tasks", "store", "manager", "http", "config", "app", "cli"];

/// What a file, named by its path below `src`, may import from this crate; `None` for everything.
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
        other => panic!("src/{file}: there is no layer `{other}`"),
    })
}

/// The layer that a file, named by its path below `src`, belongs to.
fn layer(file: &str) -> &str {
    file.split('/').next().map_or("", |first| first.strip_suffix(".rs").unwrap_or(first))
}

/// The imports of `source` that its layer does not allow, each in a sentence.
fn violations(file: &str, source: &str) -> Vec<String> {
    let Some(allowed) = allowed(file) else { return Vec::new() };
    imported_layers(file, source)
        .into_iter()
        .filter(|import| !allowed.contains(&import.as_str()))
        .map(|import| format!("src/{file} imports crate::{import}, allowed are {allowed:?}"))
        .collect()
}

/// The first names of all paths that start at the root of the crate.
fn imported_layers(file: &str, source: &str) -> BTreeSet<String> {
    let code = without_comments(source);
    let mut found: BTreeSet<String> = code.split("crate::").skip(1).flat_map(first_names).collect();
    // `super` as often as the file is deep leads to the root as well. In an inline module it does
    // not, so there only names of layers count.
    let depth = file.split('/').filter(|part| *part != "mod.rs").count();
    let to_root = "super::".repeat(depth);
    let by_super = code.split(&to_root).skip(1).flat_map(first_names);
    found.extend(by_super.filter(|name| LAYERS.contains(&name.as_str())));
    found
}

/// `a` of `a::b`, and `a` and `c` of `{a::b, c}`.
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

/// Every Rust file of `src`: its path below that folder, and its text.
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
        assert!(manifest["dependencies"].get(package).is_some(), "{package} is no dependency");
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

/// `1.44.2` as numbers; what follows a `-` or `+` does not count.
fn version(text: &str) -> Vec<u64> {
    let numbers = text.split(['-', '+']).next().expect("a version");
    numbers.split('.').map(|number| number.parse().expect("a number")).collect()
}

/// Name and version of each package that `Cargo.lock` holds, as far as they are below their floor.
fn below_their_floor(lock: &str) -> Vec<String> {
    let lock: toml::Table = lock.parse().expect("TOML");
    let mut found = Vec::new();
    for package in lock["package"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().expect("a string");
        for (name, floor, fault) in FLOORS {
            if text("name") == name && version(text("version")) < version(floor) {
                found.push(format!(
                    "{name} {}: below {floor} there is a fault: {fault}",
                    text("version")
                ));
            }
        }
    }
    found
}

/// What `cargo deny check advisories` says where it can fetch the list of advisories.
#[test]
fn no_package_is_older_than_the_repair_of_its_known_faults() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(lock).expect("Cargo.lock");
    assert!(lock.contains("name = \"tokio\""), "Cargo.lock names no packages");
    let found = below_their_floor(&lock);
    assert!(found.is_empty(), "{found:#?}");
    let old = "[[package]]\nname = \"tokio\"\nversion = \"1.44.1\"\n";
    assert_eq!(below_their_floor(old).len(), 1);
}
