"""What a peer of `convsmith bench` in Python shares with the others: the protocol (tools/measure/peer.h), the problem text,
the clock."""
import contextlib
import gc
import math
import os
import pathlib
import sys
import time

import numpy as np


class Refused(Exception):
    """What the peer does not do."""


class Problem:
    def __init__(self, text):
        word = dict(w.split("=") for w in text.split())
        self.op, self.border, self.type = word.get("op", "correlation"), word.get("border", "zero"), word.get("type", "f32")
        self.out_type, self.scale = word.get("out_type", "f32"), word.get("scale", "tensor")
        self.n, self.ic, self.oc, self.groups = (int(word.get(key, 1)) for key in ("n", "ic", "oc", "groups"))
        self.bias, self.plain_sum = word.get("bias") == "1", not word.keys() & {"residual", "save"}
        self.activation, *self.activation_numbers = word.get("activation", "none").split(":")
        self.size = [int(v) for v in word["in"].split("x")]
        self.rank = len(self.size)

        def axes(key, usual):
            values = word.get(key, usual).split("x")
            return values if len(values) == self.rank else values * self.rank

        self.kernel, self.stride, self.dilation, self.out_pad = (
            [int(v) for v in axes(key, usual)]
            for key, usual in (("kernel", "1"), ("stride", "1"), ("dilation", "1"), ("out_pad", "0")))
        self.one_position = set(word.get("out", "1").split("x")) == {"1"}  # of op=dense
        self.pad = [(int(v.split(":")[0]), int(v.split(":")[-1])) for v in axes("pad", "0")]

    def out(self):
        each = zip(self.size, self.kernel, self.stride, self.dilation, self.pad, self.out_pad)
        if self.op == "transposed":
            return [(i - 1) * s - lo - hi + d * (k - 1) + 1 + p for i, k, s, d, (lo, hi), p in each]
        return [(i + lo + hi - d * (k - 1) - 1) // s + 1 for i, k, s, d, (lo, hi), _ in each]


def refuse_unless(able, what):
    if not able:
        raise Refused(what)


def time_calls(seconds, call, wait=lambda: None, batch_us=50):
    """(least, median) in microseconds, as tools/support/stopwatch.h: calls of less than batch_us in batches that long, each
    with the wait at its end."""
    clock = time.perf_counter_ns

    def batch_of(calls):
        start = clock()
        for _ in range(calls):
            call()
        wait()
        return (clock() - start) / 1000

    gc.disable()
    start, calls, us = clock(), 1, []
    while calls < 1 << 20 and batch_of(calls) < batch_us:
        calls *= 2
    while len(us) < 2 or clock() - start < seconds * 1e9:
        us.append(batch_of(calls) / calls)
    gc.enable()
    us.sort()
    return us[0], us[len(us) // 2]


class Server:
    """prepare(pass, threads, problem, load) is a context manager for as long as a pass is kept. It gives (call, result):
    what is timed, and the array that the last call made, f32 in logical order (None where none is compared).
    load("x") is the array of x.npy. timing: what time_calls takes beside the call."""

    def __init__(self, prepare, **timing):
        self.prepare, self.timing, self.kept, self.call = prepare, timing, contextlib.ExitStack(), None

    def answer(self, line):
        request, *words = line.split(maxsplit=5) or [""]
        if request == "prepare" and len(words) == 5:
            self.drop()
            name, threads, folder, out, text = words
            call, result = self.kept.enter_context(
                self.prepare(name, int(threads), Problem(text), lambda tensor: np.load(pathlib.Path(folder, f"{tensor}.npy"))))
            call()
            array = result()
            if array is not None:
                np.save(out, np.ascontiguousarray(array, np.float32))
            self.call = call
            return "ok"
        if request == "time" and len(words) == 1 and self.call:
            return "ok {:.5f} {:.5f}".format(*time_calls(float(words[0]), self.call, **self.timing))
        if request == "drop":
            self.drop()
            return "ok"
        raise Refused("expected prepare, time of what is prepared, or drop")

    def drop(self):
        self.call = None
        self.kept.close()


def answers():
    """Where answers go. Whatever a library prints goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return stream


def serve(title, prepare, stream, **timing):
    """timing: what time_calls takes beside the call."""
    print("ok", title, file=stream)
    server = Server(prepare, **timing)
    for line in sys.stdin:
        try:
            said = server.answer(line)
        except Exception as error:  # whatever a library may raise, the next line is answered
            server.drop()
            said = f"no {error or type(error).__name__}"
        print(" ".join(said.split()), file=stream)
