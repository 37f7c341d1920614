"""Bytes that travel inside an HTML page: gzip, then five characters for four bytes."""

from __future__ import annotations

import base64
import gzip

UNPACK = """
async function unpack(id) {
  const element = document.getElementById(id), text = element.textContent.trim();
  const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" +
                   "!#$%&()*+-;,=>?@^_`{|}~";
  const value = new Uint8Array(128);
  for (let i = 0; i < 85; i++) value[alphabet.charCodeAt(i)] = i;
  const bytes = new Uint8Array(text.length / 5 * 4), view = new DataView(bytes.buffer);
  for (let i = 0, at = 0; i < text.length; i += 5, at += 4) {
    let word = 0;
    for (let j = 0; j < 5; j++) word = word * 85 + value[text.charCodeAt(i + j)];
    view.setUint32(at, word);
  }
  const packed = new Blob([bytes.subarray(0, Number(element.dataset.bytes))]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).text();
}
"""
"""A JavaScript function: the text of a `script` element that `element` made."""


def element(name: str, content: bytes) -> str:
    """A `script` element that holds bytes as text; never "<" in it, so it cannot end early."""
    packed = gzip.compress(content, 9, mtime=0)
    text = base64.b85encode(packed, pad=True).decode().replace("<", ",")
    return f'<script type="text/plain" id="{name}" data-bytes="{len(packed)}">{text}</script>'
