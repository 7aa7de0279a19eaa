"""What a tool will not do."""


class Refused(Exception):
    """A sentence that says what is wrong and what would cure it. Nothing was written to the target."""
