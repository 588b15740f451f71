"""What the pages say is so: links, paths, commands, keys, figures, and the format of a run folder."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from run_cases import SPARCL, begun, events, to_end
from test_floors import FLOORS

from edgecl import config as configs
from edgecl import masks, plan, profiles, session, store
from edgecl.cli import cli
from edgecl.cli.options import KEYS, choose
from edgecl.cli.plantext import chain
from edgecl.config import USUAL, Config
from edgecl.forecast import Workload, simulate
from edgecl.ledger import KINDS
from edgecl.limits import CHOICES
from edgecl.methods import METHODS, options
from edgecl.methods.base import CLASS_MASKS, PASSES

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "deploy", "docs", "edgecl", "models", "tests", "tools")
PAGES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])
FORMAT, SPARCL_PAGE = ROOT / "docs/formats/run.md", ROOT / "docs/sparcl.md"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
on_pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The text without its fenced blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def section(page: Path, heading: str) -> str:
    """From a heading of any level to the next one."""
    parts = re.split(r"^#+ (.*)\n", page.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table's rows, without its head."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [[[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in t.splitlines()[2:]] for t in found]


def code(cell: str) -> list[str]:
    return INLINE.findall(cell)


def first(rows: list[list[str]]) -> list[str]:
    """What a table's first column has as code."""
    return [name for row in rows for name in code(row[0])]


# ---- links and paths ----


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@on_pages
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", INLINE.sub("", prose(page)))
    for link in links:
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@on_pages
def test_paths_exist(page: Path) -> None:
    """Paths of this repository in code; NAME stands for any."""
    paths = [p for p in INLINE.findall(prose(page)) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", p) and "NAME" not in p]
    assert [p for p in paths if not (ROOT / p).exists()] == []


# ---- commands ----


def lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Shell lines of fenced blocks, then code in the text that looks like one; True for the first kind."""
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash", "console"):
            yield from ((line.removeprefix("$ "), True) for line in block.replace("\\\n", " ").splitlines())
    yield from ((text, False) for text in INLINE.findall(prose(page)) if text.startswith("edgecl "))


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of every `edgecl` in a shell line."""
    for part in re.split(r"&&|\|\||[;|]", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words and words[0] == "edgecl":
            yield [w for w in words[1:] if w != "…"]


def parsed(args: list[str], *, whole: bool) -> click.Context | None:
    """The command's context, nothing of it run; None where it only shows its help. `whole`: no argument may be missing."""
    command: click.Command = cli
    context = click.Context(cli, info_name="edgecl")
    while isinstance(command, click.Group) and args and not args[0].startswith("-"):
        name, *args = args
        found = command.get_command(context, name)
        assert found is not None, f"no command {name!r}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    if isinstance(command, click.Group) and not args:
        return None
    try:
        return command.make_context(context.info_name, args, parent=context.parent)
    except click.exceptions.Exit:
        return None
    except click.MissingParameter:
        assert not whole
        return None


@on_pages
def test_commands_have_the_options_they_show(page: Path) -> None:
    for line, whole in lines(page):
        for args in calls(line):
            try:
                context = parsed(args, whole=whole)
                if whole and context is not None and "sets" in context.params:
                    check_values(context.params)
            except Exception as e:
                raise AssertionError(f"{line.strip()}: {e}") from e


def check_values(given: dict[str, Any]) -> None:
    """Names, keys and values are such that `train` would begin."""
    if given["config"] is None and given.get("resume") is None:
        config, _ = choose({k: given[k] for k in (*KEYS, "config", "sets")})
        device = config.device
        profiles.load_profile(str(ROOT / device) if "/" in device else device)


# ---- the configuration ----


def test_the_table_of_keys_is_the_configuration() -> None:
    (rows,) = tables(section(SPARCL_PAGE, "Every key"))
    said = {first([row])[0]: yaml.safe_load(code(row[1])[0]) for row in rows}
    plain = {k for k in configs.dotted(Config().to_dict()) if not k.startswith("method.")} | {"method.name"}
    assert len(said) == len(rows)
    assert said == {key: configs.get(Config(), key) for key in plain}
    assert {first([row])[0]: code(row[2])[0] for row in rows if row[2]} == {
        key: f"--{option.replace('_', '-')}" for option, key in KEYS.items()
    }
    for row in rows:
        words = CHOICES.get(first([row])[0], ())
        assert [w for w in words if w not in code(row[3]) + code(row[1])] == [], row[0]


def test_the_table_of_usual_values_is_the_codes() -> None:
    (rows,) = tables(section(SPARCL_PAGE, "What a data set changes"))
    said: dict[str, dict[str, Any]] = {"cifar10": {}, "digits": {}, "": {}}
    for row in rows:
        for data, cell in zip(said, row[1:], strict=True):
            said[data] |= {first([row])[0]: yaml.safe_load(value) for value in code(cell)}
    assert said == {data: {k: configs.get(configs.merge(Config(), v), k) for k in configs.dotted(v)} for data, v in USUAL.items()}


def test_the_table_of_options_is_the_methods() -> None:
    text = section(SPARCL_PAGE, "Options of each method")
    (rows,) = tables(text)
    said = {(code(row[0])[0], code(row[1])[0]): yaml.safe_load(code(row[2])[0]) for row in rows}
    assert said == {(m, f"method.{k}"): v for m in METHODS for k, v in options(m).items()}
    assert {*CLASS_MASKS, *PASSES} <= set(code(text))


# ---- figures ----

SPLIT_CIFAR_10 = Workload((3, 32, 32), 10, (10_000,) * 5)


@pytest.mark.parametrize("method", ["er", "derpp"])
def test_flops_of_the_dense_baseline(method: str) -> None:
    config = plan.baseline(configs.resolve("cifar10", [{"method": method}]))
    ledger = simulate(config, plan.build(config, SPLIT_CIFAR_10), SPLIT_CIFAR_10)
    text = section(SPARCL_PAGE, "Two counts of FLOPs")
    assert all(f"= {count / 1e15:.2f}e15" in text for count in (ledger.paper, ledger.executed))


def test_what_each_part_of_23x_divides() -> None:
    config = configs.resolve("cifar10", [{"data": {"name": "cifar10"}, "budget": "23x"}])
    factors = chain(plan.make_plan(config, SPLIT_CIFAR_10), SPLIT_CIFAR_10)
    said = ", ".join(f"{name} {factor:.2f}×" for name, factor in factors.items())
    assert said in " ".join(section(SPARCL_PAGE, "Switch each part").split())


def test_figures_of_records_are_the_records() -> None:
    ((*rows,),) = tables(section(ROOT / "docs/adr/0003-the-plan-walks-the-schedule.md", "Why narrow at all"))
    for row in rows:
        name, *others = code(row[0])
        paths = [ROOT / "bench/records" / n / "result.json" for n in (name, *(name[: -len(o)] + o for o in others))]
        results = [json.loads(p.read_text()) for p in paths]
        for cell, key in ((row[3], "class_il_accuracy"), (row[4], "task_il_accuracy")):
            assert cell == ", ".join(f"{100 * r[key]:.2f}" for r in results), row[0]
        width, sparsity = (results[0]["width"] or 64), results[0]["sparsity"]
        assert row[1] == (f"{width}, {100 * sparsity:.2f} %" if sparsity else f"{width}, dense")


def test_the_picture_of_the_floors() -> None:
    (rows,) = tables(section(ROOT / "docs/adr/0001-floors.md", "Decision"))
    assert [(int(row[0]), set(code(row[1]))) for row in rows] == list(enumerate(FLOORS))


# ---- the run folder ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch a task, with every kind of array and event."""
    folder = tmp_path_factory.mktemp("docs") / "run"
    setup, state = begun(folder, *SPARCL, "tdm.enabled=false", "train.epochs=1", "train.momentum=0.9")
    state.warnings.append("of a resumed run")
    to_end(setup, state)
    session.result(setup, state)
    return folder


def newest(run: Path) -> Path:
    return run / "snapshots" / f"{store.latest(run):03d}"


def test_files(run: Path) -> None:
    (rows,) = tables(section(FORMAT, "Files"))
    assert {p.name for p in run.iterdir()} == {name.rstrip("/") for name in first(rows)[:-1] if name not in ("001", "002", "dense/")} | {".lock"}
    headings = {p.name for p in newest(run).iterdir()}
    assert all(f"### {name}\n" in FORMAT.read_text() for name in headings)


def test_config(run: Path) -> None:
    (rows,) = tables(section(FORMAT, "config.yaml"))
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    keys = ["config"] + [f"{top}.{key}" for top, values in recorded.items() if top != "config" for key in values]
    assert sorted(first(rows)) == sorted([*keys, "compare"])


@pytest.mark.parametrize("kind", ["task", "epoch", "end", "warning"])
def test_events(run: Path, kind: str) -> None:
    (rows,) = tables(section(FORMAT, kind))
    seen = events(run, kind)
    assert seen
    assert all(list(event) == [code(row[0])[0] for row in rows] for event in seen)


def test_ledger_and_result(run: Path) -> None:
    keys, kinds = tables(section(FORMAT, "ledger.json"))
    ledger = json.loads((run / "ledger.json").read_text())
    assert list(ledger) == first(keys)
    assert list(ledger["by_kind"]) == list(KINDS) == first(kinds)
    assert sum(ledger["by_kind"].values()) == ledger["executed"]
    (rows,) = tables(section(FORMAT, "result.json"))
    assert list(json.loads((run / "result.json").read_text())) == first(rows)


def test_state(run: Path) -> None:
    keys, state = tables(section(FORMAT, "state.json"))
    body = json.loads((newest(run) / "state.json").read_text())
    assert list(body) == first(keys)
    assert list(body["state"]) == [code(row[0])[0] for row in state]


def test_names_of_arrays(run: Path) -> None:
    snapshot = store.load(run, store.latest(run) or 0)
    (memory,) = tables(section(FORMAT, "memory.safetensors"))
    assert set(snapshot.memory) == set(first(memory))
    names, units = tables(section(FORMAT, "masks.safetensors"))
    layers = {name.split(".", 1)[1] for name in snapshot.masks}
    assert set(snapshot.masks) == {n.replace("<layer>", layer) for n in first(names) for layer in layers}
    assert first(units) == list(masks.UNITS)
    (weights,) = tables(section(FORMAT, "weights.safetensors"))
    patterns = [re.sub("<[a-z]+>", r".+", re.escape(n)) for n in first(weights)]
    assert all(any(re.fullmatch(p, name) for p in patterns) for name in snapshot.weights)
    assert all(any(re.fullmatch(p, name) for name in snapshot.weights) for p in patterns)


def test_the_page_has_a_reader_that_works(run: Path) -> None:
    (program,) = [text for language, text in FENCED.findall(FORMAT.read_text()) if language == "python"]
    names: dict[str, Any] = {}
    exec(program, names)
    read, own = names["read_snapshot"](newest(run)), store.load(run, store.latest(run) or 0)
    for here, there in zip(read[:3], own[:3], strict=True):
        assert list(here) == list(there)
        assert all(here[k].dtype == there[k].dtype and np.array_equal(here[k], there[k]) for k in there)
    assert read[3] == own.state


def test_the_reader_sees_damage(run: Path, tmp_path: Path) -> None:
    (program,) = [text for language, text in FENCED.findall(FORMAT.read_text()) if language == "python"]
    names: dict[str, Any] = {}
    exec(program, names)
    for broken in newest(run).iterdir():
        copy = tmp_path / broken.name
        copy.mkdir()
        for file in newest(run).iterdir():
            data = bytearray(file.read_bytes())
            if file == broken:
                data[-3] ^= 1
            (copy / file.name).write_bytes(data)
        with pytest.raises(ValueError, match="damaged|JSON|delimiter|Extra|Expecting"):
            names["read_snapshot"](copy)
