"""Resizes images: a line of input names one and its output, separated by a tab.

The answer is the time it took in seconds and the peak memory of this process in KiB.
"""

import sys
import time

import PIL
from PIL import Image


def peak_memory():
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmHWM:"))


print(PIL.__version__, flush=True)
for line in sys.stdin:
    source, target = line.rstrip("\n").split("\t")
    begin = time.perf_counter()
    with Image.open(source) as image:
        resized = image.resize((800, 600), Image.Resampling.LANCZOS)
    resized.save(target, quality=85, optimize=True)
    seconds = time.perf_counter() - begin
    print(seconds, peak_memory(), flush=True)
