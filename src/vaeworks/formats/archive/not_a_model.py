"""What a file is that is no model file, told by its first bytes, and what to do about it."""

from __future__ import annotations

AGAIN = "download it again"

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a git-lfs pointer, the file itself was not downloaded; run `git lfs pull`, or download it again",
    ),
    (b"GGUF", "is a GGUF file, for llama.cpp and its like; ask for a .safetensors file"),
    (b"ggml", "is a GGML file, for llama.cpp and its like; ask for a .safetensors file"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it and pass the model file in it"),
    (b"Rar!\x1a\x07", "is a RAR archive; unpack it and pass the model file in it"),
    (b"\x1f\x8b", "is a gzip archive; unpack it and pass the model file in it"),
    (b"\xfd7zXZ\0", "is an xz archive; unpack it and pass the model file in it"),
    (b"BZh", "is a bzip2 archive; unpack it and pass the model file in it"),
    (b"\x28\xb5\x2f\xfd", "is a Zstandard archive; unpack it and pass the model file in it"),
    (b"PK\5\6", "is an empty zip file; " + AGAIN),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, of Keras perhaps; ask for a .safetensors file"),
    (b"\x93NUMPY", "is a NumPy array; save the model as a .safetensors file"),
    (b"\x89PNG", "is a picture; pass a model file"),
    (b"\xff\xd8\xff", "is a picture; pass a model file"),
    (b"%PDF", "is a PDF document; pass a model file"),
)

WEB_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")

HEAD = 2**16
"""Bytes of the file's beginning that are looked at."""


def description(head: bytes) -> str:
    """What a file with this beginning is, with a remedy, as the rest of a sentence; empty for no known kind."""
    for signature, words in SIGNATURES:
        if head.startswith(signature):
            return words
    text = head[:HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:100].lower().startswith(WEB_PAGES):
        return (
            "is a web page, not the file that it links to; download it again by its direct link, logged in if need be"
        )
    if text.startswith((b"{", b"[")) and b"\0" not in text:
        return _json(text)
    if head[257:262] == b"ustar":
        return "is a tar archive, as PyTorch wrote before 0.1.12; unpack it, or load and save it with an old PyTorch"
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x3a", b"\x42"):
        return "is an ONNX file, a program rather than weights; ask for a .safetensors file"
    return "holds only zeros: its download was not finished; " + AGAIN if head and not head.strip(b"\0") else ""


def _json(text: bytes) -> str:
    if b'"weight_map"' in text:
        return "is the index of a model in several files; they are read by open_shards, and by whatever takes a folder"
    return "is JSON text, a configuration or an error message; pass the file with the weights, or download it again"
