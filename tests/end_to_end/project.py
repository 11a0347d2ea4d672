"""A copy of the project at `scale: tiny`, and commands that run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

STRATEGIES = ["lstm", "resnet", "late_fusion"]
TRAINED = [*STRATEGIES, "transformer"]  # late_fusion's encoders start where those of transformer and resnet ended
TRIALS = 4


def environment(**more: str) -> dict[str, str]:
    """That of the tests, with the programs beside their Python first, without this project's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FUSION_", "DVC_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


def call(folder: Path, *command: str) -> str:
    """Runs a command in `folder`, which must succeed; returns what it prints."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def commit(folder: Path, message: str) -> None:
    call(folder, "git", "add", "-A")
    call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", message)


def copy_project(root: Path, folder: Path) -> None:
    """The project's files (tracked, and new ones that git does not ignore), without results, at `scale: tiny`."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (root / name).is_file() and not name.startswith("reports/") and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["scale"] = "tiny"
    params["grid"]["strategies"] = STRATEGIES
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
