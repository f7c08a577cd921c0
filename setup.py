"""The hot rooms (wire, flow, http, call), what joins them, and what reads capture files, compiled with mypyc where
there is a C compiler; not with VXSNIFF_PURE=1.

One source, two speeds: without a compiler, or when compiling fails, the same files run interpreted. Everything else
about the package is in pyproject.toml.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

ROOMS = ("wire", "flow", "http", "call")
BESIDES = (
    "vxsniff/app/pipeline.py",
    "vxsniff/capture/file.py",
    "vxsniff/delivery/batch.py",
    "vxsniff/delivery/queue.py",
)
"""What runs for each packet or call, too."""


def has_compiler() -> bool:
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    return shutil.which(command) is not None and (Path(sysconfig.get_path("include")) / "Python.h").exists()


def compiled() -> list[Extension]:
    if os.environ.get("VXSNIFF_PURE") == "1" or not has_compiler():
        return []
    paths = (path for room in ROOMS for path in sorted(Path("vxsniff", room).glob("*.py")))
    files = [*(str(path) for path in paths if path.name != "__init__.py"), *BESIDES]
    try:
        from mypyc.build import mypycify

        # The libraries that these files use are not there while a package is built: what they give is not checked.
        extensions = mypycify(["--config-file=", "--ignore-missing-imports", *files], opt_level="3")
        if os.name == "posix":
            for extension in extensions:
                # Nobody may put another function in the place of one of ours: so they call each other directly.
                extension.extra_compile_args.append("-fvisibility=hidden")
        return extensions
    except (Exception, SystemExit) as error:
        print(f"vxsniff is not compiled: {error}; it runs interpreted", file=sys.stderr)
        return []


setup(ext_modules=compiled())
