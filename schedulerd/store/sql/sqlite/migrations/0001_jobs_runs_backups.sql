-- Instants are integer microseconds since 1970-01-01 UTC: datetime(started_at / 1e6, 'unixepoch') shows one.

CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,              -- the trigger's text; another one is planned anew from planned_since
    planned_since INTEGER NOT NULL,  -- no occurrence up to here is looked for
    paused_at INTEGER,
    paused_by TEXT,
    pause_reason TEXT,
    paused_until INTEGER
) STRICT, WITHOUT ROWID;

-- The ledger and the history in one: a row is durable before its action starts.
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,  -- sorts by time
    job_id TEXT NOT NULL,
    scheduled_at INTEGER,     -- the occurrence; NULL when it was asked for by hand
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
    idempotency_key TEXT
) STRICT, WITHOUT ROWID;

-- Each occurrence has exactly one first attempt, and one of each further: this index settles every race about them.
CREATE UNIQUE INDEX runs_occurrence ON runs (job_id, scheduled_at, attempt) WHERE scheduled_at IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (job_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_history ON runs (job_id, run_id);
CREATE INDEX runs_unfinished ON runs (run_id) WHERE status IN ('queued', 'running');
CREATE INDEX runs_finished ON runs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE backups (
    path TEXT PRIMARY KEY,
    filename TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    run_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE daily_stats (
    day TEXT NOT NULL,  -- YYYY-MM-DD in the zone of the analytics job
    job_id TEXT NOT NULL,
    runs TEXT NOT NULL,  -- JSON: counts by status
    records_processed INTEGER NOT NULL,
    duration_p50 REAL,
    duration_p95 REAL,
    lateness_p50 REAL,
    lateness_p99 REAL,
    PRIMARY KEY (day, job_id)
) STRICT, WITHOUT ROWID;
