//! Outputs inside the folders of other tasks.

use futures_util::future::join_all;

use crate::outputs::files::until_waiting;
use crate::outputs::program::{FILE, FOLDER, program};
use crate::outputs::server::{GO, crash, start};

#[tokio::test]
async fn no_output_is_inside_the_folder_of_an_unfinished_task() {
    let mut server = start();
    let folder = server.submit(program(FOLDER, "write wait", "a/b")).await;
    let file = server.submit(program(FILE, "write wait", "c/d/e.json")).await;
    until_waiting(&server, &folder).await;
    until_waiting(&server, &file).await;
    for round in 0..2 {
        for (task_type, output, owner) in [
            (FOLDER, "a/b", &folder),
            (FOLDER, "a/b/", &folder),
            (FILE, "a/b", &folder),
            (FILE, "a/b/c/d.json", &folder),
            (FOLDER, "./a/b/c", &folder),
            (FOLDER, "a", &folder),
            (FOLDER, "c", &file),
            (FOLDER, "c/d", &file),
            (FOLDER, "c/d/e.json", &file),
        ] {
            let answer = server.post("/tasks", &program(task_type, "write", output)).await;
            // A folder that exists by now is refused before.
            if answer.status == 422 && ["a", "c", "c/d"].contains(&output) {
                continue;
            }
            let detail = answer.error(409);
            assert!(detail.contains(owner.as_str()), "{round}, {output}: {detail}");
        }
        // The same tasks, interrupted.
        crash(&mut server);
        until_waiting(&server, &folder).await;
    }
    for (task_type, output) in [(FILE, "a/b.json"), (FOLDER, "a/b0"), (FILE, "c/d/f.json")] {
        server.submit(program(task_type, "write", output)).await;
    }
    server.write(GO, "");
    server.wait_for(&folder, "completed").await;
    server.submit(program(FILE, "write", "a/b/c.json")).await;
}

#[tokio::test]
async fn of_racing_submissions_that_overlap_one_is_accepted() {
    let server = start();
    for round in 0..8 {
        let bodies = [FOLDER, FILE, FOLDER, FILE].into_iter().zip(["", "/x", "/y", "/y/z"]);
        let bodies = bodies
            .map(|(kind, inside)| program(kind, "write wait", &format!("race-{round}{inside}")));
        let bodies: Vec<_> = bodies.collect();
        let answers = join_all(bodies.iter().map(|body| server.post("/tasks", body))).await;
        let accepted: Vec<_> = answers.iter().map(|answer| answer.status == 200).collect();
        // Either the outermost folder, or what is inside: `y` or `y/z`, and `x`.
        let inner = accepted[1..].iter().filter(|accepted| **accepted).count();
        assert!(accepted[0] && inner == 0 || !accepted[0] && inner > 0, "{accepted:?}");
        assert!(!(accepted[2] && accepted[3]), "{accepted:?}");
    }
}
