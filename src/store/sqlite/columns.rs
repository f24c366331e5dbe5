//! Columns of the table `tasks`, each named once, beside its field.

use std::error::Error;
use std::str::FromStr;
use std::sync::LazyLock;

use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::statements::Values;
use crate::store::record::TaskRecord;
use crate::task::{TaskId, TaskInfo, TaskStatus, Timestamp};

/// Defines names, order, reading and writing of the columns from the fields of [`TaskRecord`] and its
/// [`TaskInfo`]. `seq` comes first.
macro_rules! table {
    (record { $($field:ident: $column:literal,)* } info { $($info:ident: $info_column:literal,)* }) => {
        /// All columns of a record, in the order of [`read`].
        macro_rules! columns {
            () => { concat!("seq" $(, ", ", $column)* $(, ", ", $info_column)*) };
        }

        /// All columns of a new row: those of a record, and `output_key`.
        pub(super) const WRITTEN: &[&str] =
            &["seq", $($column,)* $($info_column,)* "output_key"];

        /// Reads a row of [`columns`].
        pub(super) fn read(row: &SqliteRow) -> sqlx::Result<TaskRecord> {
            let mut next = 0..;
            let mut index = || next.next().unwrap_or_default();
            Ok(TaskRecord {
                seq: Column::read(row, index())?,
                $($field: Column::read(row, index())?,)*
                info: TaskInfo {
                    $($info: Column::read(row, index())?,)*
                    queue_position: None,
                    waiting_because: None,
                    eta_seconds: None,
                },
            })
        }

        /// Binds the columns of [`WRITTEN`].
        pub(super) fn bind(values: &mut Values, record: &TaskRecord, output_key: Option<&str>) {
            values.bind(record.seq);
            $(record.$field.bind(values);)*
            $(record.info.$info.bind(values);)*
            values.text(output_key);
        }
    };
}

table! {
    record {
        epoch: "epoch",
        interruptions: "interruptions",
        due_at: "due_at",
        unrunnable: "held",
    }
    info {
        task_id: "id",
        task_type: "task_type",
        status: "status",
        progress: "progress",
        message: "message",
        created_at: "created_at",
        started_at: "started_at",
        completed_at: "completed_at",
        result: "result",
        error: "error",
        input_file_path: "input_file_path",
        output_file_path: "output_file_path",
        parameters: "parameters",
        updated_at: "updated_at",
        attempt: "attempt",
        max_attempts: "max_attempts",
        timeout_seconds: "timeout_seconds",
        cancel_requested_at: "cancel_requested_at",
        priority: "priority",
        tags: "tags",
        run_at: "run_at",
        retry_of: "retry_of",
        retried_by: "retried_by",
    }
}
pub(super) use columns;

/// Positions of the columns that may hold long texts. Finding columns by name would cost more than
/// reading them.
static TEXTS: LazyLock<[usize; 7]> = LazyLock::new(|| {
    let names = "message result error input_file_path output_file_path parameters tags";
    let mut names = names.split(' ');
    std::array::from_fn(|_| {
        let name = names.next();
        WRITTEN.iter().position(|column| Some(*column) == name).expect("a column of this name")
    })
});

/// Length of all texts of a row in bytes, as [`TaskInfo::text_bytes`] counts them.
pub(super) fn text_bytes(row: &SqliteRow) -> sqlx::Result<usize> {
    let length = |&place: &usize| Ok(row.try_get::<Option<&str>, _>(place)?.map_or(0, str::len));
    TEXTS.iter().map(length).sum()
}

/// The `seq` of a row.
pub(super) fn seq(row: &SqliteRow) -> sqlx::Result<i64> {
    row.try_get(0)
}

/// Parses a value that is stored as text.
pub(super) fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(text: &str) -> sqlx::Result<T> {
    text.parse().map_err(decode)
}

/// Error for a value that cannot be read.
pub(super) fn decode(error: impl Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// A field of a record, as stored in its column.
trait Column: Sized {
    fn read(row: &SqliteRow, index: usize) -> sqlx::Result<Self>;
    fn bind(&self, values: &mut Values);
}

macro_rules! stored_as_is {
    ($($field:ty),*) => {$(
        impl Column for $field {
            fn read(row: &SqliteRow, index: usize) -> sqlx::Result<Self> {
                row.try_get(index)
            }

            fn bind(&self, values: &mut Values) {
                values.bind(*self);
            }
        }
    )*};
}
stored_as_is!(bool, i32, i64, u32, f64, Option<f64>);

/// Stores a value as a text or number, and `None` as NULL.
macro_rules! stored_as {
    ($field:ty, $stored:ty, $read:expr, $bind:expr) => {
        impl Column for $field {
            fn read(row: &SqliteRow, index: usize) -> sqlx::Result<Self> {
                let read: fn($stored) -> sqlx::Result<Self> = $read;
                read(row.try_get(index)?)
            }

            fn bind(&self, values: &mut Values) {
                let bind: fn(&Self, &mut Values) = $bind;
                bind(self, values);
            }
        }

        impl Column for Option<$field> {
            fn read(row: &SqliteRow, index: usize) -> sqlx::Result<Self> {
                let read: fn($stored) -> sqlx::Result<$field> = $read;
                row.try_get::<Option<$stored>, _>(index)?.map(read).transpose()
            }

            fn bind(&self, values: &mut Values) {
                match self {
                    Some(value) => Column::bind(value, values),
                    None => {
                        values.bind(None::<i64>);
                    }
                }
            }
        }
    };
}
stored_as!(String, String, Ok, |text, values| {
    values.text(text.as_str());
});
stored_as!(Timestamp, i64, |micros| Ok(Timestamp::from_micros(micros)), |time, values| {
    values.bind(time.as_micros());
});
stored_as!(TaskId, &str, parse, |id, values| {
    values.bind(id.to_string());
});
stored_as!(TaskStatus, &str, parse, |status, values| {
    values.text(status.name());
});
stored_as!(
    Box<RawValue>,
    String,
    |json| RawValue::from_string(json).map_err(decode),
    |json, values| {
        values.text(json.get());
    }
);
