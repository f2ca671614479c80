"""What a user gave is wrong: one line, exit code 2."""


class InputError(ValueError):
    """A file, a flag or a value that a user gave; the message names it and says what is allowed."""
