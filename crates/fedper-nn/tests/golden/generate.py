"""Writes all golden files again: `pip install -r requirements.txt && python generate.py`.

On another machine the float64 references change in their last digits only; the distances of PyTorch's float32 change
more, because its kernels differ from one CPU to another.
"""

import bf16
import interchange
import layers
import networks
import rounds

if __name__ == "__main__":
    interchange.golden()
    layers.golden()
    for case in networks.CASES:
        networks.golden(case)
    bf16.golden()
    for case in rounds.CASES:
        rounds.golden(case)
