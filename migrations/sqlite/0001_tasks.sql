-- 'task' in ASCII: tells our files from those of others.
PRAGMA application_id = 1952543595;

CREATE TABLE tasks (
    -- Orders claims, lists and cursors; clocks jump, this does not.
    seq                 INTEGER PRIMARY KEY AUTOINCREMENT,
    id                  TEXT    NOT NULL,
    task_type           TEXT    NOT NULL,
    status              TEXT    NOT NULL
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    priority            INTEGER NOT NULL,
    parameters          TEXT    NOT NULL,
    tags                TEXT    NOT NULL,
    input_file_path     TEXT,
    output_file_path    TEXT,
    -- The output's path in one spelling, so that two tasks cannot write one file.
    output_key          TEXT,
    timeout_seconds     REAL,
    max_attempts        INTEGER NOT NULL,
    attempt             INTEGER NOT NULL DEFAULT 0,
    -- How often the server died while the task ran.
    interruptions       INTEGER NOT NULL DEFAULT 0,
    -- Counts claims; whatever an attempt writes names the epoch it was claimed under.
    epoch               INTEGER NOT NULL DEFAULT 0,
    progress            REAL    NOT NULL DEFAULT 0,
    message             TEXT    NOT NULL DEFAULT '',
    result              TEXT,
    error               TEXT,
    -- Times are microseconds since 1970, UTC.
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    started_at          INTEGER,
    completed_at        INTEGER,
    cancel_requested_at INTEGER,
    -- Not before this time; NULL when ready.
    due_at              INTEGER,
    -- The time that the client asked for.
    run_at              INTEGER,
    -- The task that this one repeats.
    retry_of            TEXT,
    -- 1 while this build knows no way to run the task.
    held                INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX tasks_id ON tasks (id);

CREATE UNIQUE INDEX tasks_output ON tasks (output_key)
    WHERE output_key IS NOT NULL AND status IN ('pending', 'running');

-- An index ends in the rowid, which is seq: equal keys are in order of submission.
CREATE INDEX tasks_ready ON tasks (task_type, priority DESC)
    WHERE status = 'pending' AND due_at IS NULL AND held = 0 AND interruptions < 2;

-- Tasks that may be what killed the server twice; one of them runs at a time.
CREATE INDEX tasks_suspect ON tasks (priority DESC)
    WHERE status = 'pending' AND due_at IS NULL AND held = 0 AND interruptions >= 2;

CREATE INDEX tasks_due ON tasks (due_at) WHERE due_at IS NOT NULL AND status = 'pending';
CREATE INDEX tasks_held ON tasks (held) WHERE held = 1;

CREATE INDEX tasks_by_status ON tasks (status);
CREATE INDEX tasks_by_type ON tasks (task_type, status);
CREATE INDEX tasks_by_time ON tasks (created_at);

-- Finds tasks by tag; the tags of a task stand in its row as well.
CREATE TABLE task_tags (
    key      TEXT    NOT NULL,
    value    TEXT    NOT NULL,
    task_seq INTEGER NOT NULL,
    PRIMARY KEY (key, value, task_seq)
) STRICT, WITHOUT ROWID;

-- What was answered to a submission with an Idempotency-Key.
CREATE TABLE idempotency_keys (
    key        TEXT    PRIMARY KEY,
    -- SHA-256 of the body, in hexadecimal.
    body_hash  TEXT    NOT NULL,
    task_id    TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_task ON idempotency_keys (task_id);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);

CREATE TRIGGER terminal_is_final BEFORE UPDATE OF status ON tasks
    WHEN OLD.status IN ('completed', 'failed', 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'a finished task never changes its status');
END;
