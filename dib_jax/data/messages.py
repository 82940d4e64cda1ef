"""Parts of error messages."""

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator

Report = Callable[[str], None]  # called with each line for the user
Errors = type[Exception] | tuple[type[Exception], ...]


def one_line(error: BaseException) -> str:
    """The text of an error in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


@contextlib.contextmanager
def blaming(
    problem: str, errors: Errors = Exception, remedy: str = ""
) -> Iterator[None]:
    """Turn errors into a ValueError "<problem> (<error>)<remedy>".

    Args:
        problem: names the file, and what is wrong with it.
        errors: their types; libraries that read files raise nearly any.
        remedy: what to do.
    """
    try:
        yield
    except errors as error:
        raise ValueError(f"{problem} ({one_line(error)}){remedy}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message, "; did you mean 'x'?"; "" where no name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
