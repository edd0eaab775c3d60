"""Inputs, labels and weights from a formula, so that golden files hold outputs only.

The same formula stands in Rust, in `../support/formula.rs`; both sides test the same few values.

    bits(name, i) = mix(fnv1a64(name) + (i + 1) * 0x9e3779b97f4a7c15)      the i-th output of splitmix64
    unit(name, i) = (bits(name, i) >> 11) / 2^52 - 1                       in [-1, 1), 53 random bits

Everything is computed in float64 with +, *, / and sqrt alone, which IEEE 754 rounds the same way everywhere, and then
rounded once to float32.
"""

import math

import numpy as np

U64 = 0xFFFFFFFFFFFFFFFF


def fnv1a(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & U64
    return value


def bits(name: str, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(name: str, count: int) -> np.ndarray:
    return (bits(name, count) >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def parameter(owner: str, name: str, shape, variance: float = 1.0, calm: bool = False) -> np.ndarray:
    """The parameter `name` as `owner` ("server", "device-0", ...) initialises it.

    The role follows from the name and the number of dimensions: Kaiming-like for convolutions, batch-norm weights
    in [0.5, 2.5) so that some activations pass 6 (ReLU6 differs from ReLU only there), and running variances around
    `variance`, which a case chooses so that activations keep their size in eval mode.

    `calm` lifts batch norm's output above 0 (biases around 1, weights in [0.5, 1)), so that few activations come near
    the kink of ReLU.
    """
    shape = tuple(shape)
    u = unit(f"{owner}/{name}", math.prod(shape))
    if name.endswith("running_mean"):
        values = 0.2 * u
    elif name.endswith("running_var"):
        values = variance * (1.0 + 0.5 * u)
    elif name.endswith("bias"):
        values = (1.0 if calm else 0.0) + 0.2 * u
    elif len(shape) == 4:
        values = math.sqrt(6.0 / math.prod(shape[1:])) * u
    elif len(shape) == 2:
        values = math.sqrt(3.0 / shape[1]) * u
    else:
        values = 0.75 + 0.25 * u if calm else 1.5 + u
    return values.astype(np.float32).reshape(shape)


def images(name: str, n: int, height: int, width: int, channels: int) -> np.ndarray:
    """`[n, height, width, channels]`: noise around an offset per sample and channel.

    The offsets tell the samples apart. Without them a deep network's pooled features would be nearly equal for all
    samples, and batch norm would blow up rounding errors.
    """
    noise = unit(f"{name}/pixels", n * height * width * channels).reshape(n, height * width, channels)
    offset = unit(f"{name}/offsets", n * channels).reshape(n, 1, channels)
    return (offset + 0.5 * noise).astype(np.float32).reshape(n, height, width, channels)


def pixels(name: str, n: int, height: int, width: int, channels: int) -> np.ndarray:
    """The same as bytes, which is how datasets hold images."""
    noise = unit(f"{name}/pixels", n * height * width * channels).reshape(n, height * width, channels)
    offset = unit(f"{name}/offsets", n * channels).reshape(n, 1, channels)
    shade = (offset + 0.5 * noise) / 3.0 + 0.5
    return np.floor(256.0 * shade).astype(np.uint8).reshape(n, height, width, channels)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Bytes as a network reads them, as torchvision's `ToTensor` and `Normalize(0.5, 0.5)` compute it."""
    half = np.float32(0.5)
    return (pixels.astype(np.float32) / np.float32(255.0) - half) / half


def labels(name: str, n: int, classes: int) -> np.ndarray:
    return (bits(f"{name}/labels", n) % np.uint64(classes)).astype(np.int64)


def entries(name: str, numel: int, limit: int) -> np.ndarray:
    """Which entries of a large tensor a golden file keeps: all up to `limit`, else one of each of `limit` strata."""
    if numel <= limit:
        return np.arange(numel)
    start = np.arange(limit + 1, dtype=np.uint64) * np.uint64(numel) // np.uint64(limit)
    return (start[:-1] + bits(f"{name}/entries", limit) % (start[1:] - start[:-1])).astype(np.int64)


def spread(u: np.ndarray, scale: float, shift: float, levels: int | None) -> np.ndarray:
    """`scale * u + shift`; with `levels`, `u` is first rounded down to multiples of `1 / levels`, which makes ties."""
    if levels:
        u = np.floor(u * levels) / levels
    return (scale * u + shift).astype(np.float32)
