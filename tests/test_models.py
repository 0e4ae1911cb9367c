"GAN and VAE: the same habits as a flow, in training, files, contexts and refusals."

import math

import pytest
import torch

from flowbook.core import Model
from flowbook.files import load, save
from flowbook.gan import GAN, modes_hit
from flowbook.toys import toys
from flowbook.train import evaluate, fit
from flowbook.vae import VAE
from support import normal

DATA = 2 * normal(300, 2, dtype=torch.float32) + torch.tensor([5.0, -3.0])
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
both = pytest.mark.parametrize('kind', [GAN, VAE])


def small(kind, dim=2, seed=0, **kwargs):
    torch.manual_seed(seed)
    return kind(dim, **dict(hidden=(16,)) | kwargs)


def same(a, b):
    return all(torch.equal(a.state_dict()[k], v) for k, v in b.state_dict().items())


@both
def test_five_lines_learn_where_the_data_are(kind):
    model = small(kind, hidden=(32, 32))
    before = torch.get_rng_state()
    history = fit(
        model,
        lambda n: 2 * torch.randn(n, 2) + torch.tensor([5.0, -3.0]),
        epochs=20,
        epoch_size=5120,
        lr=2e-3,
        betas=(0.5, 0.999),
        ema=0.99,
    )
    assert torch.equal(torch.get_rng_state(), before)
    x = model.sample((5000,), generator=torch.Generator().manual_seed(0))
    assert (x.mean(0) - torch.tensor([5.0, -3.0])).abs().max() < 0.6 and (
        (x.std(0) / 2).log().abs() < 0.5
    ).all()
    assert (
        len(history.train) == 20
        and bool(history.others) == (kind is GAN)
        and isinstance(model, Model)
    )


@both
def test_a_seed_says_everything_and_a_file_holds_everything(kind, tmp_path):
    a, b = small(kind), small(kind)
    fit(a, DATA, epochs=2, seed=3)
    torch.rand(7)
    fit(b, DATA, epochs=2, seed=3)
    assert same(a, b)
    save(a, tmp_path / 'model.safetensors', data='points')
    again = load(tmp_path / 'model.safetensors')
    assert same(a, again) and again.notes == {'data': 'points'}
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(
        a.sample((5,), generator=generators[0]),
        again.sample((5,), generator=generators[1]),
    )


@both
def test_samples_follow_the_context(kind):
    c = normal(2000, 1, seed=1, dtype=torch.float32)
    x = torch.cat([c, -c], 1) + 0.1 * normal(2000, 2, seed=2, dtype=torch.float32)
    model = small(kind, context_dim=1, hidden=(32,))
    fit(model, x, c, epochs=30, lr=3e-3, betas=(0.5, 0.999), ema=0.99)
    mean = model.sample((500,), torch.tensor([1.0])).mean(0)
    torch.testing.assert_close(mean, torch.tensor([1.0, -1.0]), atol=0.35, rtol=0)
    assert model.sample((3,), torch.zeros(4, 1)).shape == (3, 4, 2)
    with pytest.raises(ValueError, match='context: expected shape'):
        model.sample((3,))
    with pytest.raises(ValueError, match='build it with context_dim'):
        small(kind).sample((3,), torch.zeros(1))


@both
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_precision_batch_shapes_and_temperature(kind, dtype):
    model = small(kind, 3, latent_dim=1).to(dtype)
    for shape in [(), (0,), (4,), (2, 5)]:
        assert (
            model.sample(shape).shape == (*shape, 3)
            and model.sample(shape).dtype == dtype
        )
    assert model.sample((200,), temperature=0.1).std() < model.sample((200,)).std()
    with pytest.raises(ValueError, match='temperature: expected a number above 0'):
        model.sample(temperature=0)


@both
@pytest.mark.parametrize('bad', [dict(dim=0), dict(latent_dim=0), dict(context_dim=-1)])
def test_impossible_sizes_are_named(kind, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        kind(**dict(dim=2) | bad)
    with pytest.raises(TypeError):
        kind(2, latent=3)


@both
def test_neither_pretends_to_have_a_density(kind):
    with pytest.raises(NotImplementedError, match='log_prob'):
        small(kind).log_prob(DATA)


def test_the_bound_is_below_the_likelihood_and_tightens():
    law = toys['banana']
    model = small(VAE, seed=2, hidden=(32, 32))
    fit(model, law.sample, epochs=8, lr=1e-2, batch_size=256, seed=2)
    x = law.sample(2000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, many = [
            model.bound(x, k, generator=torch.Generator().manual_seed(1)).mean()
            for k in (1, 100)
        ]
    truth = law.log_prob(x).mean()
    assert one < many < truth, 'bound, tighter bound, entropy'
    assert evaluate(model, x).mean() == pytest.approx(-one.item(), abs=0.1)
    points = model.sample((4000,), generator=torch.Generator().manual_seed(2))
    grid = torch.stack(
        torch.meshgrid(
            torch.linspace(-1, 3, 80), torch.linspace(-0.8, 0.8, 80), indexing='xy'
        ),
        -1,
    )
    with torch.no_grad():
        mass = model.bound(grid, 300).exp().sum() * (4 / 79) * (1.6 / 79)
    assert mass == pytest.approx(1, abs=0.1) and torch.isfinite(points).all(), (
        'many samples make the bound a density'
    )


def test_a_bound_in_chunks_is_the_bound():
    model, x = (
        small(VAE, 3).double(),
        normal(8, 3),
    )  # 16 latent numbers a draw, so that both ways see the same ones
    with torch.no_grad():
        whole = model.bound(x, 64, generator=torch.Generator().manual_seed(0))
        model.widest = 2**19  # a few draws at a time
        parts = model.bound(x, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole, parts, atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match='n_samples: expected at least 1'):
        model.bound(x, 0)


def test_a_coordinate_that_never_varies_does_not_drive_the_bound_to_infinity():
    x = torch.cat([normal(200, 1, dtype=torch.float32), torch.full((200, 1), 7.0)], 1)
    model = small(VAE)
    history = fit(model, x, epochs=30, lr=1e-2)
    assert (
        all(math.isfinite(v) for v in history.train)
        and torch.isfinite(model.sample((10,))).all()
    )


def test_modes_are_counted():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = torch.cat(
        [
            centres[0] + 0.1 * normal(90, 2, dtype=torch.float32),
            centres[1] + 0.1 * normal(9, 2, dtype=torch.float32),
            torch.full((1, 2), 50.0),
        ]
    )
    assert modes_hit(x, centres, 1.0) == (2, pytest.approx(0.99))
    assert modes_hit(x, centres, 1.0, share=0.1)[0] == 1
    with pytest.raises(ValueError, match='samples, centres'):
        modes_hit(x, centres[:, :1], 1.0)


@CUDA
@both
def test_training_on_cuda_comes_home(kind):
    model = small(kind)
    fit(model, DATA, epochs=2, device='cuda')
    assert (
        next(model.parameters()).device.type == 'cpu'
        and torch.isfinite(model.sample((5,))).all()
    )
