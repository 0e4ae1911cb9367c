"Random calls over all layers and flows: right, or refused by the name of an argument."

import pytest
from generator import run


@pytest.mark.parametrize('seed', range(4))
def test_a_call_is_right_or_refused_by_name(seed):
    found = run(250, seed=100 + seed)
    assert not found['bad'], found['bad']


def test_an_answer_is_never_wrong():
    found = run(300, seed=200)
    assert not found['outcomes'].get('wrong'), found['bad']
    assert found['outcomes']['right'] > 80 and found['outcomes']['refused'] > 80
