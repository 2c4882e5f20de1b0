"""Builds the Cython extensions and ships the files that are not code.

Environment:
    AUDIO_NATIVE_DEBUG=1     -O0 -g, Cython's bounds and None checks on
    AUDIO_NATIVE_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
    AUDIO_NATIVE_ANNOTATE=1  writes Cython's HTML beside each source
No -march and no -ffast-math: instruction sets are chosen at import (audio_native/dispatch.pxd).
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
DEBUG = os.environ.get("AUDIO_NATIVE_DEBUG") == "1"
SANITIZE = os.environ.get("AUDIO_NATIVE_SANITIZE") == "1"
ANNOTATE = os.environ.get("AUDIO_NATIVE_ANNOTATE") == "1"

compile_args = ["-std=c11", "-Wall", "-Wno-unused-function"]
link_args: list[str] = []
compile_args += ["-O0", "-g"] if DEBUG else ["-O3", "-g1"]
if SANITIZE:
    flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
    compile_args += flags
    link_args += flags
elif not DEBUG:
    compile_args += ["-D_FORTIFY_SOURCE=2", "-fstack-protector-strong"]
if sys.platform == "linux":
    link_args += ["-Wl,-z,relro,-z,now"]

directives = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "nonecheck": DEBUG,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "binding": False,
}

extensions = [
    Extension(
        f"audio_native.{path.stem}",
        [str(path.relative_to(ROOT))],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        include_dirs=["audio_native"],
        depends=[str(header.relative_to(ROOT)) for header in sorted((ROOT / "audio_native").glob("*.h"))],
    )
    for path in sorted((ROOT / "audio_native").glob("*.pyx"))
]

setup(
    package_data={
        "audio_native": ["*.pyi", "*.pxd", "*.h", "py.typed"],
        "server": ["py.typed"],
        "bench": ["budgets.toml", "demo/*.yaml", "load/*.c", "sim/data/*", "turns/*.yaml"],
    },
    data_files=[
        ("share/talkspurt", ["schema.sql"]),
        ("share/talkspurt/agents", [str(p.relative_to(ROOT)) for p in sorted((ROOT / "agents").glob("*.yaml"))]),
    ],
    ext_modules=cythonize(extensions, compiler_directives=directives, annotate=ANNOTATE, quiet=True)
    if extensions
    else [],
)
