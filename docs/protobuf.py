"""Writes edgecache/dialects/speech_pb2.py (and its types) from speech.proto. Run it with `python docs/protobuf.py`.

tests/test_protobuf.py fails when they are not current.
"""

from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parents[1]
SOURCE = "edgecache/dialects/speech.proto"


def generate(into: Path) -> None:
    """The generated files, below this directory."""
    well_known = Path(str(protoc.__file__)).parent / "_proto"
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={into}", f"--pyi_out={into}", SOURCE]
    if protoc.main(arguments):
        raise SystemExit("protoc failed")


if __name__ == "__main__":
    generate(ROOT)
