"""How TensorFlow Serving refuses a request: a status code of gRPC, which REST shows as one of HTTP."""

HTTP_STATUS = {  # ToHTTPStatusCode of tensorflow_serving/model_servers/http_server.cc
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    # Of HTTP alone, for what TensorFlow Serving has no limit for.
    "TIMEOUT": 408,
    "TOO_LARGE": 413,
}
RETRY_AFTER = "1"  # seconds, when the server is busy


class Refusal(Exception):
    """Why a request gets no answer.

    Args:
        code: a key of `HTTP_STATUS`.
        text: what the body's `error` says.
    """

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code, self.text = code, text

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return HTTP_STATUS[self.code]


def invalid(text: str) -> Refusal:
    """The refusal of a request that no server answers."""
    return Refusal("INVALID_ARGUMENT", text)
