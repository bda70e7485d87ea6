-- record_run --
-- Enter a run into the ledger; an occurrence or idempotency key that is there already is left as it is.
INSERT INTO runs (run_id, job_id, scheduled_at, attempt, origin, status, queued_at, started_at, finished_at,
    duration_seconds, exit_code, records_processed, error_message, details, node, actor, idempotency_key)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- run_is_there --
SELECT 1 FROM runs WHERE run_id = ?;

-- claim_queued --
-- Take a waiting run to start it; exactly one caller changes the row.
UPDATE runs SET status = 'running' WHERE run_id = ? AND status = 'queued';

-- finish_run --
-- Write how a run ended; a run that has an end keeps it.
UPDATE runs SET status = ?, started_at = ?, finished_at = ?, duration_seconds = ?, exit_code = ?,
    records_processed = ?, error_message = ?, details = ?
WHERE run_id = ? AND status IN ('queued', 'running');

-- save_job --
-- Remember from when on a job is planned; its pause is left alone.
INSERT INTO jobs (job_id, rule, planned_since) VALUES (?, ?, ?)
ON CONFLICT (job_id) DO UPDATE SET rule = excluded.rule, planned_since = excluded.planned_since;

-- set_pause --
UPDATE jobs SET paused_at = ?, paused_by = ?, pause_reason = ?, paused_until = ? WHERE job_id = ?;

-- jobs --
SELECT job_id, rule, planned_since, paused_at, paused_by, pause_reason, paused_until FROM jobs;

-- last_occurrence --
-- The newest time of a job's own rule that was decided about (what else started it says nothing about its times).
SELECT scheduled_at FROM runs
WHERE job_id = ? AND scheduled_at IS NOT NULL AND attempt = 1 AND origin IN ('schedule', 'catch_up')
ORDER BY scheduled_at DESC LIMIT 1;

-- followed --
-- The ends of other jobs, from one on, that a job was due after.
SELECT scheduled_at FROM runs WHERE job_id = ? AND scheduled_at >= ? AND attempt = 1 AND origin = 'after';

-- last_result --
-- The newest run of a job that was started and has ended.
SELECT * FROM runs
WHERE job_id = ? AND status IN ('success', 'failed', 'timed_out', 'cancelled', 'abandoned')
ORDER BY run_id DESC LIMIT 1;

-- last_successes --
-- The newest success of each of the jobs that have one.
SELECT * FROM runs WHERE run_id IN (
    SELECT (SELECT run_id FROM runs WHERE job_id = value AND status = 'success' ORDER BY run_id DESC LIMIT 1)
    FROM json_each(?));

-- unfinished --
-- What the ledger says is still to come or going on, oldest first.
SELECT * FROM runs WHERE status IN ('queued', 'running') ORDER BY run_id;

-- history --
-- A page of a job's rows, newest first; all of them when no status is named.
SELECT * FROM runs
WHERE job_id = :job_id AND run_id < :before
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY run_id DESC LIMIT :limit;

-- recent --
-- A page of the rows of all jobs, newest first.
SELECT * FROM runs
WHERE run_id < :before AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY run_id DESC LIMIT :limit;

-- occurrences --
-- What the ledger has of a job's occurrences from one on, in their order.
SELECT * FROM runs WHERE job_id = ? AND scheduled_at >= ? ORDER BY scheduled_at, attempt LIMIT ?;

-- durations --
-- How long a job's newest successful runs took.
SELECT duration_seconds FROM runs
WHERE job_id = ? AND status = 'success' AND duration_seconds IS NOT NULL ORDER BY run_id DESC LIMIT ?;

-- run --
SELECT * FROM runs WHERE run_id = ?;

-- run_by_key --
SELECT * FROM runs WHERE job_id = ? AND idempotency_key = ?;

-- counts --
-- How many rows there are of each status, from a moment on (run ids sort by time).
SELECT status, count(*) AS number FROM runs WHERE run_id >= ? GROUP BY status;

-- finished_between --
-- What analytics reads: the runs that ended in [from, to).
SELECT job_id, status, duration_seconds, scheduled_at, started_at, records_processed FROM runs
WHERE finished_at >= ? AND finished_at < ? ORDER BY finished_at;

-- lateness_since --
-- The lateness in seconds of the newest scheduled runs since a moment.
SELECT (started_at - scheduled_at) / 1e6 FROM runs
WHERE run_id >= ? AND scheduled_at IS NOT NULL AND started_at IS NOT NULL ORDER BY run_id DESC LIMIT 100000;

-- expired_runs --
-- Finished rows that may go, oldest first: never a job's newest row, nor its newest occurrence (planning goes on from it),
-- nor its newest result (the list of jobs shows it) or success (jobs are told of it), nor, for some time more, which ends of other jobs it followed.
SELECT run_id FROM runs AS old
WHERE finished_at < ?1
    AND EXISTS (SELECT 1 FROM runs AS newer WHERE newer.job_id = old.job_id AND newer.run_id > old.run_id)
    AND (scheduled_at IS NULL OR attempt > 1 OR origin NOT IN ('schedule', 'catch_up') OR EXISTS (
        SELECT 1 FROM runs AS newer
        WHERE newer.job_id = old.job_id AND newer.scheduled_at > old.scheduled_at AND newer.attempt = 1
            AND newer.origin IN ('schedule', 'catch_up')))
    AND (origin <> 'after' OR finished_at < ?3)
    AND (status IN ('skipped', 'missed') OR EXISTS (
        SELECT 1 FROM runs AS newer WHERE newer.job_id = old.job_id AND newer.run_id > old.run_id
            AND newer.status IN ('success', 'failed', 'timed_out', 'cancelled', 'abandoned')))
    AND (status <> 'success' OR EXISTS (
        SELECT 1 FROM runs AS newer
        WHERE newer.job_id = old.job_id AND newer.run_id > old.run_id AND newer.status = 'success'))
ORDER BY finished_at LIMIT ?2;

-- delete_run --
DELETE FROM runs WHERE run_id = ?;

-- add_backup --
INSERT OR REPLACE INTO backups (path, filename, size_bytes, sha256, created_at, job_id, run_id)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- remove_backup --
DELETE FROM backups WHERE path = ?;

-- backups --
SELECT filename, path, size_bytes, sha256, created_at, job_id, run_id FROM backups ORDER BY created_at DESC, path;

-- clear_day --
DELETE FROM daily_stats WHERE day = ?;

-- save_day --
INSERT INTO daily_stats (day, job_id, runs, records_processed, duration_p50, duration_p95, lateness_p50, lateness_p99)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);
