"""Keys of services, workers and users' issuers: made, published as a JWKS (RFC 7517), and read back; and the
keys that all replicas of a service share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

SHARED_BYTES = 32
"""The least length of a shared key: that of the hash it is used with (RFC 7518 3.2, RFC 2104 3)."""


def generate() -> bytes:
    """Returns a new Ed25519 private key as PEM (PKCS #8, not encrypted: the file's mode protects it)."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read(path: Path) -> Ed25519PrivateKey:
    """Reads an Ed25519 private key; raises ValueError naming the file, and nothing of its content, when it is
    none."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise ValueError(f"{path} holds no private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds a private key, but no Ed25519 one")
    return key


def read_shared(setting: str, path: Path) -> bytes:
    """Reads a shared key: a file's bytes without surrounding white space; raises ValueError naming setting
    and file when they are fewer than 32."""
    key = path.read_bytes().strip()
    if len(key) < SHARED_BYTES:
        raise ValueError(f"{setting}: {path} holds fewer than {SHARED_BYTES} bytes")
    return key


def public_jwk(pem: bytes, kid: str) -> dict[str, Any]:
    """Returns the public half of a private key as a JWK under a key id."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("an Ed25519 private key is expected")
    jwk: dict[str, Any] = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "kid": kid, "alg": "EdDSA", "use": "sig"}


def jwks(keys: Mapping[str, bytes]) -> str:
    """Returns the JWKS document for private keys by their key ids."""
    return json.dumps({"keys": [public_jwk(pem, kid) for kid, pem in keys.items()]}, indent=2)
