//! One attempt of a program: its files, its processes, its end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use serde_json::{Map, Value, json};
use tracing::Instrument;

use super::Program;
use super::end::conclude;
use super::events::{Events, OutputReader};
use super::manifest::Stream;
use super::supervisor::{Ended, Order, Phase, Supervised};
use crate::task::{LogSource, PathUse, Task, TaskContext, TaskError, TaskResult, async_trait};

/// Name of the file in the private folder that holds the result.
const RESULT: &str = "result.json";
/// Name of the FIFO there.
const EVENTS: &str = "events";

/// A task that runs a program.
#[derive(Debug)]
pub(super) struct ProgramTask {
    pub(super) program: Arc<Program>,
    pub(super) parameters: Value,
}

#[async_trait]
impl Task for ProgramTask {
    async fn execute(self: Box<Self>, ctx: TaskContext) -> TaskResult {
        let cpus = ctx.reserve_cpus(self.program.manifest.cpus).await?;
        // This future is dropped when the task is cancelled, so another one stops the processes then.
        // The guard keeps the attempt from ending before they are gone.
        let guard = ctx.hold_end();
        let run = async move {
            let result = self.run(&ctx).await;
            drop((cpus, guard));
            result
        };
        match tokio::spawn(run.in_current_span()).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime shut down.
            Err(_) => Err(TaskError::Cancelled),
        }
    }
}

impl ProgramTask {
    async fn run(&self, ctx: &TaskContext) -> TaskResult {
        let (program, of_place) = (Arc::clone(&self.program), ctx.clone());
        let prepare = move || Place::prepare(&program, &of_place);
        let place = tokio::task::spawn_blocking(prepare).await??;
        let mut events = Events::create(&place.work_dir.join(EVENTS))?;
        let order = self.order(ctx, &place)?;
        let (supervised, stdout, stderr) = Supervised::start(order).await?;

        let manifest = &self.program.manifest;
        let reader = |source, stream| {
            let progress = manifest.progress.as_ref().filter(|(of, _)| *of == stream);
            OutputReader { source, progress: progress.map(|(_, regex)| regex) }
        };
        let stdout = reader(LogSource::Stdout, Stream::Stdout).read(stdout, ctx);
        let stderr = reader(LogSource::Stderr, Stream::Stderr).read(stderr, ctx);
        let ended = end(&supervised, ctx, manifest.grace);
        let (ended, _, last_line) = tokio::select! {
            all = async { tokio::join!(ended, stdout, stderr) } => all,
            never = events.follow(ctx) => match never {},
        };
        let reported = events.finish(ctx);
        let result = move || place.result();
        let result = tokio::task::spawn_blocking(result);
        conclude(manifest, ended, reported, last_line.ok().flatten(), result.await?)
    }

    /// What the supervisor has to start.
    fn order(&self, ctx: &TaskContext, place: &Place) -> Result<Order, TaskError> {
        let Program { manifest, .. } = &*self.program;
        let argv = self.program.arguments(ctx, &self.parameters, place)?;
        let mut env = self.program.environment();
        let info = ctx.task_info();
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default().into_os_string();
        for (name, value) in [
            ("TASK_ID", info.task_id.to_string().into()),
            ("TASK_ATTEMPT", info.attempt.to_string().into()),
            ("TASK_INPUT", path(&place.input)),
            ("TASK_OUTPUT", path(&place.output)),
            ("TASK_DIR", place.work_dir.clone().into()),
            ("TASK_STATE_DIR", place.state_dir.clone().into()),
            ("TASK_EVENTS", place.work_dir.join(EVENTS).into()),
        ] {
            env.insert(name.into(), value);
        }
        let document = json!({
            "task_id": info.task_id,
            "task_type": info.task_type,
            "attempt": info.attempt,
            "parameters": self.parameters,
            "input_file_path": place.input,
            "output_file_path": place.target,
        });
        Ok(Order {
            argv,
            env: env.into_iter().collect(),
            folder: place.work_dir.clone(),
            stdin: document.to_string().into_bytes(),
            memory: manifest.memory,
            grace: manifest.grace,
            lock: self.program.lock.clone(),
        })
    }
}

/// Waits until all processes are gone. Stops them once the task is asked to stop.
async fn end(supervised: &Supervised, ctx: &TaskContext, grace: Duration) -> Ended {
    let mut phase = supervised.phase();
    let (mut stopping, mut hurrying) = (false, false);
    loop {
        tokio::select! {
            ended = supervised.ended() => return ended,
            () = ctx.cancelled(), if !stopping => {
                supervised.stop(grace);
                stopping = true;
            }
            () = ctx.hurried(), if !hurrying => {
                supervised.stop(Duration::ZERO);
                hurrying = true;
            }
            Ok(()) = phase.changed() => {
                if let Phase::Waiting(processes) = *phase.borrow_and_update() {
                    let message = format!("The program has ended, {processes} of its processes go on");
                    ctx.report(None, Some(message));
                }
            }
        }
    }
}

/// The files of one attempt; all paths are absolute.
pub(super) struct Place {
    pub(super) input: Option<PathBuf>,
    /// Where the program writes the output.
    pub(super) output: Option<PathBuf>,
    /// Where the client wants it.
    pub(super) target: Option<PathBuf>,
    work_dir: PathBuf,
    state_dir: PathBuf,
}

impl Place {
    fn prepare(program: &Program, ctx: &TaskContext) -> Result<Self, TaskError> {
        let paths = program.manifest.paths;
        let is_used = |path: Option<&str>, how| path.is_some() && how != PathUse::Unused;
        let input = is_used(ctx.input_file_path(), paths.input).then(|| ctx.locate_input());
        let output =
            is_used(ctx.output_file_path(), paths.output).then(|| ctx.reserve_output(paths));
        let output = output.transpose()?;
        let target = output.as_deref().and_then(target_of);
        let (work_dir, state_dir) = (ctx.work_dir()?, ctx.state_dir()?);
        Ok(Self { input: input.transpose()?, output, target, work_dir, state_dir })
    }

    /// The result that the program has left, with the client's path in place of the temporary one.
    fn result(self) -> Result<Option<Value>, String> {
        let path = self.work_dir.join(RESULT);
        let text = match read_regular(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read the result: {error}")),
        };
        let result: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| format!("the result is not a JSON object: {error}"))?;
        let mut result = Value::Object(result);
        if let (Some(output), Some(target)) = (&self.output, &self.target) {
            replace(&mut result, &output.to_string_lossy(), &target.to_string_lossy());
        }
        Ok(Some(result))
    }
}

/// The final path of an output: it is written under the same name in a folder beside it.
fn target_of(output: &Path) -> Option<PathBuf> {
    Some(output.parent()?.parent()?.join(output.file_name()?))
}

/// Reads a file of at most the size of a result. Follows no link and waits for no FIFO.
fn read_regular(path: &Path) -> io::Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    file.take(MAX_RESULT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_RESULT_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_RESULT_BYTES} bytes: write it to the output instead"
        )));
    }
    Ok(text)
}

/// Maximum size of a result, in bytes.
const MAX_RESULT_BYTES: u64 = 1024 * 1024;

/// Replaces a path in all texts of a value.
fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|value| replace(value, from, to)),
        _ => {}
    }
}
