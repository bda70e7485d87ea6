-- The schema that results from all migrations, for reference; a test compares them. The migrations create a new history.
-- Instants are integer microseconds since 1970-01-01 UTC. Display one with datetime(started_at / 1e6, 'unixepoch').

CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,              -- the trigger's text; when it changes, planned_since is set anew
    planned_since INTEGER NOT NULL,  -- occurrences up to this instant are not considered
    paused_at INTEGER,
    paused_by TEXT,
    pause_reason TEXT,
    paused_until INTEGER
) STRICT, WITHOUT ROWID;

-- The ledger, which is also the history. A row is durable before its action starts.
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,  -- sorts by time
    job_id TEXT NOT NULL,
    scheduled_at INTEGER,     -- the occurrence; NULL for a manual run
    attempt INTEGER NOT NULL,
    origin TEXT NOT NULL,
    status TEXT NOT NULL,
    queued_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    duration_seconds REAL,
    exit_code INTEGER,
    records_processed INTEGER NOT NULL,
    error_message TEXT,
    details TEXT,             -- JSON
    node TEXT NOT NULL,
    actor TEXT,
    idempotency_key TEXT,
    sequence INTEGER NOT NULL DEFAULT 0  -- the order of recording, independent of the clock; 0 for rows older than this column
) STRICT, WITHOUT ROWID;

-- Each occurrence has at most one row for each attempt. This index decides between concurrent writers.
CREATE UNIQUE INDEX runs_occurrence ON runs (job_id, scheduled_at, attempt) WHERE scheduled_at IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (job_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_recorded ON runs (sequence, run_id);
CREATE INDEX runs_history ON runs (job_id, sequence, run_id, status);  -- with the status: a page of failures does not read other rows
CREATE INDEX runs_notable ON runs (sequence, run_id, status) WHERE status <> 'success';
CREATE INDEX runs_unfinished ON runs (sequence, run_id) WHERE status IN ('queued', 'running');
CREATE INDEX runs_finished ON runs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE daily_stats (
    day TEXT NOT NULL,  -- YYYY-MM-DD
    job_id TEXT NOT NULL,
    runs TEXT NOT NULL,  -- JSON: counts by status
    records_processed INTEGER NOT NULL,
    duration_p50 REAL,
    duration_p95 REAL,
    lateness_p50 REAL,
    lateness_p99 REAL,
    duration_max REAL,
    lateness_p95 REAL,
    output_bytes INTEGER NOT NULL DEFAULT 0,
    timezone TEXT,  -- the time zone of the day; NULL if unknown
    PRIMARY KEY (day, job_id)
) STRICT, WITHOUT ROWID;

-- Counters of the whole history, updated in the transaction that changes the rows, so that no query counts all rows.
-- A period is the first 7 digits of a run_id (2^20 milliseconds, 17.5 minutes), or '' for all time.
CREATE TABLE run_counts (
    period TEXT NOT NULL,
    status TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (period, status)
) STRICT, WITHOUT ROWID;

-- Classes of lateness. `upto` is the upper bound in microseconds, 10 % above that of the class before.
CREATE TABLE lateness_classes (upto INTEGER PRIMARY KEY) STRICT;
CREATE TABLE lateness_counts (
    period TEXT NOT NULL,
    upto INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (period, upto)
) STRICT, WITHOUT ROWID;

INSERT INTO lateness_classes
WITH RECURSIVE classes (upto) AS (
    SELECT 1000 UNION ALL SELECT CAST(upto * 1.1 AS INTEGER) FROM classes WHERE upto < 40 * 86400000000
)
SELECT upto FROM classes UNION ALL SELECT 9223372036854775807;

CREATE TRIGGER runs_counted AFTER INSERT ON runs BEGIN
    INSERT INTO run_counts VALUES (substr(new.run_id, 1, 7), new.status, 1), ('', new.status, 1)
    ON CONFLICT (period, status) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER runs_counted_anew AFTER UPDATE OF status ON runs WHEN new.status <> old.status BEGIN
    UPDATE run_counts SET number = number - 1
    WHERE period IN (substr(old.run_id, 1, 7), '') AND status = old.status;
    INSERT INTO run_counts VALUES (substr(new.run_id, 1, 7), new.status, 1), ('', new.status, 1)
    ON CONFLICT (period, status) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER runs_not_counted AFTER DELETE ON runs BEGIN
    UPDATE run_counts SET number = number - 1
    WHERE period IN (substr(old.run_id, 1, 7), '') AND status = old.status;
    DELETE FROM run_counts WHERE period = substr(old.run_id, 1, 7) AND status = old.status AND number = 0;
END;

CREATE TRIGGER lateness_counted AFTER INSERT ON runs WHEN new.started_at - new.scheduled_at IS NOT NULL BEGIN
    INSERT INTO lateness_counts
    SELECT substr(new.run_id, 1, 7), upto, 1 FROM lateness_classes
    WHERE upto >= new.started_at - new.scheduled_at ORDER BY upto LIMIT 1
    ON CONFLICT (period, upto) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER lateness_counted_anew AFTER UPDATE OF started_at ON runs
WHEN (new.started_at - new.scheduled_at) IS NOT (old.started_at - old.scheduled_at) BEGIN
    UPDATE lateness_counts SET number = number - 1 WHERE period = substr(old.run_id, 1, 7)
        AND upto = (SELECT min(upto) FROM lateness_classes WHERE upto >= old.started_at - old.scheduled_at);
    INSERT INTO lateness_counts
    SELECT substr(new.run_id, 1, 7), upto, 1 FROM lateness_classes
    WHERE upto >= new.started_at - new.scheduled_at ORDER BY upto LIMIT 1
    ON CONFLICT (period, upto) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER lateness_not_counted AFTER DELETE ON runs WHEN old.started_at - old.scheduled_at IS NOT NULL BEGIN
    UPDATE lateness_counts SET number = number - 1 WHERE period = substr(old.run_id, 1, 7)
        AND upto = (SELECT min(upto) FROM lateness_classes WHERE upto >= old.started_at - old.scheduled_at);
    DELETE FROM lateness_counts WHERE period = substr(old.run_id, 1, 7) AND number = 0;
END;
