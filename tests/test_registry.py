"""The registry: basics, edges, threads, plugins. What is registered here stays in registries made for the test."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import registry as registry_module
from errors import UserError
from registry import BACKBONES, DATASETS, METHODS, REGISTRIES, Entry, Registry, load_plugin

ROOT = Path(__file__).resolve().parent.parent
NO_PLUGINS = "czsl_bench.tests.nobody"


@pytest.fixture
def things():
    return Registry("thing", NO_PLUGINS)


@pytest.fixture
def plugin_registries(monkeypatch):
    """Two fresh registries that plugin files see as METHODS and DATASETS; loaded plugin modules are forgotten after."""
    methods, datasets = Registry("method", NO_PLUGINS), Registry("data set", NO_PLUGINS)
    monkeypatch.setattr(registry_module, "METHODS", methods)
    monkeypatch.setattr(registry_module, "DATASETS", datasets)
    monkeypatch.setattr(registry_module, "REGISTRIES", (methods, datasets))
    yield methods, datasets
    for name in [name for name in sys.modules if name.startswith("czsl_bench_plugin_")]:
        del sys.modules[name]


def install(folder, monkeypatch, group, points, modules, name="extra-things", version="1.2"):
    """Put a distribution with entry points and modules on the import path."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {target}" for point, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    if monkeypatch is not None:
        monkeypatch.syspath_prepend(folder)


# Basics


def test_decorator_returns_its_target_and_get_finds_it(things):
    @things.register("hammer", title="A hammer", paper="Smith, 1850")
    class Hammer:
        pass

    assert things.get("hammer") is Hammer
    assert things.names() == ["hammer"]
    assert things.entries() == [Entry("hammer", "A hammer", "Smith, 1850", __name__)]
    assert "hammer" in things and "saw" not in things


def test_title_and_paper_come_from_info_then_docstring(things):
    class Info:
        title, paper = "From info", "Info, 2020"

    @things.register("with_info")
    class WithInfo:
        info = Info

    @things.register("with_docstring")
    def load():
        """Return a thing.

        More about it.
        """

    assert [(entry.title, entry.paper) for entry in things.entries()] == [
        ("Return a thing.", ""),
        ("From info", "Info, 2020"),
    ]


def test_lazy_target_is_imported_at_the_first_get_only(things, tmp_path, monkeypatch):
    (tmp_path / "lazy_thing_module.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    things.add("lazy", "lazy_thing_module:Thing", title="Lazy")
    assert things.entries() == [Entry("lazy", "Lazy", "", "lazy_thing_module")]
    assert "lazy_thing_module" not in sys.modules
    assert things.get("lazy") is things.get("lazy") is sys.modules["lazy_thing_module"].Thing


# Edges


def test_unknown_name_lists_all_and_suggests_the_nearest(things):
    things.add("msci", "a:B")
    things.add("csp", "a:B")
    with pytest.raises(UserError) as caught:
        things.get("mcsi")
    assert str(caught.value) == "No thing is called 'mcsi'. The things are csp, msci. Did you mean 'msci'?"
    with pytest.raises(UserError, match="Choose one of these"):
        things.check("zzzzzz")


def test_unknown_name_in_an_empty_registry(things):
    with pytest.raises(UserError, match=r"No thing is called 'x'\. No thing is registered\."):
        things.get("x")


@pytest.mark.parametrize("second", ["add", "register"])
def test_taken_name_is_refused_and_the_holder_named(things, second):
    things.add("hammer", "first.module:Hammer")
    with pytest.raises(UserError, match=r"'hammer' that .* is taken\. first\.module holds it\."):
        things.add("hammer", "second.module:Hammer") if second == "add" else things.register("hammer")(int)
    assert things.entries()[0].origin == "first.module"


@pytest.mark.parametrize("name", ["", "a.b", "a b", "-x", "a\n", "ä"])
def test_malformed_name_is_refused(things, name):
    with pytest.raises(ValueError, match="cannot be a thing's name"):
        things.register(name)(int)


@pytest.mark.parametrize("target", ["module", "module:", ":Name", "module:Name:More", "module Name"])
def test_malformed_target_is_refused(things, target):
    with pytest.raises(ValueError, match="not of the form 'module:Name'"):
        things.add("x", target)


@pytest.mark.parametrize(
    ("target", "cause"),
    [("no_such_module_anywhere:Thing", "ModuleNotFoundError"), ("json:NoSuchName", "AttributeError")],
)
def test_lazy_target_that_fails_names_origin_and_cause(things, target, cause):
    things.add("lazy", target)
    with pytest.raises(
        UserError, match=f"The thing 'lazy' of {target.partition(':')[0]} cannot be loaded.*{cause}"
    ) as e:
        things.get("lazy")
    assert type(e.value.__cause__).__name__ == cause
    (entry,) = things.entries()
    assert entry.state == "broken" and cause in entry.error


def test_family_answers_to_fitting_names_after_the_registered_ones(things):
    things.add_family("*/*", "json:dumps", title="any")
    things.add("a/b", "json:loads")
    assert things.get("a/b") is json.loads
    assert things.get("c/d")() == '"c/d"'
    assert things.names() == ["a/b"]
    assert [entry.name for entry in things.entries()] == ["a/b", "*/*"]
    with pytest.raises(UserError):
        things.get("plain")


def test_family_with_a_rule_of_its_own_and_the_name_handed_over(things):
    things.add_family("<even>", "json:dumps", fits=lambda name: len(name) % 2 == 0)
    things.add("ab", "json:loads")
    assert things.get("abcd")() == '"abcd"'
    assert things.get("ab") is json.loads
    things.check("xy")
    with pytest.raises(UserError):
        things.get("<even")


def test_a_target_that_serves_several_names_is_handed_the_one_asked_for(things):
    things.add("one", "json:dumps", named=True)
    things.add("two", "json:dumps", named=True)
    assert (things.get("one")(), things.get("two")()) == ('"one"', '"two"')


# Threads


def test_one_of_many_threads_gets_a_contested_name(things):
    barrier, won, refused = threading.Barrier(16), [], []

    def contend(number):
        barrier.wait()
        try:
            things.register("contested")(number)
            won.append(number)
        except UserError:
            refused.append(number)

    run_threads(contend, 16)
    assert len(won) == 1 and len(refused) == 15
    assert things.get("contested") == won[0]


def test_many_threads_resolve_one_lazy_target(things, tmp_path, monkeypatch):
    (tmp_path / "slow_thing_module.py").write_text("import time\ntime.sleep(0.05)\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    things.add("slow", "slow_thing_module:Thing")
    got, barrier = [], threading.Barrier(8)

    def resolve(_):
        barrier.wait()
        got.append(things.get("slow"))

    run_threads(resolve, 8)
    assert len(got) == 8 and len(set(got)) == 1


def test_threads_that_list_while_entry_points_load_see_them_all(tmp_path, monkeypatch):
    text = "import time\ntime.sleep(0.05)\nclass Thing: pass\n"
    install(
        tmp_path, monkeypatch, "czsl_bench.tests.slow", {"slow": "slow_entry_module:Thing"}, {"slow_entry_module": text}
    )
    things, seen = Registry("thing", "czsl_bench.tests.slow"), []
    run_threads(lambda _: seen.append(things.names()), 8)
    assert seen == [["slow"]] * 8


def run_threads(work, count):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)


# Entry points


GROUP = "czsl_bench.tests.things"
GOOD = '''class Good:
    """A good thing."""
'''


def test_entry_point_is_registered_with_its_distribution_as_origin(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, GROUP, {"good": "good_entry_module:Good"}, {"good_entry_module": GOOD})
    things = Registry("thing", GROUP)
    assert "good_entry_module" not in sys.modules
    assert things.entries() == [Entry("good", "A good thing.", "", "extra-things 1.2")]
    assert things.get("good").__name__ == "Good"


def test_broken_entry_points_are_named_and_skipped(tmp_path, monkeypatch):
    points = {
        "absent": "no_such_entry_module:Thing",
        "crashing": "crashing_entry_module:Thing",
        "exiting": "exiting_entry_module:Thing",
        "good": "good_entry_module2:Good",
        "taken": "good_entry_module2:Good",
    }
    modules = {
        "crashing_entry_module": "raise RuntimeError('two\\nlines')\n",
        "exiting_entry_module": "import sys\nsys.exit(3)\n",
        "good_entry_module2": GOOD,
    }
    install(tmp_path, monkeypatch, GROUP, points, modules)
    things = Registry("thing", GROUP)
    things.add("taken", "built_in:Thing")
    assert things.names() == ["good", "taken"]
    broken = {entry.name: entry for entry in things.entries() if entry.state == "broken"}
    assert sorted(broken) == ["absent", "crashing", "exiting", "taken"]
    assert {entry.origin for entry in broken.values()} == {"extra-things 1.2"}
    assert broken["crashing"].error == "RuntimeError: two lines"
    assert "built_in holds it" in broken["taken"].error
    with pytest.raises(UserError, match=r"not loaded: .*extra-things 1.2: RuntimeError: two lines"):
        things.get("crashing")


def test_entry_point_to_a_module_that_registers_things_itself(tmp_path, monkeypatch, plugin_registries):
    methods, _ = plugin_registries
    text = "import registry\n@registry.METHODS.register('own')\nclass Own: pass\n"
    points = {"own": "self_registering_module:Own", "package": "self_registering_module"}
    install(tmp_path, monkeypatch, GROUP, points, {"self_registering_module": text})
    methods.group = GROUP
    assert [(entry.name, entry.origin, entry.state) for entry in methods.entries()] == [
        ("own", "extra-things 1.2", "ok")
    ]


def test_built_in_names_do_not_wait_for_entry_points(tmp_path, monkeypatch):
    install(
        tmp_path, monkeypatch, GROUP, {"x": "unneeded_entry_module:X"}, {"unneeded_entry_module": "class X: pass\n"}
    )
    things = Registry("thing", GROUP)
    things.add("json", "json:loads")
    things.get("json")
    assert "unneeded_entry_module" not in sys.modules


# Plugin files


def test_plugin_file_registers_under_its_path(tmp_path, plugin_registries):
    methods, datasets = plugin_registries
    file = tmp_path / "my plugin.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from registry import DATASETS, METHODS\n"
        "@METHODS.register('mine', title='Mine')\n"
        "@dataclass\n"
        "class Mine:\n    value: 'int' = 3\n"
        "DATASETS.register('my_data')(lambda: 'data')\n"
    )
    assert load_plugin(file) is None
    assert load_plugin(str(file)) is None  # the second time does nothing
    assert methods.entries() == [Entry("mine", "Mine", "", str(file))]
    assert methods.get("mine")().value == 3
    assert datasets.get("my_data")() == "data"


@pytest.mark.parametrize("ending", ["raise RuntimeError('midway')", "import sys; sys.exit(1)", "this is no Python"])
def test_plugin_that_fails_leaves_nothing_half_registered(tmp_path, plugin_registries, ending):
    methods, datasets = plugin_registries
    methods.add("before", "a:B")
    file = tmp_path / "half.py"
    file.write_text(
        "from registry import DATASETS, METHODS\nMETHODS.register('half')(int)\nDATASETS.register('half')(int)\n"
        + ending
    )
    error = load_plugin(file)
    assert error
    assert methods.names() == ["before"] and datasets.names() == []
    assert methods.entries()[-1] == Entry("half", "", "", str(file), "broken", error)
    assert not any(name.startswith("czsl_bench_plugin_half") for name in sys.modules)
    file.write_text("from registry import METHODS\nMETHODS.register('half')(int)\n")
    assert load_plugin(file) is None
    assert [entry.state for entry in methods.entries()] == ["ok", "ok"]


def test_plugin_taking_a_built_in_name_is_broken_not_fatal(tmp_path, plugin_registries):
    methods, _ = plugin_registries
    methods.add("csp", "built_in:CSP")
    file = tmp_path / "thief.py"
    file.write_text("from registry import METHODS\nMETHODS.register('other')(int)\nMETHODS.register('csp')(int)\n")
    assert "built_in holds it" in load_plugin(file)
    assert methods.names() == ["csp"]


@pytest.mark.parametrize("name", ["absent.py", "text.txt", "."])
def test_path_that_is_no_python_file_is_a_user_error(tmp_path, plugin_registries, name):
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(UserError, match="--plugin"):
        load_plugin(tmp_path / name)


# The tables of this project


@pytest.mark.parametrize("entry", METHODS.entries(), ids=lambda entry: entry.name)
def test_listed_methods_agree_with_their_classes(entry):
    info = METHODS.get(entry.name).info
    assert info.name == entry.name
    assert info.venue in entry.paper


@pytest.mark.parametrize("registry", [DATASETS, BACKBONES], ids=lambda registry: registry.kind)
def test_every_built_in_target_can_be_imported(registry):
    assert registry.names()
    for name in registry.names():
        assert callable(registry.get(name))


def test_listing_imports_no_torch_even_with_a_broken_plugin_installed(tmp_path):
    install(tmp_path, None, "czsl_bench.methods", {"bad": "bad_method_module:Bad"}, {"bad_method_module": "1 / 0\n"})
    code = (
        "import sys, json, registry, methods, datasets\n"
        "entries = {r.kind: [(e.name, e.state) for e in r.entries()] for r in registry.REGISTRIES}\n"
        "heavy = [name for name in ('torch', 'open_clip', 'pandas', 'numpy') if name in sys.modules]\n"
        "print(json.dumps([entries, heavy]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    entries, heavy = json.loads(done.stdout)
    assert heavy == []
    assert ["csp", "ok"] in entries["method"] and ["bad", "broken"] in entries["method"]
    assert ["icon_states", "ok"] in entries["data set"] and ["tiny-icons", "ok"] in entries["backbone"]


def test_there_is_a_registry_for_each_kind():
    assert [registry.group for registry in REGISTRIES] == [
        f"czsl_bench.{kind}" for kind in ("methods", "datasets", "backbones", "launchers")
    ]
