"""Copy uv's own pin and hashes out of requirements.lock, so that the installer itself is hash-locked."""

from pathlib import Path


def main() -> None:
    """Write requirements-bootstrap.lock."""
    lines = Path("requirements.lock").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("uv=="))
    stop = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith("    --hash"))
    Path("requirements-bootstrap.lock").write_text("\n".join(lines[start:stop]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
