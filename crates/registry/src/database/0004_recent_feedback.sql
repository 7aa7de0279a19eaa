-- The last answers of a version whose true label was told: how right it was lately.
CREATE INDEX feedback_of_a_version_by_time ON feedback (model, version, made);
