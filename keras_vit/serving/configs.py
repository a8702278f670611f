"""The files that an operator's TensorFlow Serving starts with."""

from urllib.parse import quote


def health_check(name: str) -> list[str]:
    """The `test` of a compose file's `healthcheck`: healthy once a version of a model answers.

    Asks the REST port 8501, from inside the container, for the model's status. The image tensorflow/serving
    has bash but neither curl nor wget (its Dockerfile adds only ca-certificates to Ubuntu), so bash opens the
    connection itself.

    Args:
        name: the name the model is served under.

    Returns:
        The words of the command. It leaves with 0 where a version is AVAILABLE, otherwise with 1; it holds no
        `$`, which a compose file would replace.
    """
    # HTTP/1.0: the server closes the connection after its answer, and grep comes to an end.
    ask = rf"printf 'GET /v1/models/%s HTTP/1.0\r\n\r\n' '{quote(name, safe='')}' >&3"
    return ["CMD", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/8501 && {ask} && grep -q '\"AVAILABLE\"' <&3"]
