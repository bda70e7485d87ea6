-- record_run --
-- Enter a run into the ledger. An occurrence or idempotency key that exists is not changed.
INSERT INTO runs (run_id, job_id, scheduled_at, attempt, origin, status, queued_at, started_at, finished_at,
    duration_seconds, exit_code, records_processed, error_message, details, node, actor, idempotency_key,
    sequence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- run_is_there --
SELECT 1 FROM runs WHERE run_id = ?;

-- claim_queued --
-- Claim a queued run in order to start it; exactly one caller changes the row.
UPDATE runs SET status = 'running' WHERE run_id = ? AND status = 'queued';

-- finish_run --
-- Write how a run ended; a run that has an end keeps it.
UPDATE runs SET status = ?, started_at = ?, finished_at = ?, duration_seconds = ?, exit_code = ?,
    records_processed = ?, error_message = ?, details = ?
WHERE run_id = ? AND status IN ('queued', 'running');

-- save_job --
-- Save since when a job is planned. Its pause is not changed.
INSERT INTO jobs (job_id, rule, planned_since) VALUES (?, ?, ?)
ON CONFLICT (job_id) DO UPDATE SET rule = excluded.rule, planned_since = excluded.planned_since;

-- set_pause --
UPDATE jobs SET paused_at = ?, paused_by = ?, pause_reason = ?, paused_until = ? WHERE job_id = ?;

-- jobs --
SELECT job_id, rule, planned_since, paused_at, paused_by, pause_reason, paused_until FROM jobs;

-- last_occurrences --
-- The latest occurrence of each job's own trigger that was decided (other origins do not count).
SELECT value AS job_id, (
    SELECT scheduled_at FROM runs
    WHERE job_id = value AND scheduled_at IS NOT NULL AND scheduled_at <= :until AND attempt = 1 AND origin IN ('schedule', 'catch_up')
    ORDER BY scheduled_at DESC LIMIT 1
) AS scheduled_at
FROM json_each(:job_ids);

-- followed --
-- The ends of other jobs, from an instant on, that made a job due.
SELECT scheduled_at FROM runs WHERE job_id = :job_id AND scheduled_at >= :since AND attempt = 1 AND origin = 'after';

-- last_results --
-- The newest run of each job that was started and has ended. (CROSS JOIN: the jobs first, then their rows.)
SELECT runs.* FROM json_each(:job_ids) CROSS JOIN runs ON runs.run_id = (
    SELECT run_id FROM runs
    WHERE job_id = value AND status IN ('success', 'failed', 'timed_out', 'cancelled', 'abandoned')
    ORDER BY sequence DESC, run_id DESC LIMIT 1
);

-- last_successes --
-- The newest success of each of the jobs that have one, up to an instant.
SELECT runs.* FROM json_each(:job_ids) CROSS JOIN runs ON runs.run_id = (
    SELECT run_id FROM runs
    WHERE job_id = value AND status = 'success' AND coalesce(scheduled_at, started_at, queued_at) <= :until
    ORDER BY sequence DESC, run_id DESC LIMIT 1
);

-- unfinished --
-- The queued and running runs, oldest first.
SELECT * FROM runs WHERE status IN ('queued', 'running') ORDER BY sequence, run_id;

-- history --
-- A page of a job's rows, newest first; all of them when no status is named.
SELECT * FROM runs WHERE run_id IN (
    SELECT run_id FROM runs
    WHERE job_id = :job_id AND (sequence, run_id) < (:sequence, :run_id)
        AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
    ORDER BY sequence DESC, run_id DESC LIMIT :limit
)
ORDER BY sequence DESC, run_id DESC;

-- recent --
-- A page of the rows of all jobs, newest first.
SELECT * FROM runs
WHERE (sequence, run_id) < (:sequence, :run_id)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY sequence DESC, run_id DESC LIMIT :limit;

-- recent_notable --
-- The same for statuses other than success, which are rare, by an index of their own.
SELECT * FROM runs WHERE run_id IN (
    SELECT run_id FROM runs
    WHERE status <> 'success' AND (sequence, run_id) < (:sequence, :run_id)
        AND status IN (SELECT value FROM json_each(:statuses))
    ORDER BY sequence DESC, run_id DESC LIMIT :limit
)
ORDER BY sequence DESC, run_id DESC;

-- place_of --
-- The position of a run in the order of recording, or that of the next smaller run_id.
SELECT sequence, run_id FROM runs WHERE run_id <= :run_id ORDER BY run_id DESC LIMIT 1;

-- last_place --
-- The largest sequence and the largest run_id, each of any row.
SELECT (SELECT max(sequence) FROM runs) AS sequence, (SELECT max(run_id) FROM runs) AS run_id;

-- occurrences --
-- The rows of a job's occurrences from an instant on, by occurrence and attempt.
SELECT * FROM runs WHERE job_id = :job_id AND scheduled_at >= :since ORDER BY scheduled_at, attempt LIMIT :limit;

-- durations --
-- The durations of the newest successful runs of each job.
SELECT value AS job_id, duration_seconds FROM json_each(:job_ids) CROSS JOIN runs ON runs.run_id IN (
    SELECT run_id FROM runs
    WHERE job_id = value AND status = 'success' AND duration_seconds IS NOT NULL
    ORDER BY sequence DESC, run_id DESC LIMIT :limit
)
ORDER BY sequence DESC, run_id DESC;

-- run --
SELECT * FROM runs WHERE run_id = :run_id;

-- statuses --
SELECT run_id, status FROM runs WHERE run_id IN (SELECT value FROM json_each(:run_ids));

-- run_by_key --
SELECT * FROM runs WHERE job_id = :job_id AND idempotency_key = :key;

-- counts --
-- The number of rows of each status.
SELECT status, number FROM run_counts WHERE period = '' AND number > 0;

-- counts_since --
-- The same from an instant on: the counters of whole periods, and the rows of the period that contains the instant.
SELECT status, sum(number) AS number FROM (
    SELECT status, number FROM run_counts WHERE period > substr(:first, 1, 7) AND period <= substr(:last, 1, 7)
    UNION ALL
    SELECT status, count(*) FROM runs WHERE run_id >= :first AND run_id < substr(:first, 1, 7) || '~' GROUP BY status
)
GROUP BY status HAVING sum(number) > 0;

-- finished_between --
-- For analytics: a page of the runs that ended before `end`, after the row (finished_at, run_id).
SELECT job_id, status, duration_seconds, scheduled_at, started_at, records_processed, finished_at, run_id,
    CAST(coalesce(json_extract(details, '$.output_bytes'), 0) AS INTEGER) AS output_bytes FROM runs
WHERE (finished_at, run_id) > (:finished_at, :run_id) AND finished_at < :end ORDER BY finished_at, run_id LIMIT :limit;

-- lateness_since --
-- The number of scheduled starts from an instant on in each class of lateness, whose upper bound is `upto`.
SELECT upto, sum(number) AS number FROM (
    SELECT upto, number FROM lateness_counts WHERE period > substr(:first, 1, 7) AND period <= substr(:last, 1, 7)
    UNION ALL
    SELECT (SELECT min(upto) FROM lateness_classes WHERE upto >= started_at - scheduled_at), 1 FROM runs
    WHERE run_id >= :first AND run_id < substr(:first, 1, 7) || '~' AND scheduled_at IS NOT NULL AND started_at IS NOT NULL
)
GROUP BY upto HAVING sum(number) > 0 ORDER BY upto;

-- job_ids --
-- Every job that has rows: a loose scan of the index.
WITH RECURSIVE ids (job_id) AS (
    SELECT min(job_id) FROM runs
    UNION ALL SELECT (SELECT min(job_id) FROM runs WHERE job_id > ids.job_id) FROM ids WHERE ids.job_id IS NOT NULL
)
SELECT job_id FROM ids WHERE job_id IS NOT NULL;

-- needed --
-- The rows of a job that must be kept; see retention.NeededRows.
SELECT
    (SELECT run_id FROM runs WHERE job_id = :job_id ORDER BY sequence DESC, run_id DESC LIMIT 1) AS newest,
    (SELECT run_id FROM runs
        WHERE job_id = :job_id AND scheduled_at IS NOT NULL AND attempt = 1 AND origin IN ('schedule', 'catch_up')
        ORDER BY scheduled_at DESC LIMIT 1) AS occurrence,
    (SELECT run_id FROM runs
        WHERE job_id = :job_id AND scheduled_at <= :now AND attempt = 1 AND origin IN ('schedule', 'catch_up')
        ORDER BY scheduled_at DESC LIMIT 1) AS past_occurrence,
    (SELECT run_id FROM runs
        WHERE job_id = :job_id AND status IN ('success', 'failed', 'timed_out', 'cancelled', 'abandoned')
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS result,
    (SELECT run_id FROM runs WHERE job_id = :job_id AND status IN ('failed', 'timed_out', 'abandoned')
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS failure,
    (SELECT run_id FROM runs WHERE job_id = :job_id AND status = 'success'
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS success,
    (SELECT run_id FROM runs
        WHERE job_id = :job_id AND status = 'success' AND coalesce(scheduled_at, started_at, queued_at) <= :now
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS past_success;

-- oldest_kept --
-- The oldest of a job's newest finished rows.
SELECT sequence, run_id FROM runs WHERE job_id = :job_id AND status NOT IN ('queued', 'running')
ORDER BY sequence DESC, run_id DESC LIMIT 1 OFFSET :skipped;

-- old_rows --
-- A page of a job's rows after one of them, oldest first.
SELECT sequence, run_id, status, origin, finished_at FROM runs
WHERE job_id = :job_id AND (sequence, run_id) > (:sequence, :run_id)
ORDER BY sequence, run_id LIMIT :limit;

-- all_runs --
-- A page of all rows after one of them, by run_id.
SELECT * FROM runs WHERE run_id > :after ORDER BY run_id LIMIT :limit;

-- delete_run --
-- Delete a row. A row that is not finished stays.
DELETE FROM runs WHERE run_id = ? AND status NOT IN ('queued', 'running');

-- days --
SELECT DISTINCT day FROM daily_stats ORDER BY day;

-- day --
SELECT * FROM daily_stats WHERE day = :day ORDER BY job_id;

-- clear_day --
DELETE FROM daily_stats WHERE day = ?;

-- save_day --
INSERT INTO daily_stats (day, job_id, runs, records_processed, duration_p50, duration_p95, lateness_p50, lateness_p99,
    duration_max, lateness_p95, output_bytes, timezone)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- daily --
-- The figures of a range of days, of one job or, without a name, of all jobs.
SELECT * FROM daily_stats
WHERE day >= :first AND day <= :last AND (:job_id = '' OR job_id = :job_id) ORDER BY day, job_id;
