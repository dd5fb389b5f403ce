"""What server and sites must agree on byte for byte in one release."""

from __future__ import annotations

# sha256 of the app bundle that fedai_server.bundle builds; a site's agent refuses a run with any other.
BUNDLE_SHA256 = "f1edb41d13658c48bdf0ab2b9b512f0aa20cb23554889b1747c0e387b8231a3e"
