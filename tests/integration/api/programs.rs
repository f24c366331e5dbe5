//! Task types that are declared by files in the tasks folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::Server;

/// A folder with these files in its tasks folder.
pub(super) fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let tasks = folder.path().join("tasks.d");
    fs::create_dir(&tasks).unwrap();
    fs::set_permissions(&tasks, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        declare(folder.path(), name, text);
    }
    folder
}

/// Writes a file of the tasks folder.
fn declare(folder: &Path, name: &str, text: &str) {
    let path = folder.join("tasks.d").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

pub(super) fn server_with(files: &[(&str, &str)]) -> Server {
    Server::start_in(folder_with(files), &[], &[])
}

/// A manifest that runs a shell script with these arguments.
pub(super) fn shell(script: &str, arguments: &[&str], rest: &str) -> String {
    let script = script.replace('{', "{{").replace('}', "}}");
    let arguments: String = arguments.iter().map(|argument| format!(", \"{argument}\"")).collect();
    format!("command = [\"sh\", \"-c\", '''{script}''', \"sh\"{arguments}]\n{rest}\n")
}

async fn run(server: &Server, task: Value, status: &str) -> Value {
    let id = server.submit(task).await;
    server.wait_for(&id, status).await
}

/// Entry of a type in `GET /task-types`.
async fn task_type(server: &Server, name: &str) -> Value {
    let types = server.get("/task-types").await.body;
    types.as_array().unwrap().iter().find(|one| one["task_type"] == name).cloned().unwrap()
}

const TEXT: &str = "[parameters.text]\ntype = \"string\"\n";

#[tokio::test]
async fn a_program_gets_its_task_and_gives_a_result() {
    let script = r#"
        cat > document.json
        printf '{"attempt": %s, "folder": "%s", "document": %s}' \
            "$TASK_ATTEMPT" "$(pwd)" "$(cat document.json)" > result.json
        printf %s "$1" > "$TASK_STATE_DIR/argument"
        cp "$TASK_STATE_DIR/argument" "$TASK_OUTPUT"
    "#;
    let rest = format!("output = \"required\"\n{TEXT}");
    let server = server_with(&[("tell.toml", &shell(script, &["{parameters.text}"], &rest))]);
    let text = "a b; $(touch hacked) \" ' \\ `id`\n-x";
    let task = json!({
        "task_type": "tell", "parameters": { "text": text }, "output_file_path": "out/told.txt",
    });
    let info = run(&server, task, "completed").await;
    let result = &info["result"];
    assert_eq!(result["attempt"], 1);
    assert_eq!(result["document"]["task_id"], info["task_id"]);
    assert_eq!(result["document"]["parameters"], info["parameters"]);
    let output = server.folder().canonicalize().unwrap().join("out/told.txt");
    assert_eq!(result["document"]["output_file_path"], output.to_str().unwrap());
    assert_eq!(fs::read_to_string(output).unwrap(), text);
    let folder = result["folder"].as_str().unwrap();
    assert!(!Path::new(folder).exists(), "{folder} is left");
}

#[tokio::test]
async fn a_program_without_a_result_gives_its_exit_code() {
    let server = server_with(&[("nothing.toml", "command = [\"true\"]")]);
    let info = run(&server, json!({ "task_type": "nothing" }), "completed").await;
    assert_eq!(info["result"], json!({ "exit_code": 0 }));
}

#[tokio::test]
async fn a_failure_is_the_last_line_of_standard_error_and_the_exit_code() {
    let event = r#"echo '{"error": "broken image"}' > $TASK_EVENTS; exit 1"#;
    let files = [
        ("fails.toml", shell("echo first >&2; echo 'no cells found' >&2; exit 3", &[], "")),
        ("dies.toml", shell("kill -SEGV $$", &[], "")),
        ("says.toml", shell(event, &[], "")),
        ("gives_up.toml", shell("exit 64", &[], "exit = { permanent = [64] }")),
        ("bad_result.toml", shell("echo '[1]' > result.json", &[], "")),
    ];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let server = server_with(&files);
    for (name, error) in [
        ("fails", "no cells found (exit code 3)"),
        ("dies", "killed by SIGSEGV"),
        ("says", "broken image"),
        ("gives_up", "exit code 64"),
    ] {
        let info = run(&server, json!({ "task_type": name }), "failed").await;
        assert_eq!(info["error"], error, "{name}");
    }
    let info = run(&server, json!({ "task_type": "bad_result" }), "failed").await;
    assert!(info["error"].as_str().unwrap().contains("not a JSON object"), "{info}");
    let again = json!({ "task_type": "gives_up", "max_attempts": 5 });
    let info = run(&server, again, "failed").await;
    assert_eq!(info["attempt"], 1, "a permanent exit code is tried once");
}

#[tokio::test]
async fn progress_comes_from_events_and_from_the_output() {
    let wait = r#"while [ ! -e "$1" ]; do sleep 0.05; done"#;
    let event = r#"echo '{"progress": 42, "message": "FOV 5/12"}' > $TASK_EVENTS"#;
    let told = shell(&format!("{event}; {wait}"), &["{parameters.text}"], TEXT);
    let bar = format!("progress = {{ stream = \"stderr\", regex = '(\\d+)%' }}\n{TEXT}");
    let bar = shell(&format!(r"printf ' 10%%\r 37%%' >&2; {wait}"), &["{parameters.text}"], &bar);
    let server = server_with(&[("told.toml", &told), ("bar.toml", &bar)]);
    for (name, percent, message) in [("told", 42.0, "FOV 5/12"), ("bar", 37.0, "37%")] {
        let until = server.folder().join(name).display().to_string();
        let task = json!({ "task_type": name, "parameters": { "text": until } });
        let id = server.submit(task).await;
        let reached = |info: &Value| info["progress"] == percent;
        let info = server.until(&format!("/tasks/{id}"), reached).await;
        assert_eq!(info["message"], message);
        server.write(name, "");
        server.wait_for(&id, "completed").await;
    }
}

#[tokio::test]
async fn parameters_are_checked_like_those_of_built_in_types() {
    let manifest = "command = [\"true\", \"{parameters.channel}\", \"{parameters.mode}\"]\n\
         description = \"Segments cells.\"\nversion = \"1.2\"\n\
         defaults = { timeout_seconds = 60, max_attempts = 2 }\n\
         [parameters.channel]\ntype = \"integer\"\nminimum = 0\ndescription = \"Channel.\"\n\
         [parameters.mode]\nenum = [\"fast\", \"exact\"]\ndefault = \"fast\"\n";
    let server = server_with(&[("segment.toml", manifest)]);
    let view = task_type(&server, "segment").await;
    assert_eq!((&view["version"], &view["cpus"]), (&json!("1.2"), &json!(1)));
    assert_eq!(view["description"], "Segments cells.");
    assert_eq!(view["parameters"]["required"], json!(["channel"]));
    assert_eq!(view["defaults"], json!({ "mode": "fast" }));
    let parameters = json!({ "chanel": 1, "channel": -1, "mode": "slow" });
    let task = json!({ "task_type": "segment", "parameters": parameters });
    let answer = server.post("/tasks", &task).await;
    assert_eq!(answer.faults().len(), 3, "{answer}");
    let task = json!({ "task_type": "segment", "parameters": { "channel": 1 } });
    let info = run(&server, task, "completed").await;
    assert_eq!((&info["timeout_seconds"], &info["max_attempts"]), (&json!(60.0), &json!(2)));
    assert_eq!(info["parameters"], json!({ "channel": 1, "mode": "fast" }));
}

#[tokio::test]
async fn an_argument_that_looks_like_an_option_is_refused() {
    let manifest = "command = [\"true\", \"{parameters.text}\", \"--x={parameters.other}\"]\n\
         [parameters.text]\ntype = \"string\"\n\
         [parameters.other]\ntype = \"string\"\ndefault = \"\"\n";
    let server = server_with(&[("remove.toml", manifest)]);
    for (text, other, accepted) in [
        ("-rf", "a", false),
        ("a\u{0}b", "a", false),
        ("a", "a\u{0}", false),
        ("a\nb", "-rf", true),
        ("", "", true),
    ] {
        let parameters = json!({ "text": text, "other": other });
        let task = json!({ "task_type": "remove", "parameters": parameters });
        let answer = server.post("/tasks", &task).await;
        assert_eq!(answer.status == 200, accepted, "{text:?} {other:?}: {answer}");
    }
}

#[tokio::test]
async fn a_program_gets_a_clean_environment_and_no_open_files() {
    let script = r#"tr '\0' '\n' < /proc/$$/environ > "$TASK_OUTPUT"
        ls -l /proc/$$/fd | grep -c -e "tasks.db\$" -e tasks.db-wal -e events > found
        printf '{"files": %s}' "$(cat found)" > result.json"#;
    let rest = "output = \"required\"\nenv = { MODEL_DIR = \"/models\" }\npass_env = [\"PASSED\"]";
    let folder = folder_with(&[("env.toml", &shell(script, &[], rest))]);
    let secrets = [("AWS_SECRET_ACCESS_KEY", "secret"), ("PASSED", "yes")];
    let server = Server::start_in(folder, &[], &secrets);
    let task = json!({ "task_type": "env", "output_file_path": "env.txt" });
    let info = run(&server, task, "completed").await;
    let text = fs::read_to_string(server.folder().join("env.txt")).unwrap();
    assert!(!text.contains("secret"), "{text}");
    for line in ["MODEL_DIR=/models", "PASSED=yes", "OMP_NUM_THREADS=1"] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(info["result"]["files"], 0, "files of the server are open in the program: {info}");
}

#[tokio::test]
async fn a_mistake_in_a_file_is_shown_and_refuses_submissions() {
    let server = server_with(&[
        ("typo.toml", "comand = [\"true\"]"),
        ("gone.toml", "command = [\"no-such-program\"]"),
        ("tokenize.toml", "command = [\"true\"]"),
        ("My-Task.toml", "command = [\"true\"]"),
        ("greedy.toml", "command = [\"true\"]\ncpus = 1000000"),
        (
            "unfit.toml",
            "command = [\"true\"]\nparameters.n = { type = \"integer\", default = \"x\" }",
        ),
    ]);
    for (name, problem) in [
        ("typo", "typo.toml: unknown key `comand`, did you mean `command`?"),
        ("gone", "gone.toml: there is no program `no-such-program`"),
        ("tokenize", "tokenize.toml: `tokenize` is a built-in type"),
        ("my_task", "`My-Task` cannot be the name of a task type"),
        ("greedy", "--cpu-slots"),
        ("unfit", "the default of parameters.n does not fit"),
    ] {
        let view = task_type(&server, name).await;
        assert!(view["problem"].as_str().unwrap().contains(problem), "{view}");
        if name != "tokenize" {
            let answer = server.post("/tasks", &json!({ "task_type": name })).await;
            assert!(answer.only_fault().contains(problem), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_file_that_others_may_write_is_a_problem() {
    let folder = folder_with(&[("open.toml", "command = [\"true\"]")]);
    let file = folder.path().join("tasks.d/open.toml");
    fs::set_permissions(file, fs::Permissions::from_mode(0o664)).unwrap();
    let server = Server::start_in(folder, &[], &[]);
    let view = task_type(&server, "open").await;
    assert!(view["problem"].as_str().unwrap().contains("chmod go-w"), "{view}");
}

#[tokio::test]
async fn the_folder_is_followed() {
    let server = server_with(&[]);
    declare(server.folder(), "late.toml", "command = [\"true\"]\nversion = \"1\"");
    let until_type = async |wanted: &dyn Fn(Option<&Value>) -> bool| loop {
        let types = server.get("/task-types").await.body;
        let found = types.as_array().unwrap().iter().find(|one| one["task_type"] == "late");
        if wanted(found) {
            return;
        }
        tokio::task::yield_now().await;
    };
    until_type(&|found| found.is_some_and(|one| one["version"] == "1")).await;
    run(&server, json!({ "task_type": "late" }), "completed").await;
    // A broken version keeps its predecessor.
    declare(server.folder(), "late.toml", "command = [\"true\"]\nversion = 2");
    until_type(&|found| found.is_some_and(|one| one["problem"].is_string())).await;
    assert_eq!(task_type(&server, "late").await["version"], "1");
    run(&server, json!({ "task_type": "late" }), "completed").await;
    // Tasks of a removed type wait and say why, and run once it is back.
    let later = json!({ "task_type": "late", "run_at": "2100-01-01T00:00:00Z" });
    let waiting = server.submit(later).await;
    fs::remove_file(server.folder().join("tasks.d/late.toml")).unwrap();
    until_type(&|found| found.is_none()).await;
    let answer = server.post("/tasks", &json!({ "task_type": "late" })).await;
    assert!(answer.only_fault().contains("unknown task type"), "{answer}");
    assert_eq!(server.task(&waiting).await["status"], "pending");
    declare(server.folder(), "late.toml", "command = [\"true\"]\nversion = \"3\"");
    until_type(&|found| found.is_some_and(|one| one["version"] == "3")).await;
    run(&server, json!({ "task_type": "late" }), "completed").await;
}
