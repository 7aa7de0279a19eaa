-- Works in SQLite and in PostgreSQL. Lists and maps are JSON; times are milliseconds since 1970.

-- One row: counts the changes of all models. Every change begins with it, so that there is one at a time.
CREATE TABLE registry (
    id BIGINT PRIMARY KEY,
    epoch BIGINT NOT NULL
);
INSERT INTO registry (id, epoch) VALUES (1, 0);

CREATE TABLE models (
    name TEXT PRIMARY KEY,
    revision BIGINT NOT NULL,
    active TEXT,
    earlier TEXT NOT NULL,
    followed TEXT
);

CREATE TABLE versions (
    model TEXT NOT NULL REFERENCES models (name),
    version TEXT NOT NULL,
    origin TEXT NOT NULL,
    files TEXT NOT NULL,
    metadata TEXT NOT NULL,
    metrics TEXT NOT NULL,
    pinned BIGINT NOT NULL,
    registered_at BIGINT NOT NULL,
    PRIMARY KEY (model, version)
);

-- Who did what, when and why. The epoch is the one that the change made.
CREATE TABLE events (
    epoch BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT,
    reason TEXT
);
CREATE INDEX events_of_a_model ON events (model, epoch);

-- Writes that carried an Idempotency-Key, with the answer they had.
CREATE TABLE requests (
    request_key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    at BIGINT NOT NULL
);
