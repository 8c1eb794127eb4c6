"""What is heard beside the voice."""

import numpy as np
import pytest

from benchmarks.speech_loop.voices import BACKGROUNDS, add_background


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_are_as_loud_as_they_say(name):
    rate, rng = 8000, np.random.default_rng(0)
    voice = np.zeros(4 * rate, np.float32)
    voice[rate : 3 * rate] = 0.2  # silence around it does not count
    added = add_background(voice, name, rate, rng) - voice
    if BACKGROUNDS[name] is None:
        assert not added.any()
    else:
        assert added.dtype == np.float32
        assert 10 * np.log10(0.2**2 / np.square(added).mean()) == pytest.approx(BACKGROUNDS[name][1], abs=0.01)
