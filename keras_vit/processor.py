"""What Linux says of the processor; other systems have no such file."""

import contextlib
import platform


def processor() -> dict[str, str]:
    """The fields of the first core in /proc/cpuinfo, such as `"flags"`; empty on other systems."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        lines = file.read().partition("\n\n")[0].splitlines()
        pairs = (line.partition(":") for line in lines)
        return {name.strip(): value.strip() for name, _, value in pairs}
    return {}


def processor_flags() -> list[str]:
    """The names of what the processor can do, such as `"avx512f"`; empty where it is not known."""
    found = processor()
    return (found.get("flags") or found.get("Features") or "").split()


def kind_of_processor() -> list[str]:
    """What compiled code depends on: code for another kind could end the process."""
    found = processor()
    if not found:
        return [platform.machine(), platform.processor(), platform.node()]
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "Features")
    return [platform.machine(), *(found.get(name, "") for name in names)]
