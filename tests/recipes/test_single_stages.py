"""One stage of a recipe by itself, in as many processes as torchrun or srun starts; what a dry run tells."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tilth
from support.prefork import Server
from support.resuming import free_port
from support.tiny_farm import TRAINING, plant
from support.training_sample import metrics
from tilth.errors import ConfigError, RunError
from tilth.recipes.run import first_process
from tilth.training.config import LoopConfig
from tilth.training.distributed import build_fabric

ROOT = Path(__file__).parents[2]
LOOP = TRAINING["loop"] | {"steps": "${steps}", "devices": "${devices}", "denominator": "global"}
TRAIN = TRAINING | {"task": "segment", "labelled": ["${out}/catalog.parquet"], "out": "${out}/run", "loop": LOOP}
SPLIT = {"catalog": "tiles.parquet", "block_m": 100, "out": "${out}/catalog.parquet"}
SCORE = {"model": "${out}/run", "catalog": "${out}/catalog.parquet", "out": "${out}/scores", "gallery": 0}
RECIPE = {
    "name": "r",
    "description": "d",
    "values": {"steps": 2, "devices": 1},
    "stages": [
        {"name": "split", "verb": "catalog split", "options": SPLIT},
        {"name": "train", "verb": "finetune", "options": TRAIN},
        {"name": "score", "verb": "evaluate", "options": SCORE},
    ],
}


@pytest.fixture(scope="module")
def server():
    started = Server()
    yield started
    started.close()


@pytest.fixture
def field(tmp_path, monkeypatch):
    monkeypatch.chdir(plant(tmp_path))
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def go(**options):
    return tilth.run(recipe="recipe.yaml", out="out", **options)


def test_stage_by_itself_waits_for_what_it_reads(field):
    with pytest.raises(ConfigError, match="only=train: it reads what stage 'split' makes, which is not finished; do that first"):
        go(only="train")
    assert go(until="train").values == {"done": ["split"], "skipped": []}
    assert go(only="train").values == {"done": ["train"], "skipped": []}
    assert go(only="train").values == {"done": [], "skipped": ["train"]}
    assert go().values == {"done": ["score"], "skipped": ["split", "train"]}


def test_stage_that_is_not_there_is_named(field):
    with pytest.raises(ConfigError, match="only=trian: no stage is called so; did you mean 'train'"):
        go(only="trian")
    with pytest.raises(ConfigError, match="only and until exclude each other"):
        go(only="train", until="score")


def test_whole_recipe_refuses_several_devices_before_anything_is_done_and_its_dry_run_does_not(field):
    with pytest.raises(ConfigError, match=r"stage 'train': loop.devices=2 .* with --until, this one with --only train"):
        go(values={"devices": 2})
    assert not Path("out").exists()
    assert go(values={"devices": 2}, dry_run=True).values["to_do"] == ["split", "train", "score"]


def test_other_processes_leave_a_stage_without_training_to_the_first_one_and_refuse_whole_recipes(field, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert go(only="split").values == {}
    with pytest.raises(ConfigError, match="a whole recipe is done by one process, and several were started; give --only STAGE"):
        go(until="train")
    assert not Path("out").exists()


def two_tasks(server: Server, words: list[str], **common: str) -> list[str]:
    """Run a command as two tasks of srun; returns what each said."""
    slurm = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
    slurm |= {"SLURM_JOB_NAME": "s5", "SLURM_JOB_ID": "4711", "MASTER_PORT": str(free_port())} | common
    logs = [Path(f"log.{rank}").absolute() for rank in range(2)]
    started = [server.start(words, logs[rank], SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **slurm) for rank in range(2)]
    codes = [server.wait(process) for process in started]
    assert codes == [0, 0], [file.read_text() for file in logs]
    return [file.read_text() for file in logs]


@pytest.mark.slow
def test_two_tasks_of_srun_do_one_stage_and_the_first_keeps_the_stamp(field, server):
    # The server's children work where it does.
    here, out = str(field / "recipe.yaml"), str(field / "out")
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE).replace("tiles.parquet", str(field / "tiles.parquet")))
    tilth.run(recipe=here, out=out, until="train")
    said = two_tasks(server, ["run", here, "--out", out, "--only", "train", "values.devices=2"], SLURM_STEP_ID="0")
    assert "r: 1 stages, 1 done" in said[0]
    assert "r: " not in said[1]
    assert [line["step"] for line in metrics(Path(out) / "run") if line["kind"] == "train"] == [1, 2]
    # The number of devices does not change what is trained, so the rest of the recipe goes on behind it with one.
    assert tilth.run(recipe=here, out=out).values["done"] == ["score"]


JOB = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "s5"}


@pytest.mark.parametrize("devices", [1, 2])
def test_batch_script_without_srun_is_told_so_instead_of_waiting_for_ever(devices, monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    with pytest.raises(RunError, match="was not started by srun, so it is the only one; put srun before the command"):
        build_fabric(LoopConfig(devices=devices, accelerator="cpu"))


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_only_one_process_keeps_stamps(environment, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_process() == first


# The page on launching.

PAGE = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
SCRIPTS = [block for block in BLOCKS if block.startswith("#!")]
LINES = [" ".join(block.replace("\\\n", " ").split()) for block in BLOCKS if block.startswith("torchrun")]


def directives(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script, flags=re.MULTILINE))


def devices_of(text: str) -> tuple[int, int]:
    devices, nodes = (re.search(rf"values\.{name}=(\d+)", text) for name in ("devices", "nodes"))
    return int(devices[1]), int(nodes[1]) if nodes else 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_slurm_script_parses_and_asks_for_the_tasks_that_the_training_wants(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    asked = directives(script)
    devices, nodes = devices_of(script)
    assert (int(asked["ntasks-per-node"]), int(asked["gpus-per-node"]), int(asked["nodes"])) == (devices, devices, nodes)
    # srun does not take the number of cores over from the script.
    assert re.search(r'^srun --cpus-per-task "\$SLURM_CPUS_PER_TASK" tilth run .*--only', script, flags=re.MULTILINE)
    # It is told early enough for a log line to come: processes stop together there.
    assert int(asked["signal"].removeprefix("TERM@")) >= 300


def test_page_has_scripts_for_one_and_for_two_nodes():
    assert [devices_of(script) for script in SCRIPTS] == [(8, 1), (8, 2)]


@pytest.mark.parametrize("line", LINES)
def test_torchrun_line_starts_as_many_processes_as_the_training_wants(line):
    words = shlex.split(line)
    nodes = int(words[words.index("--nnodes") + 1]) if "--nnodes" in words else 1
    assert (int(words[words.index("--nproc-per-node") + 1]), nodes) == devices_of(line)


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(LINES)))
def test_torchrun_line_of_the_page_trains_in_two_processes(field, place):
    """The line as it stands, with two processes of one node instead of 8, and a tiny network on this machine's processor."""
    tilth.landscapes(out=field / "more", scenes=2, size=128, seed=9)
    tilth.catalog_build(inputs=[field / "more" / "images"], sensor="rgb", window_px=64, out=field / "pool.parquet")
    line = LINES[place].replace("--nproc-per-node 8", "--nproc-per-node 2").replace("values.devices=8", "values.devices=2")
    line = (
        line.replace("--nnodes 2", "--nnodes 1")
        .replace("values.nodes=2", "values.nodes=1")
        .replace("node-0:29500", f"localhost:{free_port()}")
    )
    small = [
        *("values.labelled=[catalog.parquet]", "values.unlabelled=[pool.parquet]", "values.weights=null", "values.batch=4"),
        *("values.network={encoder: resnet10t, options: {decoder_channels: [16,8,8,8,8]}}", "values.checkpointing=no"),
        *("values.steps=2", "values.size=32", "values.window=64", "values.accelerator=cpu", "values.precision=32", "values.workers=0"),
        *("values.validate_every=2", "values.checkpoint_every=2"),
    ]
    words = [word for word in shlex.split(line) if not word.startswith(("values.data", "values.curated", "values.weights"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run([*words, *small], capture_output=True, text=True, timeout=300, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("1 stages, 1 done") == 1
    (run,) = Path("s5/runs").iterdir()
    assert (run / "finished.json").is_file()
