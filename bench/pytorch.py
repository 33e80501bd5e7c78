"""PyTorch as a peer of `convsmith bench`, eager, at its best: under inference_mode, in whichever memory format (contiguous
or channels last) a trial finds faster. A copying border and an uneven padding are part of the call, since a model pays for
them; tensors are brought into the format beforehand. A weight gradient ends in the contiguous order that an optimiser
reads. train_step is the classical loop with torch.optim.SGD, at rate 0: the same work, and the numbers stay.

With the argument cuda on a GPU: tensors are there beforehand, cuDNN chooses its algorithms by trial, and multiplies f32 as
f32 (no TF32).
"""
import contextlib
import sys

import peer

stream = peer.answers()
try:
    import torch
    from torch.nn import functional
except ImportError as error:
    print("no", error, file=stream)
    sys.exit(0)

TIMING = {}
if sys.argv[1:] == ["cuda"]:
    if not torch.cuda.is_available():
        print("no GPU that this PyTorch can use", file=stream)
        sys.exit(0)
    torch.set_default_device("cuda")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    TIMING = {"wait": torch.cuda.synchronize, "batch_us": 1000}

ACTIVATIONS = {
    "none": lambda y: y, "relu": functional.relu, "relu6": functional.relu6, "leaky_relu": functional.leaky_relu,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": functional.silu, "gelu": functional.gelu, "clamp": torch.clamp}


def on_device(array):
    return torch.from_numpy(array).to(torch.get_default_device())


class Layer:
    """One problem in PyTorch's words."""

    def __init__(self, p):
        able = p.op in ("correlation", "convolution", "transposed")
        peer.refuse_unless(able, "only op=correlation, convolution and transposed")
        peer.refuse_unless(p.type == "f32", "only type=f32")
        peer.refuse_unless(p.plain_sum, "only residual=0 and save=none")
        self.p, self.transposed, self.out_pad = p, p.op == "transposed", p.out_pad
        self.padding, self.around = [lo for lo, _ in p.pad], None  # what functional.pad adds, the last axis first
        if self.transposed:
            self.out_pad = [more + lo - hi for more, (lo, hi) in zip(p.out_pad, p.pad)]
            able = all(0 <= more < max(s, d) for more, s, d in zip(self.out_pad, p.stride, p.dilation))
            peer.refuse_unless(able and min(self.padding) >= 0, "only padding of op=transposed that out_pad can even out")
        elif any(lo != hi or lo < 0 for lo, hi in p.pad) or (p.border != "zero" and any(self.padding)):
            able = p.border == "zero" or min(map(min, p.pad)) >= 0
            peer.refuse_unless(able, "only padding of 0 or more where a border copies")
            self.padding, self.around = [0] * p.rank, [v for pair in reversed(p.pad) for v in pair]
        name = f"conv_transpose{p.rank}d" if self.transposed else f"conv{p.rank}d"
        self.function = getattr(functional, name)
        activation, numbers = ACTIVATIONS[p.activation], [float(v) for v in p.activation_numbers]
        self.activation = (lambda y: activation(y, *numbers)) if numbers else activation

    def weight(self, array):
        """As a correlation's; also undoes itself."""
        weight = on_device(array)
        return weight.flip(list(range(2, 2 + self.p.rank))) if self.p.op == "convolution" else weight

    def bordered(self, x):
        if not self.around:
            return x
        mode = {"zero": "constant", "wrap": "circular"}.get(self.p.border, self.p.border)
        return functional.pad(x, self.around, mode=mode)

    def forward(self, x, weight, bias):
        p, x = self.p, self.bordered(x)
        if self.transposed:
            y = self.function(x, weight, bias, p.stride, self.padding, self.out_pad, p.groups, p.dilation)
        else:
            y = self.function(x, weight, bias, p.stride, self.padding, p.dilation, p.groups)
        return self.activation(y)

    def gradients(self, dy, x, weight, wanted):
        """Of the bordered x and of the weights, those wanted."""
        p = self.p
        return torch.ops.aten.convolution_backward(dy, x, weight, None, p.stride, self.padding, p.dilation, self.transposed,
                                                   self.out_pad, p.groups, (*wanted, False))

    def input_gradient(self, dy, weight, x, bordered):
        """x and its bordered copy are read for their shapes."""
        dx = self.gradients(dy, bordered, weight, (True, False))[0]
        if not self.around:
            return dx
        if self.p.border == "zero":
            return functional.pad(dx, [-v for v in self.around])
        name = {"replicate": "replication", "reflect": "reflection"}[self.p.border]
        return getattr(torch.ops.aten, f"{name}_pad{self.p.rank}d_backward")(dx, x, self.around)

    def weight_gradient(self, dy, x, weight):
        return self.gradients(dy, self.bordered(x), weight, (False, True))[1].contiguous()


class Dense(Layer):
    """op=dense as torch.nn.Linear has it."""

    def __init__(self, p):
        peer.refuse_unless(p.one_position, "only op=dense of one position")
        p.op, p.kernel = "correlation", p.size
        super().__init__(p)

    def forward(self, x, weight, bias):
        y = functional.linear(x.flatten(1), weight.flatten(1), bias)
        return self.activation(y).reshape(self.p.n, self.p.oc, *self.p.out())

    def input_gradient(self, dy, weight, x, bordered):
        return (dy.flatten(1) @ weight.flatten(1)).reshape(x.shape)

    def weight_gradient(self, dy, x, weight):
        return (dy.flatten(1).T @ x.flatten(1)).reshape(weight.shape)


def contiguous(tensor):
    return tensor.contiguous()


def channels_last(tensor):
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def call_of(name, layer, load, tensor):
    """The pass, with what `tensor` makes of its tensors."""
    p = layer.p

    def loaded(what):
        return tensor(on_device(load(what)))

    if name == "forward":
        x, weight = loaded("x"), tensor(layer.weight(load("weight")))
        bias = on_device(load("bias")) if p.bias else None
        return lambda: layer.forward(x, weight, bias)
    dy = loaded("dy")
    if name == "input_gradient":
        peer.refuse_unless(not layer.around or p.border != "wrap", "only forward and weight_gradient of border=wrap")
        weight, x = tensor(layer.weight(load("weight"))), tensor(torch.zeros(p.n, p.ic, *p.size))
        bordered = layer.bordered(x)
        return lambda: layer.input_gradient(dy, weight, x, bordered)
    peer.refuse_unless(name == "weight_gradient", "only forward, input_gradient, weight_gradient and train_step")
    shape = (p.ic, p.oc // p.groups) if layer.transposed else (p.oc, p.ic // p.groups)
    x, weight = loaded("x"), tensor(torch.zeros(*shape, *p.kernel))
    return lambda: layer.weight_gradient(dy, x, weight)


def train_step(layer, load, tensor):
    x, weight = tensor(on_device(load("x"))), tensor(layer.weight(load("weight"))).detach().requires_grad_()
    bias = on_device(load("bias")).requires_grad_() if layer.p.bias else None
    target = tensor(torch.zeros(layer.p.n, layer.p.oc, *layer.p.out()))
    optimizer = torch.optim.SGD([weight] if bias is None else [weight, bias], lr=0.0)

    def call():
        optimizer.zero_grad()
        (layer.forward(x, weight, bias) - target).square().sum().backward()
        optimizer.step()

    return call


@contextlib.contextmanager
def prepare(name, threads, p, load):
    torch.set_num_threads(threads)
    layer, formats = (Dense if p.op == "dense" else Layer)(p), (contiguous, channels_last)

    def faster(calls):
        return min(calls, key=lambda c: peer.time_calls(0.03, c, **TIMING)[0])

    if name == "train_step":
        yield faster([train_step(layer, load, memory_format) for memory_format in formats]), lambda: None
        return
    with torch.inference_mode():
        call = faster([call_of(name, layer, load, memory_format) for memory_format in formats])

        def result():
            array = call().cpu().numpy()
            return layer.weight(array).cpu().numpy() if name == "weight_gradient" else array

        yield call, result


peer.serve(f"PyTorch {torch.__version__}", prepare, stream, **TIMING)
