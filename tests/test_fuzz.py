"Files from strangers: whatever they say, loading ends well, soon and in little memory."

import json
import sys

import pytest
from safetensors.torch import save as pack

from flowbook.files import FORMAT, load
from support import ROOT

sys.path.insert(0, str(ROOT / 'tools'))

RECORD = ROOT / 'benchmarks' / 'records' / 'fuzz_files.json'


def test_spoilt_files_are_refused_in_words_or_load_whole(tmp_path):
    from fuzz_files import run

    record = run(300, seed=1, folder=tmp_path)
    assert not record['failed'], record['failed']
    outcomes = record['outcomes'].values()
    assert sum(v.get('refused', 0) for v in outcomes) > 150
    assert sum(v.get('loaded', 0) for v in outcomes) > 20


def test_the_record_of_the_long_run_is_clean():
    record = json.loads(RECORD.read_text(encoding='utf-8'))
    assert record['files'] >= 10_000 and not record['failed']
    assert record['worst']['seconds'] <= record['limits']['seconds'] == 1
    assert record['worst']['megabytes'] <= record['limits']['megabytes'] == 200


def node(name, *args, **kwargs):
    return {'class': f'flowbook.{name}', 'args': list(args), 'kwargs': kwargs}


AFFINE = node('realnvp.Affine')


def layer(name, *args, **kwargs):
    return node(
        'core.Flow', node('core.StandardNormal', 2), node(name, *args, **kwargs)
    )


HUGE = {
    'hidden widths of 30,000': layer(
        'coupling.Coupling', 2, AFFINE, hidden=[30_000, 30_000]
    ),
    'a MADE of such widths': layer(
        'autoregressive.Autoregressive', 2, AFFINE, hidden=[30_000, 30_000]
    ),
    'a MADE of many coordinates': layer(
        'autoregressive.Autoregressive', 100_000, AFFINE
    ),
    'a MADE of too many coordinates': layer(
        'autoregressive.Autoregressive', 2**40, AFFINE
    ),
    'a large square matrix': layer('glow.InvConv1x1', 20_000),
    'a million blocks': layer(
        'coupling.Coupling', 2, AFFINE, axis=-3, width=1, blocks=10**6
    ),
    'many thin layers': layer('coupling.Coupling', 2, AFFINE, hidden=[1] * 50_000),
    'a million couplings': node('pixels.LearnedNoise', [1, 4, 4], layers=10**6),
    'a large autoencoder': node('vae.VAE', 10**6, latent_dim=10**6),
    'a wide generator': node('gan.GAN', 2, hidden=[10**5, 10**5]),
}


@pytest.mark.parametrize('what', HUGE)
def test_a_small_file_of_a_huge_model_is_refused_at_once(tmp_path, what):
    from fuzz_files import outcome_of_three

    meta = dict(format=FORMAT, flow=HUGE[what], dtype='torch.float32', notes={})
    path = tmp_path / 'huge.safetensors'
    path.write_bytes(pack({}, {'flowbook': json.dumps(meta)}))
    with pytest.raises(ValueError, match='huge.safetensors: cannot be built'):
        load(path)
    how, seconds, megabytes = outcome_of_three(path)
    assert how == 'refused' and seconds < 1 and megabytes < 200
