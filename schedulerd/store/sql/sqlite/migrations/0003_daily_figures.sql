ALTER TABLE daily_stats ADD COLUMN duration_max REAL;
ALTER TABLE daily_stats ADD COLUMN lateness_p95 REAL;
ALTER TABLE daily_stats ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;
