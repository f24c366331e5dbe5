//! Filters of `list`, `watch`, `cancel` and `retry`.

use clap::Args;

use super::parameters::pair;

/// Filters, all of which a task has to match.
#[derive(Args, Clone, Debug)]
pub(super) struct Filters {
    /// Comma-separated list of pending, running, completed, failed or cancelled
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Comma-separated list of task types
    #[arg(long = "type", value_name = "TYPE")]
    task_type: Option<String>,

    /// Tag with this value; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    tag: Vec<(String, String)>,

    /// Submitted at or after this time, such as 2026-01-31T15:30:00Z
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,

    /// Submitted before this time
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
}

impl Filters {
    pub(super) fn is_empty(&self) -> bool {
        self.query(None).is_empty()
    }

    /// Restricts the filters to unfinished tasks unless they have a status.
    pub(super) fn unfinished(self) -> Self {
        let status = self.status.or_else(|| Some("pending,running".to_owned()));
        Self { status, ..self }
    }

    /// Returns the query string without `?`.
    pub(super) fn query(&self, limit: Option<usize>) -> String {
        let limit = limit.map(|limit| limit.to_string());
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("status", &self.status),
            ("task_type", &self.task_type),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
            ("limit", &limit),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        for (key, value) in &self.tag {
            query.append_pair(&format!("tag.{key}"), value);
        }
        query.finish()
    }
}
