//! Events of `tracing` in the code of a task, as lines of its log.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::{LogSource, TaskLog};

/// Modules whose events are the server's, even inside the span of a task.
const OF_THE_SERVER: [&str; 2] =
    [concat!(env!("CARGO_CRATE_NAME"), "::manager"), concat!(env!("CARGO_CRATE_NAME"), "::store")];

/// Log that a span belongs to.
struct LogOfSpan(TaskLog);

/// Makes all events inside a span lines of this log, if the subscriber has a [`task_logs`] layer.
pub(crate) fn attach(span: &Span, log: &TaskLog) {
    span.with_subscriber(|(id, dispatch)| {
        if let Some(registry) = dispatch.downcast_ref::<Registry>()
            && let Some(span) = registry.span(id)
        {
            span.extensions_mut().insert(LogOfSpan(log.clone()));
        }
    });
}

/// Layer of a subscriber that writes what tasks say with `tracing`, from level INFO on, to their logs. Other
/// layers need filters of their own.
pub fn task_logs<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    TaskLogs.with_filter(LevelFilter::INFO)
}

struct TaskLogs;

impl<S> Layer<S> for TaskLogs
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        if OF_THE_SERVER.iter().any(|module| target.starts_with(module)) {
            return;
        }
        let mut spans = context.event_scope(event).into_iter().flatten();
        let log =
            spans.find_map(|span| span.extensions().get::<LogOfSpan>().map(|of| of.0.clone()));
        if let Some(log) = log {
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            log.line(LogSource::Tracing, text.0);
        }
    }
}

/// Text of an event: level, message, other fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Cannot fail: a string grows.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {}={value:?}", name.trim_start_matches("r#")),
        };
    }
}
