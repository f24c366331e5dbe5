//! The programs of commands: where they are, and the environment they get.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Variables that every program gets from the server's environment.
const PASSED: [&str; 5] = ["HOME", "LANG", "TZ", "TMPDIR", "LC_ALL"];
/// Where programs are looked for if the server has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Variables that keep numeric libraries from using more threads than the task has CPU slots.
const THREADS: [&str; 6] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// Finds a program: an absolute path, or a name in `path` or else the server's `PATH`.
///
/// # Errors
/// Why it cannot be run.
pub(super) fn find(program: &str, path: Option<&str>) -> Result<PathBuf, String> {
    if program.is_empty() {
        return Err("the name of the program is empty".to_owned());
    }
    if program.contains('/') {
        let found = Path::new(program);
        if found.is_relative() {
            return Err(format!(
                "`{program}` is relative: write `{{folder}}/{program}` for a file in the tasks folder"
            ));
        }
        return match runnable(found) {
            Ok(()) => Ok(found.to_owned()),
            Err(reason) => Err(format!("cannot run `{program}`: {reason}")),
        };
    }
    let folders = path.map_or_else(server_path, OsString::from);
    let mut found = env::split_paths(&folders).map(|folder| folder.join(program));
    found.find(|program| runnable(program).is_ok()).ok_or_else(|| {
        format!("there is no program `{program}` in the PATH of the server: {}", folders.display())
    })
}

fn runnable(program: &Path) -> Result<(), String> {
    let file = program.metadata().map_err(|error| error.to_string())?;
    if !file.is_file() {
        return Err("it is not a file".to_owned());
    }
    access(program, Access::EXEC_OK)
        .map_err(|_| format!("it is not executable, see `chmod +x {}`", program.display()))
}

fn server_path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into())
}

/// The environment of a program, before the variables of its task: a few of the server's own, those that
/// the manifest passes on or sets, and limits on threads. Nothing else: the server's secrets are not
/// for programs.
pub(super) fn environment(
    pass: &[String],
    set: &BTreeMap<String, String>,
    cpus: usize,
) -> BTreeMap<OsString, OsString> {
    let passed = PASSED.iter().copied().chain(pass.iter().map(String::as_str));
    let passed = passed.filter_map(|name| Some((name.into(), env::var_os(name)?)));
    let mut variables: BTreeMap<OsString, OsString> = passed.collect();
    variables.insert("PATH".into(), with_own_folder(server_path()));
    for name in THREADS {
        variables.insert(name.into(), cpus.to_string().into());
    }
    variables.extend(set.iter().map(|(name, value)| (name.into(), value.into())));
    variables
}

/// Adds the folder of this program, so that scripts find `task-server progress`.
fn with_own_folder(path: OsString) -> OsString {
    let own = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let mut bytes = path.into_vec();
    if let Some(own) = own {
        bytes.push(b':');
        bytes.extend(own.into_os_string().into_vec());
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_found_by_name_or_absolute_path() {
        assert!(find("sh", None).unwrap().ends_with("sh"));
        assert!(find("/bin/sh", None).is_ok());
        let said = find("no-such-program", Some("/bin")).unwrap_err();
        assert!(said.contains("no program `no-such-program`") && said.contains("/bin"), "{said}");
        let said = find("./segment.sh", None).unwrap_err();
        assert!(said.contains("`{folder}/./segment.sh`"), "{said}");
    }

    #[test]
    fn a_file_without_execute_permission_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("a.sh");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = find(script.to_str().unwrap(), None).unwrap_err();
        assert!(said.contains("not executable, see `chmod +x"), "{said}");
        let said = find(folder.path().to_str().unwrap(), None).unwrap_err();
        assert!(said.contains("not a file"), "{said}");
    }

    #[test]
    fn a_program_gets_no_secrets() {
        let set = BTreeMap::from([("OMP_NUM_THREADS".to_owned(), "9".to_owned())]);
        let environment = environment(&[], &set, 4);
        assert!(!environment.contains_key(&OsString::from("CARGO_PKG_NAME")));
        assert_eq!(environment[&OsString::from("MKL_NUM_THREADS")], "4");
        assert_eq!(environment[&OsString::from("OMP_NUM_THREADS")], "9");
    }
}
