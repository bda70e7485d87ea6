-- Newest is what was recorded last, and not what has the largest run_id: that is the word of a clock, which may be wrong.
-- Rows that are there stay as they are, so that not all have to be written again: among them, run_ids decide.
ALTER TABLE runs ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
DROP INDEX runs_history;
DROP INDEX runs_notable;
DROP INDEX runs_unfinished;
CREATE INDEX runs_recorded ON runs (sequence, run_id);
CREATE INDEX runs_history ON runs (job_id, sequence, run_id, status);  -- with the status: a page of failures doesn't read the others
CREATE INDEX runs_notable ON runs (sequence, run_id, status) WHERE status <> 'success';
CREATE INDEX runs_unfinished ON runs (sequence, run_id) WHERE status IN ('queued', 'running');
