-- What is compared, as JSON. One row each, which is changed as models are: with the epoch counted.
CREATE TABLE experiments (
    name TEXT PRIMARY KEY,
    revision BIGINT NOT NULL,
    record TEXT NOT NULL
);

-- What each process has counted of a phase so far: its row is replaced, and the sum of all rows is what happened.
CREATE TABLE experiment_counts (
    experiment TEXT NOT NULL,
    phase BIGINT NOT NULL,
    process TEXT NOT NULL,
    counts TEXT NOT NULL,
    users TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (experiment, phase, process)
);

-- The first time that one could be sure of an arm. It is never replaced.
CREATE TABLE experiment_decisions (
    experiment TEXT NOT NULL,
    phase BIGINT NOT NULL,
    arm TEXT NOT NULL,
    better BIGINT NOT NULL,
    sentence TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (experiment, phase, arm)
);

-- Answers by their confidence, as experiments count them.
ALTER TABLE feedback ADD COLUMN bin BIGINT;
CREATE INDEX feedback_of_an_arm ON feedback (arm) WHERE arm <> '';

ALTER TABLE events ADD COLUMN experiment TEXT;
CREATE INDEX events_of_an_experiment ON events (experiment, epoch);
