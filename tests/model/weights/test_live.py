"""The recorded answers against the libraries themselves, where these are installed (the extra `bench`)."""

import importlib.util
import json

import numpy as np
import pytest

from tests.helpers.published import FIXTURES, recorded

# A model of the exports is of this backend, but what is proven is the file.
pytestmark = [pytest.mark.long, pytest.mark.same_on_every_backend]


@pytest.mark.parametrize(
    ("family", "libraries"),
    [("timm", ["timm"]), ("huggingface", ["transformers"]), ("exports", ["timm", "transformers"])],
)
def test_recorded_answers_are_those_of_the_installed_library(family, libraries):
    for library in libraries:
        pytest.importorskip(library, reason=f"needs {library}")
    path = FIXTURES / f"record_{family}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    record = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(record)

    expected, found = recorded(family), {case["name"]: case for case in record.cases()}

    assert found.keys() == expected.keys()
    for name, case in found.items():
        plain = json.loads(json.dumps(case))
        assert plain["shapes"] == expected[name]["shapes"], name
        np.testing.assert_allclose(plain["outputs"], expected[name]["outputs"], atol=1e-5, err_msg=name)
