"""What a checkpoint tells of its data set, checked: a stranger may have written it."""

from collections.abc import Callable, Mapping

StoredValues = Mapping[str, Callable[[object], bool]]
"""Key of a configuration -> whether a value is one. `*` stands for a name between two dots."""


def is_count(value: object) -> bool:
    """Whether a stored value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def allow_none(is_valid: Callable[[object], bool]) -> Callable[[object], bool]:
    """The check of a value that may also be null."""
    return lambda value: value is None or is_valid(value)


def is_names(value: object) -> bool:
    """Whether a stored value is a list of names."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def is_groups_of_names(value: object) -> bool:
    """Whether a stored value is a list of lists of names."""
    return isinstance(value, list) and all(map(is_names, value))
