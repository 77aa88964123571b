"""What lies about its size takes little memory: each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, resource, struct, sys
from pathlib import Path
from adapterbank.errors import IntegrityError
from tests.registry_samples import config_of, files_of, new_registry

registry = new_registry(Path(sys.argv[1]))
registry.register("eurosat", files_of("eurosat"))
text = json.dumps(config_of("dtd") | {"classes": []}).encode()
names = {
    "empty": (b'""', 10_000_000),
    "short": (b'"a"', 8_000_000),
    "long": (b'"class12"', 10_000_000),
}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if sys.argv[2] in names:
    name, count = names[sys.argv[2]]
    listed = b'"classes": [' + (name + b",") * (count - 1) + name + b"]"
    changed = {"adapter_config.json": text.replace(b'"classes": []', listed)}
else:
    entry = b'"t%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % number for number in range(1_500_000)) + b"}"
    changed = {"routing.safetensors": struct.pack("<Q", len(header)) + header}
before = peak()
try:
    registry.register("dtd", files_of("dtd") | changed)
except IntegrityError as error:
    print(json.dumps({"mib": peak() - before, "message": error.message,
                      "others": registry.tasks(), "problems": len(registry.verify())}))
"""


@pytest.mark.parametrize(
    ("kind", "mib", "says"),
    [
        ("empty", 800, "more than 500,000 objects"),  # 30 MB; as many errors took 4 GB
        ("short", 800, "more than 500,000 objects"),
        ("long", 10, "more than the 33,554,432 allowed"),  # 100 MB: it is not
        ("header", 10, "a header of 90,000,001"),  # parsed, it took 1.9 GB
    ],
    ids=["ten-million-names", "eight-million-names", "ten-million-long-names", "header"],
)
def test_refusing_takes_a_bounded_amount_of_memory(
    tmp_path: Path, kind: str, mib: int, says: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), kind],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(ran.stdout)
    assert says in told["message"]
    assert len(told["message"]) < 1000
    assert told["mib"] < mib, told
    assert (told["others"], told["problems"]) == (["eurosat"], 0)


BOMBS = """
import json, resource, sys
from pathlib import Path
from PIL import Image
from adapterbank.data.batches import in_batches
from adapterbank.data.images import load_pixels
from adapterbank.records import InputSpec

folder, side = Path(sys.argv[1]), 7000
Image.new("RGBA", (8, 8)).save(folder / "small.png")
spec = InputSpec(size=(84, 84))
load_pixels(folder / "small.png", spec)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
if sys.argv[2] == "decode":
    list(in_batches(lambda path: load_pixels(path, spec), [folder / "large.png"] * 6, 6))
    print(json.dumps(peak() - before))
else:
    Image.new("RGBA", (side, side)).save(folder / "large.png", compress_level=1)
"""


def test_images_that_are_small_files_and_large_pictures_share_a_gigabyte(tmp_path: Path) -> None:
    def ran(step: str) -> str:
        words = [sys.executable, "-c", BOMBS, str(tmp_path), step]
        return subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    ran("encode")
    assert json.loads(ran("decode")) < 1024  # 6 x 49 million pixels, by 4 threads
