"""Settings: frozen dataclasses whose fields say what they accept, and whether the hash of a configuration sees them."""

import operator
import os
from dataclasses import dataclass, field, fields, replace


def one_of(default, *others, **about):
    """A field with a fixed set of values, the default first. ``joined=True``: several may stand side by side, joined by "+"."""
    return field(default=default, metadata={"known": tuple(dict.fromkeys((default, *others)))} | about)


def young(default):
    """A field younger than the first committed rows. It stays out of the hash at its default, which is the behaviour before it
    existed, so that no older row loses its configuration. (Fields of `one_of`: ``young=True``.)"""
    return field(default=default, metadata={"young": True})


def unhashed(default):
    """A field that does not change what is learned from given data, and stays out of the hash."""
    return field(default=default, metadata={"unhashed": True})


#: By the type of a field: what brings a value into the one form that is hashed and stored. JSON writes 1 and 1.0 differently,
#: and knows neither a number of NumPy's, such as a fold taken from a table, nor a path.
FORMS = {"float": (float, "a number"), "int": (operator.index, "a whole number"), "str": (os.fspath, "a text")}


@dataclass(frozen=True)
class Settings:
    """What all settings share. Raises ``ValueError`` that names the field and what it accepts."""

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            kind = f.type if isinstance(f.type, str) else f.type.__name__  # a text where annotations are postponed
            form, needed = FORMS.get(kind, (lambda value: value, ""))
            try:
                object.__setattr__(self, f.name, form(value))
            except (TypeError, ValueError):
                raise ValueError(f"Config.{f.name}: {value!r}; {needed} is needed") from None
            known = f.metadata.get("known")
            if known and not set(value.split("+") if f.metadata.get("joined") else [value]) <= set(known):
                raise ValueError(f"Config.{f.name}: {value!r} is not known; known are {', '.join(map(str, known))}")

    def but(self, **changes):
        """A copy with some fields changed."""
        return replace(self, **changes)
