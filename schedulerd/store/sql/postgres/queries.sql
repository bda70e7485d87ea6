-- record_runs --
-- Enter runs into the ledger, in the order of the lists. An occurrence or idempotency key that exists is not changed.
-- Lists of columns, so that a thousand rows are one statement.
INSERT INTO runs (run_id, job_id, scheduled_at, attempt, origin, status, queued_at, started_at, finished_at,
    duration_seconds, exit_code, records_processed, error_message, details, node, actor, idempotency_key, sequence)
SELECT run_id, job_id, scheduled_at, attempt, origin, status, queued_at, started_at, finished_at,
    duration_seconds, exit_code, records_processed, error_message, details::json, node, actor, idempotency_key,
    coalesce(sequence, 0)
FROM unnest(%(run_id)s::text[], %(job_id)s::text[], %(scheduled_at)s::timestamptz[], %(attempt)s::integer[],
    %(origin)s::text[], %(status)s::text[], %(queued_at)s::timestamptz[], %(started_at)s::timestamptz[],
    %(finished_at)s::timestamptz[], %(duration_seconds)s::double precision[], %(exit_code)s::integer[],
    %(records_processed)s::bigint[], %(error_message)s::text[], %(details)s::text[], %(node)s::text[], %(actor)s::text[],
    %(idempotency_key)s::text[], %(sequence)s::bigint[])
WITH ORDINALITY AS rows (run_id, job_id, scheduled_at, attempt, origin, status, queued_at, started_at, finished_at,
    duration_seconds, exit_code, records_processed, error_message, details, node, actor, idempotency_key, sequence,
    place)
ORDER BY place
ON CONFLICT DO NOTHING
RETURNING run_id;

-- runs_there --
SELECT run_id FROM runs WHERE run_id = ANY(%(run_ids)s::text[]);

-- claim_queued --
-- Claim queued runs in order to start them; exactly one caller changes each row.
UPDATE runs SET status = 'running' WHERE run_id = ANY(%(run_ids)s::text[]) AND status = 'queued' RETURNING run_id;

-- runs_running --
SELECT run_id FROM runs WHERE run_id = ANY(%(run_ids)s::text[]) AND status = 'running';

-- finish_runs --
-- Write how runs ended; a run that has an end keeps it.
UPDATE runs SET status = ended.status, started_at = ended.started_at, finished_at = ended.finished_at,
    duration_seconds = ended.duration_seconds, exit_code = ended.exit_code, records_processed = ended.records_processed,
    error_message = ended.error_message, details = ended.details::json
FROM unnest(%(run_id)s::text[], %(status)s::text[], %(started_at)s::timestamptz[], %(finished_at)s::timestamptz[],
    %(duration_seconds)s::double precision[], %(exit_code)s::integer[], %(records_processed)s::bigint[],
    %(error_message)s::text[], %(details)s::text[])
AS ended (run_id, status, started_at, finished_at, duration_seconds, exit_code, records_processed, error_message, details)
WHERE runs.run_id = ended.run_id AND runs.status IN ('queued', 'running');

-- save_jobs --
-- Save since when jobs are planned. Their pauses are not changed.
INSERT INTO jobs (job_id, rule, planned_since)
SELECT * FROM unnest(%(job_id)s::text[], %(rule)s::text[], %(planned_since)s::timestamptz[])
ON CONFLICT (job_id) DO UPDATE SET rule = excluded.rule, planned_since = excluded.planned_since;

-- set_pause --
UPDATE jobs SET paused_at = %(paused_at)s, paused_by = %(paused_by)s, pause_reason = %(pause_reason)s,
    paused_until = %(paused_until)s
WHERE job_id = %(job_id)s;

-- jobs --
SELECT job_id, rule, planned_since, paused_at, paused_by, pause_reason, paused_until FROM jobs;

-- last_occurrences --
-- The latest occurrence of each job's own trigger that was decided (other origins do not count).
SELECT wanted.job_id, scheduled_at FROM unnest(%(job_ids)s::text[]) AS wanted (job_id), LATERAL (
    SELECT scheduled_at FROM runs
    WHERE job_id = wanted.job_id AND scheduled_at <= %(until)s AND attempt = 1 AND origin IN ('schedule', 'catch_up')
    ORDER BY scheduled_at DESC LIMIT 1
) AS newest;

-- followed --
-- The ends of other jobs, from an instant on, that made a job due.
SELECT scheduled_at FROM runs
WHERE job_id = %(job_id)s AND scheduled_at >= %(since)s AND attempt = 1 AND origin = 'after';

-- last_results --
-- The newest run of each job that was started and has ended.
SELECT newest.* FROM unnest(%(job_ids)s::text[]) AS wanted (job_id), LATERAL (
    SELECT * FROM runs
    WHERE job_id = wanted.job_id AND status IN ('success', 'failed', 'timed_out', 'cancelled', 'abandoned')
    ORDER BY sequence DESC, run_id DESC LIMIT 1
) AS newest;

-- last_successes --
-- The newest success of each of the jobs that have one, up to an instant.
SELECT newest.* FROM unnest(%(job_ids)s::text[]) AS wanted (job_id), LATERAL (
    SELECT * FROM runs
    WHERE job_id = wanted.job_id AND status = 'success' AND coalesce(scheduled_at, started_at, queued_at) <= %(until)s
    ORDER BY sequence DESC, run_id DESC LIMIT 1
) AS newest;

-- unfinished --
-- The queued and running runs, oldest first.
SELECT * FROM runs WHERE status IN ('queued', 'running') ORDER BY sequence, run_id;

-- history --
-- A page of a job's rows, newest first; all of them when no status is named.
SELECT * FROM runs
WHERE job_id = %(job_id)s AND (sequence, run_id) < (%(sequence)s, %(run_id)s)
    AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
ORDER BY sequence DESC, run_id DESC LIMIT %(limit)s;

-- recent --
-- A page of the rows of all jobs, newest first.
SELECT * FROM runs
WHERE (sequence, run_id) < (%(sequence)s, %(run_id)s)
    AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
ORDER BY sequence DESC, run_id DESC LIMIT %(limit)s;

-- recent_notable --
-- The same for statuses other than success, which are rare, by an index of their own.
SELECT * FROM runs
WHERE status <> 'success' AND (sequence, run_id) < (%(sequence)s, %(run_id)s) AND status = ANY(%(statuses)s::text[])
ORDER BY sequence DESC, run_id DESC LIMIT %(limit)s;

-- place_of --
-- The position of a run in the order of recording, or that of the next smaller run_id.
SELECT sequence, run_id FROM runs WHERE run_id <= %(run_id)s ORDER BY run_id DESC LIMIT 1;

-- last_place --
-- The largest sequence and the largest run_id, each of any row.
SELECT (SELECT max(sequence) FROM runs) AS sequence, (SELECT max(run_id) FROM runs) AS run_id;

-- occurrences --
-- The rows of a job's occurrences from an instant on, by occurrence and attempt.
SELECT * FROM runs WHERE job_id = %(job_id)s AND scheduled_at >= %(since)s ORDER BY scheduled_at, attempt LIMIT %(limit)s;

-- durations --
-- The durations of the newest successful runs of each job.
SELECT wanted.job_id, duration_seconds FROM unnest(%(job_ids)s::text[]) AS wanted (job_id), LATERAL (
    SELECT sequence, run_id, duration_seconds FROM runs
    WHERE job_id = wanted.job_id AND status = 'success' AND duration_seconds IS NOT NULL
    ORDER BY sequence DESC, run_id DESC LIMIT %(limit)s
) AS newest
ORDER BY sequence DESC, run_id DESC;

-- run --
SELECT * FROM runs WHERE run_id = %(run_id)s;

-- statuses --
SELECT run_id, status FROM runs WHERE run_id = ANY(%(run_ids)s::text[]);

-- run_by_key --
SELECT * FROM runs WHERE job_id = %(job_id)s AND idempotency_key = %(key)s;

-- counts --
-- The number of rows of each status.
SELECT status, sum(number)::bigint AS number FROM run_counts WHERE period = '' GROUP BY status HAVING sum(number) > 0;

-- counts_since --
-- The same from an instant on: the counters of whole periods, and the rows of the period that contains the instant.
SELECT status, sum(number)::bigint AS number FROM (
    SELECT status, number FROM run_counts WHERE period > left(%(first)s, 7) AND period <= left(%(last)s, 7)
    UNION ALL
    SELECT status, count(*) FROM runs WHERE run_id >= %(first)s AND run_id < left(%(first)s, 7) || '~' GROUP BY status
) AS parts
GROUP BY status HAVING sum(number) > 0;

-- finished_between --
-- For analytics: a page of the runs that ended before `end`, after the row (finished_at, run_id).
SELECT job_id, status, duration_seconds, scheduled_at, started_at, records_processed, finished_at, run_id,
    CASE WHEN details->>'output_bytes' ~ '^[0-9]{1,18}$' THEN (details->>'output_bytes')::bigint ELSE 0 END AS output_bytes
FROM runs
WHERE (finished_at, run_id) > (%(finished_at)s, %(run_id)s) AND finished_at < %(end)s
ORDER BY finished_at, run_id LIMIT %(limit)s;

-- lateness_since --
-- The number of scheduled starts from an instant on in each class of lateness, whose upper bound is `upto`.
SELECT upto, sum(number)::bigint AS number FROM (
    SELECT upto, number FROM lateness_counts WHERE period > left(%(first)s, 7) AND period <= left(%(last)s, 7)
    UNION ALL
    SELECT lateness_class(scheduled_at, started_at), 1 FROM runs
    WHERE run_id >= %(first)s AND run_id < left(%(first)s, 7) || '~' AND scheduled_at IS NOT NULL AND started_at IS NOT NULL
) AS parts
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
    (SELECT run_id FROM runs WHERE job_id = %(job_id)s ORDER BY sequence DESC, run_id DESC LIMIT 1) AS newest,
    (SELECT run_id FROM runs
        WHERE job_id = %(job_id)s AND scheduled_at IS NOT NULL AND attempt = 1 AND origin IN ('schedule', 'catch_up')
        ORDER BY scheduled_at DESC LIMIT 1) AS occurrence,
    (SELECT run_id FROM runs
        WHERE job_id = %(job_id)s AND scheduled_at <= %(now)s AND attempt = 1 AND origin IN ('schedule', 'catch_up')
        ORDER BY scheduled_at DESC LIMIT 1) AS past_occurrence,
    (SELECT run_id FROM runs
        WHERE job_id = %(job_id)s AND status IN ('success', 'failed', 'timed_out', 'cancelled', 'abandoned')
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS result,
    (SELECT run_id FROM runs WHERE job_id = %(job_id)s AND status IN ('failed', 'timed_out', 'abandoned')
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS failure,
    (SELECT run_id FROM runs WHERE job_id = %(job_id)s AND status = 'success'
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS success,
    (SELECT run_id FROM runs
        WHERE job_id = %(job_id)s AND status = 'success' AND coalesce(scheduled_at, started_at, queued_at) <= %(now)s
        ORDER BY sequence DESC, run_id DESC LIMIT 1) AS past_success;

-- oldest_kept --
-- The oldest of a job's newest finished rows.
SELECT sequence, run_id FROM runs WHERE job_id = %(job_id)s AND status NOT IN ('queued', 'running')
ORDER BY sequence DESC, run_id DESC LIMIT 1 OFFSET %(skipped)s;

-- old_rows --
-- A page of a job's rows after one of them, oldest first.
SELECT sequence, run_id, status, origin, finished_at FROM runs
WHERE job_id = %(job_id)s AND (sequence, run_id) > (%(sequence)s, %(run_id)s)
ORDER BY sequence, run_id LIMIT %(limit)s;

-- all_runs --
-- A page of all rows after one of them, by run_id.
SELECT * FROM runs WHERE run_id > %(after)s ORDER BY run_id LIMIT %(limit)s;

-- delete_runs --
-- Delete rows. A row that is not finished stays.
DELETE FROM runs WHERE run_id = ANY(%(run_ids)s::text[]) AND status NOT IN ('queued', 'running') RETURNING run_id;

-- days --
SELECT DISTINCT day FROM daily_stats ORDER BY day;

-- day --
SELECT * FROM daily_stats WHERE day = %(day)s ORDER BY job_id;

-- daily --
-- The figures of a range of days, of one job or, without a name, of all jobs.
SELECT * FROM daily_stats
WHERE day >= %(first)s AND day <= %(last)s AND (%(job_id)s = '' OR job_id = %(job_id)s) ORDER BY day, job_id;

-- clear_day --
DELETE FROM daily_stats WHERE day = %(day)s;

-- save_day --
INSERT INTO daily_stats (day, job_id, runs, records_processed, duration_p50, duration_p95, lateness_p50, lateness_p99,
    duration_max, lateness_p95, output_bytes, timezone)
SELECT %(day)s, job_id, runs::json, records_processed, duration_p50, duration_p95, lateness_p50, lateness_p99,
    duration_max, lateness_p95, output_bytes, timezone
FROM unnest(%(job_id)s::text[], %(runs)s::text[], %(records_processed)s::bigint[], %(duration_p50)s::double precision[],
    %(duration_p95)s::double precision[], %(lateness_p50)s::double precision[], %(lateness_p99)s::double precision[],
    %(duration_max)s::double precision[], %(lateness_p95)s::double precision[], %(output_bytes)s::bigint[],
    %(timezone)s::text[])
AS rows (job_id, runs, records_processed, duration_p50, duration_p95, lateness_p50, lateness_p99,
    duration_max, lateness_p95, output_bytes, timezone);

-- size --
-- How many bytes the tables of a schema take, with their indices.
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relnamespace = to_regnamespace(%(schema)s) AND relkind = 'r';

-- users --
-- The hosts whose daemons have a history open, by the application_name of their connections.
SELECT DISTINCT coalesce(client_hostname, host(client_addr), 'this host') FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %(name)s AND pid <> pg_backend_pid();

-- own --
-- Make a daemon the owner of a history, unless there is another owner; update its name.
INSERT INTO owner (daemon, name, since) VALUES (%(daemon)s, %(name)s, now())
ON CONFLICT (only_one) DO UPDATE SET name = excluded.name WHERE owner.daemon = excluded.daemon AND owner.name <> excluded.name;

-- owner --
-- The owner of a history.
SELECT daemon, name, since FROM owner;

-- test_write --
-- Write without changing anything, to test whether the database can be written.
UPDATE owner SET since = since;

-- disown --
-- Remove the owner.
DELETE FROM owner RETURNING name;
