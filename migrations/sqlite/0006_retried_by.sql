-- What an upgrade left to be done in the background, by name. A row goes when all of it is done.
CREATE TABLE backfills (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

-- The latest retry of a finished task. That of older tasks is found in the background.
INSERT INTO backfills (name) VALUES ('retried_by');

-- What ALTER TABLE ADD COLUMN does, but for its look at each row: in a STRICT table it checks them all, which
-- takes ten seconds for ten million. Rows that end before a column hold NULL in it.
-- Source: https://www.sqlite.org/lang_altertable.html#altertabaddcol
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(
    sql,
    'held                INTEGER NOT NULL DEFAULT 0
)',
    'held                INTEGER NOT NULL DEFAULT 0,
    -- The latest task that repeats this one.
    retried_by          TEXT
)'
)
WHERE type = 'table' AND name = 'tasks';
-- Has this connection read the schema again; others do because the new table has changed it.
PRAGMA writable_schema = RESET;
