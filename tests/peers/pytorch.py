#!/usr/bin/env python3
"""forward and the gradients of x, weight and bias through `convsmith run`, against PyTorch's in float64 on the inputs
rounded to the type:

    |y - ref| <= min(K+2, 2+6*sqrt(K)) * 2^-24 * S + u_out * |ref|

with K the products in the sum, S the sum of their magnitudes (and of the bias), u_out = 2^-24 for f32, 2^-11 for f16
(and 2^-25 absolute), 2^-8 for bf16. Gradients of weight and bias are f32. What PyTorch itself makes of the type is
reported beside it.
"""
import argparse
import concurrent.futures
import math
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import torch
except ImportError:
    print("pytorch.py: torch is not installed, nothing compared")
    sys.exit(0)
import numpy as np
from torch.nn import functional

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
ROUNDING = {torch.float32: (2.0**-24, 0), torch.float16: (2.0**-11, 2.0**-25), torch.bfloat16: (2.0**-8, 0)}
# What each pass reads; its result is the reference's of the same name.
PASSES = {"forward": ["x", "weight", "bias"], "input_gradient": ["dy", "weight"], "weight_gradient": ["x", "dy"],
          "bias_gradient": ["dy"]}

CHOSEN = """
n=2 ic=16 oc=24 in=9x11 kernel=3 pad=1
ic=3 oc=32 in=20x24 kernel=7 stride=2 pad=3 layout=channels_first
op=transposed ic=8 oc=6 in=7x5 kernel=3 stride=2 pad=1 out_pad=1
ic=24 oc=24 groups=24 in=12x15 kernel=3 pad=1
n=3 ic=4 oc=6 groups=2 in=33 kernel=4 stride=3 pad=2:1
n=2 ic=5 oc=7 in=5x6x7 kernel=2x3x3 stride=1x2x1 pad=0:1x1x2:0
n=2 ic=4 oc=5 in=8x9 kernel=3 pad=1:2x2:1 border=reflect
op=local n=2 ic=3 oc=4 in=6x7 kernel=3 pad=1
op=dense n=4 ic=3 oc=10 in=6x5
ic=5 oc=5 in=13x17 kernel=2 stride=3 layout=channels_first
ic=16 oc=48 groups=16 in=10x9 kernel=3 stride=2 pad=0:1
ic=6 oc=8 in=15x16 kernel=3 dilation=2x3 pad=2:3x0:4
n=2 ic=32 oc=32 in=7x7 kernel=1 layout=channels_first
n=2 ic=16 oc=16 in=64 kernel=9 dilation=4 pad=16
ic=8 oc=8 groups=8 in=40 kernel=7 pad=3 border=replicate layout=channels_first
ic=3 oc=3 in=10x12 kernel=5 stride=2 pad=2 border=wrap
n=2 ic=3 oc=4 in=9x10 kernel=3 stride=2x3 pad=2:1x0:3 border=replicate
op=convolution n=2 ic=4 oc=6 in=9x8 kernel=3x2 pad=1:0x0:2
op=convolution ic=6 oc=6 groups=3 in=30 kernel=5 stride=2 pad=2 border=wrap layout=channels_first
op=transposed ic=6 oc=9 groups=3 in=9 kernel=5 stride=3 pad=1:2 out_pad=2 layout=channels_first
op=transposed n=2 ic=4 oc=3 in=3x4x5 kernel=3x2x3 stride=2x1x2 pad=1x0x1 out_pad=1x0x1
op=transposed ic=3 oc=4 in=6x6 kernel=2 stride=4 out_pad=3x1
op=transposed ic=8 oc=8 groups=8 in=6x7 kernel=3 dilation=2 pad=2 out_pad=1
op=local ic=4 oc=6 groups=2 in=20 kernel=5 stride=2 dilation=2 pad=3:1 layout=channels_first
op=local n=2 ic=2 oc=3 in=4x5x4 kernel=2x3x2 pad=1 border=replicate
op=local n=2 ic=2 oc=2 in=7x8 kernel=3 stride=2 pad=1 border=wrap layout=channels_first
op=dense n=2 ic=2 oc=3 in=4x6 out=3x2 layout=channels_first
op=dense n=3 ic=5 oc=4 in=17
ic=1 oc=1 in=11x12 kernel=3x5 pad=-1:2x3:-2
n=2 ic=4 oc=4 groups=4 in=5x6x7 kernel=3 pad=1 border=reflect layout=channels_first
""".split("\n")[1:-1]


class Problem:
    def __init__(self, text):
        word = dict(w.split("=") for w in text.split())
        self.op, self.border = word.get("op", "correlation"), word.get("border", "zero")
        self.n, self.ic, self.oc, self.groups = (int(word.get(key, 1)) for key in ("n", "ic", "oc", "groups"))
        self.size = [int(v) for v in word["in"].split("x")]
        self.rank = len(self.size)

        def axes(key, usual):
            values = word.get(key, usual).split("x")
            return values if len(values) == self.rank else values * self.rank

        self.kernel, self.stride, self.dilation, self.out_pad, self.dense_out = (
            [int(v) for v in axes(key, usual)]
            for key, usual in (("kernel", "1"), ("stride", "1"), ("dilation", "1"), ("out_pad", "0"), ("out", "1")))
        self.pad = [(int(v.split(":")[0]), int(v.split(":")[-1])) for v in axes("pad", "0")]
        self.window = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]

    def out(self):
        if self.op == "dense":
            return self.dense_out
        each = zip(self.size, self.window, self.stride, self.pad, self.out_pad)
        if self.op == "transposed":
            return [(i - 1) * s - lo - hi + w + p for i, w, s, (lo, hi), p in each]
        return [(i + lo + hi - w) // s + 1 for i, w, s, (lo, hi), _ in each]

    def shapes(self):
        weight = {
            "transposed": [self.ic, self.oc // self.groups, *self.kernel],
            "local": [*self.out(), self.oc, self.ic // self.groups, *self.kernel],
            "dense": [self.oc, *self.out(), self.ic, *self.size],
        }.get(self.op, [self.oc, self.ic // self.groups, *self.kernel])
        return {"x": [self.n, self.ic, *self.size], "weight": weight, "bias": [self.oc], "dy": [self.n, self.oc, *self.out()]}

    def forward(self, x, weight, bias):
        """In PyTorch's own words."""
        if self.op == "transposed":
            return self.transposed(x, weight, bias)
        if self.op == "dense":
            y = functional.linear(x.flatten(1), weight.reshape(math.prod([self.oc, *self.out()]), -1))
            return y.reshape(self.n, self.oc, *self.out()) + bias.reshape(-1, *[1] * self.rank)
        x = self.with_border(x)
        if self.op == "local":
            return self.local(x, weight, bias)
        if self.op == "convolution":
            weight = weight.flip(list(range(2, 2 + self.rank)))
        conv = [functional.conv1d, functional.conv2d, functional.conv3d][self.rank - 1]
        return conv(x, weight, bias, self.stride, 0, self.dilation, self.groups)

    def with_border(self, x):
        if self.border == "zero":
            return functional.pad(x, flat(self.pad))
        x = functional.pad(x, flat([(min(lo, 0), min(hi, 0)) for lo, hi in self.pad]))
        mode = {"wrap": "circular"}.get(self.border, self.border)
        return functional.pad(x, flat([(max(lo, 0), max(hi, 0)) for lo, hi in self.pad]), mode=mode)

    def transposed(self, x, weight, bias):
        conv = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d][self.rank - 1]
        if all(lo == hi >= 0 for lo, hi in self.pad):
            return conv(x, weight, bias, self.stride, [lo for lo, _ in self.pad], self.out_pad, self.groups, self.dilation)
        y = conv(x, weight, None, self.stride, 0, 0, self.groups, self.dilation)
        y = functional.pad(y, flat([(-lo, more - hi) for (lo, hi), more in zip(self.pad, self.out_pad)]))
        return y + bias.reshape(-1, *[1] * self.rank)

    def local(self, x, weight, bias):
        for axis in range(self.rank):
            x = x.unfold(2 + axis, self.window[axis], self.stride[axis])[..., :: self.dilation[axis]]
        positions, taps = math.prod(self.out()), math.prod(self.kernel)
        x = x.reshape(self.n, self.groups, -1, positions, taps)
        weight = weight.reshape(positions, self.groups, self.oc // self.groups, -1, taps)
        y = torch.einsum("ngipt,pgoit->ngop", x, weight)
        return y.reshape(self.n, self.oc, *self.out()) + bias.reshape(-1, *[1] * self.rank)

    def results(self, x, weight, bias, dy):
        """Of every pass."""
        operands = [t.detach().requires_grad_() for t in (x, weight, bias)]
        y = self.forward(*operands)
        return dict(zip(PASSES, (y.detach(), *torch.autograd.grad(y, operands, dy))))


def flat(pads):
    """As functional.pad reads them: the last axis first."""
    return [v for pair in reversed(pads) for v in pair]


def draw(r):
    """The text of a random problem."""
    op = r.choice(["correlation"] * 5 + ["convolution", "transposed", "transposed", "local", "dense"])
    rank = r.choice([1, 2, 2, 3])
    widest = {"local": [30, 9, 5], "dense": [30, 8, 4]}.get(op, [60, 16, 7])[rank - 1]
    groups = 1 if op == "dense" else r.choice([1, 1, 1, 2, 3, 8])
    ic, oc = groups * r.choice([1, 1, 2, 3, 5, 8, 17]), groups * r.choice([1, 1, 2, 3, 4, 7, 16])
    word = {"op": op, "n": r.choice([1, 2, 3]), "ic": ic, "oc": oc, "groups": groups}
    axes = []
    border = r.choice(["zero", "zero", "replicate", "reflect", "wrap"]) if op not in ("transposed", "dense") else "zero"
    for _ in range(rank):
        kernel, stride, dilation = r.choice([1, 2, 3, 3, 4, 5]), r.choice([1, 1, 2, 2, 3]), r.choice([1, 1, 1, 2, 3])
        lo, hi = r.choice([0, 0, 1, 2, 3, -1]), r.choice([0, 0, 1, 2, 4, -1])
        size, window = r.randint(5, max(5, widest)), dilation * (kernel - 1) + 1
        if op == "transposed":
            size = max(size, lo + hi + 1)
        else:
            size = max(size, window - lo - hi, 1 + 2 * max(lo, hi))
        out_pad = r.randint(0, max(stride, dilation) - 1)
        axes.append({"in": size, "kernel": kernel, "stride": stride, "dilation": dilation, "pad": f"{lo}:{hi}",
                     "out_pad": out_pad, "out": r.choice([1, 1, 2, 3])})
    keys = {"dense": ["in", "out"], "transposed": ["in", "kernel", "stride", "dilation", "pad", "out_pad"]}
    for key in keys.get(op, ["in", "kernel", "stride", "dilation", "pad"]):
        values = [str(a[key]) for a in axes]
        word[key] = values[0] if len(set(values)) == 1 and key != "in" else "x".join(values)
    word |= {"border": border, "layout": r.choice(["channels_last", "channels_first"])}
    usual = {"op": "correlation", "n": 1, "ic": 1, "oc": 1, "groups": 1, "out": "1", "stride": "1", "dilation": "1",
             "pad": "0:0", "out_pad": "0", "border": "zero", "layout": "channels_last"}
    return " ".join(f"{key}={value}" for key, value in word.items() if usual.get(key) != value)


class Bounds:
    """Of one type's results on the same data."""

    def __init__(self, problem, rounded):
        exact = {name: tensor.double() for name, tensor in rounded.items()}
        ones = {name: torch.full_like(tensor, name != "bias") for name, tensor in exact.items()}
        self.ref = problem.results(**exact)
        self.sizes = problem.results(**{name: tensor.abs() for name, tensor in exact.items()})
        self.counts = problem.results(**ones)

    def worst(self, name, result, dtype):
        """The largest error as a share of its bound, and where."""
        relative, absolute = ROUNDING[dtype]
        ref, count = self.ref[name], self.counts[name]
        bound = torch.minimum(count + 2, 2 + 6 * count.sqrt()) * 2.0**-24 * self.sizes[name] + relative * ref.abs() + absolute
        off = (result.double() - ref).abs()
        shares = torch.where(off == 0, 0.0, off / bound).nan_to_num(math.inf)
        at = int(shares.argmax())
        return float(shares.flatten()[at]), tuple(int(i) for i in np.unravel_index(at, shares.shape))

    def judge(self, name, result, dtype):
        """The share, and what is wrong or None. The result is an array, or why there is none."""
        ref = self.ref[name]
        file_type = np.dtype(np.float16 if dtype == torch.float16 else np.float32)
        if isinstance(result, str):
            return math.inf, result
        if result.shape != ref.shape or result.dtype != file_type:
            return math.inf, f"expected {file_type} {tuple(ref.shape)}, got {result.dtype} {result.shape}"
        share, at = self.worst(name, torch.from_numpy(result), dtype)
        wrong = f"expected {ref[at]:.9g} at {list(at)}, got {result[at]:.9g}, {share:.3g} times the bound away"
        return share, None if share <= 1 else wrong


def torch_shares(problem, rounded, bounds, dtype):
    try:
        results = problem.results(**rounded)
    except RuntimeError:  # PyTorch has not every operation in every type
        return dict.fromkeys(PASSES, math.nan)
    return {name: bounds.worst(name, results[name], dtype)[0] for name in PASSES}


def run(command, text, name, files, out):
    """The result, or why there is none."""
    arguments = [v for tensor in PASSES[name] for v in (f"--{tensor}", files[tensor])]
    out.unlink(missing_ok=True)
    try:
        done = subprocess.run([command, "run", text, "--pass", name, *arguments, "--out", out, "--quiet"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        return np.load(out) if done.returncode == 0 else f"exit {done.returncode}: {done.stdout.strip()}"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)


def compare(command, text, seed, folder, pool):
    """{(type, pass): (share, what is wrong or None, PyTorch's own share)}"""
    problem = Problem(text)
    generator = torch.Generator().manual_seed(seed)
    given = {name: torch.randn(shape, generator=generator) for name, shape in problem.shapes().items()}
    given["bias"] = given["bias"].bfloat16().float()  # the command keeps it in f32: a number of every type
    files = {name: folder / f"{name}.npy" for name in given}
    for name, tensor in given.items():
        np.save(files[name], tensor.numpy())  # the command rounds to the type
    bounds, peers = {}, {}
    for kind, dtype in TYPES.items():
        rounded = {name: tensor.to(dtype) for name, tensor in given.items()}
        bounds[kind] = Bounds(problem, rounded)
        peers[kind] = torch_shares(problem, rounded, bounds[kind], dtype)
    jobs = {(kind, name): pool.submit(run, command, f"{text} bias=1 type={kind}", name, files, folder / f"{kind}_{name}.npy")
            for kind in TYPES for name in PASSES}
    found = {}
    for (kind, name), job in jobs.items():
        stored = TYPES[kind] if name in ("forward", "input_gradient") else torch.float32
        found[kind, name] = *bounds[kind].judge(name, job.result(), stored), peers[kind][name]
    return found


def main():
    parser = argparse.ArgumentParser(description="forward and gradients through the command, against PyTorch")
    parser.add_argument("command", metavar="COMMAND", help="convsmith")
    parser.add_argument("--geometries", type=int, default=60, metavar="N", help="chosen ones first, then random (60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the random ones and of the data (1)")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    r = random.Random(arguments.seed)
    texts = (CHOSEN + [draw(r) for _ in range(arguments.geometries - len(CHOSEN))])[: arguments.geometries]
    worst = {(kind, name): [0.0, math.nan] for kind in TYPES for name in PASSES}
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number, text in enumerate(texts, 1):
            found = compare(arguments.command, text, arguments.seed + number, pathlib.Path(folder), pool)
            for (kind, name), (own, wrong, peer) in found.items():
                passed, failed = passed + (not wrong), failed + bool(wrong)
                if wrong:
                    print(f"FAILED {name} {text} bias=1 type={kind}: {wrong}, seed {arguments.seed}", flush=True)
                w = worst[kind, name]
                w[:] = max(w[0], own), np.fmax(w[1], peer)
            shares = " ".join(f"{kind} {max(found[kind, name][0] for name in PASSES):.2f}" for kind in TYPES)
            print(f"{number}/{len(texts)} {shares}  {text}", flush=True)
    print(f"torch {torch.__version__}; the worst error as a share of the bound, and torch's own in the type")
    for kind in TYPES:
        print(kind, "  ".join(f"{name} {worst[kind, name][0]:.2f} ({worst[kind, name][1]:.2f})" for name in PASSES))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
