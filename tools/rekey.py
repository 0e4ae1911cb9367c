"""Write shipped weights in today's format: python tools/rekey.py OLD.

OLD is a checkout of the version that wrote them (`git worktree add OLD COMMIT`). Each
model scores the same 200 examples there and here; a file is written only if the largest
difference is below 1e-5 nats per dimension. Tensors keep their values and precision."""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path('flowbook') / 'assets' / 'runs'


def examples(model):
    "200 test digits with noise for a model of images, normal points for others."
    from flowbook.data import mnist10k

    generator = torch.Generator().manual_seed(0)
    shape = tuple(model.event_shape)
    if len(shape) != 3:
        return torch.randn(200, *shape, generator=generator)
    images, labels = mnist10k('test')
    x = images[:200].float()
    if not getattr(model, 'discrete', False):
        x = x + 0.999 * torch.rand(x.shape, generator=generator)
    return x, torch.nn.functional.one_hot(labels[:200].long(), 10).float()


@torch.no_grad()
def values(path):
    "What the model of a file says about the examples, nats, with a fixed seed."
    from flowbook.all import load

    model = load(path)
    found = examples(model)
    x, labels = found if isinstance(found, tuple) else (found, None)
    score = next(
        getattr(model, name)
        for name in ('elbo', 'bound', 'logit', 'log_prob')
        if hasattr(model, name)
    )
    torch.manual_seed(0)
    try:
        return score(x)
    except ValueError:  # the model wants the class
        torch.manual_seed(0)
        return score(x, labels)


def values_of(checkout, path):
    "The same, by the package of another checkout, in a process of its own."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'values.pt'
        command = [sys.executable, __file__, str(checkout), '--score', path, out]
        subprocess.run(command, check=True)
        return torch.load(out, weights_only=True)


def rekey(old, path):
    "Rewrite one file, if it is of format 1 and nothing changes."
    from flowbook.files import FORMAT, load, read_tensors, write_tensors
    from flowbook.format1 import upgrade

    tensors, meta = read_tensors(path)
    if meta['format'] == FORMAT:
        return
    then = values_of(old, path)
    now = values(path)
    dims = math.prod(load(path).event_shape)
    change = (then - now).abs().max().item() / dims
    assert change <= 1e-5, f'{path}: {change} nats/dim'
    meta, tensors = upgrade(path, meta, tensors)
    write_tensors(path, tensors, meta)
    assert torch.equal(values(path), now), path
    print(f'{path.relative_to(ROOT / RUNS)}: {change:.1e} nats/dim', flush=True)


def main(old, *options):
    torch.set_num_threads(1)
    if options:
        _, path, out = options
        sys.path.insert(0, str(old))
        return torch.save(values(path), out)
    sys.path.insert(0, str(ROOT))
    for path in sorted((ROOT / RUNS).rglob('*.safetensors')):
        if path.name != 'images.safetensors':
            rekey(Path(old).resolve(), path)


if __name__ == '__main__':
    main(*sys.argv[1:])
