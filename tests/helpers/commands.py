"""What a training command says when it fails."""


def error_line(capsys) -> str:
    """The error of a run, which is one line."""
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    return error[0]
