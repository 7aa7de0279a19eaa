-- What was told of earlier answers: the truth as it was told last. Lists of labels are JSON. `made` is in milliseconds
-- since 1970, `told` in microseconds: of two things told of one answer the later counts.
CREATE TABLE feedback (
    id TEXT PRIMARY KEY,
    made BIGINT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    arm TEXT NOT NULL,
    predicted TEXT NOT NULL,
    confidence DOUBLE PRECISION NOT NULL,
    actual TEXT NOT NULL,
    correct BIGINT NOT NULL,
    content TEXT,
    who TEXT NOT NULL,
    told BIGINT NOT NULL
);
CREATE INDEX feedback_of_a_version ON feedback (model, version, arm);
CREATE INDEX feedback_in_order ON feedback (told, id);

-- What was told before it, and corrected.
CREATE TABLE feedback_earlier (
    id TEXT NOT NULL,
    told BIGINT NOT NULL,
    actual TEXT NOT NULL,
    who TEXT NOT NULL,
    PRIMARY KEY (id, told)
);
