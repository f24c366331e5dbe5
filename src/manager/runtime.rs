//! The threads that poll the code of tasks.

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A runtime apart from the one that serves requests, so that code that holds its thread cannot
/// hold up the server.
#[derive(Debug)]
pub(super) struct TaskRuntime(Option<Runtime>);

impl TaskRuntime {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().thread_name("task").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let runtime = self.0.as_ref().expect("the runtime is there until it is dropped");
        runtime.spawn(future)
    }
}

impl Drop for TaskRuntime {
    fn drop(&mut self) {
        // A thread that never ends must not hold up the end of the server.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
