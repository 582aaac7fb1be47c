"""The benchmark runs and finds what the documents show, and the documents show only what it found last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import capacity, plots
from tests.benchmarks.__main__ import SECTIONS
from tests.benchmarks.documents import FOLDER, documents, filled, is_strict, strays
from tests.benchmarks.figures import Figure, Results, Section
from tests.benchmarks.probes import cpu_seconds, tree
from tests.benchmarks.tables import TABLES
from tests.support.patience import PROCESS_HANG
from tests.support.processes import ROOT

STORED = Results.read()


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_measures_what_the_documents_show(section: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.benchmarks", section, "--small", "--into", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=2 * PROCESS_HANG)
    measured = Results.read(file).sections[section]
    assert measured.figures["f"].value > 0
    assert measured.figures["f"].unit == "µs"
    of_tables = {name for name in STORED.sections[section].figures if section != "writes"}
    assert set(measured.figures) >= of_tables, "run the section, so that the stored results have the same figures"
    written = {
        name: figure for name, figure in measured.figures.items() if name.endswith((".api", ".both", ".versions"))
    }
    assert all(figure.value > 0 for figure in written.values()), written


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_show_the_last_results(path: Path) -> None:
    text = path.read_text()
    assert text == filled(text, STORED), "run: make bench"
    assert not list(strays(text, strict=is_strict(path)))


def test_plots_show_the_last_results() -> None:
    for name, drawn in plots.drawn(STORED).items():
        assert (FOLDER / f"{name}.svg").read_text() == drawn, "run: make bench"
        ElementTree.fromstring(drawn)  # noqa: S314 - our own


def of_one_figure(value: float) -> Results:
    return Results({"calls": Section({"me.api": Figure.of([value], "f")}, {}, "", "", "")})


def test_a_figure_that_the_results_do_not_have_is_noticed() -> None:
    text = "It costs <!-- bench: calls.me.api -->2.0 f<!-- end --> today."
    assert filled(text, of_one_figure(2.0)) == text
    assert filled(text, of_one_figure(2.3)) == text.replace("2.0", "2.3")
    with pytest.raises(KeyError):
        filled("<!-- bench: calls.you.api -->2.0 f<!-- end -->", of_one_figure(2.0))


@pytest.mark.parametrize(
    "claim",
    ["a call costs 5.7 f", "3.6 × bare", "it takes 40 µs", "12,000 requests a second", "450 replies/s", "p99 29 ms",
     "29 ms (p99)", "p50: 1.1 s"],
)  # fmt: skip
def test_a_figure_without_a_result_is_noticed(claim: str) -> None:
    assert list(strays(f"As measured, {claim}."))
    assert not list(strays(f"<!-- bench: calls.me.api -->{claim}<!-- end -->"))


@pytest.mark.parametrize("text", ["within 5 s", "32 connections", "pieces wait 50 ms", "p99 at most 250 ms", "5 files"])
def test_what_is_set_or_demanded_is_not_a_figure(text: str) -> None:
    assert not list(strays(text))


def test_a_table_shows_every_digit_of_its_results() -> None:
    for name in TABLES:
        text = f"<!-- bench: {name} --><!-- end -->"
        assert filled(filled(text, STORED), STORED) == filled(text, STORED)
    table = filled("<!-- bench: calls --><!-- end -->", STORED)
    assert str(STORED["calls.me.api"]) in table


def test_a_plan_grows_with_people_and_stays_in_proportion() -> None:
    small, large = (capacity.planned(STORED, people, capacity.Habits()) for people in (1_000_000, 10_000_000))
    assert large.messages == pytest.approx(10 * small.messages)
    assert large.api_cores == pytest.approx(10 * small.api_cores)
    assert large.api_processes <= 10 * small.api_processes
    idle = capacity.planned(STORED, 0, capacity.Habits())
    assert (idle.messages, idle.api_processes, idle.worker_processes) == (0, 2, 2)


def test_cpu_of_processes_that_ended_is_counted() -> None:
    busy = "import sys, time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
    parent = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\nprint('ended', flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ended\n"
        assert tree(process.pid) == [process.pid]
        assert cpu_seconds(process.pid) >= 0.15
        process.communicate(b"\n")
