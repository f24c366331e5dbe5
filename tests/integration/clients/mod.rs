//! Clients in other languages: those of docs/CLIENTS.md, verbatim, and those generated from the
//! OpenAPI document. Each runs against its own server.
//!
//! `.ci/clients` installs their tools. Without it all tests but curl's are skipped.

mod workplace;

use crate::common::Server;
use crate::common::blocks::fenced_blocks;
use workplace::{Workplace, output};

const DOCUMENT: &str = include_str!("../../../docs/CLIENTS.md");
/// Server address in the clients of the document and of the tests.
const ADDRESS: &str = "http://localhost:8000";
/// Options of tsc that match how the files are run.
const TSC: &str = "--noEmit --strict --skipLibCheck --target es2023 --module nodenext --jsx react-jsx \
    --types node,react --allowImportingTsExtensions --erasableSyntaxOnly --verbatimModuleSyntax";

/// Output of the document's examples for a refused submission.
const REFUSED: &str = "422 body.parameters.stepz: unknown field `stepz`, did you mean `steps`?";

#[tokio::test]
async fn the_curl_lines_do_what_they_say() {
    let present = |tool: &str| output("sh", &["-c", &format!("command -v {tool}")], None).is_ok();
    if let Some(missing) = ["bash", "curl", "jq"].into_iter().find(|tool| !present(tool)) {
        assert!(std::env::var_os("CLIENT_TOOLS").is_none(), "{missing} is not installed");
        return crate::common::skips::skip(&format!("{missing} is not installed"));
    }
    let server = Server::start(&[]);
    let lines = fenced_blocks(DOCUMENT).into_iter().filter(|block| block.language == "bash");
    let lines: String = lines.map(|block| block.text).collect();
    assert_eq!(lines.matches("limit=100").count(), 1, "{lines}");
    // One page per task, and the idempotent submission twice.
    let lines = lines.replace(ADDRESS, &server.url("")).replace("limit=100", "limit=1");
    let script = format!("set -euo pipefail\n{lines}\n{lines}");
    let printed = output("bash", &["-c", &script], Some(server.folder())).unwrap();

    let count = |words: &str| printed.lines().filter(|line| line.starts_with(words)).count();
    assert_eq!(count("completed 100% Task completed successfully"), 2, "{printed}");
    assert_eq!(count("  \"status\": \"completed\""), 2, "{printed}");
    assert_eq!(count("body.parameters.duration: Input should be a number"), 2, "{printed}");
    assert_eq!(count("body.parameters.stepz: unknown field `stepz`"), 2, "{printed}");
    let tasks = server.get("/tasks").await.body;
    assert_eq!(tasks.as_array().unwrap().len(), 3, "{tasks:#}");
    let listed = printed.lines().filter(|line| line.contains("\tcompleted\t")).count();
    // Some of the tasks just submitted may still run when they are listed.
    assert!((3..=5).contains(&listed), "{printed}");
}

#[test]
fn the_python_client_works() {
    let Some(place) = Workplace::with_blocks("python") else { return };
    let printed = place.python("example.py");
    assert_example(&printed, "{'message': 'Dummy task completed', 'steps_completed': 4");
}

#[test]
fn the_typescript_client_works() {
    let Some(place) = Workplace::with_blocks("ts") else { return };
    place.tsc("example.ts");
    let printed = place.node("example.ts");
    assert_example(&printed, "{ message: 'Dummy task completed', steps_completed: 4");
}

fn assert_example(printed: &str, result: &str) {
    let lines: Vec<_> = printed.lines().collect();
    let end = lines.len() - 5;
    assert_eq!(lines[end], "100% Task completed successfully", "{printed}");
    assert!(lines[..end].iter().all(|line| line.contains("% ")), "{printed}");
    assert!(lines[end + 1].starts_with(result), "{printed}");
    let [cancelled, newest, refused] = lines[end + 2..] else { panic!("{printed}") };
    // On a busy machine the end may come after the server's wait.
    assert!(["cancelled", "running"].contains(&cancelled), "{printed}");
    assert!(newest.starts_with("dummy_very_long "), "{printed}");
    assert_eq!(refused, REFUSED, "{printed}");
}

#[test]
fn the_react_hook_follows_a_task() {
    let Some(place) = Workplace::with_blocks("ts") else { return };
    place.add("use_task.ts", include_str!("use_task.ts"));
    place.tsc("use_task.ts TaskView.tsx");
    assert_eq!(place.node("use_task.ts"), "passed\n");
}

#[tokio::test]
async fn generators_make_clients_that_work() {
    let Some(place) = Workplace::new() else { return };
    let document = place.server.get("/openapi.json").await.text;
    place.add("openapi.json", &document);
    place.tool("python/bin/openapi-spec-validator", "openapi.json");
    let valid = place.tool("node_modules/.bin/validate-api", "openapi.json");
    assert!(valid.contains("\"valid\": true"), "{valid}");

    let options = "generate --path openapi.json --meta none --output-path generated";
    let said = place.tool("python/bin/openapi-python-client", options);
    // The only warning allowed is about the format of metrics.
    assert!(said.matches("WARNING").count() <= 1 && !said.contains("Unable to process"), "{said}");
    place.add("use.py", include_str!("generated.py"));
    assert_eq!(place.python("use.py"), "passed\n");
}

#[tokio::test]
async fn openapi_typescript_makes_types_that_fit() {
    let Some(place) = Workplace::new() else { return };
    place.add("openapi.json", &place.server.get("/openapi.json").await.text);
    place.tool("node_modules/.bin/openapi-typescript", "openapi.json --output api.d.ts");
    place.add("use.ts", include_str!("generated.ts"));
    place.tsc("use.ts");
    assert_eq!(place.node("use.ts"), "passed\n");
}
