"""The exceptions of wgd.

    WgdError
    ├── ConfigError      what the operator wrote: every Problem with file, line and key path
    ├── ConflictError    the host already has something that we would overwrite or shadow
    ├── HostError        a file, a permission, a name lookup; carries its subject
    └── KernelError      the kernel said no; carries its subject and the kernel's own word
        └── UnsupportedError   this kernel lacks the feature

No message ever holds key material: a value is named by its place, never quoted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MOST_PROBLEMS = 100
"""How many problems of a config are told: one mistake may be made in ten thousand lines."""


class WgdError(Exception):
    """Base of every error that wgd raises on purpose; `str()` is a sentence for the operator."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a config file. `line` counts from 1; `path` is the dotted key path, '' at the top."""

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:"
        return f"{where} {self.path}: {self.text}" if self.path else f"{where} {self.text}"


class ConfigError(WgdError):
    """A config that cannot be used. `problems` is sorted by file and line and never empty; the text names the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        lines = [str(problem) for problem in self.problems[:MOST_PROBLEMS]]
        more = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, *([f"and {more} more problems"] if more else [])]))


class SubjectError(WgdError):
    """An error about one thing: `subject` names it, `reason` says what is wrong and what to do."""

    def __init__(self, subject: str, reason: str) -> None:
        self.subject = subject
        self.reason = reason
        super().__init__(f"{subject}: {reason}")


class ConflictError(SubjectError):
    """The host already uses what the config asks for; nothing was changed."""


class HostError(SubjectError):
    """A file, a permission, a process or a name lookup failed."""


class KernelError(SubjectError):
    """The kernel, or the userspace WireGuard that stands in for it, refused a request."""


class UnsupportedError(KernelError):
    """The kernel does not have the feature that was asked for."""
