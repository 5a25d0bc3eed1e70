"""Inception V3 and ResNet V2 on ImageNet, or on images drawn on the spot."""

import os

# TensorFlow leaves oneDNN off on CPUs without AVX-512 VNNI, where it is faster too:
# ResNet50V2's gradient at 48 px took 0.58 s with it and 2.3 s without.
# It counts only before TensorFlow is imported. With one thread, oneDNN in TensorFlow
# 2.20 writes beyond its memory in convolutions of few channels, and the process dies.
# TensorFlow makes as many threads as there are CPUs for the process.
try:
    _cpus = len(os.sched_getaffinity(0))
except AttributeError:  # Linux alone has it.
    _cpus = os.cpu_count() or 1
if os.environ.get("TF_NUM_INTRAOP_THREADS") != "1" and _cpus > 1:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
