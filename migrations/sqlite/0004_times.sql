-- The earliest and the latest submission time of each block of 1024 tasks. Filled while the server works;
-- then the server drops tasks_by_time, which every submission pays for. Both take seconds for millions of
-- tasks, so nobody waits for them here.
CREATE TABLE submission_times (
    -- seq / 1024
    block    INTEGER PRIMARY KEY,
    -- Microseconds since 1970, UTC.
    earliest INTEGER NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;
