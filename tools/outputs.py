"""Whether what a cell shows is what it showed before: texts alike, pictures up to rounding."""

import base64
import io
import json

import matplotlib.image


def without_pictures(output):
    "What an output says, and the PNGs that it shows."
    output = json.loads(json.dumps(output))
    data = output.get('data', {})
    png = data.pop('image/png', None)
    return json.dumps(output, sort_keys=True), ''.join(png) if png else ''


def same_picture(a, b):
    "Whether two PNGs in base64 show the same, up to rounding."
    if a == b:
        return True
    if not a or not b:
        return False
    x, y = (matplotlib.image.imread(io.BytesIO(base64.b64decode(p))) for p in (a, b))
    return x.shape == y.shape and float(abs(x - y).mean()) < 1e-3


def same(old, new):
    "Whether outputs of a cell say the same as before."
    pairs = [(without_pictures(a), without_pictures(b)) for a, b in zip(old, new)]
    return len(old) == len(new) and all(
        text == other and same_picture(png, other_png)
        for (text, png), (other, other_png) in pairs
    )
