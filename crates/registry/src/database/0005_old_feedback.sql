-- What was told before it, and corrected: by its time, to delete what is old.
CREATE INDEX feedback_earlier_in_order ON feedback_earlier (told);
