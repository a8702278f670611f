"""The processor is read at one place, and not guessed where the system does not tell."""

import builtins
import io

import pytest

from keras_vit import processor

pytestmark = pytest.mark.same_on_every_backend

CORE = "processor\t: {}\nvendor_id\t: GenuineIntel\nmodel name\t: A: fast one\nflags\t\t: fpu amx_bf16 avx2\n"


@pytest.fixture
def cpuinfo(monkeypatch):
    """Gives a file of this text; `None` for a system without one."""

    def give(text):
        def opened(path, *arguments, **options):
            assert path == "/proc/cpuinfo"
            if text is None:
                raise FileNotFoundError(path)
            return io.StringIO(text)

        monkeypatch.setattr(builtins, "open", opened)

    return give


def test_the_first_core(cpuinfo):
    cpuinfo("\n".join(map(CORE.format, range(2))))
    assert processor.processor()["model name"] == "A: fast one"
    assert processor.processor_flags() == ["fpu", "amx_bf16", "avx2"]


def test_two_kinds_differ(cpuinfo):
    cpuinfo(CORE)
    first = processor.kind_of_processor()
    cpuinfo(CORE.replace("avx2", "avx512f"))
    assert processor.kind_of_processor() != first


def test_a_system_without_the_file(cpuinfo):
    cpuinfo(None)
    assert processor.processor() == {}
    assert processor.processor_flags() == []
    assert all(isinstance(part, str) for part in processor.kind_of_processor())
