"""Does a learned 1×1 convolution pay? Glow on colour patches, four ways of mixing.

    python benchmarks/channels.py [RECORD]

The two photographs of scikit-learn are cut into vertical stripes; every fourth stripe
is held out. Flows see patches of 8×8 pixels and differ in nothing but the mixing of
channels. One thread, about five minutes."""

import io
import itertools
import json
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from flowbook.core import Compose, Flow
from flowbook.glow import InvConv1x1, glow
from flowbook.ladder import histogram_bits
from flowbook.pixels import Logit, dequantize, image_bits
from flowbook.records import hardware, mean_metric
from flowbook.train import fit

RECORD = Path(__file__).parent / 'records' / 'channels.json'
SIDE = 8  # pixels
STRIPE = 32  # pixels
SEEDS = 3
MODEL = dict(shape=(3, SIDE, SIDE), scales=2, steps=4, width=32)
RUN = dict(epochs=3, batch_size=64, lr=5e-3, warmup=50, valid=0.0, ema=0.99)
WAYS = ['reverse', 'fixed shuffle', 'frozen 1×1', 'learned 1×1']


def stripes(held_out: bool) -> list[Tensor]:
    "Stripes of both photographs, each of shape `(3, 427, 32)`."
    photos = [torch.tensor(x).movedim(-1, 0) for x in load_sample_images().images]
    cut = [stripe for x in photos for stripe in x.split(STRIPE, 2)]
    return [s for i, s in enumerate(cut) if (i % 4 == 3) == held_out]


def patches(held_out: bool, step: int) -> Tensor:
    "Patches of the stripes, `step` pixels apart, shape `(n, 3, 8, 8)`."
    parts = [s.unfold(1, SIDE, step).unfold(2, SIDE, step) for s in stripes(held_out)]
    return torch.cat([p.flatten(1, 2).movedim(0, 1) for p in parts])


def mix(flow: Flow, way: str, seed: int) -> None:
    "Fix what mixes the channels, unless it is learned."
    order = torch.Generator().manual_seed(seed)
    for conv in [m for m in flow.modules() if isinstance(m, InvConv1x1)]:
        if way == 'learned 1×1':
            continue
        conv.requires_grad_(False)
        if way == 'frozen 1×1':
            continue
        c = conv.channels
        turned = torch.arange(c).flip(0)
        conv.order.copy_(
            turned if way == 'reverse' else torch.randperm(c, generator=order)
        )
        conv.sign.fill_(1)
        for p in conv.parameters():
            p.zero_()


def train(way: str, seed: int, data: Tensor) -> Flow:
    torch.manual_seed(seed)
    flow = glow(**MODEL)
    flow = Flow(flow.base, Compose(flow.bijection, Logit(0.05)))
    mix(flow, way, seed)
    fit(flow, data, prepare=dequantize, seed=seed, device='cpu', **RUN)
    return flow


def png_bits(images: list[Tensor]) -> float:
    "Bits per number of images as PNG files."
    size = numbers = 0
    for x in images:
        file = io.BytesIO()
        Image.fromarray(x.movedim(0, -1).numpy()).save(file, 'PNG', optimize=True)
        size += file.tell()
        numbers += x.numel()
    return 8 * size / numbers


def by_colour(*images: Tensor) -> list[Tensor]:
    "Each pixel an image of its own: one histogram for each colour."
    return [x.movedim(1, -1).reshape(-1, 3, 1, 1) for x in images]


def main(path: str = str(RECORD)) -> None:
    torch.set_num_threads(1)
    data, test = patches(False, 4), patches(True, SIDE)
    colours = torch.corrcoef(data.movedim(1, 0).flatten(1).double())
    runs: list[dict] = []
    record = dict(
        hardware=hardware(),
        data=dict(train=len(data), test=len(test), stripe=STRIPE),
        model=MODEL,
        run=RUN,
        correlation=colours[~torch.eye(3, dtype=torch.bool)].mean().item(),
        baselines={
            'histogram per number': histogram_bits(data, test),
            'histogram per colour': histogram_bits(*by_colour(data, test)),
            'PNG': png_bits(stripes(True)),
        },
        runs=runs,
    )
    for seed, way in itertools.product(range(SEEDS), WAYS):
        start = time.process_time()
        flow = train(way, seed, data)
        seconds = time.process_time() - start
        size = sum(p.numel() for p in flow.parameters() if p.requires_grad)
        entry = mean_metric(way, image_bits(flow, test), 'bits/dim', 'test')
        runs.append(entry | dict(seed=seed, parameters=size, seconds=seconds))
        print(way, seed, f"{entry['value']:.3f}", flush=True)
        text = json.dumps(record, indent=1, ensure_ascii=False)
        Path(path).write_text(text + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
