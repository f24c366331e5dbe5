//! Which tasks are meant: the filters of lists and of cancelling many.

use clap::Args;

use super::parameters::pair;

/// Filters; a task has to match them all.
#[derive(Args, Clone, Debug)]
pub(super) struct Filters {
    /// pending, running, completed, failed or cancelled; several with commas
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Type of the task; several with commas
    #[arg(long = "type", value_name = "TYPE")]
    task_type: Option<String>,

    /// Has this value for the tag; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    tag: Vec<(String, String)>,

    /// Submitted at this time or later, such as 2026-01-31T15:30:00Z
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

    /// The same, of unfinished tasks unless a status is given.
    pub(super) fn unfinished(&self) -> Self {
        let status = self.status.clone().or_else(|| Some("pending,running".to_owned()));
        Self { status, ..self.clone() }
    }

    /// The query of a request, without its `?`.
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
