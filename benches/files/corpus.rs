//! Texts to tokenize, found on this machine.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::message_catalog::translations;

/// Larger source files are mostly generated tables.
const LONGEST_SOURCE: u64 = 256 << 10;
/// Minimum amount of text worth repeating.
const LEAST_TEXT: usize = 1 << 20;
/// Number of files per call of gzip.
const BATCH: usize = 256;

/// Languages without spaces between words.
const CHINESE_AND_JAPANESE: [&str; 3] = ["ja", "zh_CN", "zh_TW"];

/// Text of one kind.
pub(crate) struct Corpus {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// Rust sources from the cargo registry.
pub(crate) fn source_code(bytes: usize) -> Option<Corpus> {
    let is_source = |path: &Path| {
        path.extension() == Some(OsStr::new("rs"))
            && path.metadata().is_ok_and(|file| file.len() <= LONGEST_SOURCE)
    };
    gather("source code", bytes, shuffled(files(&registry(), &is_source)), plain_text)
}

/// English manual pages, and the documentation of programs and crates.
pub(crate) fn prose(bytes: usize) -> Option<Corpus> {
    let mut found = Vec::new();
    for section in 1..=8 {
        found.extend(files(Path::new(&format!("/usr/share/man/man{section}")), &|_| true));
    }
    let is_document = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["README", "NEWS", ".txt", ".md", ".rst"].iter().any(|part| name.contains(part))
    };
    found.extend(files(Path::new("/usr/share/doc"), &is_document));
    found.extend(files(&registry(), &|path| path.extension() == Some(OsStr::new("md"))));
    gather("prose", bytes, shuffled(found), plain_text)
}

/// Chinese and Japanese manual pages and program messages.
pub(crate) fn chinese_and_japanese(bytes: usize) -> Option<Corpus> {
    let mut found = Vec::new();
    for language in CHINESE_AND_JAPANESE {
        found.extend(files(Path::new(&format!("/usr/share/man/{language}")), &|_| true));
        let messages = format!("/usr/share/locale/{language}/LC_MESSAGES");
        found.extend(files(Path::new(&messages), &|_| true));
    }
    let (catalogs, pages): (Vec<_>, _) =
        found.into_iter().partition(|path| path.extension() == Some(OsStr::new("mo")));
    let read = |batch: &[PathBuf]| match batch.first() {
        Some(path) if path.extension() == Some(OsStr::new("mo")) => batch
            .iter()
            .filter_map(|path| fs::read(path).ok())
            .map(|mo| translations(&mo))
            .collect(),
        _ => plain_text(batch),
    };
    // A batch has either pages or catalogs.
    let mut batches: Vec<_> = pages.chunks(BATCH).chain(catalogs.chunks(BATCH)).collect();
    batches.retain(|batch| !batch.is_empty());
    gather_batches("Chinese and Japanese", bytes, batches, read)
}

fn registry() -> PathBuf {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    cargo.unwrap_or_default().join("registry/src")
}

/// Files below a folder. Skips links, which would duplicate texts.
fn files(folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path, is_wanted)),
            Ok(kind) if kind.is_file() && is_wanted(&path) => found.push(path),
            _ => {}
        }
    }
    found
}

/// Sorts paths by their hash, for a fixed order unrelated to the names.
fn shuffled(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort_by_cached_key(hash);
    paths
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Text of the files, decompressed if necessary.
fn plain_text(paths: &[PathBuf]) -> String {
    let output = Command::new("gzip").args(["-dcfq", "--"]).args(paths).output();
    let bytes = output.map(|output| output.stdout).unwrap_or_default();
    bytes.utf8_chunks().map(|chunk| chunk.valid()).collect()
}

fn gather(
    name: &'static str,
    bytes: usize,
    paths: Vec<PathBuf>,
    read: impl Fn(&[PathBuf]) -> String,
) -> Option<Corpus> {
    gather_batches(name, bytes, paths.chunks(BATCH).collect(), read)
}

/// Reads batches until there is enough text, repeats it if there is not, and prints a summary.
fn gather_batches(
    name: &'static str,
    bytes: usize,
    batches: Vec<&[PathBuf]>,
    read: impl Fn(&[PathBuf]) -> String,
) -> Option<Corpus> {
    let mut text = String::new();
    for batch in batches {
        text += &read(batch);
        if text.len() >= bytes {
            break;
        }
    }
    if text.len() < LEAST_TEXT {
        println!("{name}: NOT FOUND on this machine, skipped");
        return None;
    }
    text.truncate(text.floor_char_boundary(bytes));
    let mut seen = HashSet::new();
    let distinct: usize = text.lines().filter(|line| seen.insert(hash(*line))).map(str::len).sum();
    let times = bytes as f64 / text.len() as f64;
    println!(
        "{name}: {:.1} MB of text, {:.1} MB of it in distinct lines, repeated {:.1} times",
        text.len() as f64 / 1e6,
        distinct as f64 / 1e6,
        times.max(1.0),
    );
    text = text.repeat(times.ceil() as usize);
    text.truncate(text.floor_char_boundary(bytes));
    Some(Corpus { name, text })
}
