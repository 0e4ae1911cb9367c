"Files of format 1, one of each kind, load with the densities that they had when they were written."

import json

import pytest
import torch

from flowbook.files import FORMAT, load, read_tensors, save
from flowbook.records import shipped
from support import ROOT, normal

FOLDER = ROOT / 'tests' / 'format1'
EXPECTED = json.loads((FOLDER / 'expected.json').read_text(encoding='utf-8'))
GREY = torch.randint(
    0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0)
).double()
CONTEXT = dict(realnvp=2, maf=1, gan=1, vae=1, glow=2)


def values(name, model):
    "What the model says about three fixed examples."
    x = GREY + 0.5 if len(model.event_shape) == 3 else normal(3, *model.event_shape)
    if name == 'variables':
        x = x.exp()
    if name == 'bits':
        x = (x > 0).double()
    c = normal(3, CONTEXT[name], seed=1) if name in CONTEXT else None
    torch.manual_seed(0)
    with torch.no_grad():
        if name == 'gan':
            return model.logit(x, c)
        if name == 'vae':
            return model.elbo(x, c)
        if name == 'learned-noise':
            return model.bound(GREY, None, torch.Generator().manual_seed(0))
        return model.log_prob(x, c)


@pytest.mark.parametrize('name', EXPECTED)
def test_a_file_of_format_1_has_the_density_that_it_had(name, tmp_path):
    model = load(FOLDER / f'{name}.safetensors')
    want = torch.tensor(EXPECTED[name]['values'], dtype=torch.float64)
    assert (values(name, model) - want).abs().max() < 1e-9
    assert model.notes == {'kind': name}
    save(model, tmp_path / 'again.safetensors')
    assert torch.equal(
        values(name, load(tmp_path / 'again.safetensors')), values(name, model)
    )


def test_there_is_a_file_of_each_kind():
    assert {p.stem for p in FOLDER.glob('*.safetensors')} == set(EXPECTED) and len(
        EXPECTED
    ) == 14


def test_what_ships_is_written_in_todays_format():
    paths = [*shipped().glob('*/weights.safetensors')]
    paths += [*shipped().glob('three-models/*.safetensors')]
    assert len(paths) >= 20
    for path in paths:
        assert read_tensors(path)[1]['format'] == FORMAT, path
