"""Whose certificates are taken by the clients of this package that are not Rust's or the SDKs'."""

from __future__ import annotations

import os
import ssl

import certifi


def trusted(url: str) -> ssl.SSLContext:
    """Whose certificates are taken: those that obstore takes too."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody's; reading the others takes longer than a listing
    context = ssl.create_default_context()  # the machine's, or those of SSL_CERT_FILE
    if not os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(certifi.where())
    return context
