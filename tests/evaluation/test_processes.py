"""One evaluation shared by several processes: the figures of one, and nothing half-written where one is lost."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.evaluation.conftest import name_of, pairs
from urzoo.evaluation import Settings, read_result, result_path

SHARED = """
import os, sys, time
from pathlib import Path
from urzoo.evaluation import Settings, evaluate_pairs
from urzoo.evaluation.image_classification import ImageClassification

if os.environ["RANK"] == os.environ.get("LOST"):
    outputs = ImageClassification.outputs
    def lost(self, rows):
        if rows[0] > 20:
            os._exit(9)
        return outputs(self, rows)
    ImageClassification.outputs = lost
settings = Settings(limit=50, batch_size=8)
for pair in evaluate_pairs([Path(sys.argv[1])], ["smnist"], results=Path(sys.argv[2]), settings=settings):
    print(pair.status, pair.message)
"""


def launch(raster: Path, results: Path, processes: int, **extra: str) -> subprocess.CompletedProcess[str]:
    script = results.parent / "shared.py"
    script.write_text(SHARED)
    # What `accelerate launch` itself starts where there are GPUs.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    environment = {**os.environ, **quiet, **extra}
    return subprocess.run(
        [*command, str(script), str(raster), str(results)], env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_give_the_figures_of_one(raster: Path, results: Path, processes: int):
    done = launch(raster, results, processes)
    assert done.returncode == 0, done.stderr
    shared = read_result(result_path(results, name_of(raster), "smnist"))
    [alone] = pairs([raster], ["smnist"], results=results / "alone", settings=Settings(limit=50, batch_size=8))
    assert shared.metrics["accuracy"] == alone.result.metrics["accuracy"]
    assert shared.metrics["cross_entropy"] == pytest.approx(alone.result.metrics["cross_entropy"], rel=1e-6)
    assert (shared.processes, shared.samples) == (processes, 50)
    assert [path.name for path in (results / name_of(raster)).iterdir()] == ["smnist.json"]


@pytest.mark.slow
def test_two_machines_share_an_evaluation_without_sharing_a_folder(raster: Path, results: Path):
    """Two launchers that know each other by an address alone; three processes each, of uneven parts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = results.parent / "shared.py"
    script.write_text(SHARED)
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()), "ACCELERATE_USE_CPU": "true"}
    options = ["--multi_gpu", "--num_machines", "2", "--num_processes", "6", "--main_process_ip", "127.0.0.1"]
    options += ["--main_process_port", port, "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options]
    launchers = [
        subprocess.Popen(
            [*launch, "--machine_rank", rank, str(script), str(raster), str(results / rank)],
            env={**os.environ, **quiet},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for launcher in launchers:
        _, complaint = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, complaint
    shared = read_result(result_path(results / "0", name_of(raster), "smnist"))
    [alone] = pairs([raster], ["smnist"], results=results / "alone", settings=Settings(limit=50, batch_size=8))
    assert shared.metrics == pytest.approx(alone.result.metrics, rel=1e-6)
    assert (shared.processes, shared.samples) == (6, 50)
    assert [path.name for path in results.glob("[01]/*/*")] == ["smnist.json"]


def test_a_lost_process_ends_the_others_and_its_batches_are_not_lost(raster: Path, results: Path):
    began = time.perf_counter()
    done = launch(raster, results, 2, LOST="1")
    assert done.returncode != 0
    assert "lost another one" in done.stderr or "exitcode  : 9" in done.stderr
    assert time.perf_counter() - began < 100
    assert not list(results.rglob("*.json"))
    kept = sum(path.stat().st_size for path in results.rglob("*.npz"))
    assert kept > 0
    done = launch(raster, results, 2)
    assert done.returncode == 0, done.stderr
    assert read_result(result_path(results, name_of(raster), "smnist")).samples == 50
    assert [path.name for path in (results / name_of(raster)).iterdir()] == ["smnist.json"]
