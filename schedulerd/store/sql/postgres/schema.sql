-- The schema that results from all migrations, for reference; a test compares them. The migrations create a new history.
-- Texts that are compared bytewise are COLLATE "C", so that run ids sort by time in a database of any locale.

CREATE TABLE jobs (
    job_id text COLLATE "C" PRIMARY KEY,
    rule text NOT NULL,                  -- the trigger's text; when it changes, planned_since is set anew
    planned_since timestamptz NOT NULL,  -- occurrences up to this instant are not considered
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    paused_until timestamptz
);

-- The ledger, which is also the history. A row is durable before its action starts.
CREATE TABLE runs (
    run_id text COLLATE "C" PRIMARY KEY,  -- sorts by time
    job_id text COLLATE "C" NOT NULL,
    scheduled_at timestamptz,             -- the occurrence; NULL for a manual run
    attempt integer NOT NULL,
    origin text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    queued_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    duration_seconds double precision,
    exit_code integer,
    records_processed bigint NOT NULL,
    error_message text,
    details json,                         -- not jsonb, which would not preserve the text that a run has reported
    node text COLLATE "C" NOT NULL,
    actor text,
    idempotency_key text COLLATE "C",
    sequence bigint NOT NULL DEFAULT 0    -- the order of recording, independent of the clock; 0 for rows older than this column
);

-- Each occurrence has at most one row for each attempt. This index decides between concurrent writers.
CREATE UNIQUE INDEX runs_occurrence ON runs (job_id, scheduled_at, attempt) WHERE scheduled_at IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (job_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_recorded ON runs (sequence, run_id);
CREATE INDEX runs_history ON runs (job_id, sequence, run_id, status);  -- with the status: a page of failures does not read other rows
CREATE INDEX runs_notable ON runs (sequence, run_id, status) WHERE status <> 'success';
CREATE INDEX runs_unfinished ON runs (sequence, run_id) WHERE status IN ('queued', 'running');
CREATE INDEX runs_finished ON runs (finished_at, run_id) WHERE finished_at IS NOT NULL;

CREATE TABLE daily_stats (
    day text COLLATE "C" NOT NULL,  -- YYYY-MM-DD
    job_id text COLLATE "C" NOT NULL,
    runs json NOT NULL,             -- counts by status
    records_processed bigint NOT NULL,
    duration_p50 double precision,
    duration_p95 double precision,
    lateness_p50 double precision,
    lateness_p99 double precision,
    duration_max double precision,
    lateness_p95 double precision,
    output_bytes bigint NOT NULL DEFAULT 0,
    timezone text,  -- the time zone of the day; NULL if unknown
    PRIMARY KEY (day, job_id)
);

-- Counters of the whole history, updated in the transaction that changes the rows, so that no query counts all rows.
-- A period is the first 7 digits of a run_id (2^20 milliseconds, 17.5 minutes), or '' for all time. Each node has rows of its
-- own, so that two nodes do not wait for each other's commits.
CREATE TABLE run_counts (
    period text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (period, status, node)
) WITH (fillfactor = 50);  -- the same few rows are updated frequently

-- Classes of lateness. `upto` is the upper bound in microseconds, 10 % above that of the class before.
CREATE TABLE lateness_classes (upto bigint PRIMARY KEY);
CREATE TABLE lateness_counts (
    period text COLLATE "C" NOT NULL,
    upto bigint NOT NULL,
    node text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (period, upto, node)
) WITH (fillfactor = 50);

INSERT INTO lateness_classes
WITH RECURSIVE classes (upto) AS (
    SELECT 1000::bigint
    UNION ALL
    SELECT trunc(upto::double precision * 1.1::double precision)::bigint FROM classes WHERE upto < 40 * 86400000000
)
SELECT upto FROM classes UNION ALL SELECT 9223372036854775807;

CREATE FUNCTION lateness_class(scheduled_at timestamptz, started_at timestamptz) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT min(upto) FROM lateness_classes WHERE upto >= extract(epoch FROM started_at - scheduled_at) * 1000000
$$;

-- The rows of a statement are counted together, in a fixed order, so that two transactions do not deadlock.
CREATE FUNCTION count_entered() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO run_counts
    SELECT period, status, node, count(*) FROM entered, LATERAL (VALUES (left(run_id, 7)), ('')) AS periods (period)
    GROUP BY period, status, node ORDER BY period, status, node
    ON CONFLICT (period, status, node) DO UPDATE SET number = run_counts.number + excluded.number;
    INSERT INTO lateness_counts
    SELECT left(run_id, 7), lateness_class(scheduled_at, started_at), node, count(*) FROM entered
    WHERE started_at IS NOT NULL AND scheduled_at IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (period, upto, node) DO UPDATE SET number = lateness_counts.number + excluded.number;
    RETURN NULL;
END
$$;

CREATE FUNCTION count_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO run_counts
    SELECT period, status, node, sum(number)
    FROM (SELECT run_id, status, node, 1 AS number FROM now_so UNION ALL SELECT run_id, status, node, -1 FROM so_far) AS sides,
        LATERAL (VALUES (left(run_id, 7)), ('')) AS periods (period)
    GROUP BY period, status, node HAVING sum(number) <> 0 ORDER BY period, status, node
    ON CONFLICT (period, status, node) DO UPDATE SET number = run_counts.number + excluded.number;
    INSERT INTO lateness_counts
    SELECT left(run_id, 7), lateness_class(scheduled_at, started_at), node, sum(number)
    FROM (
        SELECT run_id, scheduled_at, started_at, node, 1 AS number FROM now_so
        UNION ALL SELECT run_id, scheduled_at, started_at, node, -1 FROM so_far
    ) AS sides
    WHERE started_at IS NOT NULL AND scheduled_at IS NOT NULL
    GROUP BY 1, 2, 3 HAVING sum(number) <> 0 ORDER BY 1, 2, 3
    ON CONFLICT (period, upto, node) DO UPDATE SET number = lateness_counts.number + excluded.number;
    RETURN NULL;
END
$$;

CREATE FUNCTION count_gone() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO run_counts
    SELECT period, status, node, -count(*) FROM gone, LATERAL (VALUES (left(run_id, 7)), ('')) AS periods (period)
    GROUP BY period, status, node ORDER BY period, status, node
    ON CONFLICT (period, status, node) DO UPDATE SET number = run_counts.number + excluded.number;
    INSERT INTO lateness_counts
    SELECT left(run_id, 7), lateness_class(scheduled_at, started_at), node, -count(*) FROM gone
    WHERE started_at IS NOT NULL AND scheduled_at IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (period, upto, node) DO UPDATE SET number = lateness_counts.number + excluded.number;
    DELETE FROM run_counts WHERE number = 0 AND period IN (SELECT left(run_id, 7) FROM gone);
    DELETE FROM lateness_counts WHERE number = 0 AND period IN (SELECT left(run_id, 7) FROM gone);
    RETURN NULL;
END
$$;

CREATE TRIGGER runs_entered AFTER INSERT ON runs
REFERENCING NEW TABLE AS entered FOR EACH STATEMENT EXECUTE FUNCTION count_entered();
CREATE TRIGGER runs_changed AFTER UPDATE ON runs
REFERENCING OLD TABLE AS so_far NEW TABLE AS now_so FOR EACH STATEMENT EXECUTE FUNCTION count_changed();
CREATE TRIGGER runs_gone AFTER DELETE ON runs
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_gone();

-- The daemon that owns this history. A second daemon would record the running runs of the first one as abandoned.
CREATE TABLE owner (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    daemon text COLLATE "C" NOT NULL,  -- an identifier that does not change at restarts
    name text NOT NULL,                -- for display
    since timestamptz NOT NULL
);
