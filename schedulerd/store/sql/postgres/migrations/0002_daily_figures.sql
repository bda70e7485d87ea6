ALTER TABLE daily_stats ADD COLUMN duration_max double precision;
ALTER TABLE daily_stats ADD COLUMN lateness_p95 double precision;
ALTER TABLE daily_stats ADD COLUMN output_bytes bigint NOT NULL DEFAULT 0;
