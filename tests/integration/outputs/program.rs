//! Tasks that write their output as programs do: by themselves, at a path they are given.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use task_server::task::{
    OutputKind, PathUse, Paths, Task, TaskContext, TaskError, TaskResult, TaskType, async_trait,
};
use task_server::tasks::TaskRegistry;

use super::server::wait_for_go;

/// What to do, as words.
#[derive(Debug, Deserialize, JsonSchema)]
struct Program {
    acts: String,
}

macro_rules! programs {
    ($($name:ident: $kind:ident, $usage:ident;)*) => {$(
        #[derive(Debug, Deserialize, JsonSchema)]
        struct $name(Program);

        #[async_trait]
        impl Task for $name {
            fn paths() -> Paths {
                let (output, output_kind) = (PathUse::$usage, OutputKind::$kind);
                Paths { input: PathUse::Optional, output, output_kind }
            }

            async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
                self.0.run(&ctx, Self::paths()).await
            }
        }
    )*};
}
programs! {
    File: File, Required;
    OptionalFile: File, Optional;
    Folder: Folder, Required;
    OptionalFolder: Folder, Optional;
}

pub(crate) const FILE: &str = "dummy_long";
pub(crate) const OPTIONAL_FILE: &str = "dummy_very_long";
pub(crate) const FOLDER: &str = "tokenize";
pub(crate) const OPTIONAL_FOLDER: &str = "image_process";

pub(crate) fn register(registry: &mut TaskRegistry) {
    registry.replace::<File>(TaskType::DummyLong, json!({}));
    registry.replace::<OptionalFile>(TaskType::DummyVeryLong, json!({}));
    registry.replace::<Folder>(TaskType::Tokenize, json!({}));
    registry.replace::<OptionalFolder>(TaskType::ImageProcess, json!({}));
}

pub(crate) fn program(task_type: &str, acts: &str, output: &str) -> Value {
    json!({
        "task_type": task_type, "parameters": { "acts": acts }, "output_file_path": output,
    })
}

impl Program {
    async fn run(&self, ctx: &TaskContext, paths: Paths) -> TaskResult {
        let input = ctx.input_file_path().map(|_| ctx.locate_input()).transpose()?;
        let place = ctx.reserve_output(paths)?;
        let hidden = place.parent().unwrap();
        let is_folder = paths.output_kind == OutputKind::Folder;
        assert_eq!(place.is_dir(), is_folder);
        for act in self.acts.split(' ') {
            match act {
                "write" if is_folder => write_folder(&place)?,
                "write" => fs::write(&place, "written")?,
                "write-less" => fs::write(place.join("only"), "new")?,
                "write-many" => {
                    for number in 0..1_200 {
                        fs::write(place.join(format!("{number:04}")), "")?;
                    }
                }
                "remove" => fs::remove_dir(&place)?,
                "make-folder" => fs::create_dir(&place)?,
                "make-file" => fs::write(&place, "")?,
                "link" => symlink("/etc/passwd", &place)?,
                "close" => {
                    fs::set_permissions(&place, fs::Permissions::from_mode(0o500))?;
                }
                "litter" => litter(hidden)?,
                "wait" => {
                    ctx.update_progress(50.0, "waiting");
                    wait_for_go(ctx).await?;
                }
                "fail" => return Err(TaskError::failed("not today")),
                "nothing" => {}
                other => panic!("unknown act {other}"),
            }
        }
        Ok(json!({ "place": place, "input": input }))
    }
}

fn write_folder(place: &Path) -> std::io::Result<()> {
    fs::create_dir_all(place.join("sub/empty"))?;
    fs::write(place.join("b.json"), "{}")?;
    fs::write(place.join("sub.txt"), "after sub/")?;
    fs::write(place.join("sub/a b.txt"), "0123456789")?;
    fs::write(place.join("sub/.hidden"), "")?;
    symlink("a b.txt", place.join("sub/link"))?;
    symlink("/etc/passwd", place.join("absolute"))?;
    symlink("../in.txt", place.join("up"))
}

/// Files beside the output that are hard to remove.
fn litter(hidden: &Path) -> std::io::Result<()> {
    let closed = hidden.join("litter/closed");
    fs::create_dir_all(&closed)?;
    fs::write(closed.join("file"), "")?;
    symlink("/", hidden.join("litter/link"))?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000))
}
