-- The end of the log of each attempt that has one. The whole log is a file beside the database, for a while.
CREATE TABLE task_logs (
    task_seq INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    -- Size of the whole log.
    bytes    INTEGER NOT NULL,
    tail     TEXT    NOT NULL,
    PRIMARY KEY (task_seq, attempt)
) STRICT;
