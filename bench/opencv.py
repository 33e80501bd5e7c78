"""OpenCV's filter2D as a peer of `convsmith bench`: images H x W x C in memory, one kernel a channel, into an output made
beforehand. Channels whose kernels are equal are filtered in one call, others as planes, one call each. OpenCV turns to a
Fourier transform for kernels of 11 x 11 and more, so that its results are then not exact.
"""
import contextlib
import sys

import peer

stream = peer.answers()
try:
    import cv2
    import numpy as np
except ImportError as error:
    print("no", error, file=stream)
    sys.exit(0)

BORDERS = {"zero": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}


def refuse(p, name):
    peer.refuse_unless(name == "forward", "only forward")
    peer.refuse_unless(p.op in ("correlation", "convolution") and p.rank == 2, "only two-dimensional filters")
    peer.refuse_unless(p.ic == p.oc == p.groups, "only channels filtered each by itself")
    peer.refuse_unless(max(p.stride + p.dilation) == 1, "only stride=1 and dilation=1")
    peer.refuse_unless(p.border in BORDERS, "only border=zero, replicate and reflect")
    plain = not p.bias and p.activation == "none" and p.plain_sum
    peer.refuse_unless(plain, "only sums without bias, activation, residual and save")
    inside = all(0 <= lo < k and out <= size for (lo, _), k, out, size in zip(p.pad, p.kernel, p.out(), p.size))
    peer.refuse_unless(inside, "only outputs no larger than the input, and 0 <= padding < kernel before it")


def scaled(p, weight, load):
    """The kernels and what is added, so that u8 filters to u8 as the problem says."""
    able = (p.type, p.out_type, p.scale) == ("u8s8", "u8", "tensor")
    peer.refuse_unless(able, "only type=f32, and u8s8 with out_type=u8 and scale=tensor")
    x_zero, w_zero, x_scale, w_scale, y_scale, y_zero = (
        float(load(name).flat[0]) for name in ("x_zero", "w_zero", "x_scale", "w_scale", "y_scale", "y_zero"))
    peer.refuse_unless(x_zero == 0 or (p.border != "zero" and p.ic == 1), "only x_zero=0")
    weight = ((weight - w_zero) * (x_scale * w_scale / y_scale)).astype(np.float32)
    return weight, y_zero - x_zero * float(weight[0].sum())


@contextlib.contextmanager
def prepare(name, threads, p, load):
    refuse(p, name)
    cv2.setNumThreads(threads)
    x, weight, delta = load("x"), load("weight")[:, 0], 0.0
    if p.op == "convolution":
        weight = weight[:, ::-1, ::-1]
    if p.type != "f32":
        x, (weight, delta) = x.astype(np.uint8), scaled(p, weight.astype(np.float64), load)
    weight = np.ascontiguousarray(weight)
    anchor, border = (p.pad[1][0], p.pad[0][0]), BORDERS[p.border]
    together = bool((weight == weight[0]).all())
    sources = [image.transpose(1, 2, 0) for image in x] if together else [plane for image in x for plane in image]
    kernels = [weight[0]] * p.n if together else [*weight] * p.n
    work = [(np.ascontiguousarray(s), np.zeros(s.shape, s.dtype), k) for s, k in zip(sources, kernels)]
    down, right = p.out()

    def call():
        for source, out, kernel in work:
            cv2.filter2D(source, -1, kernel, out, anchor, delta, border)

    def result():
        outs = np.stack([out[:down, :right] for _, out, _ in work])
        return outs.transpose(0, 3, 1, 2) if together else outs.reshape(p.n, p.oc, down, right)

    yield call, result


peer.serve(f"OpenCV {cv2.__version__}", prepare, stream)
