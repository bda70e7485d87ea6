-- What is asked of the whole history is kept beside it, in the same transaction as the rows, so that nobody counts them all.
-- A period is the first 7 digits of a run_id (2^20 milliseconds, 17.5 minutes), or '' for all time.

DROP INDEX runs_history;
CREATE INDEX runs_history ON runs (job_id, run_id, status);  -- with the status: a page of failures doesn't read the others
CREATE INDEX runs_notable ON runs (run_id, status) WHERE status <> 'success';

CREATE TABLE run_counts (
    period TEXT NOT NULL,
    status TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (period, status)
) STRICT, WITHOUT ROWID;

-- Lateness in classes that end at `upto` microseconds, each 10 % wider than the one before.
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

INSERT INTO run_counts SELECT substr(run_id, 1, 7), status, count(*) FROM runs GROUP BY 1, 2;
INSERT INTO run_counts SELECT '', status, sum(number) FROM run_counts GROUP BY status;
INSERT INTO lateness_counts  -- of the newest week: nobody asks for older ones
SELECT period, upto, count(*)
FROM (
    SELECT substr(run_id, 1, 7) AS period,
        (SELECT min(upto) FROM lateness_classes WHERE upto >= started_at - scheduled_at) AS upto
    FROM runs
    WHERE scheduled_at IS NOT NULL AND started_at IS NOT NULL
        AND run_id >= (SELECT printf('%07x', (queued_at / 1000 - 7 * 86400000) >> 20) FROM runs ORDER BY run_id DESC LIMIT 1)
)
GROUP BY 1, 2;

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
