"""What the pages say is so: links, paths, commands, keys and figures. `test_docs_format.py` has the run folder."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from test_floors import FLOORS

from edgecl import config as configs
from edgecl import plan, profiles
from edgecl.cli import cli
from edgecl.cli.options import KEYS, choose
from edgecl.cli.plantext import chain
from edgecl.config import SHORT, USUAL, Config
from edgecl.engines.native_bytes import pass_bytes
from edgecl.export.formats import TARGETS, chosen
from edgecl.forecast import Workload, simulate
from edgecl.layout import frozen_nodes
from edgecl.limits import CHOICES
from edgecl.methods import METHODS, options
from edgecl.methods.base import CLASS_MASKS, PASSES
from edgecl.types import EdgeclError

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "deploy", "docs", "edgecl", "models", "tests", "tools")
PAGES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])
SPARCL_PAGE = ROOT / "docs/sparcl.md"

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
    wrong = [fault for line, whole in lines(page) for args in calls(line) if (fault := refused(args, whole=whole))]
    assert wrong == []


def refused(args: list[str], *, whole: bool) -> str:
    """Why the command line would refuse these arguments; empty if it would not."""
    try:
        context = parsed(args, whole=whole)
        if whole and context is not None and {"sets", "config"} <= context.params.keys():
            check_values(context.params)
    except (click.ClickException, EdgeclError, AssertionError) as e:
        return f"{shlex.join(args)}: {e.format_message() if isinstance(e, click.ClickException) else e}"
    return ""


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
    text = section(SPARCL_PAGE, "What a data set changes")
    (rows,) = tables(text)
    short = re.findall(r"usual `(\S+)` of `(\S+)` is `(\S+)`", text)
    assert {data: {tuple(key.split(".")): int(n)} for key, data, n in short} == {
        data: {(top, key): n for top, values in layer.items() for key, n in values.items()} for data, layer in SHORT.items()
    }
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


def test_what_a_frozen_prefix_gives() -> None:
    """FLOPs, in two counts and under masks, and bytes; what a step takes is bench/engine.py's to say."""
    ((*rows,),) = tables(section(SPARCL_PAGE, "A frozen prefix"))
    for until, layers, dense, masked, paper, _, size in rows:
        config = configs.resolve("cifar10", [{"freeze": {"until": "".join(code(until))}}])
        made, sparse = (plan.frozen(c, SPLIT_CIFAR_10) for c in (config, config.set("mask.sparsity", 0.9)))
        nodes = frozen_nodes(made.net, config)
        assert int(layers.split()[0]) == len(made.net.layers().keys() - nodes)
        assert f"{made.ratio:.2f}×".replace("1.00", "1") == dense
        assert f"{sparse.ratio:.1f}×" == masked
        assert f"{made.dense.paper / made.ledger.paper:.2f}×".replace("1.00", "1") == paper
        assert size in ("", f"{pass_bytes(made.net, 32, 16, train=True, frozen=nodes) / 1e6:.0f} MB")


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


def test_the_readme_shows_the_records_figures() -> None:
    rows = re.findall(
        r"\| \[([\w-]+)\]\(bench/records/\1\) \| .* \| (.+)× \| (.+)× \| (.+) \| (.+) \| (.+) \|",
        (ROOT / "README.md").read_text(),
    )
    assert rows
    for name, *shown in rows:
        said = json.loads((ROOT / "bench/records" / name / "result.json").read_text())
        shares = [100 * said[k] for k in ("class_il_accuracy", "task_il_accuracy", "class_il_forgetting")]
        assert shown == [f"{v:.1f}" for v in (said["ratio"], said["ratio_paper"], *shares)], name


def test_no_page_holds_a_place_for_something_else() -> None:
    assert not [p for p in PAGES if re.search(r"^[A-Z]+(_[A-Z]+)*$", p.read_text(), re.M)]


def test_the_readme_shows_the_bench() -> None:
    """Speed against dense torch, as bench/records/engine.jsonl has it; no gap left to fill in."""
    text = (ROOT / "README.md").read_text()
    ratios = json.loads((ROOT / "bench/records/engine.jsonl").read_text().splitlines()[0])["ratios"]
    net = {name: {row: figures[0] for row, figures in rows.items() if isinstance(figures, list)} for name, rows in ratios.items()}
    resnet = net["resnet18"]
    shown = {
        "dense | 1 |": [resnet["own dense"]],
        "75 / 90 / 95 %": [resnet[f"w64 {s} %"] for s in (75, 90, 95)],
        "single weights": [resnet["w64 95 %, weights"]],
        "`layer3.1` on": [resnet["w64 90 %, layer3.1 on"]],
        "width 32 / 20": [resnet["w32 75 %"], resnet["w20 75 %"]],
        "MobileNetV2, 90": [net["mobilenetv2_100"]["mobilenetv2_100 90 %"]],
        "DS-CNN": [net["ds_cnn"]["ds_cnn 80 %"]],
        "motion sensors": [net["har_cnn1d"]["har_cnn1d 80 %"]],
    }
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for words, figures in shown.items():
        (row,) = [line for line in rows if words in line]
        assert row.endswith(f"| {' / '.join(f'{v:.1f}' for v in figures)}× |"), row
    assert "@@" not in text


def test_the_table_of_targets_is_the_codes() -> None:
    page = ROOT / "docs/export.md"
    (rows,) = tables(section(page, "Export"))
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(code(row[0])[0], []).extend(code(row[3]))
    for target in TARGETS:
        format_, int8, _ = chosen(target, "")
        assert sorted(said[target]) == sorted(format_.chips if int8 else ()), target
    assert list(said) == list(TARGETS)


def test_the_export_page_shows_the_bench() -> None:
    """Every row of the last line of bench/records/export.jsonl, and that it reached what it was to reach."""
    rows = json.loads((ROOT / "bench/records/export.jsonl").read_text().splitlines()[-1])["rows"]
    page = ROOT / "docs/export.md"
    (shown,) = tables(section(page, "What is measured"))
    for (_, *cells), row in zip(shown, rows.values(), strict=True):
        ms = [f"{row['ms'][k]:.2f}" for k in ("float", "int8", "litert float", "litert int8", "native")]
        ratios = (row["int8"], row["litert"]["int8"], row["native"])
        assert cells == [*ms, *(f"{x:.1f}×" for x in ratios)]
        for made in (row, row["litert"]):
            assert made["int8"] >= 3
            assert made["size"] <= 0.27
        for share in row.get("accuracy", {}).values():
            assert f"{100 * share:.2f} %" in page.read_text()


def test_the_readme_shows_the_whole_run() -> None:
    """From the record: times, what FLOPs and accuracy came to."""
    text = " ".join((ROOT / "README.md").read_text().split())
    shown = text.partition("A whole run: ")[2].partition("A short run")[0]
    r = json.loads((ROOT / "bench/records/c10-derpp-23x-whole-cpu/result.json").read_text())
    dense = r["dense_seconds_predicted"]
    whole = json.loads((ROOT / "bench/records/whole.jsonl").read_text().splitlines()[-1])
    for figure in (
        f"{r['ratio']:.1f}× fewer FLOPs",
        f"1 h {r['seconds'] / 60 - 60:.0f} min on one thread",
        f"1 h {r['cpu_seconds'] / 60 - 60:.0f} min of CPU time",
        f"{dense / 3600:.1f} h: {dense / r['seconds']:.1f}×, or {dense / r['cpu_seconds']:.1f}× by CPU time",
        f"Class-IL {100 * r['class_il_accuracy']:.1f} %",
        f"on two cores): {whole['ratio_to_run_seconds']:.1f}×, or {whole['ratio_to_run_cpu_seconds']:.1f}×",
    ):
        assert figure in shown, figure
    torch = min(seconds for name, seconds in whole["extrapolated_seconds"].items() if name.startswith("dense torch"))
    assert f"where the best dense torch would take {torch / 3600:.0f} h: {whole['ratio_to_run_seconds']:.1f}× less" in text
