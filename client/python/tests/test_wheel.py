"""The wheel: what pip installs of it into an environment that has nothing, and that a program runs there.

maturin makes it as ever, but of the program that the tests use, which stands for what `cargo rustc` would build again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from typing import List

import pytest

import foresail
from foresail import _bridge

ROOT = Path(__file__).resolve().parents[1]
CARGO = '''#!{python}
"""`cargo`, but what maturin lets it build was built before."""
import json, os, shutil, subprocess, sys

if "rustc" not in sys.argv:
    os.execv({cargo!r}, [{cargo!r}, *sys.argv[1:]])
manifest = sys.argv[sys.argv.index("--manifest-path") + 1]
asked = [{cargo!r}, "metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest]
packages = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)["packages"]
(package,) = [each for each in packages if each["manifest_path"] == manifest]
(target,) = [each for each in package["targets"] if each["name"] == "foresail" and each["kind"] == ["bin"]]
assert sys.argv[sys.argv.index("--bin") + 1] == "foresail"
shutil.copy({program!r}, {copy!r})
if "strip=symbols" in sys.argv:
    subprocess.run(["strip", {copy!r}], check=True)
profile = dict(opt_level="0", debuginfo=0, debug_assertions=True, overflow_checks=True, test=False)
told = dict(reason="compiler-artifact", package_id=package["id"], manifest_path=manifest, target=target)
told.update(profile=profile, features=[], filenames=[{copy!r}], executable={copy!r}, fresh=True)
print(json.dumps(told))
'''
PROGRAM = """
import json, sys
from importlib import resources
import foresail
from foresail import _bridge

@foresail.task
def double(number):
    return sys.prefix, 2 * number

if __name__ == "__main__":
    prefix, result = double(21).compute()
    typed = resources.files("foresail").joinpath("py.typed").is_file()
    print(json.dumps([foresail.__file__, _bridge.find_binary(), prefix, result, typed]))
"""


def said(command: List[str], **options: object) -> str:
    """What a program that succeeds writes."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("maturin")
    cargo, folder = shutil.which("cargo"), tmp_path_factory.mktemp("wheel")
    if cargo is None:
        pytest.skip("there is no cargo")
    program = shutil.which(_bridge.find_binary())
    stand_in = folder / "cargo"
    paths = {"python": sys.executable, "cargo": cargo, "program": program, "copy": str(folder / "foresail")}
    stand_in.write_text(CARGO.format(**paths))
    stand_in.chmod(0o755)
    environment = {**os.environ, "CARGO": str(stand_in), "CARGO_TARGET_DIR": str(folder / "target")}
    command = [sys.executable, "-m", "maturin", "build", "--profile", "dev", "--compatibility", "linux"]
    said([*command, "--out", str(folder / "out")], cwd=ROOT, env=environment)
    (found,) = (folder / "out").glob("*.whl")
    return found


def wheel_of_installed(name: str, folder: Path) -> None:
    """A wheel of what is installed here, so that no index is asked."""
    distribution = metadata.distribution(name)
    with zipfile.ZipFile(folder / f"{name}-{distribution.version}-py3-none-any.whl", "w") as file:
        for path in distribution.files or []:
            if path.suffix != ".pyc":
                file.write(str(path.locate()), str(path))


def test_the_wheel_says_what_it_needs_and_has_what_it_says(wheel: Path) -> None:
    name, version, *tags = wheel.stem.split("-")
    assert (name, version, tags[:2]) == ("foresail", foresail.__version__, ["py3", "none"]), "one for all versions"
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        about: Message = Parser().parsestr(file.read(f"foresail-{version}.dist-info/METADATA").decode())
        program = file.getinfo(f"foresail-{version}.data/scripts/foresail")
    assert about["Requires-Python"] == ">=3.9"
    required = [text for text in about.get_all("Requires-Dist") or [] if "extra ==" not in text]
    assert required == ["cloudpickle>=2.0"]
    assert "Typing :: Typed" in (about.get_all("Classifier") or [])
    assert program.external_attr >> 16 & 0o111, "the program can be executed"
    package = {f"foresail/{path.name}" for path in (ROOT / "foresail").iterdir() if path.is_file()}
    assert {each for each in names if each.startswith("foresail/")} == package
    assert not [each for each in names if each.startswith(("tests", "examples"))]


def test_a_program_runs_where_nothing_but_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    said([sys.executable, "-m", "venv", str(tmp_path / "fresh")])
    python = tmp_path / "fresh" / "bin" / "python"
    wheel_of_installed("cloudpickle", tmp_path)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    said([*pip, "--no-index", "--find-links", str(tmp_path), str(wheel)])
    own = ("FORESAIL_BINARY", "FORESAIL_PYTHON", "PYTHONPATH")
    environment = {name: text for name, text in os.environ.items() if name not in own}
    environment["FORESAIL_DATA"] = str(tmp_path / "data")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    package, program, prefix, result, typed = json.loads(
        said([str(python), str(script)], env=environment, cwd=tmp_path)
    )
    fresh = str(tmp_path / "fresh")
    assert [package.startswith(fresh), prefix, result, typed] == [True, fresh, 42, True]
    assert program == os.path.join(fresh, "bin", "foresail")
    assert said([program, "--version"], env=environment).split() == ["foresail", foresail.__version__]
