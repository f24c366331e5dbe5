"""Runs the task class of a Python file for `task-server`, and defines its base class.

The server runs `helper.py run my_task.py` once per attempt; docs/TASK_DEVELOPMENT.md tells how to
write the file. For editors and type checkers, `task-server python-helper > base.py` puts this
module beside it: importing it does nothing, and the server uses its own copy in any case.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import enum
import faulthandler
import functools
import importlib.util
import inspect
import json
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Awaitable, Coroutine, Generator, Iterator, Mapping, Set
from importlib.machinery import SourceFileLoader
from typing import Any

__all__ = ["BaseTask", "PermanentError", "TaskInfo"]

PACKAGE = "tasks_d"  # the synthetic package that task files belong to
EVENT_BYTES = 4096  # PIPE_BUF: what a FIFO takes in one piece
RESULT_BYTES = 1024 * 1024
ERROR_PATIENCE = 1.0  # seconds that an error waits for room in a full FIFO
THREAD_PATIENCE = 2.0  # seconds that a failed or cancelled task waits for its threads
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PermanentError(Exception):
    """Fails the task for good: the server makes no further attempt."""


class _TaskError(Exception):
    """A mistake in the task whose text says it all, without a class name and a traceback."""


@dataclasses.dataclass
class TaskInfo:
    """The task as the server submitted it; `progress` and `message` follow `update_progress`."""

    task_id: str
    task_type: str
    attempt: int
    parameters: dict[str, Any]
    input_file_path: str | None
    output_file_path: str | None
    status: str = "running"
    progress: float = 0.0
    message: str = ""


class _NullDatabase:
    """Stands in for the database of older task code: any call or await does nothing."""

    def __getattr__(self, name: str) -> _NullDatabase:
        if name.startswith("__"):  # protocols such as copying must not find their hooks here
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _NullDatabase:
        return self

    def __await__(self) -> Iterator[Any]:
        return iter(())


class _Done(Coroutine[Any, Any, None]):
    """A call that has already happened; awaiting it lets the event loop run once.

    Unlike a coroutine it may be dropped without a warning. Unlike a mere awaitable it suits
    `create_task` and `run_coroutine_threadsafe`.
    """

    def __init__(self) -> None:
        self._pause = (nothing for nothing in (None,))

    def __await__(self) -> Generator[Any, Any, None]:
        return self._pause

    def send(self, value: Any) -> Any:
        return self._pause.send(value)

    def throw(self, *error: Any) -> Any:
        return self._pause.throw(*error)

    def close(self) -> None:
        self._pause.close()


class BaseTask:
    """Base class of a task. A subclass defines `execute`; a file holds exactly one such class."""

    def __init__(self, task_info: TaskInfo, db: Any, cancel_event: asyncio.Event) -> None:
        self.task_info = task_info
        self.db = db
        self.cancel_event = cancel_event
        self.parameters = task_info.parameters
        self.input_file_path = task_info.input_file_path
        self.output_file_path = task_info.output_file_path
        self.logger = logging.getLogger(type(self).__name__)

    def execute(self) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """Does the work and returns the result. Usually an `async def`.

        A plain `def` runs in a thread; cancelling it takes effect where it calls
        `check_cancelled` or `is_cancelled`.
        """
        raise NotImplementedError

    def update_progress(self, progress: float, message: str = "") -> Awaitable[None]:
        """Reports progress from 0 to 100. Works with and without `await`, and in threads.

        Never blocks: an update that the server is too busy to take is dropped.
        """
        try:
            finite = math.isfinite(progress)
        except TypeError:
            raise TypeError(f"invalid progress {progress!r}: expected a number") from None
        if finite:
            info = self.task_info
            info.progress = min(max(float(progress), 0.0), 100.0)
            info.message = str(message)
            _send(_event("message", info.message, progress=info.progress))
        return _Done()

    def is_cancelled(self) -> bool:
        """Returns True once the server has asked the task to stop."""
        return self.cancel_event.is_set()

    def check_cancelled(self) -> Awaitable[None]:
        """Raises CancelledError once the server has asked the task to stop.

        Works with and without `await`, and in threads.
        """
        if self.is_cancelled():
            raise asyncio.CancelledError
        return _Done()


# --- Events: lines of JSON in the FIFO $TASK_EVENTS ---


def _encode(value: Any) -> bytes:
    """Encodes JSON. Lone surrogates, as in undecodable file names, become question marks."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _event(key: str, text: str, **fields: Any) -> bytes:
    """Encodes an event as one line, with `text` shortened until the FIFO takes it in one piece."""
    kept = text[:EVENT_BYTES]
    while True:
        shown = kept if kept == text else kept + "…"
        line = _encode({**fields, key: shown}) + b"\n"
        excess = len(line) - EVENT_BYTES
        if excess <= 0:
            return line
        # A character takes at most six bytes, so this never cuts more than needed.
        kept = kept[: -(excess // 6 + 1)]


@functools.lru_cache(maxsize=None)
def _events_fd() -> int:
    """Opens the FIFO. No lock: it could be held at a fork, and opening twice does no harm."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(os.environ.get("TASK_EVENTS", ""), flags)


def _send(line: bytes, patience: float = 0.0) -> None:
    """Writes an event; drops it if the FIFO is missing, or still full after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            os.write(_events_fd(), line)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.01)
        except OSError:
            return


# --- Loading the file ---


def _prepare_imports(file: str) -> None:
    """Makes `from .base import BaseTask` and the modules beside `file` importable."""
    folder = os.path.dirname(file)
    helper = sys.modules[__name__]
    package = types.ModuleType(PACKAGE)
    package.__path__ = [folder]
    package.base = helper  # type: ignore[attr-defined]
    sys.modules[PACKAGE] = package
    for name in (f"{PACKAGE}.base", "base", "task_server"):
        sys.modules[name] = helper
    own_folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder] + [path for path in sys.path if path not in (folder, own_folder)]
    sys.dont_write_bytecode = True  # tasks must not write to the tasks folder


class _CopyLoader(SourceFileLoader):
    """Loads a file from the copy that the server has checked: the file may have changed since."""

    def get_code(self, fullname: str) -> types.CodeType | None:
        return self.source_to_code(_read_copy(), self.path)


def _read_copy() -> bytes:
    with open(os.environ["TASK_PYTHON_COPY"], "rb") as copy:
        return copy.read()


def _load(file: str) -> type[BaseTask]:
    """Imports `file` into the synthetic package and returns its task class."""
    _prepare_imports(file)
    # Processes that multiprocessing spawns prepare their imports from this, see the last lines.
    os.environ["TASK_PYTHON_FILE"] = file
    base_name = os.path.basename(file)
    name = f"{PACKAGE}.{os.path.splitext(base_name)[0]}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_CopyLoader(name, file))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as stop:
        raise _TaskError(f"{base_name} called sys.exit({stop.code!r}) during its import") from stop

    tasks = {
        value.__name__: value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseTask) and value.__module__ == name
    }
    parents = {parent.__name__ for task in tasks.values() for parent in task.__mro__[1:]}
    task = tasks[_only_leaf(base_name, tasks, parents)]
    if task.execute is BaseTask.execute:
        raise _TaskError(f"class {task.__name__} in {base_name} defines no method `execute`")
    return task


def _only_leaf(base_name: str, classes: Mapping[str, Any], parents: set[str]) -> str:
    """Returns the name of the one class without subclasses: the others are intermediate."""
    leaves = [name for name in classes if name not in parents]
    if not leaves:
        raise _TaskError(f"{base_name} defines no subclass of BaseTask")
    if len(leaves) > 1:
        found = f"{len(leaves)} subclasses of BaseTask: {', '.join(leaves)}"
        raise _TaskError(f"{base_name} defines {found}; expected one")
    return leaves[0]


# --- run ---


class _Attempt:
    """One run of a task class for the document that the server wrote to standard input."""

    def __init__(self, document: dict[str, Any]) -> None:
        # The task writes to a temporary path; texts for the client name the final one.
        self.output = os.environ.get("TASK_OUTPUT", "")
        self.final_output = document["output_file_path"] or self.output
        self.result_path = os.path.join(os.environ["TASK_DIR"], "result.json")
        self.signal: int | None = None
        self.in_thread = False
        self.info = TaskInfo(
            task_id=document["task_id"],
            task_type=document["task_type"],
            attempt=document["attempt"],
            parameters=document["parameters"],
            input_file_path=os.environ.get("TASK_INPUT") or None,
            output_file_path=self.output or None,
        )

    async def run(self, task_class: type[BaseTask]) -> int:
        """Executes the task, stores its result and returns the exit code."""
        try:
            self._store(await self._execute(task_class))
            return 0
        except BaseException as error:
            code = self.report(error)
            # Threads cannot be interrupted, and asyncio waits for them: leave without them.
            timer = threading.Timer(THREAD_PATIENCE, os._exit, [code])
            timer.daemon = True
            timer.start()
            return code

    async def _execute(self, task_class: type[BaseTask]) -> Any:
        cancel_event = asyncio.Event()
        self._catch_signals(cancel_event)
        _accept_keywords(asyncio.get_running_loop())
        try:
            task = task_class(self.info, _NullDatabase(), cancel_event)
            self.in_thread = not inspect.iscoroutinefunction(task.execute)
            result = await asyncio.to_thread(task.execute) if self.in_thread else task.execute()
            self.in_thread = False
            return await result if inspect.isawaitable(result) else result
        finally:
            if self.signal is None:
                _restore_signals()

    def _catch_signals(self, cancel_event: asyncio.Event) -> None:
        """Makes the first signal set `cancel_event` and then cancel the running asyncio task.

        The handler is one of `signal`, so that code that blocks the loop sees the event as well.
        """
        loop = asyncio.get_running_loop()
        running = asyncio.current_task()
        assert running

        def cancel(number: int, _frame: Any) -> None:
            if self.signal is not None:
                return
            self.signal = number
            cancel_event.set()
            if not self.in_thread:  # a plain `execute` gets the time to notice the event
                loop.call_soon_threadsafe(running.cancel)

        for number in SIGNALS:
            # The loop's own handler does nothing, but has each signal wake a loop that is waiting.
            loop.add_signal_handler(number, lambda: None)
            signal.signal(number, cancel)
        # A forked worker must die of the SIGTERM that its pool sends.
        os.register_at_fork(after_in_child=_restore_signals)

    def _store(self, result: Any) -> None:
        """Writes the result for the server, whole or not at all."""
        if result is None:
            result = {}
        if not isinstance(result, Mapping):
            raise _TaskError(f"execute returned a {type(result).__name__}, expected a dict")
        data = _encode(self._to_json(result, "result"))
        if len(data) > RESULT_BYTES:
            size = f"{len(data)} bytes of JSON"
            raise _TaskError(f"result is {size}, expected at most {RESULT_BYTES}")
        partial = self.result_path + ".partial"
        with open(partial, "wb") as file:
            file.write(data)
        os.replace(partial, self.result_path)

    def _to_json(self, value: Any, path: str) -> Any:
        """Converts `value` to what JSON can hold; `path` names it in errors."""
        if isinstance(value, enum.Enum):
            return self._to_json(value.value, path)
        if isinstance(value, str):
            return self._final_paths(value)
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, os.PathLike):
            return self._to_json(os.fspath(value), path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {
                self._final_paths(key if isinstance(key, str) else str(key)):
                self._to_json(item, f"{path}.{key}")
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple, Set)):
            return [self._to_json(item, f"{path}[{index}]") for index, item in enumerate(value)]
        # Dates, then NumPy arrays and scalars, known by their methods to avoid the imports.
        for method in ("isoformat", "tolist", "item"):
            plain = getattr(value, method)() if hasattr(type(value), method) else value
            if type(plain) is not type(value):
                return self._to_json(plain, path)
        raise _TaskError(f"{path}: object of type {type(value).__name__} cannot be stored as JSON")

    def _final_paths(self, text: str) -> str:
        return text.replace(self.output, self.final_output) if self.output else text

    def report(self, error: BaseException) -> int:
        """Logs the error, sends it to the server and returns the exit code."""
        if isinstance(error, KeyboardInterrupt):
            return 128 + signal.SIGINT
        if isinstance(error, SystemExit):
            if error.code in (None, 0):
                self._store({})
                return 0
            if isinstance(error.code, int):
                return error.code
            error = _TaskError(error.code)
        elif isinstance(error, asyncio.CancelledError):
            if self.signal is not None:
                print("cancelled", file=sys.stderr)
                return 128 + self.signal
            error = _TaskError(
                "the task raised CancelledError, but nobody asked for a cancellation"
            )
        _log(error)
        fields = {"permanent": True} if isinstance(error, PermanentError) else {}
        _send(_event("error", self._final_paths(_describe(error)), **fields), ERROR_PATIENCE)
        return 1


def _accept_keywords(loop: asyncio.AbstractEventLoop) -> None:
    """Makes `run_in_executor` take keyword arguments, which the ported guide's example passes."""
    original = loop.run_in_executor

    def run_in_executor(executor: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        return original(executor, functools.partial(function, *args, **kwargs))

    loop.run_in_executor = run_in_executor  # type: ignore[assignment, method-assign]


def _restore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _describe(error: BaseException) -> str:
    """Returns the text for the server: `ValueError: no cells`, or the bare text of our own."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, (PermanentError, _TaskError)):
        return text or name
    return f"{name}: {text}" if text else name


def _log(error: BaseException) -> None:
    """Prints the traceback from the task's own frames on."""
    if isinstance(error, _TaskError):
        print(f"error: {error}", file=sys.stderr)
        return
    traceback.print_exception(type(error), error, _task_frames(error))


def _task_frames(error: BaseException) -> types.TracebackType | None:
    """Skips the frames of this file and of the standard library that lead to the task's code."""
    machinery = (os.path.abspath(__file__), os.path.dirname(os.__file__), "<frozen ")
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename.startswith(machinery):
        frames = frames.tb_next
    return frames


def run(file: str) -> int:
    """Runs the task class in `file` and returns the exit code."""
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    attempt = _Attempt(json.load(sys.stdin.buffer))
    try:
        return asyncio.run(attempt.run(_load(file)))
    except BaseException as error:  # from the import, or an exit in another asyncio task
        return attempt.report(error)


# --- check and import ---


def check(file: str) -> dict[str, Any]:
    """Finds the task class in `file` by parsing, and returns its name and description."""
    base_name = os.path.basename(file)
    try:
        tree = ast.parse(_read_copy(), base_name)
    except OSError as error:
        raise _TaskError(f"cannot read {base_name}: {error.strerror}") from error
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise _TaskError(f"{base_name}{line}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, absurd nesting
        raise _TaskError(f"cannot parse {base_name}: {error}") from error
    task = _find_task(base_name, tree)
    return {"class": task.name, "description": ast.get_docstring(task) or ast.get_docstring(tree)}


def _find_task(base_name: str, tree: ast.Module) -> ast.ClassDef:
    """Finds the task class in one pass, since Python defines a base class before its subclasses.

    A base class from another module may be a task and may define `execute`: `import` decides.
    """
    known = {"BaseTask"}
    parents: set[str] = set()
    executable: set[str] = set()
    tasks: dict[str, ast.ClassDef] = {}
    possible_tasks: dict[str, ast.ClassDef] = {}
    for node in _classes(tree):
        bases = {_last_name(base) for base in node.bases}
        foreign = not bases <= known
        defines_execute = any(_last_name(item) == "execute" for item in node.body)
        if defines_execute or foreign or bases & executable:
            executable.add(node.name)
        if bases & ({"BaseTask"} | tasks.keys()):
            tasks[node.name] = node
        elif defines_execute and foreign or bases & possible_tasks.keys():
            possible_tasks[node.name] = node
        parents |= bases
        known.add(node.name)
    tasks = tasks or possible_tasks
    name = _only_leaf(base_name, tasks, parents)
    if name not in executable:
        raise _TaskError(f"class {name} in {base_name} defines no method `execute`")
    return tasks[name]


def _classes(parent: ast.AST) -> Iterator[ast.ClassDef]:
    """Yields the classes of a module in order, also those inside `if`, `try` and `with`."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef):
            yield node
        elif isinstance(node, (ast.If, ast.Try, ast.ExceptHandler, ast.With)):
            yield from _classes(node)


def _last_name(node: ast.AST) -> str:
    """Returns the name of a definition, or of a reference: `C` for `C`, `module.C` and `C[int]`."""
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    names = (getattr(node, field, None) for field in ("id", "attr", "name"))
    return next((name for name in names if isinstance(name, str)), "")


def import_(file: str) -> dict[str, Any]:
    """Imports `file` as `run` does and checks its class."""
    try:
        _load(file)
    except _TaskError:
        raise
    except Exception as error:
        _log(error)
        places = [
            f" ({os.path.basename(frame.filename)}:{frame.lineno})"
            for frame in traceback.extract_tb(_task_frames(error))
            if os.path.dirname(frame.filename) == os.path.dirname(file)
        ]
        raise _TaskError(_describe(error) + "".join(places[-1:])) from error
    return {}


def main(arguments: list[str]) -> int:
    """Runs the verb of the command line and returns the exit code."""
    verbs = {"check": check, "import": import_}
    if len(arguments) not in (3, 4) or arguments[1] not in ("run", *verbs):
        print("usage: helper.py run|check|import FILE [COPY]", file=sys.stderr)
        return 2
    verb, file = arguments[1], os.path.abspath(arguments[2])
    os.environ["TASK_PYTHON_COPY"] = os.path.abspath(arguments[-1])
    if verb == "run":
        return run(file)
    # Only the answer goes to standard output, not what imported code prints.
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = verbs[verb](file)
    except _TaskError as problem:
        answer = {"problem": str(problem)}
    with os.fdopen(output, "wb") as stream:
        stream.write(_encode(answer) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
elif __name__ == "__mp_main__":  # a process of multiprocessing that was spawned, not forked
    _prepare_imports(os.environ["TASK_PYTHON_FILE"])
