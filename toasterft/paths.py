"""Where things live on disk, and how a file is written so that a kill never leaves half of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from toasterft.errors import DataError, UserError

# With less free than this, a write that failed failed for want of space.
FULL_BYTES = 2**20
# Larger than any settings file we read; a run's record takes some 10 kB, a large tokenizer 20 MB.
MOST_JSON_BYTES = 64 * 2**20


class Typed(BaseModel):
    """The types that the fields of a JSON object must have; fields that are not listed may be anything."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=())


def user_cache() -> Path:
    """The user's cache folder (XDG), where nothing precious is kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "toasterft"


def runs_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """`--runs-dir`, else `TOASTERFT_RUNS`, else `runs/` in the working folder."""
    return Path(given or os.environ.get("TOASTERFT_RUNS") or "runs")


def cache_dir() -> Path:
    """`TOASTERFT_CACHE`, else under the user's cache folder: image features and calibrations."""
    return Path(os.environ.get("TOASTERFT_CACHE") or user_cache())


def data_dir() -> Path:
    """`TOASTERFT_DATA`, else under the user's cache folder: data sets built or imported here."""
    return Path(os.environ.get("TOASTERFT_DATA") or user_cache() / "data")


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write a sibling file and rename it over `path`: readers see the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = text.encode("utf-8") if isinstance(text, str) else text
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def require_new(path: Path) -> None:
    """
    Raises:
        DataError: `path` exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(
            "the target already exists and is not an empty folder",
            where=str(path),
            next_step="choose another folder, or remove this one first",
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which appears under its name only when all of it is there.

    Raises:
        DataError: `path` exists and is not an empty folder.
    """
    require_new(path)
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        yield part
        if path.exists():
            path.rmdir()  # an empty folder, as checked
        part.rename(path)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise disk_error(error, path) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for one JSON document."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path, types: type[Typed] | None = None) -> Any:
    """One JSON document, or None where there is no such file.

    Args:
        types: what its fields must be; None takes any JSON.

    Raises:
        UserError: it cannot be read, is no JSON, or a field is of another type.
    """
    try:
        if (size := path.stat().st_size) > MOST_JSON_BYTES:
            raise UserError(f"{size / 1e6:,.0f} MB are too much for a JSON file", where=str(path))
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair cannot be printed
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except RecursionError:
        raise UserError("not usable JSON (nested too deeply)", where=str(path)) from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UserError(f"not valid JSON ({error})", where=str(path)) from None
    return found if types is None else require_types(found, types, str(path))


def require_types(value: Any, types: type[Typed], where: str) -> Any:
    """The value as it is.

    Raises:
        UserError: it is no object, or some of its fields are of another type; names the first three.
    """
    try:
        types.model_validate(value)
    except ValidationError as error:
        wrong = {
            each["loc"][:1]: each for each in reversed(error.errors(include_url=False, include_input=False))
        }
        lines = [
            f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg'].lower()}"
            for each in wrong.values()
        ]
        raise UserError("damaged: " + "; ".join(lines[:3]), where=where) from None
    return value


def free_bytes(path: Path) -> int:
    """Free disk space at the nearest existing parent of `path`."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def is_full(error: BaseException, path: Path) -> bool:
    """Whether an error comes of a full disk; some libraries say no more than that a write failed."""
    reason: BaseException | None = error
    while reason is not None:
        full = isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(reason):
            return True
        reason = reason.__cause__ or reason.__context__
    return isinstance(error, (OSError, RuntimeError)) and free_bytes(path) < FULL_BYTES


def disk_error(error: OSError, path: Path) -> Exception:
    """A full or read-only disk as a message; any other OSError as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"no space left on the disk ({free_bytes(path) / 1e6:.1f} MB are free)",
            where=str(path),
            next_step="free some space, `toasterft cache clear`, or set --runs-dir / TOASTERFT_CACHE elsewhere",
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(
            f"cannot be written ({error.strerror})", where=str(path), next_step="choose another --runs-dir"
        )
    return error
