-- Whose history this is: one daemon's. A second one would take the first one's runs for lost.
CREATE TABLE owner (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    daemon text COLLATE "C" NOT NULL,  -- which stays the same over restarts
    name text NOT NULL,                -- for people
    since timestamptz NOT NULL
);
