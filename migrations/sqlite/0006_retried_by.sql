-- The latest retry of a finished task. That of older tasks is found in the background.
ALTER TABLE tasks ADD COLUMN retried_by TEXT;

-- What an upgrade left to be done in the background, by name. A row goes when all of it is done.
CREATE TABLE backfills (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO backfills (name) VALUES ('retried_by');
