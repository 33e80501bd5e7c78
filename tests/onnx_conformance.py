#!/usr/bin/env python3
"""Every node case that the Python package onnx generates for Conv, ConvTranspose, ConvInteger and QLinearConv, through
`convsmith run`. A case that cannot be put as a problem has failed.

f32 is held to |y - ref| <= (K+2) * 2^-24 * S + 2^-24 * |ref|, K the length of the sum, S = sum |x||w| + |bias|.
Integers are equal.
"""
import argparse
import math
import pathlib
import subprocess
import sys
import tempfile
import warnings
from typing import NamedTuple

try:
    import numpy as np
    import onnx
    from onnx.backend.test.loader import load_model_tests
except ImportError as error:
    sys.exit(f"onnx_conformance.py: expected the Python packages numpy and onnx: {error}")

# The inputs of each op, in order.
INPUTS = {
    "Conv": ["x", "w", "bias"],
    "ConvTranspose": ["x", "w", "bias"],
    "ConvInteger": ["x", "w", "x_zero", "w_zero"],
    "QLinearConv": ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "bias"],
}
ATTRIBUTES = ["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides"]


class Failed(Exception):
    pass


def node_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in INPUTS:
            yield case


class Geometry(NamedTuple):
    transposed: bool
    groups: int
    size: list
    kernel: list
    stride: list
    dilation: list
    pad: list
    out_pad: list


def padding(transposed, attributes, size, window, stride, out_pad):
    """(lo, hi) of each axis, with what auto_pad and output_shape stand for worked out."""
    rank = len(size)
    auto = attributes.get("auto_pad", b"NOTSET").decode()
    out = attributes.get("output_shape")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Failed(f'auto_pad: expected NOTSET, VALID, SAME_UPPER or SAME_LOWER, got "{auto}"')
    if out is None and auto in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
        return list(zip(pads[:rank], pads[rank:]))
    if out is None:
        out = [i * s if transposed else -(-i // s) for i, s in zip(size, stride)]
    if transposed:
        total = [(i - 1) * s + w + p - o for i, s, w, p, o in zip(size, stride, window, out_pad, out)]
    else:
        total = [max((o - 1) * s + w - i, 0) for i, s, w, o in zip(size, stride, window, out)]
    # The odd element goes to the end for SAME_UPPER. A result longer than the sums reach grows at its end.
    lo = [max(t, 0) // 2 if auto == "SAME_UPPER" else (max(t, 0) + 1) // 2 for t in total]
    return [(low, t - low) for low, t in zip(lo, total)]


def geometry(node, x, w):
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for name in attributes:
        if name not in ATTRIBUTES:
            raise Failed(f"attribute {name}: expected one of {', '.join(ATTRIBUTES)}")
    size, kernel, rank = list(x.shape[2:]), list(w.shape[2:]), x.ndim - 2
    if attributes.get("kernel_shape", kernel) != kernel:
        raise Failed(f"kernel_shape: expected {kernel}, as the weights, got {attributes['kernel_shape']}")
    stride, dilation = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    out_pad = attributes.get("output_padding", [0] * rank)
    window = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    transposed = node.op_type == "ConvTranspose"
    pad = padding(transposed, attributes, size, window, stride, out_pad)
    return Geometry(transposed, attributes.get("group", 1), size, kernel, stride, dilation, pad, out_pad)


def words(g, n, ic, oc):
    """The words of the problem that say the extents, without those at their defaults."""
    found = ["op=transposed"] if g.transposed else []
    found += [f"{key}={value}" for key, value in {"n": n, "ic": ic, "oc": oc, "groups": g.groups}.items() if value != 1]
    axes = {"in": (g.size, None), "kernel": (g.kernel, None), "stride": (g.stride, 1), "dilation": (g.dilation, 1),
            "pad": ([f"{lo}:{hi}" for lo, hi in g.pad], "0:0"), "out_pad": (g.out_pad, 0)}
    for key, (values, usual) in axes.items():
        if any(value != usual for value in values):
            found.append(f"{key}={'x'.join(map(str, values))}")
    return found


def magnitudes(g, x, w, bias, shape):
    """sum |x||w| + |bias| of each result, in float64. Tap t joins near*stride + t*dilation - lo on the side that the
    stride runs over (the input, or a transposed result) to near on the other."""
    n, oc, *out = shape
    x = np.abs(x.astype(np.float64)).reshape(n, g.groups, -1, *g.size)
    w = np.abs(w.astype(np.float64)).reshape(g.groups, -1, *w.shape[1:])
    size = np.zeros((n, g.groups, oc // g.groups, *out))
    for tap in np.ndindex(*g.kernel):
        near, far = [], []
        for i, o, t, s, d, (lo, _) in zip(g.size, out, tap, g.stride, g.dilation, g.pad):
            at = np.arange(i if g.transposed else o)
            reached = at * s + t * d - lo
            inside = (reached >= 0) & (reached < (o if g.transposed else i))
            near.append(at[inside]), far.append(reached[inside])
        from_x, to_y = (near, far) if g.transposed else (far, near)
        products = np.einsum("ngi...,gio->ngo..." if g.transposed else "ngi...,goi->ngo...",
                             x[(..., *np.ix_(*from_x))], w[(..., *tap)])
        size[(..., *np.ix_(*to_y))] += products
    size = size.reshape(shape)
    return size if bias is None else size + np.abs(bias).reshape(-1, *[1] * len(out))


def quantised(given, oc):
    """The words and the tensors of an integer op. The command takes x as u8 and weights as s8: others move by 128, and
    their zero points with them."""
    x, w = given["x"].astype(np.int32), given["w"].astype(np.int32)
    x_zero, w_zero = (np.asarray(given.get(name, 0)).astype(np.int32) for name in ("x_zero", "w_zero"))
    if given["x"].dtype == np.int8:
        x, x_zero = x + 128, x_zero + 128
    if given["w"].dtype == np.uint8:
        w, w_zero = w - 128, w_zero - 128
    channel = w_zero.size > 1 or np.size(given.get("w_scale", 0)) > 1

    def values(value, dtype, count=1):
        return np.broadcast_to(np.atleast_1d(value), count).astype(dtype)

    count = oc if channel else 1
    tensors = {"x": x.astype(np.uint8), "weight": w.astype(np.int8),
               "x_zero": values(x_zero, np.int32), "w_zero": values(w_zero, np.int32, count)}
    out_type = "i32"
    if "y_zero" in given:
        out_type = {"uint8": "u8", "int8": "s8"}[given["y_zero"].dtype.name]
        tensors |= {"x_scale": values(given["x_scale"], np.float32), "w_scale": values(given["w_scale"], np.float32, count),
                    "y_scale": values(given["y_scale"], np.float32), "y_zero": values(given["y_zero"], np.int32)}
    return ["type=u8s8", f"out_type={out_type}"] + ["scale=channel"] * channel, tensors


def run(command, problem, tensors, folder):
    arguments = []
    for name, value in tensors.items():
        file = folder / f"{name}.npy"
        np.save(file, value)
        arguments += [f"--{name}", file] if name in ("x", "weight", "bias") else ["--tensor", f"{name}={file}"]
    y = folder / "y.npy"
    y.unlink(missing_ok=True)
    try:
        done = subprocess.run([command, "run", problem, "--pass", "forward", *arguments, "--out", y, "--quiet"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        if done.returncode != 0:
            raise Failed(f"exit {done.returncode}: {done.stdout.strip()}")
        return np.load(y)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from None


def compare(y, ref, bound):
    if y.shape != ref.shape or y.dtype != ref.dtype:
        raise Failed(f"expected {ref.dtype} {ref.shape}, got {y.dtype} {y.shape}")
    off = np.abs(y.astype(np.float64) - ref.astype(np.float64))
    wrong = ~(off <= bound)
    if wrong.any():
        at = tuple(int(i[0]) for i in np.nonzero(wrong))
        raise Failed(f"{wrong.sum()} of {wrong.size} wrong: expected y{list(at)} = {ref[at]} within "
                     f"{np.broadcast_to(bound, y.shape)[at]:.3g}, got {y[at]}")


def check(command, case, folder):
    """The problem that the case was put as."""
    node = case.model.graph.node[0]
    names = [name for name, edge in zip(INPUTS[node.op_type], node.input) if edge]
    [(inputs, [ref])] = case.data_sets
    given = dict(zip(names, map(np.asarray, inputs), strict=True))
    x, w = given["x"], given["w"]
    g = geometry(node, x, w)
    text = words(g, *x.shape[:2], ref.shape[1])
    if node.op_type in ("Conv", "ConvTranspose"):
        if x.dtype != np.float32:
            raise Failed(f"expected x in float32, got {x.dtype}")
        tensors = {"x": x, "weight": w}
        size = magnitudes(g, x, w, given.get("bias"), ref.shape)
        length = x.shape[1] // g.groups * math.prod(g.kernel)
        bound = 2.0**-24 * ((length + 2) * size + np.abs(ref))
    else:
        more, tensors = quantised(given, w.shape[0])
        text += more
        bound = 0
    if "bias" in given:
        text.append("bias=1")
        tensors["bias"] = given["bias"]
    problem = " ".join(text)
    try:
        compare(run(command, problem, tensors, folder), ref, bound)
    except Failed as error:
        raise Failed(f"{error}, {problem}") from None
    return problem


def main():
    parser = argparse.ArgumentParser(description="the node cases of ONNX, through the command")
    parser.add_argument("command", metavar="COMMAND", help="convsmith")
    parser.add_argument("names", metavar="NAME", nargs="*", help="a case to run; none: all")
    arguments = parser.parse_args()

    cases = {case.name: case for case in node_cases()}
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or cases:
            try:
                if name not in cases:
                    raise Failed(f"no such case in onnx {onnx.__version__}")
                print(f"ok {name}  {check(arguments.command, cases[name], pathlib.Path(folder))}", flush=True)
                passed += 1
            except Exception as error:  # whatever stops a case fails it
                print(f"FAILED {name}: {error if isinstance(error, Failed) else repr(error)}", flush=True)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
