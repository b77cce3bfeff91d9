"""One registry for everything that has a name: methods, data sets, backbones, launchers.

A thing is registered by decorator, by a lazy "module:Name" target (so that listing imports nothing heavy), by another
distribution's entry point, or by a file given with `--plugin`. A taken name is refused, an unknown one is answered with
the names there are, and a broken plugin is shown as broken while the rest goes on working.

    @METHODS.register("mine", title="My method", paper="Me, 2026")
    class Mine(Method): ...
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from errors import UserError, did_you_mean

T = TypeVar("T")
V = TypeVar("V")

# No dots: `--set csp.lr=1e-3` splits there. A slash is for "model/pretrained tag".
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_/-]*")
_TARGET = re.compile(r"[\w.]+:\w+")


@dataclass(frozen=True)
class Entry:
    """One line of a listing.

    origin: the module of a built-in, the distribution of an entry point, or the path of a plugin file.
    state: "broken" when loading was tried and failed, and `error` says how; a lazy target not yet tried is "ok".
    """

    name: str
    title: str
    paper: str
    origin: str
    state: Literal["ok", "broken"] = "ok"
    error: str = ""


@dataclass
class _Slot:
    """A registered name: what was said about it, and its target.

    target: what was registered, which only its users can judge; "module:Name" as long as it is lazy.
    named: whether the target is called with the name, see `Registry.add`.
    fits: see `Registry.add_family`.
    """

    name: str
    title: str
    paper: str
    origin: str
    target: object
    lazy: bool
    error: str = ""
    fits: Callable[[str], bool] | None = None
    named: bool = False

    def entry(self) -> Entry:
        return Entry(self.name, self.title, self.paper, self.origin, "broken" if self.error else "ok", self.error)


@dataclass
class _Load:
    """A plugin being imported: its origin, and what it has registered so far, to be taken back if it fails."""

    origin: str
    added: list[tuple[Registry[Any], str]] = field(default_factory=list)


_current_load: ContextVar[_Load | None] = ContextVar("current_load", default=None)


@contextmanager
def _loading(origin: str) -> Iterator[None]:
    """Mark registrations in the block as coming from `origin`, and take them back if the block fails."""
    load = _Load(origin)
    token = _current_load.set(load)
    try:
        yield
    except BaseException:
        for registry, name in load.added:
            registry._remove(name)
        raise
    finally:
        _current_load.reset(token)


class Registry(Generic[T]):
    """Names of one kind of thing.

    kind: the word in messages ("method"). group: the entry-point group of outside packages. home: the package whose
    import fills the built-in names; it is imported before any plugin, so that a plugin cannot take a built-in's name.
    """

    def __init__(self, kind: str, group: str, home: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self.home = home
        self._slots: dict[str, _Slot] = {}
        self._families: dict[str, _Slot] = {}
        self._broken: dict[tuple[str, str], Entry] = {}
        self._table = threading.Lock()
        # Not the table's lock: other threads may register while a plugin is being imported.
        self._discovery = threading.RLock()
        self._discovered = False

    def register(self, name: str, *, title: str = "", paper: str = "") -> Callable[[V], V]:
        """Return a decorator that registers a class or function; title and paper default to its `info` or docstring."""

        def decorate(target: V) -> V:
            self._insert_object(name, target, title, paper)
            return target

        return decorate

    def add(self, name: str, target: str, *, title: str = "", paper: str = "", named: bool = False) -> None:
        """Register a lazy "module:Name" target, imported at the first `get`.

        named: the target serves several names and takes the one asked for as its first argument; `get` fills it in, so
        that whoever asks never has to know.
        """
        slot = self._lazy_slot(name, target, title, paper)
        slot.named = named
        self._insert(slot)

    def add_family(
        self, pattern: str, target: str, *, title: str = "", fits: Callable[[str], bool] | None = None
    ) -> None:
        """Let a lazy target answer to every name not registered that fits a shell pattern, such as "*/*".

        A family is listed under its pattern and is none of the `names`. Its target is named (see `add`) and judges the
        names it is handed. fits: decides in place of the pattern, which is then only what the listing shows.
        """
        slot = self._lazy_slot(pattern, target, title, "")
        slot.fits, slot.named = fits, True
        self._families[pattern] = slot

    def get(self, name: str) -> T:
        """Return what is registered under `name`, importing it if need be; otherwise a `UserError`."""
        slot = self._loaded(name)
        if slot.named:
            return cast(T, partial(cast(Callable[..., object], slot.target), name))
        return cast(T, slot.target)

    def serves(self, target: object, name: str) -> bool:
        """Return whether `name` is answered by this very target; otherwise as `get`."""
        return self._loaded(name).target is target

    def _loaded(self, name: str) -> _Slot:
        """Return the slot of a name, its target imported."""
        slot = self._find(name)
        if slot.lazy:
            module, _, attribute = str(slot.target).partition(":")
            try:
                target = getattr(importlib.import_module(module), attribute)
            except Exception as error:
                slot.error = _one_line(error)
                raise UserError(
                    f"The {self.kind} '{name}' of {slot.origin} cannot be loaded.",
                    f"Importing '{slot.target}' failed with {slot.error}.",
                    "Install what is missing or mend the module; the full trace is in the cause of this error.",
                ) from error
            slot.target, slot.lazy, slot.error = target, False, ""
        return slot

    def check(self, name: str) -> None:
        """Raise the `UserError` of an unknown name without loading a known one."""
        self._find(name)

    def names(self) -> list[str]:
        """Return all names that can be asked for, sorted; plugins that failed to load have none."""
        self._discover()
        with self._table:
            return sorted(self._slots)

    def entries(self) -> list[Entry]:
        """Return a line per name, sorted, then one per family, then one per plugin that could not be loaded."""
        self._discover()
        with self._table:
            good = [slot.entry() for slots in (self._slots, self._families) for _, slot in sorted(slots.items())]
            return good + [entry for _, entry in sorted(self._broken.items())]

    def titles(self) -> dict[str, str]:
        """Return what each entry is called in tables and figures, by name: its title, else the name."""
        return {entry.name: entry.title or entry.name for entry in self.entries()}

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _find(self, name: str) -> _Slot:
        # Entry points only when the name is not built in: a run with built-in names imports no plugin.
        for look_further in (self._load_home, self._discover):
            look_further()
            with self._table:
                if name in self._slots:
                    return self._slots[name]
        for pattern, family in self._families.items():
            if family.fits(name) if family.fits is not None else fnmatchcase(name, pattern):
                return family
        names = self.names()
        there = f"The {self.kind}s are {', '.join(names)}" if names else f"No {self.kind} is registered"
        if self._broken:
            broken = "; ".join(f"{entry.origin}: {entry.error}" for entry in self._broken.values())
            there += f" (not loaded: {broken})"
        raise UserError(
            f"No {self.kind} is called '{name}'.", f"{there}.", did_you_mean(name, names) or "Choose one of these."
        )

    def _lazy_slot(self, name: str, target: str, title: str, paper: str) -> _Slot:
        if _TARGET.fullmatch(target) is None:
            raise ValueError(f"target {target!r} of the {self.kind} {name!r} is not of the form 'module:Name'")
        return _Slot(name, title, paper, target.partition(":")[0], target, lazy=True)

    def _insert(self, slot: _Slot) -> None:
        if _NAME.fullmatch(slot.name) is None:
            raise ValueError(f"{slot.name!r} cannot be a {self.kind}'s name: use letters, digits, '_', '-' and '/'")
        load = _current_load.get()
        if load is not None:
            slot.origin = load.origin
        with self._table:
            holder = self._slots.get(slot.name)
            if holder is not None:
                raise UserError(
                    f"The {self.kind} name '{slot.name}' that {slot.origin} registers is taken.",
                    f"{holder.origin} holds it.",
                    "Register under another name.",
                )
            self._slots[slot.name] = slot
        if load is not None:
            load.added.append((self, slot.name))

    def _insert_object(self, name: str, target: Any, title: str = "", paper: str = "") -> None:
        info = getattr(target, "info", None)
        summary = (getattr(target, "__doc__", None) or "").strip().partition("\n")[0]
        title = title or getattr(info, "title", "") or summary
        paper = paper or ", ".join(filter(None, (getattr(info, "paper", ""), getattr(info, "venue", ""))))
        origin = getattr(target, "__module__", None) or "?"
        self._insert(_Slot(name, title, paper, origin, target, lazy=False))

    def _remove(self, name: str) -> None:
        with self._table:
            del self._slots[name]

    def _load_home(self) -> None:
        if self.home is not None:
            importlib.import_module(self.home)

    def _discover(self) -> None:
        """Load the entry points of the group, once; the flag is set first so that a plugin may list names itself."""
        self._load_home()
        with self._discovery:
            if self._discovered:
                return
            self._discovered = True
            for point in sorted(entry_points(group=self.group), key=lambda point: (point.name, point.value)):
                self._load_entry_point(point)

    def _load_entry_point(self, point: EntryPoint) -> None:
        """Register what an entry point names: the thing itself, or a module that registers things when imported."""
        origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
        _load_homes()
        try:
            with _loading(origin):
                target = point.load()
                own = self._slots.get(point.name)
                registered_itself = own is not None and own.target is target
                if not isinstance(target, ModuleType) and not registered_itself:
                    self._insert_object(point.name, target)
        except (Exception, SystemExit) as error:  # an outside package must not take the program down
            self._mark_broken(point.name, origin, _one_line(error))

    def _mark_broken(self, name: str, origin: str, error: str) -> None:
        with self._table:
            self._broken[name, origin] = Entry(name, "", "", origin, "broken", error)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")


class MethodClass(Protocol):
    """A class of methods, `methods.base.Method`: built from (backbone, vocabulary, config).

    info: a `methods.base.MethodInfo`.
    Config: its settings, a `methods.base.MethodConfig`.
    """

    info: Any
    Config: Any

    def __call__(self, backbone: Any, vocabulary: Any, config: Any) -> Any: ...


class DatasetLoader(Protocol):
    """A function that returns a `datasets.base.CompositionDataset`, prepared if need be."""

    def __call__(self) -> Any: ...


class BackboneLoader(Protocol):
    """A function that returns a fresh `methods.backbone.clip.Backbone`; methods may change what they are given."""

    def __call__(self) -> Any: ...


class LauncherClass(Protocol):
    """A class of launchers, `benchmarks.launchers.base.Launcher`: what has a list of runs done."""

    name: Any
    waits: Any

    def __call__(self, options: Any) -> Any: ...

    def alive(self, root: Any, jobs: Any) -> Any:
        """Return which jobs are waiting or at work."""

    def cancel(self, root: Any, job: Any) -> Any:
        """End a job."""


METHODS: Registry[MethodClass] = Registry("method", "czsl_bench.methods", home="methods")
DATASETS: Registry[DatasetLoader] = Registry("data set", "czsl_bench.datasets", home="datasets")
BACKBONES: Registry[BackboneLoader] = Registry("backbone", "czsl_bench.backbones", home="methods")
LAUNCHERS: Registry[LauncherClass] = Registry("launcher", "czsl_bench.launchers", home="benchmarks.launchers")

REGISTRIES: tuple[Registry[Any], ...] = (METHODS, DATASETS, BACKBONES, LAUNCHERS)


def _load_homes() -> None:
    # Built-ins come first: a package that a failing plugin imported would lose its names when they are taken back.
    for registry in REGISTRIES:
        registry._load_home()


def load_plugin(path: str | Path) -> str | None:
    """Import a Python file that registers things; return None, or in one line why it could not be used.

    A file that fails leaves none of its names behind and is shown as broken in every listing. A path that is no Python
    file is a `UserError`. Loading a file twice does nothing the second time.
    """
    file = Path(path).expanduser().resolve()
    stem = re.sub(r"\W", "_", file.stem)
    module_name = f"czsl_bench_plugin_{stem}_{hashlib.sha256(bytes(file)).hexdigest()[:8]}"
    if module_name in sys.modules:
        return None
    spec = importlib.util.spec_from_file_location(module_name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        there = "It is not a Python source file (.py)" if file.exists() else "There is no such file"
        raise UserError(f"The plugin '{path}' cannot be loaded.", f"{there}.", "Pass --plugin path/to/file.py.")
    _load_homes()
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before execution: dataclasses and pickle look their module up by name
    try:
        with _loading(str(path)):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        for registry in REGISTRIES:
            registry._mark_broken(file.stem, str(path), _one_line(error))
        return _one_line(error)
    for registry in REGISTRIES:
        registry._broken.pop((file.stem, str(path)), None)
    return None
