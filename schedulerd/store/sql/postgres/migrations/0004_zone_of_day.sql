ALTER TABLE daily_stats ADD COLUMN timezone text;  -- in which its day begins and ends; NULL: not known any more
