"""Image 4,253 and other strange images under the shipped flows, with and without cures.

`FLOWBOOK_DATA=… python benchmarks/outliers.py [RECORD]`, one thread, about ten minutes.
The weights stay as they ship; each cure is a change to a copy of the flow."""

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from flowbook.core import Bijection
from flowbook.coupling import Coupling
from flowbook.data import mnist
from flowbook.glow import GlowStep
from flowbook.multiscale import CheckerboardCoupling, Split
from flowbook.pixels import Dequantized, dequantize, image_bits
from flowbook.realnvp import Affine
from flowbook.records import hardware, read_run

RECORD = Path(__file__).parent / 'records' / 'outliers.json'
STRANGE = 4_253  # an image of the official test set
SEEN = 10_000  # training images that say what is usual


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def couplings(flow) -> list:
    "The couplings of a flow on images, without those of its noise."
    inner = flow.flow if isinstance(flow, Dequantized) else flow
    kinds = (Coupling, CheckerboardCoupling)
    return [m for m in inner.modules() if isinstance(m, kinds)]


# Sets of images.
def salted(x: Tensor, share: float = 0.02) -> Tensor:
    "White pixels at random places."
    hit = torch.rand(x.shape, generator=seeded(1)) < share
    return torch.where(hit, 255, x)


def greyer(x: Tensor, n: int = 40) -> Tensor:
    "Copies whose ink pixels are one level up or down, each at random."
    signs = torch.randint(2, (n, *x.shape[1:]), generator=seeded(2)) * 2 - 1
    moved = x.int() + signs * ((x > 0) & (x < 255)).int()
    return moved.to(torch.uint8)


def shifted(x: Tensor) -> Tensor:
    "Four copies, moved by one pixel."
    ways = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    return torch.cat([x.roll(way, (-2, -1)) for way in ways])


def image_sets(test: Tensor) -> dict[str, Tensor]:
    strange = test[STRANGE][None]
    others = torch.cat([test[:STRANGE], test[STRANGE + 1 :]])
    some = others[torch.randperm(len(others), generator=seeded(0))[:500]]
    noise = torch.randint(256, (200, 1, 28, 28), generator=seeded(3))
    return {
        'image 4,253': strange,
        '20 draws of noise': strange.expand(20, -1, -1, -1),
        'moved by a pixel': shifted(strange),
        'grey moved by a level': greyer(strange),
        '500 others': some,
        '2 % salt': salted(some),
        'noise': noise.to(torch.uint8),
        'all': test,
    }


# Cures: each changes a copy of a flow in place.
def read_within(reach: float) -> Callable:
    def cure(flow, seen):
        for layer in couplings(flow):
            layer.reach = reach

    return cure


def read_through(squash: Callable) -> Callable:
    "Conditioners read `squash` of what they are given."

    def cure(flow, seen):
        for layer in couplings(flow):
            layer.net.register_forward_pre_hook(
                lambda net, args: (squash(args[0]), *args[1:])
            )

    return cure


def read_what_was_seen(flow, seen):
    "Each conditioner reads at most the largest number that training images gave it."
    for layer, most in zip(couplings(flow), seen['read']):
        layer.reach = most


class Limited(Affine):
    "An affine map whose log-scale and shift are limited before use."

    def scale_and_shift(self, params):
        log_s, t = super().scale_and_shift(params)
        return log_s.clamp(*self.log_scales), t.clamp(*self.shifts)


def limit(layer, log_scales=(-math.inf, math.inf), shifts=(-math.inf, math.inf)):
    elementwise = Limited(layer.elementwise.bound)
    elementwise.log_scales = log_scales
    elementwise.shifts = shifts
    layer.elementwise = elementwise


def no_expansion(flow, seen):
    for layer in couplings(flow):
        limit(layer, (0.0, math.inf))


def scales_as_seen(flow, seen):
    for layer, ends in zip(couplings(flow), seen['log_s']):
        limit(layer, ends)


def parameters_as_seen(flow, seen):
    for layer, ends, moves in zip(couplings(flow), seen['log_s'], seen['t']):
        limit(layer, ends, moves)


class Loft(Bijection):
    "Linear to `tau`, then logarithmic, on the way to the latent (Andrade 2024)."

    event_dim = 3

    def __init__(self, tau: float):
        super().__init__()
        self.tau = tau

    def inverse(self, x, context=None):
        over = (x.abs() - self.tau).clamp(min=0)
        z = x.sign() * (x.abs().clamp(max=self.tau) + over.log1p())
        return z, -over.log1p().sum((-3, -2, -1))

    def forward(self, z, context=None):
        over = (z.abs() - self.tau).clamp(min=0)
        x = z.sign() * (z.abs().clamp(max=self.tau) + over.expm1())
        return x, over.sum((-3, -2, -1))


def with_tails(tau: float) -> Callable:
    "What a step hands on towards the latent passes a `Loft`."

    def cure(flow, seen):
        inner = flow.flow if isinstance(flow, Dequantized) else flow
        for step in [m for m in inner.modules() if isinstance(m, GlowStep)]:
            loft = Loft(tau)
            one_way, back = step.forward, step.inverse

            def forward(z, context=None, one_way=one_way, loft=loft):
                u, first = loft(z)
                x, second = one_way(u, context)
                return x, first + second

            def inverse(x, context=None, back=back, loft=loft):
                u, first = back(x, context)
                z, second = loft.inverse(u)
                return z, first + second

            step.forward, step.inverse = forward, inverse

    return cure


CURES: dict[str, Callable] = {
    'none': lambda flow, seen: None,
    'reads within ±10': read_within(10.0),
    'reads within ±8': read_within(8.0),
    'reads within ±6': read_within(6.0),
    'reads within ±5': read_within(5.0),
    'reads what training showed': read_what_was_seen,
    'reads 8 tanh(h/8)': read_through(lambda h: 8 * torch.tanh(h / 8)),
    'reads tanh(h)': read_through(torch.tanh),
    'no expansion to z': no_expansion,
    'log-scales as in training': scales_as_seen,
    'log-scales and shifts as in training': parameters_as_seen,
    'tails from ±10': with_tails(10.0),
    'tails from ±5': with_tails(5.0),
}


# What is measured.
@torch.no_grad()
def look(flow, images: Tensor) -> dict[str, list]:
    "For each coupling: the largest number read, and the ends of log-scale and shift."
    found: dict[str, list] = dict(read=[], log_s=[], t=[])

    def note(layer):
        def hook(net, args, output):
            log_s, t = layer.elementwise.scale_and_shift(output)
            found['read'].append(args[0].abs().max().item())
            found['log_s'].append((log_s.min().item(), log_s.max().item()))
            found['t'].append((t.min().item(), t.max().item()))

        return hook

    # In the order of the way to the latent; `couplings` runs the other way.
    layers = couplings(flow)
    hooks = [m.net.register_forward_hook(note(m)) for m in layers]
    order: list = []
    more = [
        m.net.register_forward_pre_hook(lambda net, args, m=m: order.append(m))
        for m in layers
    ]
    image_bits(flow, images, batch_size=len(images))
    for hook in hooks + more:
        hook.remove()
    at = [next(i for i, m in enumerate(order) if m is layer) for layer in layers]
    return {k: [v[i] for i in at] for k, v in found.items()} | dict(way=at)


def look_at_all(flow, images: Tensor, piece: int = 500) -> dict[str, list]:
    "`look` at many images, a piece at a time."
    parts = [look(flow, x) for x in images.split(piece)]

    def ends(name):
        columns = zip(*(p[name] for p in parts))
        return [
            (min(a for a, _ in c), max(b for _, b in c)) for c in map(list, columns)
        ]

    read = [max(c) for c in zip(*(p['read'] for p in parts))]
    return dict(read=read, log_s=ends('log_s'), t=ends('t'), way=parts[0]['way'])


def summary(bits: Tensor) -> dict:
    "Mean, median and largest of bits per dimension, and how many images cost above 8."
    return dict(
        mean=bits.mean().item(),
        median=bits.median().item(),
        largest=bits.max().item(),
        above_8=(bits > 8).sum().item(),
        n=len(bits),
    )


def compare(run: str, sets: dict, train: Tensor, names: list) -> tuple[dict, dict]:
    "Scores of all sets under all cures, and what the couplings meet in training."
    flow = free(read_run(run)[0])
    seen = look_at_all(flow, train[:SEEN])
    rows = {}
    for name in names:
        twin = copy.deepcopy(flow)
        CURES[name](twin, seen)
        rows[name] = {k: summary(image_bits(twin, x)) for k, x in sets.items()}
        short = {
            k: f"{v['mean']:.4g}/{v['largest']:.4g}" for k, v in rows[name].items()
        }
        print(run, name, short, flush=True)
    return rows, seen


def free(flow):
    "The same flow, whose couplings read whatever they are given."
    for layer in couplings(flow):
        layer.reach = None
    return flow


def way(flow, x: Tensor) -> dict[str, list]:
    "What each conditioner reads, and the largest state after each step of Glow."
    states: list = []
    steps = [m for m in flow.modules() if isinstance(m, GlowStep)]
    for step in steps:
        back = step.inverse

        def inverse(x, context=None, back=back):
            z, log_det = back(x, context)
            states.append(z.abs().amax().item())
            return z, log_det

        step.inverse = inverse
    seen = look(flow, x)
    for step in steps:
        del step.inverse
    at = [k for k, m in enumerate(couplings(flow)) if in_step(flow, m)]
    at.sort(key=lambda k: seen['way'][k])
    return dict(
        read=[seen['read'][k] for k in at],
        smallest_log_scale=[seen['log_s'][k][0] for k in at],
        largest_shift=[max(map(abs, seen['t'][k])) for k in at],
        state=states,
    )


def in_step(flow, coupling) -> bool:
    "Whether a coupling is part of a step, and not the prior of a split."
    steps = [m for m in flow.modules() if isinstance(m, GlowStep)]
    return any(step.layers[0] is coupling for step in steps)


@torch.no_grad()
def round_trip(flow, test: Tensor) -> dict:
    "Image to latent and back in single precision: the largest error of each image."
    errors = []
    generator = seeded(0)
    for x in test.split(500):
        noisy = dequantize(x, generator)
        back = flow.bijection(flow.bijection.inverse(noisy)[0])[0]
        errors.append((back - noisy).abs().flatten(1).amax(1))
    off = torch.cat(errors)
    return dict(
        median=off.median().item(),
        largest=off.max().item(),
        above=(off > 0.01).sum().item(),
        image=off.argmax().item(),
        n=len(off),
        unit='grey levels',
    )


def main(path: str = str(RECORD)) -> None:
    torch.set_num_threads(1)
    test, labels = mnist('test')
    train, _ = mnist('train')
    sets = image_sets(test)
    few = ['none', 'reads within ±10', 'reads within ±8', 'reads within ±6']
    runs = {
        'mnist-glow': list(CURES),
        'mnist-glow-start': few,
        'mnist-glow-learned': few,
        'mnist-realnvp-longer': few,
    }
    cures, reads = {}, {}
    for run, names in runs.items():
        cures[run], seen = compare(run, sets, train, names)
        reads[run] = max(seen['read'])
    flow = free(read_run('mnist-glow')[0])
    capped = copy.deepcopy(flow)
    CURES['reads within ±8'](capped, None)
    strange = test[STRANGE][None]
    record = dict(
        hardware=hardware(),
        strange=dict(image=STRANGE, label=int(labels[STRANGE])),
        seen=dict(images=SEEN, largest_read=reads),
        cures=cures,
        way={
            'image 4,253': way(flow, strange),
            'image 4,253, reads within ±8': way(capped, strange),
            '500 others': way(flow, sets['500 others']),
        },
        round_trip={
            'none': round_trip(flow, test),
            'reads within ±8': round_trip(capped, test),
        },
    )
    Path(path).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
